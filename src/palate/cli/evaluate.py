"""`palate evaluate`: judges on benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palate.cli.output import (
    DataOption,
    Format,
    FormatOption,
    QuietOption,
    SetOption,
    command_line,
    counting,
    emit,
    interruptible,
    progress,
)
from palate.cli.run import (
    BudgetOption,
    DryRunOption,
    JudgesOption,
    OutOption,
    ResumeOption,
    recipe_names,
    run_recipe,
    show_costs,
)

if TYPE_CHECKING:
    from palate.evaluate.journal import Share
    from palate.recipe.judges import JudgeSpec


def evaluate(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|JUDGE",
            help="A recipe, a checkpoint, a trivial judge, or '{KIND: {OPTION: VALUE}}'.",
            autocompletion=recipe_names,
        ),
    ],
    benchmark: Annotated[
        list[Path] | None,
        typer.Option("--benchmark", help="File of comparisons, in any format; makes WHAT a judge."),
    ] = None,
    overrides: SetOption = None,
    data: DataOption = None,
    out: OutOption = None,
    resume: ResumeOption = True,
    order: Annotated[str, typer.Option(help="auto, seeded or both (JUDGE only).")] = "auto",
    seed: Annotated[int, typer.Option(help="Which side stands first (JUDGE only).")] = 0,
    form: FormatOption = Format.TABLE,
    judges: JudgesOption = None,
    dry_run: DryRunOption = False,
    budget: BudgetOption = None,
    quiet: QuietOption = False,
) -> None:
    """Ask the judges of a recipe, or one judge on files, and keep their verdicts.

    A judge is asked once: what was answered is kept, also when stopped.
    Example: [bold]palate evaluate runs/demo/models/helpfulness --benchmark mine.parquet[/bold]
    """
    if not benchmark:
        run_recipe(
            what, overrides, data, out, resume,
            until="evaluate", form=form, judges=judges, dry_run=dry_run, budget=budget, quiet=quiet,
        )  # fmt: skip
        return
    from palate.recipe.distributed import sharing
    from palate.types import PalateError

    if judges is not None:
        raise PalateError("--judges: asks judges of a recipe; with --benchmark, WHAT is the judge")
    spec = _spec(what, budget)
    progress(quiet=quiet)
    if dry_run:
        from palate.cli.sources import comparison_file
        from palate.data.sources.files import stem
        from palate.recipe.forecast import costs

        folder = (out or Path("verdicts")) / "benchmarks"
        files = {stem(file): comparison_file(file, folder) for file in benchmark}
        show_costs(costs([spec], files, seed=seed, order=order), form)
        return
    with interruptible(command_line()), sharing() as share:
        rows = _judge_files(spec, benchmark, out or Path("verdicts"), order, seed, share)
    if share.leads:
        emit(rows, form, "Accuracy")


def _spec(what: str, budget: float | None) -> JudgeSpec:
    """The judge that WHAT names: a kind with options in YAML, a trivial judge, or a folder."""
    import yaml

    from palate.judges import JUDGES
    from palate.recipe.forecast import with_budget
    from palate.types import PalateError

    spec: Any = what if what in JUDGES else {"reward-model": what}
    if what.startswith("{"):
        try:
            spec = yaml.safe_load(what)
        except yaml.YAMLError:
            raise PalateError(f"{what}: expected one judge such as '{{chat: MODEL}}'") from None
    return spec if budget is None else with_budget([spec], budget)[0]


def _judge_files(
    spec: JudgeSpec, files: list[Path], folder: Path, order: Any, seed: int, share: Share
) -> list[dict[str, Any]]:
    from palate.cli.sources import comparison_file
    from palate.data.sources.files import stem
    from palate.evaluate.benchmark import Benchmark, order_for
    from palate.evaluate.metrics import read_tally, summarise
    from palate.evaluate.run import evaluate as ask
    from palate.judges import open_judge

    judge = open_judge(spec)
    sides = order_for(judge, order)
    rows = []
    for file in files:
        items = comparison_file(file, folder / "benchmarks")
        with counting(f"{judge.name} on {stem(file)}") as told:
            asked = Benchmark(stem(file), items)
            path = ask(judge, asked, folder, seed=seed, order=sides, progress=told, share=share)
        found = summarise(read_tally(path)).overall
        rows.append(
            {
                "judge": judge.name,
                "benchmark": stem(file),
                "accuracy": round(found.value, 4),
                "low": round(found.low, 4),
                "high": round(found.high, 4),
                "n": found.n,
                "unscored": found.n_unscored,
                "verdicts": str(path),
            }
        )
    return rows
