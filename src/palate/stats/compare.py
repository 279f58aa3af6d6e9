"""Comparing judges on the same items, accuracy over ratings, and many comparisons at once."""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, chdtrc, ndtri, stdtrit

from palate.stats.estimate import (
    CONFIDENCE,
    LEVEL,
    Codes,
    Estimate,
    Floats,
    cluster_codes,
    clustered_mean,
    normal_quantile,
    wilson,
)

EXACT_CLUSTERS = 14  # 2^14 sign patterns are enumerated in milliseconds; beyond, they are drawn.
DRAWS = 9_999
ROUNDING = 1e-12  # Equal shares, such as 1 - 4/9 in every cluster, leave an error of rounding.

Ends = Callable[[float], tuple[float, float]]
"""The ends of an interval that fails with a probability of at most this."""
Luck = Callable[[float], float]
"""The largest |sum of differences| that a test at a level takes for luck."""


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """How much more accurate one judge is than another on the same items, and whether by luck.

    `estimate.value` is first minus second; `p_value` is two-sided, by the named `test`. Alone, the
    interval has 95 %; in a family of tests (`holm_family`) p is the adjusted one and the interval
    has the level that Holm tests it at. Either way it leaves out zero exactly where p is below 5 %.
    `ends` are those of its interval at another level.
    """

    estimate: Estimate
    p_value: float
    test: str
    ends: Ends = field(compare=False, repr=False)

    def turned(self) -> PairedDifference:
        """Second minus first."""
        e, ends = self.estimate, self.ends
        estimate = replace(e, value=-e.value, low=-e.high, high=-e.low)
        return replace(self, estimate=estimate, ends=lambda x: (-ends(x)[1], -ends(x)[0]))


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

    The test is mid-p McNemar where items are independent and untied, else a cluster sign-flip
    permutation. The interval is Student-t on the cluster-robust variance of the differences;
    where all differences are equal, Wilson's bound on an unseen discordance among the clusters.
    Where the two disagree about zero, the test decides: the end nearer to zero is then the value
    less the largest difference that the test takes for luck.

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
    if estimate.n == estimate.n_clusters and np.isin(difference, (-1.0, 0.0, 1.0)).all():
        wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
        p, test = mcnemar_mid_p(wins, losses), "mid-p McNemar"
        luck: Luck = partial(_mcnemar_luck, wins + losses)
    else:
        observed, values, chances = sign_flips(difference, codes, rng)
        p, test = flip_p(observed, values, chances), "cluster sign-flip"
        # The largest |sum| whose p is not below the level; infinite where none is.
        luck = lambda level: float(values[chances >= level][-1])  # noqa: E731
    if estimate.n_clusters > 1 and estimate.error <= ROUNDING:
        estimate = unseen_discordance(estimate)
        free: Ends = partial(discordance_ends, estimate)
    else:
        free = partial(student_ends, estimate, max(1.0, estimate.n_clusters - 1), (-1.0, 1.0))
    return agreeing(estimate, p, test, free, luck)


def agreeing(e: Estimate, p: float, test: str, free: Ends, luck: Luck) -> PairedDifference:
    """A difference whose interval, `free` by itself, says of zero what its test says."""

    def ends(level: float) -> tuple[float, float]:
        """The ends of `free`, the one nearer to zero moved where the test decides otherwise."""
        low, high = free(level)
        if e.n == 0 or (p < level) == (low > 0 or high < 0):
            return low, high
        reach = luck(level) / e.n  # |value| is above it exactly where p is below the level.
        if e.value > 0:
            return max(-1.0, e.value - reach), high
        return low, min(1.0, e.value + reach)

    low, high = ends(LEVEL)
    return PairedDifference(replace(e, low=low, high=high), p, test, ends)


def student_ends(
    e: Estimate, freedom: float, limits: tuple[float, float], level: float
) -> tuple[float, float]:
    """value -+ t error within limits; all between them where the error is unknown."""
    if not math.isfinite(e.error):
        return limits
    reach = float(stdtrit(freedom, 1 - level / 2)) * e.error
    return max(limits[0], e.value - reach), min(limits[1], e.value + reach)


def unseen_discordance(e: Estimate) -> Estimate:
    """Where all differences are equal: Wilson's bound on one not seen yet among the clusters."""
    reach = wilson(0, e.n_clusters).high
    low, high = discordance_ends(e, LEVEL)
    return replace(e, error=reach / 2, low=low, high=high, method="wilson on discordance")


def discordance_ends(e: Estimate, level: float) -> tuple[float, float]:
    """The ends of `unseen_discordance` at a level."""
    reach = wilson(0, e.n_clusters, confidence=1 - level).high
    return max(-1.0, e.value - reach), min(1.0, e.value + reach)


def mcnemar_mid_p(wins: int, losses: int) -> float:
    """Two-sided mid-p McNemar: 2 P(X < k) + P(X = k), X ~ Binomial(wins + losses, 1/2).

    k is the smaller of the two. Source: Fagerland, Lydersen and Laake, BMC Med Res Methodol 2013.
    """
    total, least = wins + losses, min(wins, losses)
    if total == 0:
        return 1.0
    below = float(bdtr(least - 1, total, 0.5)) if least > 0 else 0.0
    return min(1.0, below + float(bdtr(least, total, 0.5)))


def _mcnemar_luck(total: int, level: float) -> float:
    """The largest |wins - losses| of `total` discordant items whose mid-p is not below `level`."""
    lead = total % 2
    while lead < total and mcnemar_mid_p((total + lead) // 2 + 1, (total - lead) // 2 - 1) >= level:
        lead += 2
    return float(lead)


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
    return flip_p(*sign_flips(differences, codes, rng, draws=draws))


def sign_flips(
    differences: Floats, codes: Codes, rng: np.random.Generator, *, draws: int = DRAWS
) -> tuple[float, Floats, Floats]:
    """|sum|, the values [V] in ascending order that it takes with flipped signs, and p [V] of each.

    The last value is infinite: its p is that of a sum beyond all patterns.
    """
    sums = np.bincount(cluster_codes(codes), weights=differences)
    # Halves and ones add up exactly in binary; rounding only guards values of other kinds.
    sizes = np.abs(np.round(sums, 9))
    observed = abs(float(np.round(differences.sum(), 9)))
    magnitudes, counts = np.unique(sizes[sizes > 0], return_counts=True)
    total = int(counts.sum())
    drawn = total > EXACT_CLUSTERS
    if drawn:
        heads = rng.binomial(counts, 0.5, size=(draws, counts.size))
        flipped = (2 * heads - counts) @ magnitudes
    else:
        patterns = np.arange(2**total)[:, None] >> np.arange(total) & 1
        flipped = (2 * patterns - 1) @ np.repeat(magnitudes, counts)
    values, times = np.unique(np.round(np.abs(flipped), 9), return_counts=True)
    hits = np.append(times[::-1].cumsum()[::-1], 0)
    return observed, np.append(values, np.inf), (drawn + hits) / (drawn + flipped.size)


def flip_p(observed: float, values: Floats, p: Floats) -> float:
    """The p-value of an observed |sum| among those of `sign_flips`."""
    return float(p[np.searchsorted(values, observed - 1e-9)])


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


def holm_levels(p_values: Sequence[float], *, level: float = LEVEL) -> list[float]:
    """The level at which Holm's procedure tests each p-value: p is below it where it is rejected.

    Of N, level / (N - k) for the k-th smallest (from 0) as long as all before it are rejected,
    and for the first one that is not; that one's for all after it.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    levels = level / (p.size - np.arange(p.size))
    accepted = np.flatnonzero(p[order] >= levels)
    if accepted.size:
        levels[accepted[0] :] = levels[accepted[0]]
    return _in_place(levels, order)


def holm_family(differences: Sequence[PairedDifference]) -> list[PairedDifference]:
    """The differences as one family of tests: p adjusted by Holm, intervals at his levels.

    An interval leaves out zero exactly where the adjusted p is below 5 %. `estimate.confidence`
    is from 95 % to 1 - 5 % / N. A family of one is what it was.
    """
    p_values = [difference.p_value for difference in differences]
    family = []
    for one, p, level in zip(differences, holm(p_values), holm_levels(p_values), strict=True):
        low, high = one.ends(level)
        estimate = replace(one.estimate, low=low, high=high, confidence=1 - level)
        family.append(replace(one, estimate=estimate, p_value=p))
    return family


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


# What a test set of a given size can show.


def half_width(
    n: int, accuracy: float, *, design_effect: float = 1.0, confidence: float = CONFIDENCE
) -> float:
    """Half the normal interval of one accuracy: z sqrt(d p(1-p) / n).

    1,000 independent pairs at 64 %: 0.030. `design_effect` d is the variance with clusters over
    the variance without.
    """
    return normal_quantile(confidence) * _error(n, accuracy * (1 - accuracy), design_effect)


def minimum_detectable_difference(
    n: int,
    variance: float,
    *,
    design_effect: float = 1.0,
    power: float = 0.8,
    confidence: float = CONFIDENCE,
) -> float:
    """The smallest true difference that a two-sided test finds with the given power.

    (z_{1-alpha/2} + z_{power}) sqrt(d v / n).

    Args:
        n: items.
        variance: per item: p(1-p) for one accuracy against a fixed figure; for two judges on the
            same items, the variance of the differences (the discordant share less the squared
            difference).
        design_effect: variance with clusters over the variance without.
        power: chance of finding it.
        confidence: one less the level of the test.

    Source: Miller, arXiv 2411.00640, section 5.
    """
    return (normal_quantile(confidence) + float(ndtri(power))) * _error(n, variance, design_effect)


def detectable_lead(
    n: int,
    discordant: float,
    *,
    design_effect: float = 1.0,
    power: float = 0.8,
    confidence: float = CONFIDENCE,
) -> float:
    """The smallest lead of one judge over another, on the same items, found with the given power.

    The difference of an item is 1, 0 or -1 and has the variance D - x^2, with D the share of items
    on which the judges differ and x the lead, so that x = z sqrt(d (D - x^2) / n) has the solution
    x = z sqrt(d D / (n + d z^2)), z = z_{1-alpha/2} + z_{power}.

    Args:
        n: items.
        discordant: D, the share of items that one of the two has right and the other wrong.
        design_effect: d, variance with clusters over the variance without.
        power: chance of finding it; 0.5 gives the lead that is just significant.
        confidence: one less the level of the two-sided test.

    Returns:
        A share. One above D is out of reach: a judge that wins every item on which the two
        differ leads by D.

    Source: Miller, arXiv 2411.00640, section 5, with the variance of a difference of 0 and 1.
    """
    reach = normal_quantile(confidence) + float(ndtri(power))
    _error(n, discordant, design_effect)  # Refuses what is out of range.
    return reach * math.sqrt(design_effect * discordant / (n + design_effect * reach**2))


def detectable(difference: Estimate) -> float:
    """The smallest true difference that the test of a paired difference finds, power 80 %.

    At the level of its interval: in a family of tests that is not 5 %.
    """
    return minimum_detectable_difference(1, difference.error**2, confidence=difference.confidence)


def items_needed(
    difference: float,
    variance: float,
    *,
    design_effect: float = 1.0,
    power: float = 0.8,
    confidence: float = CONFIDENCE,
) -> int:
    """How many items find a true `difference`; the inverse of `minimum_detectable_difference`."""
    if difference <= 0:
        raise ValueError(f"difference is {difference}: expected above zero")
    reach = normal_quantile(confidence) + float(ndtri(power))
    return math.ceil(design_effect * variance * (reach / difference) ** 2)


def _error(n: int, variance: float, design_effect: float) -> float:
    if n < 1 or variance < 0 or design_effect <= 0:
        raise ValueError(
            f"n {n}, variance {variance}, design effect {design_effect}: expected n >= 1, "
            "variance >= 0, design effect > 0"
        )
    return math.sqrt(design_effect * variance / n)


# Significance groups: judges that share a letter could not be told apart.

LETTERS = string.ascii_lowercase + string.ascii_uppercase


def pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """All pairs of `names`, the earlier one first."""
    return list(combinations(names, 2))


def letters(
    ranked: Sequence[str], p_values: Mapping[tuple[str, str], float], *, level: float = 0.05
) -> dict[str, str]:
    """The compact letter display: two names share a letter exactly if they do not differ.

    Insert and absorb: start with one group of all; for every pair that differs, split each group
    that holds both into one without the first and one without the second; drop groups that lie
    in others.

    Args:
        ranked: names, best first; `a` goes to the group of the best.
        p_values: adjusted p of every pair of them, (earlier, later); a pair that is not there
            was not tested and shares a letter.
        level: a pair differs where p is below it.

    Source: Piepho, Journal of Computational and Graphical Statistics 13 (2004) 456-466.
    """
    groups = [frozenset(ranked)]
    for one, two in pairs(ranked):
        if p_values.get((one, two), p_values.get((two, one), 1.0)) >= level:
            continue
        split = [
            part
            for group in groups
            for part in ((group - {one}, group - {two}) if {one, two} <= group else (group,))
        ]
        unique = list(dict.fromkeys(split))
        groups = [group for group in unique if not any(group < other for other in unique)]
    place = {name: i for i, name in enumerate(ranked)}
    groups.sort(key=lambda group: sorted(place[name] for name in group))
    marks = [*LETTERS, *(f"({n + 1})" for n in range(len(LETTERS), len(groups)))]
    named = list(zip(marks, groups, strict=False))
    return {name: "".join(mark for mark, group in named if name in group) for name in ranked}
