"""Comparing judges on the same items, accuracy over ratings, and many comparisons at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, chdtrc

from palate.stats.estimate import Estimate
from palate.stats.intervals import Codes, Floats, cluster_codes, clustered_mean, wilson

EXACT_CLUSTERS = 14  # 2^14 sign patterns are enumerated in milliseconds; beyond, they are drawn.
DRAWS = 9_999


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """How much more accurate one judge is than another on the same items, and whether by luck.

    `estimate.value` is first minus second; `p_value` is two-sided, by the named `test`.
    """

    estimate: Estimate
    p_value: float
    test: str


@dataclass(frozen=True, slots=True)
class Trend:
    """A linear trend of accuracy over ordered levels: `z` above zero rises with the level."""

    z: float
    p_value: float
    n: int


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    clusters: Iterable[Any] | None,
    rng: np.random.Generator,
    *,
    fingerprint: str = "",
) -> PairedDifference:
    """The accuracy of `first` minus `second` on the items that both scored.

    The interval is Student-t on the cluster-robust variance of the differences; where all
    differences are equal, Wilson's bound on an unseen discordance among the clusters. The test
    is mid-p McNemar where items are independent and untied, else a cluster sign-flip permutation.

    Args:
        first, second: [N] values as in `accuracy`, item by item; NaN unscored.
        clusters: [N] labels, or None where items are independent.
        rng: draws the sign flips; unused by McNemar and for few clusters.
        fingerprint: copied to the estimate.

    Source: Dror et al., ACL 2018 (P18-1128); Fagerland et al. 2013.
    """
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.shape != two.shape:
        raise ValueError(f"paired values have shapes {one.shape} and {two.shape}: expected equal")
    codes = np.arange(one.size) if clusters is None else cluster_codes(clusters)
    difference = one - two
    estimate = clustered_mean(difference, codes, limits=(-1.0, 1.0), fingerprint=fingerprint)
    keep = ~np.isnan(difference)
    difference, codes = difference[keep], codes[keep]
    if estimate.n_clusters > 1 and estimate.error == 0:
        estimate = _unseen_discordance(estimate)
    if estimate.n == estimate.n_clusters and np.isin(difference, (-1.0, 0.0, 1.0)).all():
        wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
        return PairedDifference(estimate, mcnemar_mid_p(wins, losses), "mid-p McNemar")
    return PairedDifference(estimate, sign_flip_p(difference, codes, rng), "cluster sign-flip")


def _unseen_discordance(estimate: Estimate) -> Estimate:
    reach = wilson(0, estimate.n_clusters).high
    low, high = max(-1.0, estimate.value - reach), min(1.0, estimate.value + reach)
    return replace(estimate, error=reach / 2, low=low, high=high, method="wilson on discordance")


def mcnemar_mid_p(wins: int, losses: int) -> float:
    """Two-sided mid-p McNemar: 2 P(X < k) + P(X = k), X ~ Binomial(wins + losses, 1/2).

    k is the smaller of the two. Source: Fagerland, Lydersen and Laake, BMC Med Res Methodol 2013.
    """
    total, least = wins + losses, min(wins, losses)
    if total == 0:
        return 1.0
    below = float(bdtr(least - 1, total, 0.5)) if least > 0 else 0.0
    return min(1.0, below + float(bdtr(least, total, 0.5)))


def sign_flip_p(
    differences: Floats, codes: Codes, rng: np.random.Generator, *, draws: int = DRAWS
) -> float:
    """Two-sided permutation test: under no difference each cluster's sum may change its sign.

    Exact up to `EXACT_CLUSTERS` clusters with a difference, else (1 + hits) / (1 + draws).
    Clusters with equal |sum| are drawn together as one binomial, so the cost does not grow
    with their number.

    Args:
        differences: [N] paired differences without NaN.
        codes: [N] integer cluster labels.
        rng: draws the signs.
        draws: sign patterns drawn where not all are enumerated.
    """
    sums = np.bincount(cluster_codes(codes), weights=differences)
    # Halves and ones add up exactly in binary; rounding only guards values of other kinds.
    sizes = np.abs(np.round(sums, 9))
    observed = abs(float(np.round(differences.sum(), 9))) - 1e-9
    magnitudes, counts = np.unique(sizes[sizes > 0], return_counts=True)
    total = int(counts.sum())
    if total == 0:
        return 1.0
    if total <= EXACT_CLUSTERS:
        patterns = np.arange(2**total)[:, None] >> np.arange(total) & 1
        flipped = (2 * patterns - 1) @ np.repeat(magnitudes, counts)
        return float((np.abs(flipped) >= observed).mean())
    heads = rng.binomial(counts, 0.5, size=(draws, counts.size))
    flipped = (2 * heads - counts) @ magnitudes
    return float((1 + (np.abs(flipped) >= observed).sum()) / (1 + draws))


def cochran_armitage(
    values: ArrayLike, levels: ArrayLike, clusters: Iterable[Any] | None = None
) -> Trend | None:
    """Cochran-Armitage test for a linear trend of accuracy over ordered levels.

    U = sum (x - mean x)(y - mean y), z = U / sqrt(V). V = mean y (1 - mean y) sum (x - mean x)^2
    for independent items; with clusters, V = sum_g (sum_{i in g} (x - mean x)(y - mean y))^2.

    Args:
        values: [N] as in `accuracy`; NaN unscored.
        levels: [N] scores of the levels (the rating, 1 to 4).
        clusters: [N] labels, or None where items are independent.

    Returns:
        None where there is no trend to test: one level, or all values equal.

    Source: Armitage, Biometrics 11 (1955) 375-386; the clustered variance is the sandwich's.
    """
    y, x = np.asarray(values, dtype=np.float64), np.asarray(levels, dtype=np.float64)
    keep = ~(np.isnan(y) | np.isnan(x))
    if not keep.any():
        return None
    mean = float(y[keep].mean())
    spread, deviation = x[keep] - x[keep].mean(), y[keep] - mean
    variance = mean * (1 - mean) * float(spread @ spread)
    if clusters is not None:
        codes = cluster_codes(cluster_codes(clusters)[keep])
        if codes.max() + 1 < codes.size:
            sums = np.bincount(codes, weights=spread * deviation)
            variance = float(sums @ sums)
    if variance <= 1e-12:
        return None
    z = float(spread @ deviation) / math.sqrt(variance)
    return Trend(z, float(chdtrc(1, z * z)), int(keep.sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted by Holm: the chance of any false finding inside one table.

    Of N, the k-th smallest (from 0) becomes the largest of (N - j) p_j over j <= k, at most 1.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    stepped = np.maximum.accumulate((p.size - np.arange(p.size)) * p[order])
    return _in_place(np.minimum(stepped, 1.0), order)


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted by Benjamini and Hochberg: the share of false findings on a leaderboard.

    Of N, the k-th smallest (from 1) becomes the smallest of N p_j / j over j >= k, at most 1.

    Source: Benjamini and Hochberg, JRSS B 57 (1995) 289-300.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)[::-1]
    stepped = np.minimum.accumulate(p.size / np.arange(p.size, 0, -1) * p[order])
    return _in_place(np.minimum(stepped, 1.0), order)


def _in_place(ordered: NDArray[np.float64], order: NDArray[np.intp]) -> list[float]:
    """Each value of `ordered` where it came from."""
    placed = np.empty_like(ordered)
    placed[order] = ordered
    return [float(value) for value in placed]
