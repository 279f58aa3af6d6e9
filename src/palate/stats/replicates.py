"""Accuracy of a recipe rather than of one model: the same items judged after several trainings."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtr, stdtrit

from palate.stats.compare import (
    Ends,
    PairedDifference,
    agreeing,
    discordance_ends,
    student_ends,
    unseen_discordance,
)
from palate.stats.estimate import (
    CONFIDENCE,
    Codes,
    Estimate,
    Floats,
    cluster_codes,
    clustered_variance,
    normal_quantile,
    wilson,
)

TEST = "t, prompts x seeds"


@dataclass(frozen=True, slots=True)
class Replicated:
    """A mean over items and trainings, and what each of the two adds to its error.

    `of_items` and `of_seeds` are standard errors; `estimate.error` is the root of the sum of their
    squares. `of_seeds` is NaN for one training, which says nothing of another. `spread` is the
    standard deviation of the trainings' own means. `freedom` are degrees of freedom.
    """

    estimate: Estimate
    of_items: float
    of_seeds: float
    spread: float
    freedom: float
    seeds: int


def replicated_accuracy(
    values: ArrayLike,
    clusters: Iterable[Any] | None = None,
    *,
    confidence: float = CONFIDENCE,
    fingerprint: str = "",
) -> Replicated:
    """The accuracy that a recipe is expected to have on other items, trained with another seed.

    Wilson's interval on the effective sample size n_e = p(1-p) / V * (z / t)^2, at most N S, V and
    the degrees of freedom of t as in `replicated_mean`. V = 0: n_e = G. For one training it is
    `accuracy`.

    Args:
        values: [S, N], one row a training; 1 right, 0 wrong, `TIE_VALUE` tie, NaN unscored.
        clusters: [N] labels (prompt, post or tree), or None where items are independent.
        confidence: coverage asked for.
        fingerprint: copied to the estimate.
    """
    mean = replicated_mean(values, clusters, confidence=confidence, fingerprint=fingerprint)
    e = mean.estimate
    if not e.n:
        return replace(mean, estimate=replace(e, low=0.0, high=1.0))
    # How many independent items, judged once, would have the same error.
    if math.isnan(e.error):
        effective = 1.0
    elif e.error == 0:
        effective = float(e.n_clusters)
    elif mean.seeds == 1 and e.n_clusters == e.n:
        effective = float(e.n)
    else:
        ratio = normal_quantile(confidence) / float(stdtrit(mean.freedom, 0.5 + confidence / 2))
        effective = e.value * (1 - e.value) / e.error**2 * ratio**2
        effective = min(float(e.n * mean.seeds), effective)
    bound = wilson(e.value * effective, effective, confidence=confidence)
    error = e.error if e.error > 0 else bound.error
    method = "wilson on effective n, prompts x seeds"
    better = replace(e, error=error, low=bound.low, high=bound.high, method=method)
    return replace(mean, estimate=better)


def replicated_difference(
    first: ArrayLike,
    second: ArrayLike,
    clusters: Iterable[Any] | None = None,
    *,
    fingerprint: str = "",
) -> tuple[PairedDifference, Replicated]:
    """`first` minus `second` on the items that both scored, training by training with equal seeds.

    `replicated_mean` of the differences, and its two-sided t test. Where all differences are equal
    the interval is Wilson's bound on a difference not seen yet, as in `paired_difference`.

    Args:
        first, second: [S, N] as in `replicated_accuracy`, row by row with the same seed.
        clusters: [N] labels, or None where items are independent.
        fingerprint: copied to the estimate.
    """
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.shape != two.shape:
        raise ValueError(f"paired values have shapes {one.shape} and {two.shape}: expected equal")
    mean = replicated_mean(one - two, clusters, limits=(-1.0, 1.0), fingerprint=fingerprint)
    if mean.estimate.n_clusters < 2 or mean.estimate.error > 0:
        difference = student_test(mean, limits=(-1.0, 1.0))
    else:
        mean = replace(mean, estimate=unseen_discordance(mean.estimate))
        free: Ends = partial(discordance_ends, mean.estimate)
        difference = agreeing(mean.estimate, p_of_zero(mean), TEST, free, partial(_luck, mean))
    return difference, replace(mean, estimate=difference.estimate)


def student_test(
    mean: Replicated, *, limits: tuple[float, float] = (-math.inf, math.inf)
) -> PairedDifference:
    """A mean beside zero, by Student's t; `limits` are where it can lie."""
    free = partial(student_ends, mean.estimate, mean.freedom, limits)
    return agreeing(mean.estimate, p_of_zero(mean), TEST, free, partial(_luck, mean))


def _luck(mean: Replicated, level: float) -> float:
    """The largest |sum of differences| that `p_of_zero` at a level takes for luck."""
    return float(stdtrit(mean.freedom, 1 - level / 2)) * mean.estimate.error * mean.estimate.n


def p_of_zero(mean: Replicated) -> float:
    """The two-sided p-value of a true mean of zero, by Student's t; 1 where nothing varies."""
    e = mean.estimate
    if not e.n or math.isnan(e.error):
        return 1.0
    if e.error == 0:
        return 1.0 if e.value == 0 else 0.0
    return float(2 * stdtr(mean.freedom, -abs(e.value) / e.error))


def replicated_mean(
    values: ArrayLike,
    clusters: Iterable[Any] | None = None,
    *,
    confidence: float = CONFIDENCE,
    limits: tuple[float, float] = (-math.inf, math.inf),
    fingerprint: str = "",
) -> Replicated:
    """The mean over items and trainings, with an error that covers other items and other seeds.

    Clusters g and seeds s are crossed, and both are random: V = V_g + V_s, V_g the cluster-robust
    variance of the mean (a cluster's items of all trainings summed), V_s the variance of the
    trainings' own means over S. The degrees of freedom are Satterthwaite's,
    V^2 / (V_g^2 / (G-1) + V_s^2 / (S-1)). V_s also holds the chance with which single items flip
    between trainings, which is in V_g already, so that V is rather too large; where it was taken
    out again, 11 % of simulated studies of three seeds found a difference between equal variants
    at worst, instead of 7 (docs/studies.md). With S = 1, V is V_g.

    Args:
        values: [S, N], one row a training; NaN is left out.
        clusters: [N] labels, or None where items are independent.
        confidence: coverage asked for.
        limits: where the mean can lie.
        fingerprint: copied to the estimate.

    Source: crossed random effects, Searle, Casella and McCulloch, Variance Components, 1992;
    clusters as in `clustered_variance`.
    """
    table, codes, missing = _scored(values, clusters)
    if not table.size:
        nothing = Estimate(math.nan, math.nan, *limits, 0, missing, 0, "none scored", fingerprint)
        return Replicated(nothing, math.nan, math.nan, math.nan, 0.0, 0)
    seeds, count = len(table), int(codes.max()) + 1
    of_items, of_seeds, freedom = _variances(table, codes)
    value, error = float(np.nanmean(table)), math.sqrt(of_items + of_seeds)
    spread = float(np.nanmean(table, axis=1).std(ddof=1)) if seeds > 1 else math.nan
    low, high = limits
    if not math.isnan(error):
        reach = float(stdtrit(freedom, 0.5 + confidence / 2)) * error
        low, high = max(low, value - reach), min(high, value + reach)
    estimate = Estimate(value, error, low, high, table.shape[1], missing, count, TEST, fingerprint)
    seed_error = math.sqrt(of_seeds) if seeds > 1 else math.nan
    return Replicated(estimate, math.sqrt(of_items), seed_error, spread, freedom, seeds)


def _scored(values: ArrayLike, clusters: Iterable[Any] | None) -> tuple[Floats, Codes, int]:
    """Trainings and items that have any score, their cluster codes, how many items have none."""
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2:
        raise ValueError(f"values have shape {table.shape}: expected [S, N]")
    codes = np.arange(table.shape[1]) if clusters is None else cluster_codes(clusters)
    if codes.size != table.shape[1]:
        raise ValueError(f"{table.shape[1]} items but {codes.size} cluster labels")
    scored = ~np.isnan(table)
    items = scored.any(axis=0)
    rows = table[scored.any(axis=1)][:, items]
    return rows, cluster_codes(codes[items]), int((~items).sum())


def _variances(table: Floats, codes: Codes) -> tuple[float, float, float]:
    """(V of items, V of seeds, degrees of freedom) of the mean of a table [S, N]."""
    seeds, scored = len(table), ~np.isnan(table)
    values = table[scored]
    of_items, count = clustered_variance(values, np.broadcast_to(codes, table.shape)[scored])
    if seeds == 1 or count == 1:
        return of_items, 0.0, float(max(1, count - 1))
    of_seeds, _ = clustered_variance(values, np.nonzero(scored)[0])
    both = of_items + of_seeds
    if both == 0:
        return 0.0, 0.0, float(count - 1)
    freedom = both**2 / (of_items**2 / (count - 1) + of_seeds**2 / (seeds - 1))
    return of_items, of_seeds, freedom
