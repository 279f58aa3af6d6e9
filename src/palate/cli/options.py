"""Results to stdout as a table, JSON or CSV; progress to stderr."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from palate.process import this_process


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
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print results and errors, no progress.")
]
DataOption = Annotated[
    str | None,
    typer.Option("--data", envvar="PALATE_DATA", show_envvar=True, help="Data root folder."),
]


def emit(
    rows: Iterable[Mapping[str, Any]], form: Format, title: str = "", *, width: int = 10_000
) -> None:
    """Print rows of one shape to stdout; a table in a file or pipe at most `width` columns wide."""
    rows = list(rows)
    if form is Format.JSON:
        text = json.dumps(list(map(_as_json, rows)), indent=2, ensure_ascii=False, default=str)
        sys.stdout.write(f"{text}\n")
    elif form is Format.CSV:
        _csv(rows)
    else:
        _table(rows, title, width)


def _as_json(value: Any) -> Any:
    """A value as JSON has it: a number that nobody knows (NaN of nothing) is null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _as_json(one) for key, one in value.items()}
    return list(map(_as_json, value)) if isinstance(value, list | tuple) else value


def _csv(rows: list[Mapping[str, Any]]) -> None:
    writer = csv.DictWriter(sys.stdout, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)


def _table(rows: list[Mapping[str, Any]], title: str, width: int) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        sys.stdout.write(f"{title}: none\n" if title else "")
        return
    table = Table()
    for name in rows[0]:
        numbers = [row[name] for row in rows if row[name] not in (None, "")]
        numeric = all(isinstance(n, int | float) for n in numbers)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        # Text, not markup: cells may come from data, which is untrusted.
        table.add_row(*(Text(_cell(value)) for value in row.values()))
    console = Console()
    if not console.is_terminal:  # In a file or pipe a table has the width it needs.
        endless = console.options.update(width=10_000)
        needed = console.measure(table, options=endless).maximum
        console = Console(width=min(max(80, needed), width))
    if title:  # Whole, however narrow the table is; and no markup, for it may name a file.
        console.print(Text(title, style="table.title"), soft_wrap=not console.is_terminal)
    console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    # Control characters of untrusted text would move the cursor of a terminal.
    return "".join(c if c.isprintable() else " " for c in str(value))


def progress(*, quiet: bool = False) -> Callable[[str], None]:
    """A function that writes a line of progress to stderr; of several ranks, rank 0 speaks."""
    from palate.progress import info, log_to_screen

    log_to_screen(quiet=quiet or not this_process().leads)
    return info


@contextmanager
def interruptible(resume: str) -> Generator[None]:
    """Turn Ctrl-C into one line that says how to go on, and exit code 130."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        if this_process().leads:
            how = str(stopped) or "what was finished is saved"  # A training says its step.
            sys.stderr.write(f"\npalate: interrupted; {how}; resume with: {resume}\n")
        raise typer.Exit(130) from None


def in_one_process(command: str) -> None:
    """Refuse a command that shares no work where torchrun started several processes of it.

    Raises:
        PalateError: there are several; rank 0 says it, the others end in silence.
    """
    from palate.types import PalateError

    process = this_process()
    if process.size > 1 and process.leads:
        raise PalateError(
            f"{command}: {process.size} processes were started, and one does all of it; start it "
            "without torchrun"
        )
    if process.size > 1:
        raise typer.Exit(1)


def command_line() -> str:
    """The command as it was typed, for `resume with`; torchrun's own words are not known here."""
    import shlex

    started = Path(sys.argv[0]).name
    if started == "__main__.py":
        started = "torchrun ... -m palate" if this_process().torchrun else "python -m palate"
    return f"{started} {shlex.join(sys.argv[1:])}"


def run_folders(folder: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The folders of a run and what names them: of a study its variants', else the run's own."""
    from palate.report.study import is_study, read_index

    if not is_study(folder):
        yield folder, {}
        return
    for run in read_index(folder).runs:
        yield folder / run.folder, {**run.levels, "seed": run.seed}


@contextmanager
def counting(unit: str) -> Generator[Callable[[int, int, str], None]]:
    """A bar, and the function that moves it: (done, in all, what there is to say)."""
    from palate.progress import Bar, info

    with Bar(unit, shown=this_process().leads) as bar:

        def show(done: int, total: int, note: str) -> None:
            bar.update(done, total)
            if note and this_process().leads:
                info(f"  {note}")

        yield show
