"""A table as the page shows it: figures taken apart for alignment, hover texts, links to items."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from palate.escape import plain
from palate.evaluate.metrics import Result
from palate.report.render import PAPER_MARK, below
from palate.report.table import DASH, Cell, Column, Row, Table, confidence, percent
from palate.stats import Estimate

Link = Callable[[Mapping[str, str]], str]
"""The address of the items behind a figure, empty where none are shown."""


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


def view(table: Table, link: Link, results: Mapping[tuple[str, str], Result]) -> TableView:
    """The table; `results` give the outcomes behind its figures."""
    notes = {note: str(number) for number, note in enumerate(table.notes(), 1)}
    grouped = any(row.heading for row in table.rows)
    rows: list[list[Row]] = [list(table.rows)]
    if grouped:
        rows = [list(held) for _, held in groupby(table.rows, lambda row: row.cells[0].text)]
    bodies = tuple(tuple(_lines(table, held, notes, link, results)) for held in rows if held)
    lines = [line.cells for body in bodies for line in body]
    heads = tuple(
        (column.name.strip(), column.detail, _form(column, [cells[place] for cells in lines]))
        for place, column in enumerate(table.columns)
    )
    return TableView(table.name, table.title, heads, bodies, tuple(below(table)))


def _form(column: Column, held: Sequence[Shown]) -> str:
    arms, letters = any(shown.arm for shown in held), any(shown.letters for shown in held)
    return " ".join(
        word for word, true in (("n", column.figures), ("arm", arms), ("letters", letters)) if true
    )


def _lines(
    table: Table,
    rows: list[Row],
    notes: Mapping[str, str],
    link: Link,
    results: Mapping[tuple[str, str], Result],
) -> Iterator[Line]:
    above: Row | None = None
    for row in rows:
        cells: list[Shown] = []
        for place, (column, cell) in enumerate(zip(table.columns, row.cells, strict=True)):
            same = above is not None and above.cells[place].text == cell.text
            repeats = same and not column.figures and all(shown.repeats for shown in cells)
            cells.append(_shown(cell, column.figures, repeats, notes, link, results))
        first = above is not None and above.group != row.group
        yield Line(tuple(cells), row.heading, first)
        above = row


def _shown(
    cell: Cell,
    figures: bool,
    repeats: bool,
    notes: Mapping[str, str],
    link: Link,
    results: Mapping[tuple[str, str], Result],
) -> Shown:
    text, arm, letters = cell.text, "", ""
    if cell.estimate is not None and " ± " in text:
        text, _, rest = text.partition(" ± ")
        arm, _, letters = rest.partition(" ")
    if figures:
        text = text.replace("-", "−") if text[:1] in "-+" else text
    behind = dict(cell.behind)
    return Shown(
        text=text,
        arm=f" ± {arm}" if arm else PAPER_MARK if cell.paper and figures and text != DASH else "",
        letters=letters,
        marks=",".join(notes[note] for note in cell.notes),
        tip=_tip(cell.estimate, behind, results) if cell.estimate else "",
        link=link(behind) if behind else "",
        sort=_sort(cell),
        paper=cell.paper,
        repeats=repeats,
    )


def _sort(cell: Cell) -> str:
    if cell.estimate is not None:
        return f"{cell.estimate.value:.6g}"
    number = cell.text.replace(",", "").split(" ")[-1].removesuffix("%")
    try:
        return f"{float(number):.6g}"
    except ValueError:
        return cell.text


def _tip(e: Estimate, behind: Mapping[str, str], results: Mapping[tuple[str, str], Result]) -> str:
    """Interval, n and method; of a judge on a benchmark also its outcomes and protocol."""
    among = f" in {e.n_clusters:,} prompts" if e.n_clusters not in (0, e.n) else ""
    unscored = f", {e.n_unscored:,} without a score" if e.n_unscored else ""
    low, high = percent(e.low), percent(e.high)
    lines = [
        f"{confidence(e)} % interval {low} to {high}",
        f"n = {e.n:,}{among}{unscored}",
        e.method,
    ]
    result = results.get((behind.get("judge", ""), behind.get("benchmark", "")))
    if result is not None:
        if result.counts is not None and len(behind) == 2:
            c = result.counts
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
        said = (f"{key} {str(judge[key])[:24]}" for key in keys if judge.get(key) not in (None, ""))
        yield plain("; ".join(said), 200)
