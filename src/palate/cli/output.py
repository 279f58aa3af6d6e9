"""Results to stdout as a table, JSON or CSV; progress to stderr."""

from __future__ import annotations

import csv
import json
import os
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
        numbers = [row[name] for row in rows if row[name] not in (None, "")]
        numeric = all(isinstance(n, int | float) for n in numbers)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        # Text, not markup: cells may come from data, which is untrusted.
        table.add_row(*(Text(_cell(value)) for value in row.values()))
    console = Console()
    if not console.is_terminal:  # In a file or pipe a table has the width it needs.
        endless = console.options.update(width=10_000)
        console = Console(width=max(80, console.measure(table, options=endless).maximum))
    console.print(table)


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
    """A function that writes a line of progress to stderr; of several ranks, rank 0 speaks."""
    from rich.console import Console

    console = Console(stderr=True, quiet=rank() > 0)
    # soft_wrap: in a log, a reason that is longer than a window stays one line.
    return lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def interruptible(resume: str) -> Generator[None]:
    """Turn Ctrl-C into one line that says how to go on, and exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        if rank() == 0:
            sys.stderr.write(
                f"\npalate: interrupted; what was finished is saved; resume with: {resume}\n"
            )
        raise typer.Exit(130) from None


def rank() -> int:
    """Which of the processes that torchrun started this is; 0 where it is the only one."""
    return int(os.environ.get("RANK", 0))


def command_line() -> str:
    """The command as it was typed, for `resume with`; torchrun's own words are not known here."""
    import shlex
    from pathlib import Path

    started = Path(sys.argv[0]).name
    if started == "__main__.py":
        started = "torchrun ... -m palate" if "RANK" in os.environ else "python -m palate"
    return f"{started} {shlex.join(sys.argv[1:])}"


@contextmanager
def counting(unit: str) -> Generator[Callable[[int, int, str], None]]:
    """A bar on stderr, and the function that moves it: (done, in all, what there is to say)."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    # A bar in a log file is a line for each of its states; of several ranks, rank 0 shows one.
    hidden = not console.is_terminal or rank() > 0
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task(unit, total=None)

        def told(done: int, total: int, note: str) -> None:
            bar.update(task, completed=done, total=total)
            if note and rank() == 0:
                bar.console.print(note, markup=False, highlight=False)

        yield told
