"""`palate train`: the models of a recipe, or one model from a file of comparisons."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from palate.cli.output import (
    DataOption,
    QuietOption,
    SetOption,
    command_line,
    interruptible,
)
from palate.cli.run import OutOption, ResumeOption, recipe_names, run_recipe


def train(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|FILE",
            help="A recipe, or a file of comparisons: Parquet, JSONL, JSON, CSV or TSV.",
            autocompletion=recipe_names,
        ),
    ],
    overrides: SetOption = None,
    data: DataOption = None,
    out: OutOption = None,
    resume: ResumeOption = True,
    watch: Annotated[
        list[Path] | None,
        typer.Option("--watch", help="Held-out file evaluated during training (FILE only)."),
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Train the reward models of a recipe, or one on a file.

    Makes what comes before first, where that is not done. With a FILE, --set takes the keys of
    [bold]base[/bold] and [bold]train[/bold], and --out is the checkpoint's folder.
    Example: [bold]palate train week-1.parquet --out model --set train.epochs=2[/bold]
    """
    from palate.recipe.yaml import is_data

    if not is_data(Path(what)):
        run_recipe(what, overrides, data, out, resume, until="train", quiet=quiet)
        return
    _train_file(Path(what), out, overrides or [], watch or [], resume, quiet)


def _train_file(
    file: Path, out: Path | None, overrides: list[str], watch: list[Path], resume: bool, quiet: bool
) -> None:
    from palate.cli.output import progress
    from palate.cli.run import LOG
    from palate.cli.sources import comparison_file
    from palate.data.sources.files import stem
    from palate.progress import kept_in
    from palate.recipe.distributed import crew
    from palate.recipe.open import load_options
    from palate.recipe.stages import settle_one, train_one
    from palate.types import PalateError

    if out is None:
        raise PalateError("a file is trained into a folder of your choice; add --out FOLDER")
    options, base = load_options(overrides)
    folder = out.with_name(f"{out.name}.train")
    with interruptible(command_line()), crew() as leads:
        if not leads:
            return
        say = progress(quiet=quiet)
        with kept_in(folder / LOG, command_line()):
            data = folder / "data"
            mixture = comparison_file(file, data)
            watched = {stem(path): comparison_file(path, data / "watched") for path in watch}
            options, base = settle_one(
                out.name, options, base, mixture, folder, resume=resume, say=say
            )
            train_one(out.name, base, options, mixture, watched, folder, out, resume=resume)
    say(f"checkpoint: {out}")
