"""A table on a terminal. A table wider than the window continues below, never cut."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from palate.report.render import below, shown
from palate.report.tables import Column, Row, Table

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
