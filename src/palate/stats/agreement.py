"""How far annotators agree beyond chance: Cohen's kappa of two, Krippendorff's alpha of many."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from palate.stats.estimate import Estimate, normal_quantile
from palate.stats.intervals import cluster_codes

Floats = NDArray[np.float64]
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
