"""The estimate, the only kind of figure that enters a table, and intervals of one accuracy.

Wilson's where items are independent, cluster-robust where they share a prompt.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit

CONFIDENCE = 0.95
LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with all that is needed to read it; shares are fractions, not percent.

    `error` is the standard error of `value`; `low` and `high` bound the interval that `method`
    names, of 95 % unless `confidence` says otherwise. `n` counts scored items, `n_unscored` those
    left out of `value`, `n_clusters` the independent groups among the scored. `fingerprint` says
    under which protocol and on which data the figure was made. With `n` = 0 the value and error
    are NaN.
    """

    value: float
    error: float
    low: float
    high: float
    n: int
    n_unscored: int = 0
    n_clusters: int = 0
    method: str = ""
    fingerprint: str = ""
    confidence: float = CONFIDENCE

    @property
    def half_width(self) -> float:
        """The longer arm of the interval: `value` plus or minus it always contains both ends."""
        return max(self.value - self.low, self.high - self.value)


def normal_quantile(confidence: float = CONFIDENCE) -> float:
    """The two-sided standard normal quantile: 1.96 for 0.95."""
    return float(ndtri(0.5 + confidence / 2))


def combine(estimates: Sequence[Estimate], weights: Sequence[float], method: str) -> Estimate:
    """The weighted mean of independent estimates, with its interval (MOVER).

    value = sum(w v), low = value - sqrt(sum(w^2 (v - l)^2)), high likewise with h - v, error =
    sqrt(sum(w^2 e^2)), where w are the weights made to sum to one. Weights count as fixed and
    the estimates as independent: test sets that share no prompts. The fingerprint is a digest
    of the parts' fingerprints, or empty where one of them is.

    Source: Zou and Donner, Statistics in Medicine 27 (2008) 1693-1702.

    Raises:
        ValueError: no estimates, lengths differ, or the weights do not sum above zero.
    """
    total = math.fsum(weights)
    if len(estimates) != len(weights) or total <= 0:
        raise ValueError(f"{len(estimates)} estimates with weights {list(weights)}: cannot combine")
    shares = [weight / total for weight in weights]
    parts = list(zip(shares, estimates, strict=True))
    value = math.fsum(w * e.value for w, e in parts)
    below = math.sqrt(math.fsum((w * (e.value - e.low)) ** 2 for w, e in parts))
    above = math.sqrt(math.fsum((w * (e.high - e.value)) ** 2 for w, e in parts))
    fingerprint = ""
    if all(e.fingerprint for e in estimates):
        joined = "\n".join(e.fingerprint for e in estimates).encode()
        fingerprint = hashlib.blake2b(joined, digest_size=16).hexdigest()
    return Estimate(
        value=value,
        error=math.sqrt(math.fsum((w * e.error) ** 2 for w, e in parts)),
        low=value - below,
        high=value + above,
        n=sum(e.n for e in estimates),
        n_unscored=sum(e.n_unscored for e in estimates),
        n_clusters=sum(e.n_clusters for e in estimates),
        method=method,
        fingerprint=fingerprint,
        confidence=min(e.confidence for e in estimates),
    )


def macro_average(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of columns: every test set counts the same. See `combine`."""
    return combine(estimates, [1.0] * len(estimates), "macro average of columns, MOVER")


def micro_average(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of examples: every scored item counts the same. See `combine`."""
    return combine(estimates, [e.n for e in estimates], "micro average of examples, MOVER")


Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

TIE_VALUE = 0.5
"""A tie is worth a fair coin: half of it is right. Ties are also counted in their own column."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The accuracy if every tie and every unscored item were wrong (`worst`) or right (`best`)."""

    worst: float
    best: float


def wilson(
    successes: float,
    n: float,
    *,
    confidence: float = CONFIDENCE,
    n_unscored: int = 0,
    fingerprint: str = "",
) -> Estimate:
    """The share `successes / n` with Wilson's score interval, for independent items.

    centre = (p + z^2 / 2n) / (1 + z^2 / n), half = z sqrt(p(1-p)/n + z^2/4n^2) / (1 + z^2 / n).
    The error is sqrt(p(1-p)/n); where that is zero (all right or all wrong), the interval's
    length over 2z. With n = 0 the interval is [0, 1] and the value NaN.

    Source: Wilson 1927; recommended for small cells by Bowyer et al., arXiv 2503.01747.

    Raises:
        ValueError: `successes` is outside [0, n].
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}: expected 0 <= successes <= n")
    if n == 0:
        return Estimate(
            math.nan, math.nan, 0.0, 1.0, 0, n_unscored, 0, "wilson", fingerprint, confidence
        )
    share, z = successes / n, normal_quantile(confidence)
    low, high = _wilson_interval(share, n, z)
    error = math.sqrt(share * (1 - share) / n) or (high - low) / (2 * z)
    count = round(n)
    return Estimate(
        share, error, low, high, count, n_unscored, count, "wilson", fingerprint, confidence
    )


def _wilson_interval(share: float, n: float, z: float) -> tuple[float, float]:
    scale = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / scale
    # The formula touches 0 and 1 exactly at the ends; rounding must not push it past the value.
    return min(max(0.0, centre - half), share), max(min(1.0, centre + half), share)


def cluster_codes(labels: Iterable[Any]) -> Codes:
    """Number cluster labels 0, 1, ...: integers by size, others by appearance. [N] int64"""
    if isinstance(labels, np.ndarray) and labels.dtype.kind in "iu":
        if labels.size and labels.min() >= 0 and labels.max() < 8 * labels.size:
            # The same numbers as below, without sorting.
            used = np.bincount(labels.reshape(-1)) > 0
            return np.asarray((np.cumsum(used) - 1)[labels.reshape(-1)], dtype=np.int64)
        return np.unique(labels, return_inverse=True)[1].astype(np.int64).reshape(-1)
    seen: dict[Any, int] = {}
    return np.fromiter((seen.setdefault(label, len(seen)) for label in labels), dtype=np.int64)


def scored(values: ArrayLike, clusters: Iterable[Any] | None) -> tuple[Floats, Codes, int]:
    """The values that are not NaN, their cluster codes, and how many were NaN."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"values have shape {array.shape}: expected [N]")
    if clusters is None:
        codes = np.arange(array.size)
    elif isinstance(clusters, np.ndarray) and clusters.dtype.kind in "iu":
        codes = clusters  # They may have gaps, which `clustered_variance` closes.
    else:
        codes = cluster_codes(clusters)
    if codes.size != array.size:
        raise ValueError(f"{array.size} values but {codes.size} cluster labels")
    keep = ~np.isnan(array)
    return array[keep], codes[keep], int((~keep).sum())


def clustered_variance(values: Floats, codes: Codes) -> tuple[float, int]:
    """Cluster-robust variance of the mean of `values` [N], and the number of clusters G.

    V = G/(G-1) * sum_g (sum_{i in g} (x_i - mean))^2 / N^2. NaN for fewer than two clusters.

    Source: Miller, arXiv 2411.00640, section 2.2, with the usual small-sample factor.
    """
    compact = cluster_codes(codes)
    count = int(compact.max()) + 1 if compact.size else 0
    if count < 2:
        return math.nan, count
    sums = np.bincount(compact, weights=values - values.mean())
    return float(count / (count - 1) * np.dot(sums, sums) / values.size**2), count


def clustered_mean(
    values: ArrayLike,
    clusters: Iterable[Any] | None = None,
    *,
    confidence: float = CONFIDENCE,
    limits: tuple[float, float] = (-math.inf, math.inf),
    fingerprint: str = "",
) -> Estimate:
    """The mean of `values` [N] with a Student-t interval from the cluster-robust variance.

    Args:
        values: [N]; NaN marks an unscored item.
        clusters: [N] labels, or None where items are independent.
        confidence: coverage asked for.
        limits: where the mean can lie; the interval is clipped there, and is all of it where
            fewer than two clusters leave the variance unknown.
        fingerprint: copied to the estimate.
    """
    array, codes, n_unscored = scored(values, clusters)
    value, error, (low, high), count, method = math.nan, math.nan, limits, 0, "none scored"
    if array.size:
        value, method = float(array.mean()), "one cluster"
        variance, count = clustered_variance(array, codes)
        if not math.isnan(variance):
            error, method = math.sqrt(variance), "clustered t"
            reach = float(stdtrit(count - 1, 0.5 + confidence / 2)) * error
            low, high = max(limits[0], value - reach), min(limits[1], value + reach)
    return Estimate(
        value, error, low, high, array.size, n_unscored, count, method, fingerprint, confidence
    )


def accuracy(
    values: ArrayLike,
    clusters: Iterable[Any] | None = None,
    *,
    probabilities: ArrayLike | None = None,
    confidence: float = CONFIDENCE,
    fingerprint: str = "",
) -> Estimate:
    """A judge's accuracy with an interval that holds for clustered items and small cells.

    Wilson's interval on the effective sample size n_e = p(1-p) / V, V the cluster-robust
    variance, times (z / t_{G-1})^2 for few clusters, and never above N. Rules at the edges:
    every item its own cluster: plain Wilson with N; all right or all wrong (V = 0): n_e = G,
    for nothing then says how alike a cluster's items are; one cluster: n_e = 1; nothing scored:
    [0, 1]. Ties make p(1-p) larger than the items' variance, so with ties the interval is
    wider than it need be, never narrower.

    With `probabilities` that items were chosen with, it is the accuracy on all that they were
    chosen from: Hajek's ratio sum(x / p) / sum(1 / p), V that of its linearisation. Equal ones
    change nothing.

    Args:
        values: [N]; 1 right, 0 wrong, `TIE_VALUE` tie, NaN unscored (left out and counted).
        clusters: [N] labels (prompt, post or tree), or None where items are independent.
        probabilities: [N], above 0; or None where all were as likely.
        confidence: coverage asked for.
        fingerprint: copied to the estimate.

    Source: Korn and Graubard 1998 for the effective size; Dean and Pavlou 2015 for Wilson on it;
    Sarndal, Swensson and Wretman 1992, section 5.7, for the ratio.

    Raises:
        ValueError: a probability is not above 0 and at most 1, or they are not one an item.
    """
    if probabilities is not None:
        return _weighted_accuracy(values, clusters, probabilities, confidence, fingerprint)
    array, codes, n_unscored = scored(values, clusters)
    size = array.size
    if size == 0:
        return wilson(0, 0, confidence=confidence, n_unscored=n_unscored, fingerprint=fingerprint)
    share = float(array.mean())
    variance, count = clustered_variance(array, codes)
    z = normal_quantile(confidence)
    # How many independent items the clustered ones are worth.
    if count == size:
        effective = float(size)
    elif math.isnan(variance):
        effective = 1.0
    elif variance <= 0:
        effective = float(count)
    else:
        ratio = z / float(stdtrit(count - 1, 0.5 + confidence / 2))
        effective = min(float(size), share * (1 - share) / variance * ratio**2)
    low, high = _wilson_interval(share, effective, z)
    known = not math.isnan(variance) and variance > 0
    error = math.sqrt(variance) if known else (high - low) / (2 * z)
    method = "wilson" if count == size else "wilson on effective n, clustered"
    return Estimate(
        share, error, low, high, size, n_unscored, count, method, fingerprint, confidence
    )


WEIGHTED = "wilson on effective n, weighted by 1 / probability"
"""The method of an accuracy on what its items were chosen from."""


def _weighted_accuracy(
    values: ArrayLike,
    clusters: Iterable[Any] | None,
    probabilities: ArrayLike,
    confidence: float,
    fingerprint: str,
) -> Estimate:
    labels = None if clusters is None else list(clusters)
    chances = np.asarray(probabilities, dtype=np.float64)
    array, codes, n_unscored = scored(values, labels)
    if chances.shape != np.shape(values) or not ((chances > 0) & (chances <= 1)).all():
        raise ValueError("expected a probability above 0 and at most 1 of each item")
    weights = 1 / chances[~np.isnan(np.asarray(values, dtype=np.float64))]
    if not array.size or np.ptp(weights) == 0:
        return accuracy(values, labels, confidence=confidence, fingerprint=fingerprint)
    # Values whose plain mean is the ratio, and their variance that of its linearisation.
    share = float(np.average(array, weights=weights))
    linear = share + array.size * weights / weights.sum() * (array - share)
    variance, count = clustered_variance(linear, codes)
    z = normal_quantile(confidence)
    most = float(weights.sum() ** 2 / (weights**2).sum())  # Items that count alike (Kish).
    if math.isnan(variance):
        effective = 1.0
    elif variance <= 0:
        effective = min(most, float(count))
    else:
        ratio = z / float(stdtrit(count - 1, 0.5 + confidence / 2))
        effective = min(float(array.size), share * (1 - share) / variance * ratio**2)
    low, high = _wilson_interval(share, effective, z)
    known = not math.isnan(variance) and variance > 0
    return Estimate(
        share, math.sqrt(variance) if known else (high - low) / (2 * z), low, high, array.size,
        n_unscored, count, WEIGHTED, fingerprint,
        confidence,
    )  # fmt: skip


def bounds(values: ArrayLike) -> Bounds:
    """Best and worst accuracy over all items of `values` [N], as in `accuracy`."""
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        return Bounds(0.0, 1.0)
    right, wrong = int((array == 1).sum()), int((array == 0).sum())
    return Bounds(right / array.size, (array.size - wrong) / array.size)
