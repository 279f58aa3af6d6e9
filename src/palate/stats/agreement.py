"""How far annotators agree beyond chance, what that allows a judge, and position bias.

Cohen's kappa of two annotators, Krippendorff's alpha of many, the noise ceiling; and what the order
of two sides does to a judge.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, xlogy

from palate.stats.compare import holm
from palate.stats.estimate import (
    LEVEL,
    Estimate,
    Floats,
    accuracy,
    cluster_codes,
    clustered_mean,
    normal_quantile,
)

RESAMPLES = 1_000


def cohen_kappa(first: ArrayLike, second: ArrayLike, *, fingerprint: str = "") -> Estimate:
    """Cohen's kappa of two annotators who labelled the same items.

    kappa = (p - e) / (1 - e), where p is the share of items on which they agree and e what they
    would share by chance with the labels each of them uses. Error and 95 % interval are the
    large-sample ones for independent items, with shares p_ij of items, p_i. and p_.j of labels:

    V = (sum_i p_ii (1 - (p_i. + p_.i)(1 - kappa))^2 + (1 - kappa)^2 sum_{i != j} p_ij
    (p_.i + p_j.)^2 - (kappa - e (1 - kappa))^2) / (N (1 - e)^2).

    Args:
        first: [N] labels of one annotator.
        second: [N] labels of the other.
        fingerprint: copied to the estimate.

    Returns:
        An estimate with NaN for value and error where chance alone explains all (both use one
        and the same label) or there is no item.

    Raises:
        ValueError: the two have different lengths.

    Source: Fleiss, Cohen and Everitt, Psychological Bulletin 72 (1969) 323-327.
    """
    one, other = np.asarray(first), np.asarray(second)
    if one.shape != other.shape:
        raise ValueError(f"labels of {one.size} and {other.size} items: expected the same items")
    labels, codes = np.unique(np.concatenate([one, other]), return_inverse=True)
    method, size = "Cohen's kappa, large sample", one.size
    if labels.size < 2:
        return Estimate(math.nan, math.nan, -1.0, 1.0, size, 0, size, method, fingerprint)
    table = np.zeros((labels.size, labels.size))  # [L, L]: shares of items by both labels.
    np.add.at(table, (codes[:size], codes[size:]), 1 / size)
    rows, columns, same = table.sum(axis=1), table.sum(axis=0), np.eye(labels.size, dtype=np.bool_)
    agreed, chance = float(np.trace(table)), float(rows @ columns)
    kappa = (agreed - chance) / (1 - chance)
    crossed = (columns[:, None] + rows[None, :]) * (1 - kappa)
    variance = float((table * np.where(same, 1 - crossed, crossed) ** 2).sum())
    variance -= (kappa - chance * (1 - kappa)) ** 2
    error = math.sqrt(max(0.0, variance) / size) / (1 - chance)
    reach = normal_quantile() * error
    low, high = max(-1.0, kappa - reach), min(1.0, kappa + reach)
    return Estimate(kappa, error, low, high, size, 0, size, method, fingerprint)


def krippendorff_alpha(
    values: ArrayLike,
    items: Iterable[Any],
    clusters: Iterable[Any] | None = None,
    *,
    rng: np.random.Generator,
    distance: Literal["nominal", "interval"] = "nominal",
    fingerprint: str = "",
) -> Estimate:
    """Krippendorff's alpha of any number of annotators, each of whom labelled some of the items.

    alpha = 1 - D / E over the labels of items that have two or more. D is the mean distance of
    two labels of one item, each item of m labels weighted by m; E that of any two labels. The
    distance is 0 or 1 (nominal), or the squared difference (interval). The interval is that of
    2.5 % and 97.5 % of 1,000 resamples of whole clusters.

    Args:
        values: [M] labels as numbers.
        items: [M] the item that each label is of.
        clusters: [M] labels, equal within an item; None where items are independent.
        rng: draws the resamples.
        distance: between two labels.
        fingerprint: copied to the estimate.

    Returns:
        `n` counts labels that have another beside them, `n_unscored` the others. NaN where
        fewer than two clusters have such labels or all labels are the same.

    Source: Krippendorff, Computing Krippendorff's alpha-reliability (2011).
    """
    value, item = np.asarray(values, dtype=np.float64), cluster_codes(items)
    group = item if clusters is None else cluster_codes(clusters)
    paired = np.bincount(item)[item] > 1 if item.size else np.zeros(0, dtype=bool)
    alone = int((~paired).sum())
    value, item, group = value[paired], cluster_codes(item[paired]), cluster_codes(group[paired])
    size, groups = value.size, int(group.max()) + 1 if group.size else 0
    method = f"Krippendorff's alpha, {distance}, cluster bootstrap"
    if groups < 2 or (value == value[0]).all():
        nan = math.nan
        return Estimate(nan, nan, -1.0, 1.0, size, alone, groups, method, fingerprint)
    parts = _parts(value, item, group, distance)
    weights = rng.multinomial(groups, np.full(groups, 1 / groups), size=RESAMPLES)
    alpha = float(_alpha(np.ones((1, groups)), *parts)[0])
    drawn = _alpha(weights, *parts)
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    error = float(np.nanstd(drawn))
    ends = (min(alpha, float(low)), max(alpha, float(high)))
    return Estimate(alpha, error, *ends, size, alone, groups, method, fingerprint)


def _parts(
    value: Floats, item: NDArray[np.int64], group: NDArray[np.int64], distance: str
) -> tuple[Floats, Floats, Floats]:
    """Distances within items by cluster [G], labels by cluster and value [G, V], distances [V, V].

    Of one item with m labels the sum over ordered pairs is divided by m - 1.
    """
    labels, code = np.unique(value, return_inverse=True)
    apart = (labels[:, None] - labels[None, :]) ** 2
    if distance == "nominal":
        apart = (apart > 0).astype(np.float64)
    votes = np.zeros((int(item.max()) + 1, labels.size))
    np.add.at(votes, (item, code), 1)
    within = ((votes @ apart) * votes).sum(axis=1) / (votes.sum(axis=1) - 1)
    home = np.zeros(len(votes), dtype=np.int64)
    home[item] = group
    used = np.zeros((int(group.max()) + 1, labels.size))
    np.add.at(used, (group, code), 1)
    return np.bincount(home, weights=within).astype(np.float64), used, apart


def _alpha(weights: NDArray[Any], within: Floats, used: Floats, apart: Floats) -> Floats:
    """Alpha for each row of cluster weights, [B]; NaN where a resample has one label only."""
    counts = weights @ used
    size = counts.sum(axis=1)
    observed = (weights @ within) / size
    expected = ((counts @ apart) * counts).sum(axis=1) / (size * (size - 1))
    safe = np.where(expected > 0, expected, np.nan)
    return np.asarray(1 - observed / safe)


# How accurate the best judge can be where annotators disagree with each other.


def agreement_of_labels(
    labels: Iterable[Any],
    items: Iterable[Any],
    clusters: Iterable[Any] | None = None,
    *,
    fingerprint: str = "",
) -> Estimate:
    """The probability that two annotators of one item give it the same label.

    The mean over items of the share of pairs of annotators who agree, each item once; of labels
    with n_k of kind k among m, sum_k n_k (n_k - 1) / (m (m - 1)). Items with one label count as
    unscored.

    Args:
        labels: [M] labels of any kind, ties too.
        items: [M] the item that each label is of.
        clusters: [M] labels, equal within an item; None where items are independent.
        fingerprint: copied to the estimate.
    """
    item = cluster_codes(items)
    counts = _counts(cluster_codes(labels), item)
    size = counts.sum(axis=1)
    pairs = size * (size - 1)
    agreeing = (counts * (counts - 1)).sum(axis=1)
    shares = np.divide(agreeing, pairs, out=np.full(size.size, np.nan), where=pairs > 0)
    group = None
    if clusters is not None:
        group = np.zeros(size.size, dtype=np.int64)
        group[item] = cluster_codes(clusters)
    return clustered_mean(shares, group, limits=(0.0, 1.0), fingerprint=fingerprint)


def _counts(label: NDArray[np.int64], item: NDArray[np.int64]) -> Floats:
    """How often each item has each label. [N, L]"""
    shape = (int(item.max()) + 1, int(label.max()) + 1) if item.size else (0, 0)
    counts = np.zeros(shape)
    np.add.at(counts, (item, label), 1)
    return counts


@dataclass(frozen=True, slots=True)
class NoiseCeiling:
    """`agreement`: of two annotators of one item; `ceiling`: of the best judge with one annotator.

    The best judge lies between the two; `ceiling` is met where all items are equally hard.
    """

    agreement: Estimate
    ceiling: Estimate


def noise_ceiling(
    labels: ArrayLike,
    items: Iterable[Any],
    clusters: Iterable[Any] | None = None,
    *,
    fingerprint: str = "",
) -> NoiseCeiling | None:
    """Agreement of annotators, and the highest accuracy that any judge can be expected to have.

    With q the share of all annotators who would prefer one response of an item, the best judge
    agrees with a random annotator with probability max(q, 1-q) = (1 + |2q - 1|) / 2, and two
    annotators agree with a = q^2 + (1-q)^2, so that (2q - 1)^2 = 2a - 1. The mean of a over items
    is estimated without bias from pairs of annotators; the ceiling is (1 + sqrt(2a - 1)) / 2, by
    Jensen never below the mean of max(q, 1-q), and its interval is that of a, transformed.

    Args:
        labels: [M] 1 where the annotator preferred the item's first response, 0 where its second.
        items: [M] the item that was judged; items with one label count as unscored.
        clusters: [M] labels, equal within an item; or None where items are independent.
        fingerprint: copied to the estimates.

    Returns:
        None where fewer than two clusters have an item with two labels or more.
    """
    first = np.asarray(labels, dtype=np.int64)
    agreement = agreement_of_labels(first, items, clusters, fingerprint=fingerprint)
    if agreement.n_clusters < 2:
        return None
    value, low, high = (
        (1 + math.sqrt(max(0.0, 2 * a - 1))) / 2
        for a in (agreement.value, agreement.low, agreement.high)
    )
    slope = 2 * value - 1
    # Where annotators agree by luck alone the slope is vertical: the interval says it instead.
    error = agreement.error / (2 * slope) if slope > 0.05 else (high - low) / 4
    method = "agreement of annotators, transformed"
    ceiling = replace(agreement, value=value, error=error, low=low, high=high, method=method)
    return NoiseCeiling(agreement, ceiling)


# What the order of the two sides does to a judge that was asked in both.


def consistent(one: ArrayLike, other: ArrayLike) -> Floats:
    """1 where both orders gave the same outcome, else 0; NaN where one is unscored. [N]

    `one` and `other` [N] are values as in `accuracy`, of one item in its two orders.
    """
    first, second = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    return np.where(np.isnan(first + second), np.nan, (first == second).astype(np.float64))


def chose_first(one: ArrayLike, other: ArrayLike, chosen_first: ArrayLike) -> Floats:
    """The share of an item's two answers that took the side shown first, a tie a half. [N]

    Each response stood first once, so a judge without position bias has a mean of 1/2 whatever
    its accuracy. NaN where one is unscored. Their means and intervals are `accuracy`'s.

    Args:
        one, other: [N] values as in `accuracy`, of one item in its two orders.
        chosen_first: [N] whether the chosen response stood first in `one`.

    Source: Shi et al., arXiv 2406.07791.
    """
    first, second = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    stood = np.asarray(chosen_first, dtype=np.bool_)
    return (np.where(stood, first, 1 - first) + np.where(stood, 1 - second, second)) / 2


# Who agrees with the others, and who does not.


@dataclass(frozen=True, slots=True)
class AgainstOthers:
    """One annotator beside the others on the same items.

    `agreement`: the share of the others' labels of an item that equal theirs; `others`: the same of
    the others among themselves, on all items; None where no two others share an item. `p_value` is
    that of no difference, one test of the family of all annotators; None where there is no test.
    """

    annotator: Any
    agreement: Estimate
    others: float | None
    p_value: float | None

    @property
    def is_far(self) -> bool:
        """Whether they agree less than the others do among themselves, by more than chance."""
        return (
            self.others is not None
            and self.p_value is not None
            and self.p_value < LEVEL
            and self.agreement.value < self.others
        )


def against_others(
    labels: Iterable[Any],
    items: Iterable[Any],
    annotators: Iterable[Any],
    clusters: Iterable[Any] | None = None,
    *,
    fingerprint: str = "",
) -> list[AgainstOthers]:
    """Every annotator's agreement with the others, and whether it is far from theirs.

    A label's agreement x is the share of the other labels of its item that equal it. Annotator
    a's is the mean of x over the n_a labels beside which others stand; the others' is the mean of
    x over their labels without a's, of which N_a stand beside each other. Under the hypothesis
    that both means are one, p, estimated from all these labels, the difference has the variance

    V = G/(G-1) sum_g ((X_g - p n_g) / n_a - (S_g - p N_g) / N_a)^2

    over clusters g, where X_g, n_g are the sums of x and of labels of a, and S_g, N_g those of
    the others. The difference over sqrt(V) is held against Student's t with G - 1 degrees of
    freedom, G the smaller number of clusters on the two sides, and p is adjusted by Holm over the
    annotators. As the residuals are those of the hypothesis, three items on which all disagree
    prove nothing.

    Args:
        labels: [M] labels of any kind, ties too; at most one of an annotator and item.
        items: [M] the item that each label is of.
        annotators: [M] who gave it.
        clusters: [M] labels, equal within an item; None where items are independent.
        fingerprint: copied to the estimates.

    Returns:
        One entry for each annotator, in order of first appearance.

    Source: a score test with cluster-robust variance (Rotnitzky and Jewell, Biometrika 77 (1990)
    485-497); Holm (1979).
    """
    names = list(annotators)
    label, item, who = cluster_codes(labels), cluster_codes(items), cluster_codes(names)
    group = item if clusters is None else cluster_codes(clusters)
    counts = _counts(label, item)
    size = counts.sum(axis=1)
    home = np.zeros(size.size, dtype=np.int64)
    home[item] = group
    agreeing, beside = _beside_each_other(counts)
    groups = int(group.max()) + 1 if group.size else 0
    all_agreeing, all_beside = np.zeros(groups), np.zeros(groups)
    np.add.at(all_agreeing, home, agreeing)
    np.add.at(all_beside, home, beside)
    known = size[item] > 1
    share = np.full(label.size, np.nan)
    share[known] = (counts[item, label][known] - 1) / (size[item][known] - 1)

    found: list[AgainstOthers] = []
    order = np.argsort(who, kind="stable")
    for own in np.split(order, np.cumsum(np.bincount(who))[:-1]) if who.size else ():
        agreement = accuracy(share[own], group[own], fingerprint=fingerprint)
        name, own = names[int(own[0])], own[known[own]]
        # The others' sums change in the clusters of these items alone.
        left = counts[item[own]].copy()
        left[np.arange(own.size), label[own]] -= 1
        left_agreeing, left_beside = _beside_each_other(left)
        their_agreeing, their_beside = all_agreeing.copy(), all_beside.copy()
        np.add.at(their_agreeing, group[own], left_agreeing - agreeing[item[own]])
        np.add.at(their_beside, group[own], left_beside - beside[item[own]])
        others = p_value = None
        if total := their_beside.sum():
            others = float(their_agreeing.sum() / total)
            p_value = _p_of_one_mean(share[own], group[own], their_agreeing, their_beside)
        found.append(AgainstOthers(name, agreement, others, p_value))
    tested = [one for one in found if one.p_value is not None]
    adjusted = iter(holm([one.p_value for one in tested if one.p_value is not None]))
    return [one if one.p_value is None else replace(one, p_value=next(adjusted)) for one in found]


def _beside_each_other(counts: Floats) -> tuple[Floats, Floats]:
    """Of items' labels by kind [N, L], the sum of x and the labels that stand beside another."""
    size = counts.sum(axis=1)
    agreeing = (counts * (counts - 1)).sum(axis=1) / np.maximum(size - 1, 1)
    return agreeing, np.where(size > 1, size, 0.0)


def _p_of_one_mean(
    share: Floats, group: NDArray[np.int64], their_agreeing: Floats, their_beside: Floats
) -> float | None:
    """Two-sided p of equal means, of `share` [n] and of sums by cluster [G]; None if unknown."""
    own_clusters = int(np.unique(group).size)
    fewest = min(own_clusters, int((their_beside > 0).sum()))
    if fewest < 2:
        return None
    groups, size, total = len(their_beside), share.size, float(their_beside.sum())
    mean = (float(share.sum()) + float(their_agreeing.sum())) / (size + total)
    residuals = np.bincount(group, weights=share - mean, minlength=groups) / size
    residuals -= (their_agreeing - mean * their_beside) / total
    variance = fewest / (fewest - 1) * float(residuals @ residuals)
    if not variance > 0:
        return None
    difference = float(share.mean()) - float(their_agreeing.sum()) / total
    return float(2 * stdtr(fewest - 1, -abs(difference) / math.sqrt(variance)))


# What the truth may be where annotators disagree: how reliable each of them is, from their votes.

PRIOR_VOTES = 10.0
"""How many votes of the average annotator each one's own are mixed with."""


@dataclass(frozen=True, slots=True)
class DawidSkene:
    """Posterior of each item's outcome, and what it says of each annotator.

    Outcomes are in the order first response, tie, second. `shares` [N, 3] add up to 1. `decisive`
    [A, 3] are an annotator's probabilities of the better response, a tie and the worse one where
    one is better; `tied` [A] that of a tie where neither is. `prior_tie` is the share of ties.
    `likelihoods` holds the penalised log likelihood after each step; it never falls.
    """

    shares: Floats
    decisive: Floats
    tied: Floats
    prior_tie: float
    likelihoods: tuple[float, ...]


def dawid_skene(
    votes: ArrayLike,
    items: Iterable[Any],
    annotators: Iterable[Any],
    *,
    prior_votes: float = PRIOR_VOTES,
    max_steps: int = 1_000,
    tolerance: float = 1e-8,
) -> DawidSkene:
    """The outcomes of items and the reliability of annotators that explain their votes best.

    The outcome z of an item is first, tie or second with probability (1-t)/2, t, (1-t)/2. An
    annotator's vote depends on z and on nothing else of the item: where one response is better it
    is the better one, a tie or the worse one with probabilities d (three of them), where neither
    is it is a tie with probability q and either side with (1-q)/2. The sides of a pair have no
    meaning of their own, so neither has a probability of its own, and exchanging the sides of an
    item exchanges its shares and nothing else; confusion matrices without this law change with
    the order of the sides. EM starts at the shares of votes: the E step is Bayes' rule,

    P(z | votes) ~ P(z) prod_votes P(vote | annotator, z),

    the M step counts votes by these posteriors. First all annotators are one, which gives d0 and
    q0; then each has a Dirichlet prior worth `prior_votes` votes with these means (maximum a
    posteriori), so that one who voted twice is taken for an average one. Reliability is learnt
    from items of two votes or more, others get their posterior from it.

    Args:
        votes: [M, 3] shares of each vote for first, tie and second, which add up to 1.
        items: [M] the item of each vote.
        annotators: [M] who voted.
        prior_votes: weight of the average annotator in each one's probabilities, above 0.
        max_steps: of each of the two runs of EM.
        tolerance: EM ends where a step gains less than this a vote.

    Returns:
        Items and annotators are numbered as by `cluster_codes`.

    Raises:
        ValueError: shapes differ, or no item has two votes: nothing says who is reliable.

    Source: Dawid and Skene, Applied Statistics 28 (1979) 20-28; the prior as in Paun et al., TACL
    6 (2018) 571-585, with means from the data.
    """
    vote, item, who = np.asarray(votes, np.float64), cluster_codes(items), cluster_codes(annotators)
    if vote.shape != (item.size, 3) or who.size != item.size:
        raise ValueError(f"votes {vote.shape}, {item.size} items, {who.size} annotators: differ")
    several = np.bincount(item)[item] > 1 if item.size else np.zeros(0, dtype=np.bool_)
    if not several.any():
        raise ValueError("no item has two votes")
    taught, taught_item = vote[several], cluster_codes(item[several])
    mean = _fit(taught, taught_item, np.zeros(len(taught), np.int64), None, max_steps, tolerance)
    prior = mean.decisive[0] * prior_votes, mean.tied[0] * prior_votes, prior_votes
    # Annotators of single votes too: they are average ones.
    size = int(who.max()) + 1
    fitted = _fit(taught, taught_item, who[several], prior, max_steps, tolerance, size)
    shares, _ = _expect(vote, item, who, fitted.decisive, fitted.tied, fitted.prior_tie)
    return replace(fitted, shares=shares)


def _fit(
    vote: Floats,
    item: NDArray[np.int64],
    who: NDArray[np.int64],
    prior: tuple[Floats, float, float] | None,
    max_steps: int,
    tolerance: float,
    size: int = 1,
) -> DawidSkene:
    """EM from the shares of votes; `prior` counts votes: of d [3], of q, and all of q."""
    no_prior = (np.zeros(3), 0.0, 0.0)
    right, tied, all_tied = no_prior if prior is None else prior
    shares = np.zeros((int(item.max()) + 1, 3))
    np.add.at(shares, item, vote)
    shares /= shares.sum(axis=1, keepdims=True)
    likelihoods: list[float] = []
    decisive, tie, prior_tie = np.zeros((size, 3)), np.zeros(size), 0.0
    for _ in range(max_steps):
        prior_tie = float(shares[:, 1].mean())
        first, none, second = shares[item].T[..., None]  # [M, 1] each.
        decisive = np.tile(right, (size, 1))
        np.add.at(decisive, who, first * vote + second * vote[:, ::-1])
        decisive /= np.maximum(decisive.sum(axis=1, keepdims=True), np.finfo(float).tiny)
        votes_for_tie = tied + np.bincount(who, weights=none[:, 0] * vote[:, 1], minlength=size)
        votes_on_ties = all_tied + np.bincount(who, weights=none[:, 0], minlength=size)
        # Where nobody met a tie nothing is known of it, and its prior of zero makes it no matter.
        tie = np.divide(votes_for_tie, votes_on_ties, out=np.ones(size), where=votes_on_ties > 0)
        shares, likelihood = _expect(vote, item, who, decisive, tie, prior_tie)
        penalty = xlogy(right, decisive).sum()
        penalty += (xlogy(tied, tie) + xlogy(all_tied - tied, 1 - tie)).sum()
        likelihoods.append(likelihood + float(penalty))
        if len(likelihoods) > 1 and likelihoods[-1] - likelihoods[-2] < tolerance * len(vote):
            break
    return DawidSkene(shares, decisive, tie, prior_tie, tuple(likelihoods))


def _expect(
    vote: Floats,
    item: NDArray[np.int64],
    who: NDArray[np.int64],
    decisive: Floats,
    tied: Floats,
    prior_tie: float,
) -> tuple[Floats, float]:
    """Posterior shares of items [N, 3] by Bayes' rule, and the log likelihood of all votes."""
    side = (1 - tied) / 2
    by_outcome = (decisive, np.stack([side, tied, side], axis=1), decisive[:, ::-1])
    logs = np.zeros((int(item.max()) + 1, 3))
    for outcome, probabilities in enumerate(by_outcome):
        np.add.at(logs[:, outcome], item, xlogy(vote, probabilities[who]).sum(axis=1))
    with np.errstate(divide="ignore"):
        logs += np.log([(1 - prior_tie) / 2, prior_tie, (1 - prior_tie) / 2])
    total = np.logaddexp.reduce(logs, axis=1, keepdims=True)
    return np.exp(logs - total), float(total.sum())
