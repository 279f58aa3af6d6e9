"""A table drawn in a file: Markdown, CSV, LaTeX, JSON values."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from palate.report import escape
from palate.report.tables import DASH, Cell, Column, Row, Table

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
