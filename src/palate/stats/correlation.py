"""How far two numbers of the same responses go together, with an interval clustered by prompt."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from palate.stats.estimate import CONFIDENCE, Estimate, Floats, cluster_codes, scored

GROUPS = 100
"""Groups of clusters that are left out in turn, at most: each costs a correlation of the rest."""


def correlation(
    x: ArrayLike,
    y: ArrayLike,
    clusters: Iterable[Any] | None = None,
    *,
    ranks: bool = False,
    confidence: float = CONFIDENCE,
    fingerprint: str = "",
) -> Estimate:
    """Pearson's correlation r of two columns, or Spearman's, with an interval on Fisher's scale.

    z = atanh(r), V = (G-1)/G sum_g (z_g - mean of z_g)^2, interval tanh(z +- t sqrt(V)), with z_g
    of all but the clusters of group g, G <= 100 groups, t Student's with G-1 degrees of freedom.
    `error` is sqrt(V) on the scale of r, (1 - r^2) sqrt(V).

    Args:
        x, y: [N]; NaN marks what is not known, and leaves the item out.
        clusters: [N] labels (prompts), or None where items are independent.
        ranks: Spearman's: of ranks, equal values their mean.
        confidence: coverage asked for.
        fingerprint: copied to the estimate.

    Returns:
        NaN where a column does not vary; the interval is then [-1, 1], as for fewer than three
        clusters.

    Source: the delete-a-group jackknife, Kott, Journal of Official Statistics 17 (2001); the scale,
    Fisher 1921.
    """
    first, second = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"expected two columns [N], got {first.shape} and {second.shape}")
    known = np.where(np.isnan(first), np.nan, second)
    second, codes, missing = scored(known, clusters)
    first = first[~np.isnan(known)]
    codes = cluster_codes(codes)
    count = int(codes.max()) + 1 if codes.size else 0
    value = _correlation(first, second, ranks=ranks)
    error, low, high = math.nan, -1.0, 1.0
    groups = min(count, GROUPS)
    if math.isfinite(value) and abs(value) < 1 and groups > 2:
        group = codes % groups
        left = (group != g for g in range(groups))
        others = np.array([_correlation(first[rest], second[rest], ranks=ranks) for rest in left])
        others = np.arctanh(np.clip(others[np.isfinite(others)], -1 + 1e-12, 1 - 1e-12))
        if others.size > 2:
            g = others.size
            spread = math.sqrt((g - 1) / g * float(((others - others.mean()) ** 2).sum()))
            reach = float(stdtrit(g - 1, 0.5 + confidence / 2)) * spread
            centre = math.atanh(value)
            low, high = math.tanh(centre - reach), math.tanh(centre + reach)
            error = (1 - value**2) * spread
    method = f"{'Spearman' if ranks else 'Pearson'}, jackknife of groups of clusters"
    return Estimate(
        value, error, low, high, second.size, missing, count, method, fingerprint, confidence
    )


def _correlation(x: Floats, y: Floats, *, ranks: bool) -> float:
    if x.size < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    if ranks:
        from scipy.stats import rankdata  # Slow to import, and few commands need it.

        x, y = rankdata(x), rankdata(y)
    return float(np.corrcoef(x, y)[0, 1])
