"""Accuracy without the help of length."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, stdtrit

from palate.stats.estimate import CONFIDENCE, Estimate
from palate.stats.intervals import Codes, Floats, cluster_codes

MAX_COEFFICIENT = 30.0  # e^-30: beyond, the data leave the curve's steepness open.
MAX_STEPS = 50


def length_controlled(
    values: ArrayLike,
    length_differences: ArrayLike,
    clusters: Iterable[Any] | None = None,
    *,
    fingerprint: str = "",
) -> Estimate | None:
    """The accuracy that a judge would have if both responses were equally long.

    Logistic regression P(right) = sigmoid(a + b x), x = tanh(difference / its root mean square),
    read at x = 0: sigmoid(a). The tanh keeps a few giant responses from bending the line. The
    interval is sigmoid of a's, from the cluster-robust covariance with t of G - 1 degrees.

    Args:
        values: [N] as in `accuracy`; a tie counts one half, NaN is left out.
        length_differences: [N] length of the chosen response less the rejected one's.
        clusters: [N] labels, or None where items are independent.
        fingerprint: copied to the estimate.

    Returns:
        None where there is nothing to fit: all lengths equal, fewer than two clusters, or right
        and wrong told apart by length alone, as of a judge that goes by length.

    Source: after Dubois et al., arXiv 2404.04475 (AlpacaEval LC).
    """
    y, lengths = np.asarray(values, dtype=np.float64), np.asarray(length_differences, np.float64)
    codes = np.arange(y.size) if clusters is None else cluster_codes(clusters)
    keep = ~(np.isnan(y) | np.isnan(lengths))
    y, lengths, codes = y[keep], lengths[keep], cluster_codes(codes[keep])
    if y.size == 0 or codes.max() == 0 or np.ptp(lengths) == 0:
        return None
    x = np.tanh(lengths / math.sqrt(float((lengths**2).mean())))
    if _separated(y, x):
        return None
    intercept, error = _fit(y, x, codes)
    if abs(intercept) > MAX_COEFFICIENT:
        return None
    count = int(codes.max()) + 1
    reach = float(stdtrit(count - 1, 0.5 + CONFIDENCE / 2)) * error
    value = float(expit(intercept))
    low, high = float(expit(intercept - reach)), float(expit(intercept + reach))
    method = "logistic regression on length, clustered"
    return Estimate(
        value, value * (1 - value) * error, low, high, y.size, int((~keep).sum()), count, method,
        fingerprint,
    )  # fmt: skip


def _separated(y: Floats, x: Floats) -> bool:
    """Whether some length tells all right answers from all wrong ones; then no fit is finite."""
    right, wrong = x[y > 0], x[y < 1]
    if not right.size or not wrong.size:
        return True
    return bool(right.min() >= wrong.max() or right.max() <= wrong.min())


def _fit(y: Floats, x: Floats, codes: Codes) -> tuple[float, float]:
    """The intercept and its cluster-robust standard error, by Newton's method.

    As statsmodels' GLM (see the tests), in 2 ms instead of 46 for 10,000 items.
    """
    design, beta = np.column_stack([np.ones(x.size), x]), np.zeros(2)
    for _ in range(MAX_STEPS):
        chances = expit(design @ beta)
        weights = chances * (1 - chances)
        spread = np.linalg.inv((design * weights[:, None]).T @ design)
        step = spread @ (design.T @ (y - chances))
        beta += step
        if np.abs(step).max() < 1e-9:
            break
    residuals, count, n = y - chances, int(codes.max()) + 1, y.size
    scores = np.stack([np.bincount(codes, weights=residuals * column) for column in design.T])
    correction = count / (count - 1) * (n - 1) / max(n - 2, 1)
    covariance = correction * spread @ (scores @ scores.T) @ spread
    return float(beta[0]), math.sqrt(float(covariance[0, 0]))
