"""`palate view`: the explorer of a run's comparisons."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from palate.cli.output import progress


def view(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Folders of runs or studies.")
    ],
    marks: Annotated[
        Path | None,
        typer.Option("--marks", metavar="FILE", help="Where marks are kept; RUN/marks.sqlite."),
    ] = None,
    annotator: Annotated[
        str | None, typer.Option("--annotator", help="Your name in the marks; your login.")
    ] = None,
    blind: Annotated[
        bool, typer.Option("--blind", help="Hide labels and scores from everybody.")
    ] = False,
    export: Annotated[
        Path | None,
        typer.Option("--export", metavar="FILE", help="Write the marks as comparisons, and stop."),
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: a free one.")] = 0,
) -> None:
    """Look at every comparison of a run, search, filter, compare judges, and mark by keyboard.

    Listens on 127.0.0.1 and prints an address with a token (PALATE_VIEW_TOKEN sets your own).
    Nothing in RUN is changed. Example: [bold]palate view runs/llama2[/bold]
    The marks as another annotation batch:
    [bold]palate view runs/llama2 --export marks.parquet[/bold]
    """
    import getpass
    import os

    from palate.explorer.annotations import annotator_name

    runs = _runs(folders)
    if export is not None:
        _export(runs, marks, export)
        return
    from palate.explorer.app import serve

    def opened(url: str) -> None:
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()
        progress()("open this address in a browser; Ctrl-C stops")

    serve(
        runs,
        annotator=annotator_name(annotator or getpass.getuser()),
        marks=marks,
        blind=blind,
        port=port,
        token=os.environ.get("PALATE_VIEW_TOKEN", ""),
        opened=opened,
    )


def _runs(folders: list[Path]) -> list[Path]:
    """The folders of runs; of a study those of its variants."""
    from palate.types import PalateError

    runs: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise PalateError(f"{folder}: no such run; make one with `palate run`")
        runs += _variants(folder)
    return runs


def _variants(folder: Path) -> list[Path]:
    if any((folder / part).is_dir() for part in ("benchmarks", "mixtures")):
        return [folder]
    # Imported for a folder that is no run alone: the report's statistics take a second.
    from palate.report.study import is_study, read_index

    return (
        [folder / run.folder for run in read_index(folder).runs] if is_study(folder) else [folder]
    )


def _export(runs: list[Path], marks: Path | None, out: Path) -> None:
    from palate.explorer.annotations import Marks, export_marks
    from palate.explorer.index import open_catalogue
    from palate.types import PalateError

    if len(runs) != 1:
        raise PalateError(f"--export: expected one run, got {len(runs)}")
    kept = Marks(marks or runs[0] / "marks.sqlite")
    made = export_marks(open_catalogue(runs[0]), kept.all(), out)
    progress()(f"{out}: {made}")
