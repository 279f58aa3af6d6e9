"""How accurate the best judge can be where annotators disagree with each other."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from palate.stats.estimate import Estimate
from palate.stats.intervals import cluster_codes, clustered_mean


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
    first = np.asarray(labels, dtype=np.float64)
    item = cluster_codes(items)
    count = np.bincount(item)
    votes = np.bincount(item, weights=first)
    pairs = count * (count - 1) / 2
    agreeing = (votes * (votes - 1) + (count - votes) * (count - votes - 1)) / 2
    shares = np.divide(agreeing, pairs, out=np.full(count.size, np.nan), where=pairs > 0)
    group = None
    if clusters is not None:
        group = np.zeros(count.size, dtype=np.int64)
        group[item] = cluster_codes(clusters)
    agreement = clustered_mean(shares, group, limits=(0.0, 1.0), fingerprint=fingerprint)
    if agreement.n_clusters < 2:
        return None
    return NoiseCeiling(agreement, _ceiling(agreement))


def _ceiling(agreement: Estimate) -> Estimate:
    value, low, high = (_best(a) for a in (agreement.value, agreement.low, agreement.high))
    slope = 2 * value - 1
    # Where annotators agree by luck alone the slope is vertical: the interval says it instead.
    error = agreement.error / (2 * slope) if slope > 0.05 else (high - low) / 4
    method = "agreement of annotators, transformed"
    return replace(agreement, value=value, error=error, low=low, high=high, method=method)


def _best(agreement: float) -> float:
    return (1 + math.sqrt(max(0.0, 2 * agreement - 1))) / 2
