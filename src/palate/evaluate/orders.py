"""What the order of sides did to a judge that was shown both: accuracy, consistency, position."""

from __future__ import annotations

from dataclasses import dataclass

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
    single, (one, other) = votes.one_order(), votes.orders.values.T
    first = stats.chose_first(one, other, votes.orders.chosen_first)
    return OrderFigures(
        one=single.accuracy(),
        both=votes.accuracy(),
        consistent=_share(votes, stats.consistent(one, other)),
        first=_share(votes, first),
    )


def _share(votes: Tally, values: Floats) -> Estimate:
    """The one place where the interval of a share over items with both orders is made."""
    return stats.accuracy(values, votes.clusters, fingerprint=votes.fingerprint)
