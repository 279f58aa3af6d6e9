"""Marks as comparisons: another annotation batch, which a recipe mixes like any other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from palate.records import write_comparisons
from palate.types import Comparison, PalateError, comparison_id
from palate.view.catalogue import Catalogue
from palate.view.item import comparisons_at
from palate.view.marks import Mark

BATCH = "marks"


@dataclass(frozen=True, slots=True)
class Exported:
    """What became of the marks: rows written, marks without a choice, of comparisons not here."""

    rows: int
    undecided: int
    absent: int

    def __str__(self) -> str:
        left = {"without a choice": self.undecided, "of comparisons not in this run": self.absent}
        said = [f"{count:,} {why}" for why, count in left.items() if count]
        return f"{self.rows:,} comparisons" + (f"; left out: {', '.join(said)}" if said else "")


def export_marks(
    catalogue: Catalogue, marks: Iterable[Mark], path: Path, batch: str = BATCH
) -> Exported:
    """Write the marks that prefer a response as a file of comparisons.

    Raises:
        PalateError: no mark prefers a response of this run, or the file cannot be written.
    """
    marks = list(marks)
    decided = [mark for mark in marks if mark.choice]
    items = catalogue.items_of([mark.comparison_id for mark in decided])
    kept = [(mark, items[mark.comparison_id][0]) for mark in decided if mark.comparison_id in items]
    if not kept:
        raise PalateError(f"{path}: none of {len(marks)} marks prefers a response of this run")
    texts = comparisons_at(catalogue, (item for _, item in kept))
    rows = (relabelled(texts[item], mark, batch) for mark, item in kept)
    header = write_comparisons(path, rows, details={"marks": len(marks)})
    return Exported(header.rows, len(marks) - len(decided), len(decided) - len(kept))


def relabelled(comparison: Comparison, mark: Mark, batch: str = BATCH) -> Comparison:
    """The comparison as the person who marked it sees it.

    The prompt's id is kept, so that splits and statistics keep its cluster whole. What `meta`
    says of the old label (strength, a simulation's truth) is left behind.
    """
    agrees = mark.choice == "chosen"
    sides = (comparison.chosen, comparison.rejected)
    safe = (comparison.chosen_safe, comparison.rejected_safe)
    chosen, rejected = sides if agrees else sides[::-1]
    chosen_safe, rejected_safe = safe if agrees else safe[::-1]
    row = f"{BATCH}:{mark.annotator}"
    return Comparison(
        id=comparison_id(comparison.source, comparison.prompt, chosen, rejected, row),
        source=comparison.source,
        prompt=comparison.prompt,
        chosen=chosen,
        rejected=rejected,
        prompt_id=comparison.prompt_id,
        batch=batch,
        rating=mark.rating,
        chosen_safe=chosen_safe,
        rejected_safe=rejected_safe,
        annotator=mark.annotator,
        meta={
            "of": comparison.id,
            "part": mark.part,
            "label": "agree" if agrees else "disagree",
            "blind": mark.blind,
            "note": mark.note,
            "marked_at": mark.changed_at,
        },
    )
