"""A table drawn in a file: Markdown, CSV, LaTeX, JSON values."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from palate import escape
from palate.report.table import DASH, Cell, Column, Row, Table

PAPER_MARK = "†"
PAPER_NOTE = "figure printed in the paper (arXiv 2307.09288); its error and n are not given"


def _marks(table: Table, cell: Cell) -> str:
    if not cell.notes:
        return ""  # Looking through every cell for each would be quadratic.
    numbers = table.notes()
    found = [str(numbers.index(note) + 1) for note in cell.notes]
    return ",".join(found)


def below(table: Table) -> Iterator[str]:
    """Remarks and footnotes under a table, a line each."""
    yield from table.remarks
    if any(cell.paper for cell in table.cells()):
        yield f"{PAPER_MARK} {PAPER_NOTE}."
    for number, note in enumerate(table.notes(), 1):
        yield f"[{number}] {note}"


def shown(table: Table, cell: Cell) -> str:
    """A cell's text with its marks: of the paper, of footnotes."""
    marks = _marks(table, cell)
    text = cell.text + (PAPER_MARK if cell.paper and cell.text != DASH else "")
    return f"{text} [{marks}]" if marks else text


def markdown(table: Table) -> str:
    """The table as GitHub Markdown, its title a heading."""
    heads = [
        escape.markdown(f"{c.name} ({c.detail})" if c.detail else c.name) for c in table.columns
    ]
    lines = [f"## {escape.markdown(table.title)}", "", _bar(heads)]
    lines.append(_bar(["---:" if column.figures else "---" for column in table.columns]))
    lines += [_bar([_markdown_cell(table, cell) for cell in row.cells]) for row in table.rows]
    notes = [escape.markdown(line) for line in below(table)]
    return "\n".join([*lines, "", "  \n".join(notes), ""] if notes else [*lines, ""])


def _markdown_cell(table: Table, cell: Cell) -> str:
    text = escape.markdown(shown(table, cell))
    return f"*{text}*" if cell.paper and text else text


def _bar(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def comma_separated(table: Table) -> str:
    """The table as CSV: estimates in percent with low, high and n in columns of their own.

    Published figures have no low, high and n; their group tells them apart.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*(h for column in table.columns for h in _heads(column)), "group", "notes"])
    for row in table.rows:
        if row.heading:
            continue
        notes = "; ".join(dict.fromkeys(note for cell in row.cells for note in cell.notes))
        pairs = zip(table.columns, row.cells, strict=True)
        fields = [field for column, cell in pairs for field in _fields(column, cell)]
        writer.writerow([*fields, escape.spreadsheet(row.group), escape.spreadsheet(notes)])
    return out.getvalue()


def _heads(column: Column) -> list[str]:
    title = escape.spreadsheet(column.name)
    return [title, f"{title} low", f"{title} high", f"{title} n"] if column.estimates else [title]


def _fields(column: Column, cell: Cell) -> list[str]:
    if not column.estimates:
        return [escape.spreadsheet("" if cell.text == DASH else cell.text)]
    if cell.estimate is None:
        return [cell.text if cell.paper and cell.text != DASH else "", "", "", ""]
    e = cell.estimate
    return [*(f"{100 * share:.3f}" for share in (e.value, e.low, e.high)), str(e.n)]


def latex(table: Table) -> str:
    """The table as LaTeX for the booktabs package."""
    form = "".join("r" if column.figures else "l" for column in table.columns)
    heads = [f"{c.name} ({c.detail})" if c.detail else c.name for c in table.columns]
    lines = [
        rf"\begin{{table}}\caption{{{escape.latex(table.title)}}}",
        rf"\begin{{tabular}}{{{form}}}",
    ]
    lines += [r"\toprule", _latex_row([escape.latex(head) for head in heads]), r"\midrule"]
    for index, row in enumerate(table.rows):
        if index and row.group != table.rows[index - 1].group:
            lines.append(r"\midrule")
        lines.append(_latex_row([_latex_cell(table, cell) for cell in row.cells]))
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\footnotesize {escape.latex(line)}" for line in below(table)]
    return "\n".join([*lines, r"\end{table}", ""]).replace(PAPER_MARK, r"$^\dagger$")


def _latex_cell(table: Table, cell: Cell) -> str:
    text = escape.latex(shown(table, cell))
    return rf"\textit{{{text}}}" if cell.paper else text


def _latex_row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def values(table: Table) -> dict[str, Any]:
    """The table as JSON values, every estimate whole."""
    return {
        "name": table.name,
        "title": table.title,
        "columns": [asdict(column) for column in table.columns],
        "rows": [_row_values(row) for row in table.rows],
        "remarks": list(table.remarks),
    }


def _row_values(row: Row) -> dict[str, Any]:
    return {"group": row.group, "cells": [_cell_values(cell) for cell in row.cells]}


def _cell_values(cell: Cell) -> dict[str, Any]:
    made: dict[str, Any] = {"text": cell.text}
    if cell.estimate is not None:
        made["estimate"] = asdict(cell.estimate)
    if cell.notes:
        made["notes"] = list(cell.notes)
    if cell.paper:
        made["paper"] = True
    return made


# A table on a terminal. A table wider than the window continues below, never cut.

HEADING_WIDTH = 14
TEXT_WIDTH = 26
UNLIMITED = 10_000  # A file or a pipe has no window.


def show(tables: Iterable[Table], console: Console) -> None:
    """Print tables to a console; all text is literal, never markup. A remark is said once."""
    said: set[str] = set()
    for table in tables:
        _show(table, console, said)


def _show(table: Table, console: Console, said: set[str]) -> None:
    window = console.width if console.is_terminal else UNLIMITED
    parts = _parts(table, window)
    for number, columns in enumerate(parts):
        title = table.title if number == 0 else f"{table.title}, continued"
        _print(_view(table, columns, title), console, window)
    for line in below(table):
        if line not in said:
            said.add(line)
            console.print(Text(f"  {line}", style="dim"), soft_wrap=not console.is_terminal)
    console.print()


def _print(view: RichTable, console: Console, window: int) -> None:
    # rich takes 80 columns for a file and would squeeze the table; it has no option against it.
    before = console.width
    console.width = window
    try:
        console.print(view)
    finally:
        console.width = before


def _parts(table: Table, window: int) -> list[list[int]]:
    """Columns of each part: those of text in every one, those of figures as many as fit."""
    widths = [_width(table, index) for index in range(len(table.columns))]
    text = [i for i, column in enumerate(table.columns) if not column.figures]
    taken = sum(widths[i] for i in text) + 2
    parts: list[list[int]] = [[]]
    room = window - taken
    for index in (i for i, column in enumerate(table.columns) if column.figures):
        if parts[-1] and room < widths[index]:
            parts.append([])
            room = window - taken
        parts[-1].append(index)
        room -= widths[index]
    return [sorted([*text, *part]) for part in parts]


def _width(table: Table, index: int) -> int:
    column = table.columns[index]
    lines = [*_heading(column).split("\n"), *(shown(table, r.cells[index]) for r in table.rows)]
    natural = max(cell_len(line) for line in lines)
    return 2 + (natural if column.figures else min(natural, TEXT_WIDTH))


def _heading(column: Column) -> str:
    lines = textwrap.wrap(column.name, HEADING_WIDTH) if column.figures else [column.name]
    return "\n".join([*lines, column.detail] if column.detail else lines)


def _view(table: Table, columns: Sequence[int], title: str) -> RichTable:
    view = RichTable(
        title=Text(title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, min_width=1
    )
    for index in columns:
        column = table.columns[index]
        view.add_column(
            Text(_heading(column)),
            justify="right" if column.figures else "left",
            overflow="fold",
            no_wrap=column.figures,
            max_width=None if column.figures else TEXT_WIDTH,
        )
    for number, row in enumerate(table.rows):
        before = table.rows[number - 1] if number else None
        after = table.rows[number + 1] if number + 1 < len(table.rows) else None
        view.add_row(
            *_cells(table, row, before, columns),
            style="dim" if row.heading else None,
            end_section=after is not None and after.group != row.group,
        )
    return view


def _cells(table: Table, row: Row, before: Row | None, columns: Sequence[int]) -> list[Text]:
    """The cells of a row; a first cell that repeats the one above is left blank."""
    cells = [
        Text(shown(table, row.cells[i]), style="italic" if row.cells[i].paper else "")
        for i in columns
    ]
    repeats = before is not None and before.cells[0] == row.cells[0] and before.group == row.group
    if repeats and not table.columns[0].figures:
        cells[0] = Text("")
    return cells
