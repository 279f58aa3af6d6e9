"""The noise ceiling of a benchmark whose items were judged by several annotators."""

from __future__ import annotations

from collections.abc import Iterable

from palate import stats
from palate.evaluate.metrics import Result
from palate.evaluate.tally import items_digest
from palate.types import Comparison, digest

CEILING_NAME = "Noise ceiling"


def noise_ceiling(
    benchmark: str, comparisons: Iterable[Comparison], *, paper_column: str | None = None
) -> Result | None:
    """The highest accuracy that annotators' agreement with each other allows a judge.

    Comparisons of one prompt and the same two responses are one item. See `stats.noise_ceiling`;
    None where too few items were judged more than once.
    """
    rows = list(comparisons)
    asked = items_digest(row.id for row in rows)
    sides = [tuple(sorted((row.chosen, row.rejected))) for row in rows]
    made = stats.noise_ceiling(
        [row.chosen == first for row, (first, _) in zip(rows, sides, strict=True)],
        [(row.prompt, *both) for row, both in zip(rows, sides, strict=True)],
        [row.prompt_id for row in rows],
        fingerprint=digest(CEILING_NAME, benchmark, asked),
    )
    if made is None:
        return None
    return Result(CEILING_NAME, benchmark, "limit", made.ceiling, paper_column, items=asked)
