"""Whether a judge is as sure as it is right: reliability, ECE, Brier, and a temperature."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import expit, stdtrit

from palate.stats.estimate import (
    CONFIDENCE,
    Codes,
    Estimate,
    Floats,
    accuracy,
    cluster_codes,
    clustered_mean,
    scored,
)

BINS = 10
DRAWS = 4_000
CLEAR = 3.0  # Standard errors from which on the sign of a bin's gap is taken as known.
STEEPEST = 1e3  # Of 1 / temperature: beyond, every answer is as good as certain.
FARTHEST = 600.0  # Of the log of a reach: beyond, exp overflows.


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """The items of which a judge was about equally sure: mean confidence against accuracy.

    Of the probabilities of an event: their mean against how often it was observed.
    """

    low: float
    high: float
    confidence: float
    accuracy: Estimate


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far probabilities can be believed: sigmoid(chosen - rejected), or those of an event.

    `ece_by_luck` is the ECE that a perfectly calibrated judge is expected to show on these
    items: an ECE is never zero, and below this it says nothing.
    """

    ece: Estimate
    ece_by_luck: float
    brier: Estimate
    bins: tuple[ReliabilityBin, ...]


def measure_calibration(
    differences: ArrayLike,
    clusters: Iterable[Any] | None,
    rng: np.random.Generator,
    *,
    bins: int = BINS,
    fingerprint: str = "",
) -> Calibration | None:
    """ECE, Brier score and reliability of p = sigmoid(d), d = chosen score - rejected score.

    A judge's answer has the confidence c = max(p, 1-p) and is right (y) where d > 0, one half
    where d = 0. In equal bins b of c over [1/2, 1], ECE = sum_b |sum_{i in b} (y_i - c_i)| / N.
    The sums' errors e are drawn from a normal with their cluster-robust covariance: a bin whose sum
    has a clear sign s moves the ECE by s e, any other by at most |e|, so the interval holds at
    zero too. The Brier score is the mean of (1-p)^2: 1/4 for a judge that says 1/2 always.

    Args:
        differences: [N]; NaN unscored.
        clusters: [N] labels, or None where items are independent.
        rng: draws for the interval of the ECE.
        bins: how many, of equal width.
        fingerprint: copied to the estimates.

    Returns:
        None where fewer than two clusters are scored.

    Source: Naeini et al., AAAI 2015; Brier 1950.
    """
    d, codes, unscored = scored(differences, clusters)
    codes = cluster_codes(codes)
    if d.size == 0 or codes.max() == 0:
        return None
    confidence, right = expit(np.abs(d)), np.where(d == 0, 0.5, d > 0)
    edges = np.linspace(0.5, 1.0, bins + 1)
    squares = expit(-d) ** 2
    return _calibration(confidence, right, squares, codes, unscored, edges, rng, fingerprint)


def event_calibration(
    probabilities: ArrayLike,
    observed: ArrayLike,
    clusters: Iterable[Any] | None,
    rng: np.random.Generator,
    *,
    bins: int = BINS,
    fingerprint: str = "",
) -> Calibration | None:
    """ECE, Brier score and reliability of the probabilities p of an event, such as a tie.

    In equal bins b of p over [0, 1], ECE = sum_b |sum_{i in b} (y_i - p_i)| / N, with the interval
    of `measure_calibration`. The Brier score is the mean of (y - p)^2.

    Args:
        probabilities: [N]; NaN unscored.
        observed: y, [N]: 1 where it came, 0 where not, or the share of votes for it.
        clusters: [N] labels, or None where items are independent.
        rng: draws for the interval of the ECE.
        bins: how many, of equal width.
        fingerprint: copied to the estimates.

    Returns:
        None where fewer than two clusters are scored.
    """
    p, codes, unscored = scored(probabilities, clusters)
    codes = cluster_codes(codes)
    if p.size == 0 or codes.max() == 0:
        return None
    every = np.asarray(probabilities, dtype=np.float64)
    y = np.asarray(observed, dtype=np.float64)[~np.isnan(every)]
    edges = np.linspace(0.0, 1.0, bins + 1)
    return _calibration(p, y, (y - p) ** 2, codes, unscored, edges, rng, fingerprint)


def _calibration(
    said: Floats,
    seen: Floats,
    squares: Floats,
    codes: Codes,
    unscored: int,
    edges: Floats,
    rng: np.random.Generator,
    fingerprint: str,
) -> Calibration:
    """What is said beside what is seen, [N] each, in the bins between `edges` of equal width."""
    bins, width = edges.size - 1, edges[-1] - edges[0]
    place = np.minimum((said - edges[0]) / width * bins, bins - 1).astype(np.int64)
    sums, covariance = _gaps(seen - said, place, codes, bins)
    parts = []
    for b in np.unique(place):
        inside = place == b
        share = accuracy(seen[inside], codes[inside], fingerprint=fingerprint)
        low, high = float(edges[b]), float(edges[b + 1])
        parts.append(ReliabilityBin(low, high, float(said[inside].mean()), share))
    brier = clustered_mean(squares, codes, limits=(0.0, 1.0), fingerprint=fingerprint)
    return Calibration(
        ece=_ece(sums, covariance, codes, unscored, rng, fingerprint),
        ece_by_luck=float(np.sqrt(np.diag(covariance) * 2 / math.pi).sum()) / said.size,
        brier=replace(brier, n_unscored=unscored),
        bins=tuple(parts),
    )


def _gaps(gaps: Floats, place: Codes, codes: Codes, bins: int) -> tuple[Floats, Floats]:
    """The sum of y - c in every bin [B], and its cluster-robust covariance [B, B]."""
    count = int(codes.max()) + 1
    flat = np.bincount(codes * bins + place, weights=gaps, minlength=count * bins)
    by_cluster = flat.reshape(count, bins)
    sums = by_cluster.sum(axis=0)
    centred = by_cluster - sums / count
    return sums, count / (count - 1) * centred.T @ centred


def _ece(
    sums: Floats,
    covariance: Floats,
    codes: Codes,
    unscored: int,
    rng: np.random.Generator,
    fingerprint: str,
) -> Estimate:
    errors = rng.multivariate_normal(np.zeros(sums.size), covariance, DRAWS, check_valid="ignore")
    clear = np.abs(sums) > CLEAR * np.sqrt(np.diag(covariance))
    shifts = errors[:, clear] @ np.sign(sums[clear]) + np.abs(errors[:, ~clear]).sum(axis=1)
    value = float(np.abs(sums).sum()) / codes.size
    reach = float(np.quantile(shifts, 0.5 + CONFIDENCE / 2)) / codes.size
    return Estimate(
        value=value,
        error=float(np.abs(sums + errors).sum(axis=1).std()) / codes.size,
        low=max(0.0, value - reach),
        high=min(1.0, value + reach),
        n=codes.size,
        n_unscored=unscored,
        n_clusters=int(codes.max()) + 1,
        method="normal sums, clustered",
        fingerprint=fingerprint,
    )


def temperature(
    differences: ArrayLike, clusters: Iterable[Any] | None = None, *, fingerprint: str = ""
) -> Estimate | None:
    """The T that makes sigmoid(d / T) most likely; above one, the judge was too sure.

    Minimises sum log(1 + exp(-b d)) over b = 1 / T, a tie (d = 0) adding nothing. The interval is
    that of log T with the cluster-robust variance of b, t with G - 1 degrees of freedom. Never
    judge by the items that T was fitted on: see `held_out_differences`.

    Returns:
        None where no T is best: d is no better than a coin (b <= 0), never wrong (b is endless),
        or of fewer than two clusters.

    Source: Guo et al., ICML 2017, for two classes.
    """
    d, codes, unscored = scored(differences, clusters)
    codes = cluster_codes(codes)
    count = int(codes.max()) + 1 if d.size else 0
    # At b = 0 the slope is sum(d) / 2; with nothing wrong it never turns.
    if count < 2 or d.sum() <= 0 or d.min() >= 0:
        return None
    scale = float(np.abs(d).mean())
    unit = d / scale

    def slope(b: float) -> float:
        return float((unit * expit(-b * unit)).sum())

    most = 1.0
    while slope(most) > 0:
        most *= 2
        if most > STEEPEST:
            return None
    b = float(brentq(slope, 0.0 if most == 1 else most / 2, most, xtol=1e-9, rtol=1e-9))
    wrong = expit(-b * unit)
    scores = np.bincount(codes, weights=unit * wrong)
    curvature = float((unit**2 * wrong * (1 - wrong)).sum())
    error = math.sqrt(count / (count - 1) * float(scores @ scores)) / curvature / b
    # Of a few clusters the reach may be more than a number can hold: any T above 0.
    reach = float(np.exp(min(stdtrit(count - 1, 0.5 + CONFIDENCE / 2) * error, FARTHEST)))
    value = scale / b
    return Estimate(
        value, value * error, value / reach, value * reach, d.size, unscored, count,
        "maximum likelihood, clustered", fingerprint,
    )  # fmt: skip


def held_out_differences(
    differences: ArrayLike, clusters: Iterable[Any] | None = None, *, folds: int = 5
) -> Floats | None:
    """Each d over the temperature of the other folds, [N]: no item helps to fit its own.

    Whole clusters go to a fold, in turn by their first appearance. None where a fold leaves
    nothing to fit a temperature on.
    """
    array = np.asarray(differences, dtype=np.float64)
    codes = np.arange(array.size) if clusters is None else cluster_codes(clusters)
    scaled = np.full(array.size, np.nan)
    for fold in range(folds):
        inside = codes % folds == fold
        fitted = temperature(array[~inside], codes[~inside])
        if fitted is None:
            return None
        scaled[inside] = array[inside] / fitted.value
    return scaled
