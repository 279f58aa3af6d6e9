"""A table as the page shows it: figures taken apart for alignment, hover texts, links to items."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby

from palate.escape import plain
from palate.evaluate.metrics import Result
from palate.report.render import PAPER_MARK, below, confidence, percent, text, value_and_interval
from palate.report.table import Cell, Column, Row, Table, Unit
from palate.stats import Estimate, Trend

MINUS = re.compile(r"(?<![\w.])-(?=\d)")  # Of a number, not within a name or a range.
Link = Callable[[Mapping[str, str]], str]
"""The address of the items behind a figure, empty where none are shown."""
Results = Mapping[tuple[str, str], Result]
"""By (judge, benchmark): the outcomes and the protocol behind a figure."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A cell: `text` with its `arm` (± half width, or the paper's mark), `letters` and `marks`.

    `sort` is what the column is sorted by; `repeats` says that the cell above says the same.
    """

    text: str
    arm: str = ""
    letters: str = ""
    marks: str = ""
    tip: str = ""
    link: str = ""
    sort: str = ""
    paper: bool = False
    repeats: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A row; `first` of its group, or a heading that says n."""

    cells: tuple[Shown, ...]
    heading: bool
    first: bool


@dataclass(frozen=True, slots=True)
class TableView:
    """A table as the template draws it; each body is sorted by itself.

    `heads` are (name, detail, class): `n` of figures, `arm` of those with intervals, `letters`.
    """

    name: str
    title: str
    heads: tuple[tuple[str, str, str], ...]
    bodies: tuple[tuple[Line, ...], ...]
    notes: tuple[str, ...]


def view(table: Table, link: Link, results: Results) -> TableView:
    """The table; `results` give the outcomes behind its figures."""
    numbers = {note: str(number) for number, note in enumerate(table.notes(), 1)}
    bodies: list[list[Row]] = [list(table.rows)]
    if any(row.heading for row in table.rows):
        bodies = [list(rows) for _, rows in groupby(table.rows, lambda row: row.cells[0].value)]
    shown: list[tuple[Line, ...]] = []
    for rows in filter(None, bodies):
        lines: list[Line] = []
        for number, row in enumerate(rows):
            above = rows[number - 1] if number else None
            cells = [
                _shown(column, cell, numbers, link, results)
                for column, cell in zip(table.columns, row.cells, strict=True)
            ]
            # Names are repeated up to the first that differs from the row above.
            for place, column in enumerate(table.columns):
                same = above is not None and above.cells[place].value == row.cells[place].value
                if column.figures or not same:
                    break
                cells[place] = replace(cells[place], repeats=True)
            first = above is not None and above.group != row.group
            lines.append(Line(tuple(cells), row.heading, first))
        shown.append(tuple(lines))
    heads = []
    for place, column in enumerate(table.columns):
        cells = [line.cells[place] for lines in shown for line in lines]
        words = {
            "n": column.figures,
            "arm": any(cell.arm for cell in cells),
            "letters": any(cell.letters for cell in cells),
        }
        form = " ".join(word for word, true in words.items() if true)
        heads.append((column.name.strip(), column.detail, form))
    return TableView(table.name, table.title, tuple(heads), tuple(shown), tuple(below(table)))


def _shown(
    column: Column, cell: Cell, numbers: Mapping[str, str], link: Link, results: Results
) -> Shown:
    behind, e = dict(cell.behind), cell.estimate
    value, arm = text(column, cell), ""
    if e is not None and column.unit is not Unit.SCORE:
        value, arm = value_and_interval(e, column.unit)
    elif cell.paper and column.figures and cell.value is not None:
        arm = PAPER_MARK
    if column.figures:
        value = MINUS.sub("−", value)
    return Shown(
        text=value,
        arm=arm,
        letters=cell.letters,
        marks=",".join(numbers[note] for note in cell.notes),
        tip=_tip(e, behind, results) if e else "",
        link=link(behind) if behind else "",
        sort=_sort(column, cell),
        paper=cell.paper,
    )


def _sort(column: Column, cell: Cell) -> str:
    """What a cell is sorted by: figures by their value, the rest by its text."""
    match cell.value:
        case Estimate(value=number) | Trend(p_value=number) | (_, number):
            return f"{number:.6g}"
        case int() | float() as number:
            return f"{number:.6g}"
        case _:
            return text(column, cell)


def _tip(e: Estimate, behind: Mapping[str, str], results: Results) -> str:
    """Interval, n and method; of a judge on a benchmark also its outcomes and protocol."""
    among = f" in {e.n_clusters:,} prompts" if e.n_clusters not in (0, e.n) else ""
    unscored = f", {e.n_unscored:,} without a score" if e.n_unscored else ""
    lines = [
        f"{confidence(e)} % interval {percent(e.low)} to {percent(e.high)}",
        f"n = {e.n:,}{among}{unscored}",
        e.method,
    ]
    result = results.get((behind.get("judge", ""), behind.get("benchmark", "")))
    if result is not None:
        if (c := result.counts) is not None and len(behind) == 2:
            lines.append(
                f"{c.correct:,} right, {c.wrong:,} wrong, {c.tie:,} tied; {c.truncated:,} truncated"
            )
        lines += _protocol(result)
    return "\n".join(line for line in lines if line)


def _protocol(result: Result) -> Iterator[str]:
    protocol = result.protocol
    order, seed = protocol.get("order"), protocol.get("seed")
    if order is not None:
        yield plain(f"order of sides: {order}, seed {seed}", 80)
    judge = protocol.get("judge")
    if isinstance(judge, Mapping):
        keys = ("judge", "revision", "max_tokens", "dtype", "template", "preset")
        known = (
            f"{key} {str(judge[key])[:24]}" for key in keys if judge.get(key) not in (None, "")
        )
        yield plain("; ".join(known), 200)
