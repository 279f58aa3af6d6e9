"""What the order of sides did to a judge that was shown both: accuracy, consistency, position."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from palate import stats
from palate.evaluate.tally import Floats, Tally
from palate.stats import Estimate


@dataclass(frozen=True, slots=True)
class OrderFigures:
    """The readings of one judge on one benchmark.

    `one` is the accuracy in the seeded order alone, `both` over both orders. `consistent` is the
    share of items on which both orders gave the same outcome, `first` the share of answers that
    chose the response shown first (a tie counts one half). The last two are over items that were
    scored in both orders, where each response stood first once: a judge without position bias
    has `first` at one half, whatever its accuracy.
    """

    one: Estimate
    both: Estimate
    consistent: Estimate
    first: Estimate


def order_figures(votes: Tally) -> OrderFigures | None:
    """Every figure with its interval, clustered by prompt; None where one order alone was asked."""
    if not votes.both:
        return None
    single = votes.one_order()
    return OrderFigures(
        one=stats.accuracy(single.values, single.clusters, fingerprint=single.fingerprint),
        both=stats.accuracy(votes.values, votes.clusters, fingerprint=votes.fingerprint),
        consistent=_share(votes, consistent(votes)),
        first=_share(votes, chose_first(votes)),
    )


def consistent(votes: Tally) -> Floats:
    """1 where both orders gave the same outcome, else 0; NaN where not scored in both. [N]"""
    one, other = votes.orders.values.T
    return np.where(np.isnan(one + other), np.nan, (one == other).astype(np.float64))


def chose_first(votes: Tally) -> Floats:
    """The share of an item's two answers that chose the first side; NaN as above. [N]"""
    one, other = votes.orders.values.T
    stood_first = votes.orders.chosen_first
    return (np.where(stood_first, one, 1 - one) + np.where(stood_first, 1 - other, other)) / 2


def _share(votes: Tally, values: Floats) -> Estimate:
    """The one place where the interval of a share over items with both orders is made."""
    return stats.accuracy(values, votes.clusters, fingerprint=votes.fingerprint)
