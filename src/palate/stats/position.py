"""What the order of the two sides does to a judge that was asked in both."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from palate.stats.intervals import Floats


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
