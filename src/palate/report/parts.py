"""Accuracy on parts of a benchmark: by difference in length, turns of the prompt, source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np

from palate.evaluate.compare import TURNS
from palate.evaluate.metrics import Result, Tally
from palate.evaluate.results import Codes
from palate.report import escape
from palate.report.accuracy import judge_name
from palate.report.items import Items
from palate.report.read import Judged
from palate.report.tables import Cell, Column, Row, Table, count, figure

LENGTH, TURN, SOURCE = "length difference", "turns of the prompt", "source"
FIFTHS = (0.2, 0.4, 0.6, 0.8)
REMARKS = (
    "Length difference: characters of the preferred response less those of the other, in fifths "
    "of the items. A part's interval is its own: parts are not tested against each other here "
    "(`palate compare` does that for two judges).",
)
Split = tuple[str, list[str], Codes]
"""By what, the names of the parts in order, and which part each item falls in, -1 for none."""


def parts(judged: Judged, items: Mapping[str, Items]) -> Table | None:
    """Accuracy of each judge that is not trivial on each part; None where nothing is known."""
    rows = [
        row
        for result, votes in judged.tallied()
        if result.kind != "trivial"
        for split in _splits(votes, items.get(votes.benchmark))
        for row in _rows(result, votes, split)
    ]
    columns = (
        *(Column(name, figures=False) for name in ("Benchmark", "Judge", "By", "Part")),
        Column("Accuracy", estimates=True),
        Column("items"),
    )
    title = "Parts: accuracy (%) by difference in length, turns of the prompt, source"
    return Table("parts", title, columns, tuple(rows), REMARKS) if rows else None


def _rows(result: Result, votes: Tally, split: Split) -> Iterator[Row]:
    by, names, which = split
    held = [(name, which == number) for number, name in enumerate(names)]
    if sum(bool(items.any()) for _, items in held) < 2:
        return
    heads = (Cell(escape.name(result.benchmark)), Cell(judge_name(result.judge)), Cell(by))
    group = ", ".join(cell.text for cell in heads)
    for name, items in held:
        if items.any():
            found = votes.accuracy(items)
            yield Row((*heads, Cell(escape.name(name)), figure(found), count(found.n)), group)


def _splits(votes: Tally, items: Items | None) -> Iterator[Split]:
    difference = votes.chosen_lengths - votes.rejected_lengths
    if not np.isnan(difference).all():
        yield LENGTH, *_fifths(difference)
    if items is None:
        return
    places = items.places(votes.ids)
    known = places >= 0
    turns = np.where(known, np.digitize(items.turns[places], TURNS, right=True), -1)
    yield TURN, _turn_names(), turns
    names, codes = np.unique(items.sources[places].astype(str), return_inverse=True)
    yield SOURCE, names.tolist(), np.where(known, codes, -1)


def _fifths(difference: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[list[str], Codes]:
    known = ~np.isnan(difference)
    edges = np.unique(np.round(np.quantile(difference[known], FIFTHS)))
    which = np.where(known, np.digitize(difference, edges), -1)
    ends = [f"{edge:+,.0f}".replace("-", "−") for edge in edges]
    middle = [f"{low} to {high}" for low, high in pairwise(ends)]
    return [f"below {ends[0]}", *middle, f"{ends[-1]} and more"], which


def _turn_names() -> list[str]:
    first, second, third = TURNS
    return ["1", f"{first + 1} to {second}", f"{second + 1} to {third}", f"more than {third}"]
