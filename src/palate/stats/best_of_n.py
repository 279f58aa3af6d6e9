"""What a score is worth in use: the quality of the best of n responses by that score."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln

from palate.stats.estimate import Estimate
from palate.stats.intervals import Floats, clustered_mean


def best_of_n_curve(
    scores: ArrayLike,
    quality: ArrayLike,
    sizes: Sequence[int],
    clusters: Iterable[Any] | None = None,
    *,
    fingerprint: str = "",
) -> dict[int, Estimate]:
    """The expected quality of the response with the highest score among n, for each n of `sizes`.

    Of M responses to a prompt, the k-th lowest by score is the best of n drawn without
    replacement with probability C(k-1, n-1) / C(M, n): the mean over all draws, not one of them.
    Responses with equal scores share their places. With `scores` = `quality` it is the curve of
    a perfect judge. The interval is t on the variance over prompts.

    Args:
        scores: [P, M], finite.
        quality: [P, M] what is known of the responses, in any unit.
        sizes: values of n, from 1 to M.
        clusters: [P] labels of prompts that belong together, or None.
        fingerprint: copied to the estimates.

    Raises:
        ValueError: shapes differ, scores are not finite, or an n is outside 1 to M.
    """
    s, q = np.asarray(scores, dtype=np.float64), np.asarray(quality, dtype=np.float64)
    if s.shape != q.shape or s.ndim != 2 or not np.isfinite(s).all():
        raise ValueError(f"scores {s.shape}, quality {q.shape}: expected equal [P, M], finite")
    if wrong := [n for n in sizes if not 1 <= n <= s.shape[1]]:
        raise ValueError(f"n = {wrong[0]}: expected 1 to {s.shape[1]} responses a prompt")
    ranked = _by_rank(s, q)
    labels = None if clusters is None else list(clusters)
    return {
        n: clustered_mean(ranked @ _chances(s.shape[1], n), labels, fingerprint=fingerprint)
        for n in sizes
    }


def divergence(n: int) -> float:
    """KL of best-of-n from the policy it draws from, at most: log n - (n - 1) / n, in nats.

    Source: Stiennon et al., arXiv 2009.01325; a bound by Beirami et al., arXiv 2401.01879.
    """
    return math.log(n) - (n - 1) / n


def _by_rank(scores: Floats, quality: Floats) -> Floats:
    """Quality in ascending order of score [P, M]; where scores are equal, their mean quality."""
    order = np.argsort(scores, axis=1, kind="stable")
    s, q = np.take_along_axis(scores, order, 1), np.take_along_axis(quality, order, 1)
    starts = np.ones(s.shape, dtype=np.bool_)
    starts[:, 1:] = s[:, 1:] != s[:, :-1]
    tied = np.cumsum(starts.ravel()) - 1
    means = np.bincount(tied, weights=q.ravel()) / np.bincount(tied)
    return np.asarray(means[tied].reshape(s.shape), dtype=np.float64)


def _chances(total: int, n: int) -> Floats:
    """P(the k-th lowest of `total` is the highest of n drawn), k = 1 ... total."""
    k = np.arange(1, total + 1)
    below = np.maximum(k - n, 0)
    logs = (gammaln(k) - gammaln(n) - gammaln(below + 1)) - (
        gammaln(total + 1) - gammaln(n + 1) - gammaln(total - n + 1)
    )
    return np.where(k >= n, np.exp(logs), 0.0)
