"""`palate run` and `palate demo`: a whole experiment."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palate.cli.options import (
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

if TYPE_CHECKING:
    from palate.evaluate.journal import Shard
    from palate.recipe import Recipe
    from palate.recipe.judges import JudgeSpec
    from palate.recipe.run import Stage
    from palate.report.verdict import Verdict


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
    from palate.progress import log_to_file
    from palate.recipe import load_recipe
    from palate.recipe import run as run_stages
    from palate.recipe.distributed import distributed
    from palate.recipe.forecast import with_budget
    from palate.recipe.judges import with_judges

    with interruptible(command_line()), distributed() as leads:
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
        with log_to_file(folder / LOG, command_line()):
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
    from palate.progress import info

    if not rows:
        info("no chat judge is asked: judging costs no money")
    emit(rows, form, "What is still to be asked")


def _refuse_absent(folder: Path) -> None:
    from palate.evaluate.run import read_skipped
    from palate.types import PalateError

    if absent := read_skipped(folder / "verdicts"):
        raise PalateError(
            f"not asked: {', '.join(absent)}; the reasons are above and under Table 7, all other "
            "results are kept, and the same command asks what is missing"
        )


# `palate recipes`: what experiments come with Palate, and what a recipe may say.

app = typer.Typer(help="List, show and describe recipes and their keys.", no_args_is_help=True)


@app.command("list")
def list_recipes(form: FormatOption = Format.TABLE) -> None:
    """List the built-in recipes.

    Example: [bold]palate recipes list[/bold]
    """
    from palate.recipe import built_in, load_recipe

    rows = []
    for name in built_in():
        recipe = load_recipe(name)
        rows.append(
            {
                "recipe": name,
                "what": " ".join(recipe.description.split()),
                "models": ", ".join(recipe.models),
                "benchmarks": len(recipe.benchmarks),
            }
        )
    emit(rows, form, "Recipes")


@app.command("show")
def show(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    data: DataOption = None,
) -> None:
    """Print a recipe resolved: `extends` and `--set` applied, every default written out.

    Of a study, what it runs is said above, in comments.
    Example: [bold]palate recipes show llama2 --set train.epochs=2[/bold]
    """
    import yaml

    from palate.recipe import load_recipe, resolved

    loaded = load_recipe(recipe, overrides or (), data=data)
    if loaded.study is not None:
        sys.stdout.writelines(f"# {line}\n" for line in loaded.study.explained().splitlines())
    sys.stdout.write(
        yaml.safe_dump(resolved(loaded), sort_keys=False, allow_unicode=True, width=100)
    )


@app.command("keys")
def keys(
    beginning: Annotated[
        str, typer.Argument(metavar="[BEGINNING]", help="Of the keys to list, such as train.")
    ] = "",
    form: FormatOption = Format.TABLE,
) -> None:
    """List every key of a recipe with its type, default and meaning.

    Example: [bold]palate recipes keys train.[/bold]
    """
    from dataclasses import asdict

    from palate.recipe.schema import recipe_keys

    emit([asdict(key) for key in recipe_keys() if key.path.startswith(beginning)], form)


@app.command("schema")
def print_schema() -> None:
    """Print the JSON schema of a recipe, for completion in editors.

    Example: [bold]palate recipes schema > recipe.schema.json[/bold], then in your recipe's first
    line: [bold]# yaml-language-server: $schema=recipe.schema.json[/bold]
    """
    from palate.recipe import schema

    sys.stdout.write(json.dumps(schema(), indent=2) + "\n")


# `palate mix`: the mixtures, before anything is trained on them.


def mix(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    data: DataOption = None,
    out: OutOption = None,
    resume: ResumeOption = True,
    quiet: QuietOption = False,
) -> None:
    """Make a recipe's mixtures and print the shares asked and achieved.

    Imports, lints, splits and excludes first where that is not done.
    Example: [bold]palate mix llama2 --data DIR[/bold]
    """
    run_recipe(recipe, overrides, data, out, resume, until="mix", quiet=quiet)


# `palate train`: the models of a recipe, or one model from a file of comparisons.


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
    [bold]backbone[/bold] and [bold]train[/bold], and --out is the checkpoint's folder.
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
    from palate.cli.options import progress
    from palate.cli.sources import comparison_file
    from palate.data.sources.files import stem
    from palate.progress import log_to_file
    from palate.recipe.distributed import distributed
    from palate.recipe.open import load_options
    from palate.recipe.stages import fill_in, train_one
    from palate.types import PalateError

    if out is None:
        raise PalateError("a file is trained into a folder of your choice; add --out FOLDER")
    folder = out.with_name(f"{out.name}.train")
    with interruptible(command_line()), distributed() as leads:
        if not leads:
            return
        say = progress(quiet=quiet)
        options, base = load_options(overrides)
        with log_to_file(folder / LOG, command_line()):
            data = folder / "data"
            mixture = comparison_file(file, data)
            watched = {stem(path): comparison_file(path, data / "watched") for path in watch}
            options, base = fill_in(
                out.name, options, base, mixture, folder, resume=resume, log=say
            )
            train_one(out.name, base, options, mixture, watched, folder, out, resume=resume)
    say(f"checkpoint: {out}")


# `palate evaluate`: judges on benchmarks.


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
        typer.Option("--benchmark", help="As `palate judge WHAT FILES`."),
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
    """Ask the judges of a recipe and keep their verdicts; `palate judge` asks one judge on files.

    A judge is asked once: what was answered is kept, also when stopped.
    Example: [bold]palate evaluate llama2 --data DIR --judges longer,helpfulness[/bold]
    """
    if not benchmark:
        run_recipe(
            what, overrides, data, out, resume,
            until="evaluate", form=form, judges=judges, dry_run=dry_run, budget=budget, quiet=quiet,
        )  # fmt: skip
        return
    if judges is not None:
        from palate.types import PalateError

        raise PalateError("--judges: asks judges of a recipe; with --benchmark, WHAT is the judge")
    judge(what, benchmark, out, order, seed, form, dry_run, budget, quiet)
    progress()(f"palate evaluate --benchmark is now: palate judge {what} FILES")


def judge(
    name: Annotated[
        str,
        typer.Argument(
            metavar="JUDGE",
            help="A checkpoint, a trivial judge such as longer, or '{KIND: {OPTION: VALUE}}'.",
        ),
    ],
    files: Annotated[
        list[Path], typer.Argument(metavar="FILES", help="Comparisons, in any format.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the verdicts; default: verdicts.")
    ] = None,
    order: Annotated[str, typer.Option(help="Of the sides: auto, seeded or both.")] = "auto",
    seed: Annotated[int, typer.Option(help="Which side stands first.")] = 0,
    form: FormatOption = Format.TABLE,
    dry_run: DryRunOption = False,
    budget: BudgetOption = None,
    quiet: QuietOption = False,
) -> None:
    """Ask one judge on files of comparisons, and keep its verdicts.

    A judge is asked once: what was answered is kept, also when stopped.
    Example: [bold]palate judge runs/demo/models/helpfulness mine.parquet[/bold]
    """
    from palate.recipe.distributed import sharing

    spec = _spec(name, budget)
    progress(quiet=quiet)
    if dry_run:
        from palate.cli.sources import comparison_file
        from palate.data.sources.files import stem
        from palate.recipe.forecast import costs

        folder = (out or Path("verdicts")) / "benchmarks"
        benchmarks = {stem(file): comparison_file(file, folder) for file in files}
        show_costs(costs([spec], benchmarks, seed=seed, order=order), form)
        return
    with interruptible(command_line()), sharing() as share:
        rows = _judge_files(spec, files, out or Path("verdicts"), order, seed, share)
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
    spec: JudgeSpec, files: list[Path], folder: Path, order: Any, seed: int, share: Shard
) -> list[dict[str, Any]]:
    from palate.cli.sources import comparison_file
    from palate.data.sources.files import stem
    from palate.evaluate.benchmark import Benchmark, order_for
    from palate.evaluate.metrics import read_judge_results, summarise
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
        found = summarise(read_judge_results(path)).overall
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


# `palate report`: tables and one page from verdicts, without a model.

RunsArgument = Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders of runs.")]
ReportOutOption = Annotated[
    Path | None,
    typer.Option("--out", help="Folder to write in; default: the run's own. Several need one."),
]
PageOption = Annotated[bool, typer.Option("--page/--no-page", help="Write report.html too.")]


def report(
    folders: RunsArgument,
    out: ReportOutOption = None,
    page: PageOption = True,
    form: FormatOption = Format.TABLE,
) -> None:
    """Say how good a run's models are: print the tables, and write one page to look at.

    Writes report.html, which opens from disk and asks nothing of the network, and the same tables
    as Markdown, CSV, LaTeX and JSON under tables/. Several runs stand side by side.
    Example: [bold]palate report runs/llama2[/bold] or
    [bold]palate report runs/one-epoch runs/two-epochs --out both[/bold]
    """
    from palate.types import PalateError

    for folder in folders:
        if not folder.is_dir():
            raise PalateError(f"{folder}: no such run; make one with `palate run`")
    show_report(folders, form, out=out, page=page)


# What a stage of a run has to show, on stdout.

MOST_CAUTIONS = 4


def show_stage(stage: str, folder: Path, form: Format = Format.TABLE) -> None:
    """Print the result of the stage at which a run stopped."""
    SHOW[stage](folder, form)


def _mixtures(folder: Path, form: Format) -> None:
    emit(_shares(folder), form, "Shares asked and achieved")


def _shares(folder: Path) -> Iterator[Mapping[str, Any]]:
    for path in sorted((folder / "mixtures").glob("*.shares.json")):
        name = path.name.removesuffix(".shares.json")
        for share in json.loads(path.read_text(encoding="utf-8"))["shares"]:
            yield {
                "mixture": name,
                "group": share["group"],
                "pool": share["pool"],
                "available": share["available"],
                "rows asked": share["rows_asked"],
                "rows": share["rows"],
                "asked": _percent(share["share_asked"]),
                "of rows": _percent(share["share_rows"]),
                "of tokens": _percent(share["share_tokens"]),
            }


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _runs(folder: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The folders of a run and what names them: of a study its variants', else the run's own."""
    from palate.report.study import is_study, read_index

    if not is_study(folder):
        yield folder, {}
        return
    for run in read_index(folder).runs:
        yield folder / run.folder, {**run.levels, "seed": run.seed}


def _training(folder: Path, form: Format) -> None:
    rows = [
        {**names, "model": path.name, "checkpoint": str(path)}
        for run, names in _runs(folder)
        for path in _models(run)
    ]
    emit(rows, form, "Checkpoints")


def _models(run: Path) -> list[Path]:
    return sorted(path for path in (run / "models").glob("*") if path.is_dir())


def _verdicts(folder: Path, form: Format) -> None:
    from palate.records import read_header

    rows = []
    for run, names in _runs(folder):
        for path in sorted((run / "verdicts").glob("*.parquet")):
            details = read_header(path, "verdicts").details
            of = {"judge": details["judge"], "benchmark": details["benchmark"]}
            rows.append({**names, **of, **details["outcomes"]})
    emit(rows, form, "Verdicts")


def _report(folder: Path, form: Format) -> None:
    """What can be concluded of a run that has just written its page, and what to do next."""
    from rich.console import Console
    from rich.text import Text

    from palate.report import report
    from palate.report.page import PAGE

    del form  # A run has no --format: its tables are `palate report`'s.
    made, console = report(folder), Console()
    console.print()
    for line in _concluded(made.verdict):
        console.print(Text(line), soft_wrap=not console.is_terminal)
    _say_problems(made.problems)
    console.print(
        f"\npage: {folder / PAGE} (open it in a browser)\nnext:", style=None, markup=False
    )
    width = max(len(command) for command, _ in _next(folder))
    for command, why in _next(folder):
        console.print(
            f"  {command:{width}}  # {why}", markup=False, highlight=False, soft_wrap=True
        )


def _concluded(verdict: Verdict) -> list[str]:
    """A sentence a model, and what must be borne in mind of them; the rest is on the page."""
    models = ["".join(words) for words in verdict.models]
    cautions = [f"Caution: {finding.sentence}" for finding in verdict.of("caution")]
    more = len(cautions) - MOST_CAUTIONS
    left_out = [f"{more} more cautions are on the page."] if more > 0 else []
    none = [] if models else ["No model was judged; what the judges answered is on the page."]
    return [*models, *none, *cautions[:MOST_CAUTIONS], *left_out]


def _next(folder: Path) -> list[tuple[str, str]]:
    """The three commands that are asked for most after a run, as they can be pasted."""
    run = shlex.quote(str(folder))
    models = [path for one, _ in _runs(folder) for path in _models(one)]
    use = (
        (f"palate score {shlex.quote(str(models[0]))} responses.jsonl", "rewards for your own rows")
        if models
        else ("palate recipes show demo", "a recipe that trains models")
    )
    return [
        (f"palate report {run}", "all tables"),
        (f"palate view {run}", "every comparison, to look at and to mark"),
        use,
    ]


def _say_problems(problems: Sequence[str]) -> None:
    for problem in problems:
        sys.stderr.write(f"palate: left out: {problem}\n")


def show_report(
    folders: Sequence[Path],
    form: Format = Format.TABLE,
    *,
    out: Path | None = None,
    page: bool = True,
) -> None:
    """Make the tables of runs anew and print them; CSV prints Table 7 and JSON all tables."""
    from rich.console import Console

    from palate.report import report, write_page

    made = report(folders, Console() if form is Format.TABLE else None, out=out)
    tables = made.run_dir / "tables"
    if form is Format.JSON:
        sys.stdout.write((tables / "tables.json").read_text(encoding="utf-8"))
    elif form is Format.CSV:
        first = made.tables[0].name
        sys.stdout.write((tables / f"{first}.csv").read_text(encoding="utf-8"))
    _say_problems(made.problems)
    if page:
        _say_page(write_page(made))


def _say_page(path: Path) -> None:
    from palate.cli.options import progress

    progress()(f"page: {path} (open it in a browser)")


SHOW: Mapping[str, Callable[[Path, Format], None]] = {
    "mix": _mixtures,
    "train": _training,
    "evaluate": _verdicts,
    "report": _report,
}
