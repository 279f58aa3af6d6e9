"""What the members of an ensemble say of a reward together: how far apart they are, and a bound.

Shape letters: N responses to one prompt, M members.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, stdtrit

from palate.stats.estimate import Codes, Estimate, Floats, cluster_codes, clustered_mean

MEMBER_LEVEL = 0.90


def member_interval(
    value: float, std: float, members: int, level: float = MEMBER_LEVEL
) -> tuple[float, float]:
    """Where one more member of an ensemble would lie with probability `level`.

    value +- t(1/2 + level/2; M - 1) s sqrt(1 + 1 / M): the prediction interval of the next value
    of a normal sample. What all members have wrong together is not in it.

    Args:
        value: the mean of what the members say.
        std: s, their standard deviation as of a sample.
        members: M, two or more.
    """
    quantile = float(stdtrit(members - 1, 0.5 + level / 2))
    half = quantile * std * math.sqrt(1 + 1 / members)
    return value - half, value + half


def lower_bounds(members: ArrayLike, deviations: float) -> Floats:
    """Rewards of the responses to one prompt, each lowered by what the members disagree on it.

    b_i = mean_m r_im - k sd_m(r_im - mean_j r_jm)

    Only differences between responses to one prompt mean something, so each member's mean over
    them is taken off before the members are compared: what they make of the prompt itself lowers
    no response below another. Of two responses both have the same deviation, and the order is that
    of the mean.

    Args:
        members: r, what each member says of each response, [N, M].
        deviations: k >= 0.

    Returns:
        b, [N].
    """
    said = np.asarray(members, dtype=np.float64)
    apart = (said - said.mean(0)).std(1, ddof=1)
    return np.asarray(said.mean(1) - deviations * apart)


def error_probabilities(differences: ArrayLike, spreads: ArrayLike) -> Floats:
    """How often an ensemble expects to be wrong of each comparison, [N].

    1 - sigmoid(|d| / sqrt(1 + pi s^2 / 8)): Bradley and Terry's chance of the other label, its
    difference normal around d with standard deviation s.

    Args:
        differences: d, mean reward of one response less that of the other, [N].
        spreads: s, the members' standard deviation of it, [N].

    Source: MacKay, "The evidence framework applied to classification networks" (1992), eq. 4.
    """
    d, s = np.asarray(differences, dtype=np.float64), np.asarray(spreads, dtype=np.float64)
    return np.asarray(expit(-np.abs(d) / np.sqrt(1 + math.pi * s**2 / 8)))


def conformal_scale(
    differences: ArrayLike, spreads: ArrayLike, level: float = MEMBER_LEVEL
) -> float:
    """The k of intervals d +- k s that reach the side of the label with probability `level`.

    A comparison is covered where d + k s >= 0, with d = chosen - rejected: the interval holds a
    difference of the label's sign. Its score is max(0, -d / s), and k the ceil((n + 1) level)-th
    smallest of n scores, so that the next comparison is covered with at least `level`, whatever
    the model, as long as it is drawn as these were; and with little more, unless fewer are wrong
    than 1 - level (then k is 0).

    Args:
        differences: d, chosen less rejected, [n].
        spreads: s > 0, [n].

    Returns:
        k; infinite where n is too small for the level.

    Source: split conformal prediction with normalised scores, Lei et al., JASA 113 (2018).
    """
    d, s = np.asarray(differences, dtype=np.float64), np.asarray(spreads, dtype=np.float64)
    place = math.ceil((d.size + 1) * level)
    if place > d.size:
        return math.inf
    return float(np.sort(_scores(d, s))[place - 1])


def _scores(d: Floats, s: Floats) -> Floats:
    """max(0, -d / s), with no division by a spread of 0: infinite where it is wrong there."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(d >= 0, 0.0, -d / s)


def conformal_coverage(
    differences: ArrayLike,
    spreads: ArrayLike,
    clusters: Iterable[Any],
    rng: np.random.Generator,
    *,
    level: float = MEMBER_LEVEL,
    fingerprint: str = "",
) -> tuple[Estimate, Floats, float] | None:
    """How many comparisons intervals d +- k s cover whose k was found on others.

    Prompts are halved at random; the intervals of each half have the k of the other half.

    Args:
        differences: d, chosen less rejected, [N]; NaN unscored.
        spreads: s, [N].
        clusters: [N] labels of prompts.

    Returns:
        The share covered; whether each is, [N] with NaN where unscored; and the mean of both k.
        None with fewer than 40 comparisons or 20 prompts, of which 90 % says little.
    """
    d, s = np.asarray(differences, dtype=np.float64), np.asarray(spreads, dtype=np.float64)
    codes = cluster_codes(clusters)
    known = np.isfinite(d) & np.isfinite(s)
    prompts = np.unique(codes[known])
    if known.sum() < LEAST_COMPARISONS or prompts.size < LEAST_PROMPTS:
        return None
    half: Codes = rng.permutation(prompts)[: prompts.size // 2]
    first = np.isin(codes, half)
    covered, scales = np.full(d.size, np.nan), []
    for inside in (first & known, ~first & known):
        others = known & ~inside
        scales.append(conformal_scale(d[others], s[others], level))
        covered[inside] = _scores(d[inside], s[inside]) <= scales[-1]
    share = clustered_mean(covered, codes, limits=(0.0, 1.0), fingerprint=fingerprint)
    return share, covered, float(np.mean(scales))


LEAST_COMPARISONS, LEAST_PROMPTS = 40, 20
