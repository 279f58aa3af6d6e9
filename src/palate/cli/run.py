"""`palate run` and `palate demo`: a whole experiment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palate.cli.output import (
    DataOption,
    Format,
    QuietOption,
    SetOption,
    command_line,
    counting,
    emit,
    interruptible,
    progress,
)

if TYPE_CHECKING:
    from palate.recipe import Recipe
    from palate.recipe.run import Stage

LOG = "log.txt"
"""Everything that was said of a run, each line with its time, in the run's folder."""
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
DryRunOption = Annotated[
    bool,
    typer.Option("--dry-run", help="Print what chat judges would cost, and ask and train nothing."),
]
BudgetOption = Annotated[
    float | None,
    typer.Option("--budget", metavar="MONEY", help="Most money for each chat judge, ever."),
]


def recipe_names(incomplete: str) -> list[str]:
    """The built-in recipes that begin so, for a shell's completion; files it completes itself."""
    import palate

    names = (path.stem for path in (Path(palate.__file__).parent / "recipes").glob("*.yaml"))
    return sorted(name for name in names if name.startswith(incomplete))


RecipeArgument = Annotated[
    str,
    typer.Argument(help="A built-in recipe's name or a YAML file.", autocompletion=recipe_names),
]


def run(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    data: DataOption = None,
    out: OutOption = None,
    resume: ResumeOption = True,
    judges: JudgesOption = None,
    dry_run: DryRunOption = False,
    budget: BudgetOption = None,
    quiet: QuietOption = False,
) -> None:
    """Run a recipe: data, mixtures, training, judging, tables.

    Stopped, it goes on where it was. A judge that cannot be opened is left out, and the exit code
    says so. Example: [bold]palate run llama2 --data DIR --judges all[/bold]
    """
    run_recipe(
        recipe, overrides, data, out, resume,
        judges=judges, dry_run=dry_run, budget=budget, quiet=quiet,
    )  # fmt: skip


def demo(
    overrides: SetOption = None,
    out: OutOption = None,
    resume: ResumeOption = True,
    quiet: QuietOption = False,
) -> None:
    """Run the embedded default: two reward models from a simulated campaign, in minutes.

    Needs no data and no GPU. Example: [bold]palate demo --set train.epochs=2[/bold]
    """
    run_recipe("demo", overrides, None, out, resume, quiet=quiet)


def run_recipe(
    name: str,
    overrides: list[str] | None,
    data: str | None,
    out: Path | None,
    resume: bool,
    until: Stage = "report",
    form: Format = Format.TABLE,
    judges: str | None = None,
    dry_run: bool = False,
    budget: float | None = None,
    quiet: bool = False,
) -> None:
    """Run a recipe up to a stage and print what that stage has to show.

    Raises:
        PalateError: at the end, where a judge could not be asked.
    """
    from palate.cli.show import show_stage
    from palate.progress import kept_in
    from palate.recipe import load_recipe
    from palate.recipe import run as run_stages
    from palate.recipe.distributed import crew
    from palate.recipe.forecast import with_budget
    from palate.recipe.judges import with_judges

    with interruptible(command_line()), crew() as leads:
        if not leads:
            return
        say = progress(quiet=quiet)
        recipe = load_recipe(name, overrides or (), data=data)
        if judges is not None:
            recipe = with_judges(recipe, judges, say)
        if budget is not None:
            recipe = recipe.model_copy(update={"judges": with_budget(recipe.judges, budget)})
        until = "mix" if dry_run else until
        folder = out or Path("runs") / recipe.name
        with kept_in(folder / LOG, command_line()):
            run_stages(recipe, folder, resume=resume, until=until, say=say, counting=counting)
    if dry_run:
        show_costs(_costs(recipe, folder), form)
        return
    show_stage(until, folder, form)
    say(f"results: {folder}")
    if until in ("evaluate", "report"):
        _refuse_absent(folder)


def _costs(recipe: Recipe, folder: Path) -> list[dict[str, Any]]:
    from palate.recipe.forecast import costs

    files = {name: folder / "benchmarks" / f"{name}.parquet" for name in recipe.benchmarks}
    return costs(recipe.judges, files, seed=recipe.seed, order=recipe.judging.order)


def show_costs(rows: list[dict[str, Any]], form: Format) -> None:
    """Print what chat judges would still cost."""
    from palate.progress import say

    if not rows:
        say("no chat judge is asked: judging costs no money")
    emit(rows, form, "What is still to be asked")


def _refuse_absent(folder: Path) -> None:
    from palate.evaluate.run import read_absent
    from palate.types import PalateError

    if absent := read_absent(folder / "verdicts"):
        raise PalateError(
            f"not asked: {', '.join(absent)}; the reasons are above and under Table 7, all other "
            "results are kept, and the same command asks what is missing"
        )
