"""Scores that are made of means: sections, weighted subsets, several measures of the same items.

A score is sum_t w_t m_t, each m_t the mean of some items' values. Its error follows from what each
cluster adds to it, so that one prompt may stand in several subsets and several means.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from scipy.special import stdtrit

from palate.stats.compare import (
    ROUNDING,
    Ends,
    PairedDifference,
    agreeing,
    discordance_ends,
    flip_p,
    paired_difference,
    sign_flips,
    student_ends,
    unseen_discordance,
)
from palate.stats.estimate import (
    CONFIDENCE,
    Codes,
    Estimate,
    Floats,
    accuracy,
    cluster_codes,
    normal_quantile,
    wilson,
)

METHOD = "wilson on effective n, sum of means"
EMPTY = "a mean of no items"


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """A mean that counts `weight` in a score.

    `values` [N] are the items', NaN where an item is no part of this mean; `amounts` [N] say how
    much each counts in it, alike where there are none. `chance` is what the mean is expected to be
    where scores are random.
    """

    weight: float
    values: Floats
    chance: float = math.nan
    amounts: Floats | None = None

    @property
    def mean(self) -> float:
        """The mean of its items; NaN where it has none."""
        rows = ~np.isnan(self.values)
        if not rows.any():
            return math.nan
        amounts = None if self.amounts is None else self.amounts[rows]
        return float(np.average(self.values[rows], weights=amounts))

    def shares(self) -> Floats:
        """How much of the score a unit of each item's value is, [N]; 0 where it has no part."""
        rows = ~np.isnan(self.values)
        amounts = np.where(rows, 1.0 if self.amounts is None else self.amounts, 0.0)
        return self.weight * amounts / amounts.sum()


Terms = Sequence[Term]


def composite(
    terms: Terms,
    clusters: Iterable[Any] | None = None,
    *,
    confidence: float = CONFIDENCE,
    fingerprint: str = "",
) -> Estimate:
    """The score sum_t w_t m_t in [0, 1] with an interval that holds for clustered items.

    Each cluster g adds I_g = sum_t sum_{i in g} w_t a_i (x_i - m_t) / A_t to the error, a_i being
    amounts and A_t their sum, times sqrt(G_t / (G_t - 1)) for the G_t clusters of a mean; V = sum_g
    I_g^2. The interval is Wilson's on n_e = p(1-p) / V (z / t)^2, t with Satterthwaite's degrees of
    freedom over the means. One mean of equal weights is `accuracy`. V = 0: n_e is the number of
    clusters; a mean of one cluster has no known variance: n_e = 1.

    Args:
        terms: means of the same N items; with an empty one there is no score (n = 0).
        clusters: [N] labels, or None where items are independent.
        confidence: coverage asked for.
        fingerprint: copied to the estimate.

    Source: linearisation of a stratified, clustered mean, Sarndal, Swensson and Wretman, Model
    Assisted Survey Sampling, 1992, sections 5.5 and 5.7; Wilson on it as in `accuracy`.
    """
    codes = _codes(terms, clusters)
    if any(np.isnan(term.values).all() for term in terms):
        return replace(accuracy([], fingerprint=fingerprint, confidence=confidence), method=EMPTY)
    if len(terms) == 1 and terms[0].weight == 1 and terms[0].amounts is None:
        own = ~np.isnan(terms[0].values)
        return accuracy(
            terms[0].values[own], codes[own], confidence=confidence, fingerprint=fingerprint
        )
    value = math.fsum(term.weight * term.mean for term in terms)
    variance, freedom, rows = _variance(terms, codes)
    count = np.unique(codes[rows]).size
    if math.isnan(variance):
        effective = 1.0
    elif variance == 0:
        effective = float(count)
    else:
        ratio = normal_quantile(confidence) / float(stdtrit(freedom, 0.5 + confidence / 2))
        inside = min(max(value, 1e-9), 1 - 1e-9)
        effective = max(1.0, inside * (1 - inside) / variance * ratio**2)
    share = min(max(value, 0.0), 1.0)
    bound = wilson(share * effective, effective, confidence=confidence)
    error = math.sqrt(variance) if variance > 0 else bound.error
    low, high = min(bound.low, value), max(bound.high, value)
    n = int(rows.sum())
    return Estimate(value, error, low, high, n, 0, count, METHOD, fingerprint, confidence)


def composite_difference(
    first: Terms,
    second: Terms,
    clusters: Iterable[Any] | None,
    rng: np.random.Generator,
    *,
    fingerprint: str = "",
) -> PairedDifference:
    """By how much the first judge's score is above the second's, on items that both have.

    The error is that of `composite` for the differences of the values, with a Student-t interval;
    the test flips the signs of what clusters add. One mean of equal weights is
    `paired_difference`.

    Args:
        first, second: the same means, term by term, of the same N items.
        clusters: [N] labels, or None where items are independent.
        rng: draws the sign flips.
        fingerprint: copied to the estimate.
    """
    codes = _codes(first, clusters)
    if len(first) == 1 and first[0].weight == 1 and first[0].amounts is None:
        one, two = first[0].values, second[0].values
        own = ~np.isnan(one) & ~np.isnan(two)
        return paired_difference(one[own], two[own], codes[own], rng, fingerprint=fingerprint)
    gaps = [
        replace(one, values=one.values - two.values) for one, two in zip(first, second, strict=True)
    ]
    variance, freedom, rows = _variance(gaps, codes)
    added = np.zeros(codes.size)
    for gap in gaps:
        added += np.nan_to_num(gap.values) * gap.shares()
    n, value = int(rows.sum()), float(added.sum())
    error = math.sqrt(variance)
    count = np.unique(codes[rows]).size
    estimate = Estimate(value, error, -1.0, 1.0, n, 0, count, "clustered t", fingerprint)
    free: Ends = partial(student_ends, estimate, max(1.0, freedom), (-1.0, 1.0))
    if count > 1 and error <= ROUNDING:
        estimate = unseen_discordance(estimate)
        free = partial(discordance_ends, estimate)
    # As sums over n items, which is what `agreeing` compares with the value.
    observed, values, chances = sign_flips(added[rows] * n, codes[rows], rng)
    return agreeing(
        estimate,
        flip_p(observed, values, chances),
        "cluster sign-flip",
        free,
        lambda level: float(values[chances >= level][-1]),
    )


def _codes(terms: Terms, clusters: Iterable[Any] | None) -> Codes:
    size = terms[0].values.size
    codes = np.arange(size) if clusters is None else cluster_codes(clusters)
    if codes.size != size:
        raise ValueError(f"{size} values but {codes.size} cluster labels")
    return codes


def _variance(terms: Terms, codes: Codes) -> tuple[float, float, np.ndarray[Any, Any]]:
    """(V, degrees of freedom, the items [N] that are in any mean); V is NaN where it is unknown."""
    rows = np.zeros(codes.size, dtype=np.bool_)
    total = np.zeros(int(codes.max(initial=0)) + 1)
    parts, known = list[tuple[float, int]](), True
    for term in terms:
        own = ~np.isnan(term.values)
        rows |= own
        count = np.unique(codes[own]).size
        if count < 2:
            known = known and not term.weight
            continue
        residuals = np.where(own, np.nan_to_num(term.values) - term.mean, 0.0) * term.shares()
        added = np.bincount(codes, residuals, total.size) * math.sqrt(count / (count - 1))
        total += added
        parts.append((float(added @ added), count - 1))
    below = math.fsum(part**2 / freedom for part, freedom in parts)
    freedom = math.fsum(part for part, _ in parts) ** 2 / below if below else 1.0
    return (float(total @ total) if known else math.nan), freedom, rows
