"""A table printed: on a terminal, as Markdown, CSV, LaTeX, JSON.

`text` is where a value becomes a text, whatever the table.
"""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from palate import escape
from palate.report.table import Cell, Column, Row, Table, Unit
from palate.stats import Estimate

DASH = "–"
PAPER_MARK = "†"
PAPER_NOTE = "figure printed in the paper (arXiv 2307.09288); its error and n are not given"


# A value as text.


def percent(share: float) -> str:
    """A fraction as percent with one decimal, without a negative zero."""
    text = f"{100 * share:.1f}"
    return "0.0" if text == "-0.0" else text


def p_value(p: float) -> str:
    """A p-value as statisticians print it: `p = 0.012`, `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {min(p, 1.0):.3f}"


def confidence(estimate: Estimate) -> str:
    """The confidence of an interval in percent: `95`, or `99.722` in a family of tests."""
    return f"{100 * estimate.confidence:.5g}"


def value_and_interval(estimate: Estimate, unit: Unit) -> tuple[str, str]:
    """`63.2` and ` ± 1.9`: an estimate, and how far its interval reaches on its longer side."""
    if unit is Unit.SCORE:
        return f"{estimate.value:.2f}", f" [{estimate.low:.2f}, {estimate.high:.2f}]"
    value = percent(estimate.value)
    if unit is Unit.DIFFERENCE and not value.startswith("-"):
        value = f"+{value}"
    return value, f" ± {percent(estimate.half_width)}"


NUMBERS: Mapping[Unit, Callable[[Any], str]] = {
    Unit.SHARE: percent,
    Unit.PERCENT: percent,
    Unit.PERCENT_RANGE: lambda ends: f"{percent(ends[0])} to {percent(ends[1])}",
    Unit.SEED: str,
    Unit.P_VALUE: p_value,
    Unit.TREND: lambda trend: f"z = {trend.z:.1f}, {p_value(trend.p_value)}",
    Unit.LOSS: "{:.4f}".format,
    Unit.LOSS_CHANGE: "{:+.4f}".format,
    Unit.EPOCH: "{:.2f}".format,
    Unit.PLAIN_SCORE: "{:.2f}".format,
    Unit.THRESHOLD: "{:.1f}".format,
}


def text(column: Column, cell: Cell) -> str:
    """A cell's value in its column's unit; a dash where there is none."""
    value = cell.value
    if value is None:
        return DASH
    if isinstance(value, str):
        return value
    if isinstance(value, Estimate):
        printed = "".join(value_and_interval(value, column.unit))
        return f"{printed} {cell.letters}" if cell.letters else printed
    if isinstance(value, int) and column.unit is not Unit.SEED:
        return f"{value:,}"  # A count, also where it heads a column of shares.
    return NUMBERS[column.unit](value)


def texts(table: Table) -> list[list[str]]:
    """The texts of all cells, row by row."""
    return [list(map(text, table.columns, row.cells)) for row in table.rows]


def with_marks(table: Table) -> list[list[str]]:
    """The texts of all cells with their marks: of the paper, of footnotes."""
    numbers = {note: str(number) for number, note in enumerate(table.notes(), 1)}
    return [
        [
            shown
            + (PAPER_MARK if cell.paper and cell.value is not None else "")
            + (f" [{','.join(numbers[note] for note in cell.notes)}]" if cell.notes else "")
            for shown, cell in zip(shown_row, row.cells, strict=True)
        ]
        for shown_row, row in zip(texts(table), table.rows, strict=True)
    ]


def below(table: Table) -> Iterator[str]:
    """Remarks and footnotes under a table, a line each."""
    yield from table.remarks
    if any(cell.paper for cell in table.cells()):
        yield f"{PAPER_MARK} {PAPER_NOTE}."
    for number, note in enumerate(table.notes(), 1):
        yield f"[{number}] {note}"


# A table in a file.


def markdown(table: Table) -> str:
    """The table as GitHub Markdown, its title a heading."""

    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cells)} |"

    notes = [escape.markdown(note) for note in below(table)]
    lines = [
        f"## {escape.markdown(table.title)}",
        "",
        line(escape.markdown(_heading(column)) for column in table.columns),
        line("---:" if column.figures else "---" for column in table.columns),
    ]
    for row, shown in zip(table.rows, with_marks(table), strict=True):
        safe = zip(row.cells, map(escape.markdown, shown), strict=True)
        lines.append(line(f"*{text}*" if cell.paper and text else text for cell, text in safe))
    return "\n".join([*lines, "", "  \n".join(notes), ""] if notes else [*lines, ""])


def _heading(column: Column) -> str:
    return f"{column.name} ({column.detail})" if column.detail else column.name


def comma_separated(table: Table) -> str:
    """The table as CSV: estimates in percent with low, high and n in columns of their own.

    Published figures have no low, high and n; their group tells them apart.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head: list[str] = []
    for column in table.columns:
        name = escape.spreadsheet(column.name)
        head += [name, f"{name} low", f"{name} high", f"{name} n"] if column.estimates else [name]
    writer.writerow([*head, "group", "notes"])
    for row in table.rows:
        if row.heading:
            continue
        fields: list[str] = []
        for column, cell in zip(table.columns, row.cells, strict=True):
            e, shown = cell.estimate, "" if cell.value is None else text(column, cell)
            if not column.estimates:
                fields.append(escape.spreadsheet(shown))
            elif e is None:
                fields += [shown, "", "", ""]
            else:
                fields += [*(f"{100 * share:.3f}" for share in (e.value, e.low, e.high)), str(e.n)]
        notes = "; ".join(dict.fromkeys(note for cell in row.cells for note in cell.notes))
        writer.writerow([*fields, escape.spreadsheet(row.group), escape.spreadsheet(notes)])
    return out.getvalue()


def latex(table: Table) -> str:
    """The table as LaTeX for the booktabs package."""

    def line(cells: Iterable[str]) -> str:
        return " & ".join(cells) + r" \\"

    lines = [
        rf"\begin{{table}}\caption{{{escape.latex(table.title)}}}",
        rf"\begin{{tabular}}{{{''.join('r' if c.figures else 'l' for c in table.columns)}}}",
        r"\toprule",
        line(escape.latex(_heading(column)) for column in table.columns),
        r"\midrule",
    ]
    for number, (row, shown) in enumerate(zip(table.rows, with_marks(table), strict=True)):
        if number and row.group != table.rows[number - 1].group:
            lines.append(r"\midrule")
        safe = zip(row.cells, map(escape.latex, shown), strict=True)
        lines.append(line(rf"\textit{{{text}}}" if cell.paper else text for cell, text in safe))
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\footnotesize {escape.latex(note)}" for note in below(table)]
    return "\n".join([*lines, r"\end{table}", ""]).replace(PAPER_MARK, r"$^\dagger$")


def values(table: Table) -> dict[str, Any]:
    """The table as JSON values: every cell as it is printed, every estimate whole beside it."""
    return {
        "name": table.name,
        "title": table.title,
        "columns": [
            {"name": c.name, "detail": c.detail, "figures": c.figures, "estimates": c.estimates}
            for c in table.columns
        ],
        "rows": [
            {"group": row.group, "cells": list(map(_cell_values, table.columns, row.cells))}
            for row in table.rows
        ],
        "remarks": list(table.remarks),
    }


def _cell_values(column: Column, cell: Cell) -> dict[str, Any]:
    values: dict[str, Any] = {"text": text(column, cell)}
    if cell.estimate is not None:
        values["estimate"] = asdict(cell.estimate)
    if cell.notes:
        values["notes"] = list(cell.notes)
    if cell.paper:
        values["paper"] = True
    return values


# A table on a terminal. A table wider than the window continues below, never cut.

HEADING_WIDTH = 14
TEXT_WIDTH = 26
UNLIMITED = 10_000  # A file or a pipe has no window.


def show(tables: Iterable[Table], console: Console) -> None:
    """Print tables to a console; all text is literal, never markup. A remark is printed once."""
    remarks: set[str] = set()
    window = console.width if console.is_terminal else UNLIMITED
    for table in tables:
        shown = with_marks(table)
        for number, places in enumerate(_parts(table, shown, window)):
            title = table.title if number == 0 else f"{table.title}, continued"
            # rich takes 80 columns for a file and would squeeze the table; it has no option
            # against it.
            before, console.width = console.width, window
            try:
                console.print(_part(table, shown, places, title))
            finally:
                console.width = before
        for line in below(table):
            if line not in remarks:
                remarks.add(line)
                console.print(Text(f"  {line}", style="dim"), soft_wrap=not console.is_terminal)
        console.print()


def _parts(table: Table, shown: Sequence[Sequence[str]], window: int) -> list[list[int]]:
    """Columns of each part: those of text in every one, those of figures as many as fit."""
    widths = []
    for place, column in enumerate(table.columns):
        lines = [*_wrapped(column).split("\n"), *(row[place] for row in shown)]
        natural = max(map(cell_len, lines))
        widths.append(2 + (natural if column.figures else min(natural, TEXT_WIDTH)))
    figures = [place for place, column in enumerate(table.columns) if column.figures]
    names = [place for place, column in enumerate(table.columns) if not column.figures]
    free = window - sum(widths[place] for place in names) - 2
    parts: list[list[int]] = [[]]
    room = free
    for place in figures:
        if parts[-1] and room < widths[place]:
            parts.append([])
            room = free
        parts[-1].append(place)
        room -= widths[place]
    return [sorted([*names, *part]) for part in parts]


def _wrapped(column: Column) -> str:
    lines = textwrap.wrap(column.name, HEADING_WIDTH) if column.figures else [column.name]
    return "\n".join([*lines, column.detail] if column.detail else lines)


def _part(
    table: Table, shown: Sequence[Sequence[str]], places: Sequence[int], title: str
) -> RichTable:
    """Some columns of a table; a first cell that repeats the one above is left blank."""
    part = RichTable(
        title=Text(title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, min_width=1
    )
    for column in (table.columns[place] for place in places):
        part.add_column(
            Text(_wrapped(column)),
            justify="right" if column.figures else "left",
            overflow="fold",
            no_wrap=column.figures,
            max_width=None if column.figures else TEXT_WIDTH,
        )
    above: Row | None = None
    for number, row in enumerate(table.rows):
        cells = [
            Text(shown[number][i], style="italic" if row.cells[i].paper else "") for i in places
        ]
        repeats = above is not None and (above.cells[0], above.group) == (row.cells[0], row.group)
        if repeats and not table.columns[0].figures:
            cells[0] = Text("")
        last = number + 1 == len(table.rows) or table.rows[number + 1].group != row.group
        part.add_row(
            *cells,
            style="dim" if row.heading else None,
            end_section=last and number + 1 < len(table.rows),
        )
        above = row
    return part
