"""Results to stdout as a table, JSON or CSV; progress to stderr."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any

import typer


class Format(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


FormatOption = Annotated[Format, typer.Option("--format", help="How results are printed.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="Override one key of the recipe; repeatable."),
]
DataOption = Annotated[
    str | None,
    typer.Option("--data", envvar="PALATE_DATA", show_envvar=True, help="Data root folder."),
]


def emit(rows: Iterable[Mapping[str, Any]], form: Format, title: str = "") -> None:
    """Print rows of one shape to stdout."""
    rows = list(rows)
    if form is Format.JSON:
        sys.stdout.write(json.dumps(rows, indent=2, ensure_ascii=False, default=str) + "\n")
    elif form is Format.CSV:
        _csv(rows)
    else:
        _table(rows, title)


def _csv(rows: list[Mapping[str, Any]]) -> None:
    writer = csv.DictWriter(sys.stdout, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)


def _table(rows: list[Mapping[str, Any]], title: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left")
    for name in rows[0] if rows else []:
        numeric = all(isinstance(row[name], int | float) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        # Text, not markup: cells may come from data, which is untrusted.
        table.add_row(*(Text(_cell(value)) for value in row.values()))
    Console().print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    # Control characters of untrusted text would move the cursor of a terminal.
    return "".join(c if c.isprintable() else " " for c in str(value))


def progress() -> Callable[[str], None]:
    """A function that writes a line of progress to stderr."""
    from rich.console import Console

    console = Console(stderr=True)
    return lambda line: console.print(line, markup=False, highlight=False)


@contextmanager
def interruptible(resume: str) -> Generator[None]:
    """Turn Ctrl-C into one line that says how to go on, and exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write(
            f"\npalate: interrupted; what was finished is saved; resume with: {resume}\n"
        )
        raise typer.Exit(130) from None


def command_line() -> str:
    """The command as it was typed, for `resume with`."""
    import shlex
    from pathlib import Path

    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
