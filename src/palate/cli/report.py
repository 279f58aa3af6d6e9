"""`palate report`: tables from verdicts, without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from palate.cli.output import Format, FormatOption


def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    form: FormatOption = Format.TABLE,
) -> None:
    """Make the tables of a run anew, print them and write them under RUN/tables.

    Example: [bold]palate report runs/llama2 --format json[/bold]
    """
    from palate.cli.show import show_report
    from palate.types import PalateError

    if not folder.is_dir():
        raise PalateError(f"{folder}: no such run; make one with `palate run`")
    show_report(folder, form)
