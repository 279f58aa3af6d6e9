"""`palate report`: tables and one page from verdicts, without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from palate.cli.output import Format, FormatOption

RunsArgument = Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders of runs.")]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="Folder to write in; default: the run's own. Several need one."),
]
PageOption = Annotated[bool, typer.Option("--page/--no-page", help="Write report.html too.")]


def report(
    folders: RunsArgument,
    out: OutOption = None,
    page: PageOption = True,
    form: FormatOption = Format.TABLE,
) -> None:
    """Say how good a run's models are: print the tables, and write one page to look at.

    Writes report.html, which opens from disk and asks nothing of the network, and the same tables
    as Markdown, CSV, LaTeX and JSON under tables/. Several runs stand side by side.
    Example: [bold]palate report runs/llama2[/bold] or
    [bold]palate report runs/one-epoch runs/two-epochs --out both[/bold]
    """
    from palate.cli.show import show_report
    from palate.types import PalateError

    for folder in folders:
        if not folder.is_dir():
            raise PalateError(f"{folder}: no such run; make one with `palate run`")
    show_report(folders, form, out=out, page=page)
