"""`palate run` and `palate demo`: a whole experiment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from palate.cli.output import (
    DataOption,
    Format,
    SetOption,
    command_line,
    counting,
    interruptible,
    progress,
)

if TYPE_CHECKING:
    from palate.recipe.run import Stage

OutOption = Annotated[
    Path | None, typer.Option("--out", help="Folder of the results; default runs/NAME.")
]
ResumeOption = Annotated[
    bool,
    typer.Option("--resume/--no-resume", help="Keep what is finished, or start over."),
]
JudgesOption = Annotated[
    str | None,
    typer.Option(
        "--judges",
        metavar="NAMES|all",
        help="Judges to ask, by commas; all: the recipe's and the paper's.",
    ),
]
RecipeArgument = Annotated[str, typer.Argument(help="A built-in recipe's name or a YAML file.")]


def run(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    data: DataOption = None,
    out: OutOption = None,
    resume: ResumeOption = True,
    judges: JudgesOption = None,
) -> None:
    """Run a recipe: data, mixtures, training, judging, tables.

    Stopped, it goes on where it was. A judge that cannot be opened is left out, and the exit code
    says so. Example: [bold]palate run llama2 --data DIR --judges all[/bold]
    """
    run_recipe(recipe, overrides, data, out, resume, judges=judges)


def demo(overrides: SetOption = None, out: OutOption = None, resume: ResumeOption = True) -> None:
    """Run the embedded default: two reward models from a simulated campaign, in minutes.

    Needs no data and no GPU. Example: [bold]palate demo --set train.epochs=2[/bold]
    """
    run_recipe("demo", overrides, None, out, resume)


def run_recipe(
    name: str,
    overrides: list[str] | None,
    data: str | None,
    out: Path | None,
    resume: bool,
    until: Stage = "report",
    form: Format = Format.TABLE,
    judges: str | None = None,
) -> None:
    """Run a recipe up to a stage and print what that stage has to show.

    Raises:
        PalateError: at the end, where a judge could not be asked.
    """
    from palate.cli.show import show_stage
    from palate.recipe import load_recipe
    from palate.recipe import run as run_stages
    from palate.recipe.crew import crew
    from palate.recipe.judges import with_judges

    with interruptible(command_line()), crew() as leads:
        if not leads:
            return
        recipe = load_recipe(name, overrides or (), data=data)
        if judges is not None:
            recipe = with_judges(recipe, judges)
        folder = out or Path("runs") / recipe.name
        say = progress()
        run_stages(recipe, folder, resume=resume, until=until, say=say, counting=counting)
    show_stage(until, folder, form)
    say(f"results: {folder}")
    if until in ("evaluate", "report"):
        _refuse_absent(folder)


def _refuse_absent(folder: Path) -> None:
    from palate.evaluate.absent import read_absent
    from palate.types import PalateError

    if absent := read_absent(folder / "verdicts"):
        raise PalateError(
            f"not asked: {', '.join(absent)}; the reasons are above and under Table 7, all other "
            "results are kept, and the same command asks what is missing"
        )
