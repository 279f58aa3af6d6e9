"""Accuracy without the help of length, and what a score is worth in choosing the best of n."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, gammaln, stdtrit

from palate.stats.estimate import (
    CONFIDENCE,
    Codes,
    Estimate,
    Floats,
    cluster_codes,
    clustered_mean,
)

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
    # Where some length tells all right answers from all wrong ones, no fit is finite.
    right, wrong = x[y > 0], x[y < 1]
    if not right.size or not wrong.size:
        return None
    if right.min() >= wrong.max() or right.max() <= wrong.min():
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


# What a score is worth in use: the quality of the best of n responses by that score.


def best_of_n_curve(
    scores: ArrayLike,
    quality: ArrayLike,
    sizes: Sequence[int],
    clusters: Iterable[Any] | None = None,
    *,
    fingerprint: str = "",
) -> dict[int, Estimate]:
    """The expected quality of the response with the highest score among n, for each n of `sizes`.

    Of M responses to a prompt, the k-th lowest by score is the best of n drawn without
    replacement with probability C(k-1, n-1) / C(M, n): the mean over all draws, not one of them.
    Responses with equal scores share their places. With `scores` = `quality` it is the curve of
    a perfect judge. The interval is t on the variance over prompts.

    Args:
        scores: [P, M], finite.
        quality: [P, M] what is known of the responses, in any unit.
        sizes: values of n, from 1 to M.
        clusters: [P] labels of prompts that belong together, or None.
        fingerprint: copied to the estimates.

    Raises:
        ValueError: shapes differ, scores are not finite, or an n is outside 1 to M.
    """
    s, q = np.asarray(scores, dtype=np.float64), np.asarray(quality, dtype=np.float64)
    if s.shape != q.shape or s.ndim != 2 or not np.isfinite(s).all():
        raise ValueError(f"scores {s.shape}, quality {q.shape}: expected equal [P, M], finite")
    if wrong := [n for n in sizes if not 1 <= n <= s.shape[1]]:
        raise ValueError(f"n = {wrong[0]}: expected 1 to {s.shape[1]} responses a prompt")
    ranked = _by_rank(s, q)
    labels = None if clusters is None else list(clusters)
    return {
        n: clustered_mean(ranked @ _chances(s.shape[1], n), labels, fingerprint=fingerprint)
        for n in sizes
    }


@dataclass(frozen=True, slots=True)
class Turnover:
    """Where a curve of the best of n has its highest mean, and how much is lost behind it.

    `lost` is the paired difference of the last n and the `peak`, over prompts; None where the last
    n is the peak. `shown` says whether its interval, for one of as many as there are sizes
    (Bonferroni, for the peak was looked for), leaves out 0. `between`: the peak's own interval of
    95 %, by a bootstrap of prompts.
    """

    peak: int
    lost: Estimate | None
    shown: bool
    between: tuple[int, int]


def turnover(
    scores: ArrayLike,
    quality: ArrayLike,
    sizes: Sequence[int],
    *,
    fingerprint: str = "",
) -> Turnover:
    """Whether choosing among more responses by `scores` ends in a lower `quality`: Goodhart's law.

    Args:
        scores, quality, sizes: as in `best_of_n_curve`.

    Source: Gao, Schulman and Hilton, arXiv 2210.10760, whose curves over KL turn over.
    """
    return turnover_of(best_of_n_by_prompt(scores, quality, sizes), sizes, fingerprint=fingerprint)


def best_of_n_by_prompt(scores: ArrayLike, quality: ArrayLike, sizes: Sequence[int]) -> Floats:
    """The expected quality of the best of n of each prompt, [sizes, P]; as in `best_of_n_curve`."""
    s, q = np.asarray(scores, dtype=np.float64), np.asarray(quality, dtype=np.float64)
    ranked = _by_rank(s, q)
    return np.stack([ranked @ _chances(s.shape[1], n) for n in sizes])


def turnover_of(by_size: Floats, sizes: Sequence[int], *, fingerprint: str = "") -> Turnover:
    """What `turnover` says, of what `best_of_n_by_prompt` gives [sizes, P]."""
    place = int(by_size.mean(1).argmax())
    rng = np.random.default_rng(0)  # Fixed, so that a report made again is the same.
    drawn = rng.integers(by_size.shape[1], size=(RESAMPLES, by_size.shape[1]))
    peaks = by_size[:, drawn].mean(2).argmax(0)  # Of each resample.
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(peaks, (tail, 1 - tail), method="inverted_cdf")
    between = sizes[int(low)], sizes[int(high)]
    if place == len(sizes) - 1:
        return Turnover(sizes[place], None, shown=False, between=between)
    lost = by_size[-1] - by_size[place]
    level = 1 - (1 - CONFIDENCE) / (len(sizes) - 1)
    wide = clustered_mean(lost, confidence=level, fingerprint=fingerprint)
    return Turnover(sizes[place], wide, shown=wide.high < 0, between=between)


RESAMPLES = 1_000


def divergence(n: int) -> float:
    """KL of best-of-n from the policy it draws from, at most: log n - (n - 1) / n, in nats.

    Source: Stiennon et al., arXiv 2009.01325; a bound by Beirami et al., arXiv 2401.01879.
    """
    return math.log(n) - (n - 1) / n


def _by_rank(scores: Floats, quality: Floats) -> Floats:
    """Quality in ascending order of score [P, M]; where scores are equal, their mean quality."""
    order = np.argsort(scores, axis=1, kind="stable")
    s, q = np.take_along_axis(scores, order, 1), np.take_along_axis(quality, order, 1)
    starts = np.ones(s.shape, dtype=np.bool_)
    starts[:, 1:] = s[:, 1:] != s[:, :-1]
    tied = np.cumsum(starts.ravel()) - 1
    means = np.bincount(tied, weights=q.ravel()) / np.bincount(tied)
    return np.asarray(means[tied].reshape(s.shape), dtype=np.float64)


def _chances(total: int, n: int) -> Floats:
    """P(the k-th lowest of `total` is the highest of n drawn), k = 1 ... total."""
    k = np.arange(1, total + 1)
    below = np.maximum(k - n, 0)
    logs = (gammaln(k) - gammaln(n) - gammaln(below + 1)) - (
        gammaln(total + 1) - gammaln(n + 1) - gammaln(total - n + 1)
    )
    return np.where(k >= n, np.exp(logs), 0.0)
