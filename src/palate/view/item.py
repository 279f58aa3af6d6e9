"""One comparison, with what every judge made of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from palate.records import comparison_from_row
from palate.types import Comparison, PalateError
from palate.view.catalogue import Catalogue, Part

_AT = """
SELECT * FROM read_parquet(?, file_row_number = true)
WHERE file_row_number IN (SELECT unnest(?::BIGINT[]))
"""


@dataclass(frozen=True, slots=True)
class Said:
    """What one judge said of an item in one order of the sides."""

    judge: str
    outcome: str
    chosen_score: float | None
    rejected_score: float | None
    chosen_first: bool
    reason: str
    truncated: bool
    answer: str

    @property
    def margin(self) -> float | None:
        """Chosen minus rejected score."""
        if self.chosen_score is None or self.rejected_score is None:
            return None
        return self.chosen_score - self.rejected_score


@dataclass(frozen=True, slots=True)
class Item:
    """A comparison by its number in the catalogue; `said` by judge, both orders where asked."""

    number: int
    part: Part
    comparison: Comparison
    said: Mapping[str, tuple[Said, ...]]


def read_item(catalogue: Catalogue, number: int) -> Item:
    """Read an item and its verdicts from their files.

    Raises:
        PalateError: there is no such item, or its file was replaced since the run was opened.
    """
    comparison = comparisons_at(catalogue, [number])[number]
    part = catalogue.part_of(number)
    return Item(number, part, comparison, _said(catalogue, part, comparison.id))


def comparisons_at(catalogue: Catalogue, numbers: Iterable[int]) -> dict[int, Comparison]:
    """The comparisons of some items, by item; raises as `read_item` does."""
    numbers = sorted(set(numbers))
    if numbers and not 0 <= numbers[0] <= numbers[-1] < catalogue.size:
        raise PalateError(f"items {numbers[0]} to {numbers[-1]}: the run has {catalogue.size}")
    ids = dict(zip(numbers, catalogue.ids_of(numbers), strict=True))
    found: dict[int, Comparison] = {}
    for part, own in groupby(numbers, key=catalogue.part_of):
        rows = [number - part.start for number in own]
        for row in _rows(catalogue, _AT, [str(part.path), rows]):
            found[part.start + row["file_row_number"]] = comparison_from_row(row)
    if {number: comparison.id for number, comparison in found.items()} != ids:
        raise PalateError(
            f"{catalogue.folder}: changed since it was opened; start `palate view` again"
        )
    return found


def _said(catalogue: Catalogue, part: Part, id: str) -> dict[str, tuple[Said, ...]]:
    said: dict[str, tuple[Said, ...]] = {}
    for file in catalogue.files:
        if part.kind == "benchmark" and file.benchmark == part.name:
            query = "SELECT * FROM read_parquet(?) WHERE comparison_id = ?"
            said[file.judge] = tuple(map(_one, _rows(catalogue, query, [str(file.path), id])))
    return said


def _one(row: Mapping[str, Any]) -> Said:
    names = Said.__dataclass_fields__
    # Verdicts of an earlier format have no column for the answer.
    return Said(**{"answer": ""} | {name: row[name] for name in names if name in row})


def _rows(catalogue: Catalogue, query: str, parameters: list[Any]) -> list[dict[str, Any]]:
    found = catalogue.database.cursor().execute(query, parameters)
    names = [column[0] for column in found.description or ()]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
