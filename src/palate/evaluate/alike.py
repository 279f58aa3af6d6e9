"""Whether two judges were asked the same: figures of unequal questions are not compared."""

from __future__ import annotations

from palate.evaluate.tally import Tally
from palate.types import PalateError


def on_equal_terms(first: Tally, second: Tally) -> tuple[Tally, Tally]:
    """Both judges as they answered in the seeded order, where one was asked in that alone."""
    if first.both == second.both:
        return first, second
    return first.one_order(), second.one_order()


def unlike(first: Tally, second: Tally) -> list[str]:
    """What was not asked alike of two judges, in words; empty where they may be compared.

    Looked at are the benchmark's name, data and items, order, seed and tie rule. What is not
    known of one of them is no difference.
    """
    pairs = {
        "benchmark": (first.benchmark, second.benchmark),
        "the benchmark's data": (first.terms.data, second.terms.data),
        "order of sides": (first.terms.order, second.terms.order),
        "seed": (first.terms.seed, second.terms.seed),
        "tie rule": (first.terms.tie_rule, second.terms.tie_rule),
    }
    found = [f"{what} ({a:.40}, {b:.40})" for what, (a, b) in pairs.items() if a and b and a != b]
    if first.items != second.items:
        sizes = f"{first.ids.size:,} and {second.ids.size:,}"
        shared = len(set(first.ids) & set(second.ids))
        found.append(f"items ({sizes}, {shared:,} in common)")
    return found


def refuse_unlike(first: Tally, second: Tally) -> None:
    """Raise `PalateError` with all that was not asked alike of two judges, if anything."""
    if found := unlike(first, second):
        raise PalateError(
            f"{first.judge!r} and {second.judge!r} were not asked the same and are not compared: "
            f"{'; '.join(found)}. Evaluate both on one benchmark in one order with one seed"
        )
