"""`palate run`, `demo`, `mix`, `train`, `evaluate`, `judge`, `report` and `recipes`."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from palate.cli.data import (
    Annotators,
    AnnotatorsOption,
    AttributeOption,
    ColumnOption,
    Ties,
    TiesOption,
    ValueOption,
)
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
    run_folders,
)

if TYPE_CHECKING:
    from palate.evaluate.benchmark import OrderPlan
    from palate.recipe.judges import JudgeSpec
    from palate.recipe.run import Stage


LOG = "log.txt"
"""All progress of a run, each line with its time, in the run's folder."""
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
    from palate.evaluate.run import read_skipped
    from palate.progress import log_to_file
    from palate.recipe import load_recipe
    from palate.recipe import run as run_stages
    from palate.recipe.distributed import distributed
    from palate.recipe.forecast import costs, with_budget
    from palate.recipe.judges import with_judges
    from palate.recipe.stages import require_data
    from palate.types import PalateError

    with interruptible(command_line()), distributed() as leads:
        if not leads:
            return
        log = progress(quiet=quiet)
        recipe = load_recipe(name, overrides or (), data=data)
        if judges is not None:
            recipe = with_judges(recipe, judges, log)
        if budget is not None:
            recipe = recipe.model_copy(update={"judges": with_budget(recipe.judges, budget)})
        until = "mix" if dry_run else until
        folder = out or Path("runs") / recipe.name
        require_data(recipe)  # Before a folder is made for its log.
        with log_to_file(folder / LOG, command_line()):
            run_stages(recipe, folder, resume=resume, until=until, say=log, counting=counting)
    if dry_run:
        files = {name: folder / "benchmarks" / f"{name}.parquet" for name in recipe.benchmarks}
        rows = costs(recipe.judges, files, seed=recipe.seed, order=recipe.judging.order)
        show_costs(rows, form)
        return
    SHOW[until](folder, form)
    log(f"results: {folder}")
    if until in ("evaluate", "report") and (skipped := read_skipped(folder / "verdicts")):
        raise PalateError(
            f"not asked: {', '.join(skipped)}; the reasons are above and under Table 7, all other "
            "results are kept, and the same command asks what is missing"
        )


def show_costs(rows: list[dict[str, Any]], form: Format) -> None:
    """Print what chat judges would still cost."""
    from palate.progress import info

    if not rows:
        info("no chat judge is asked: judging costs no money")
    emit(rows, form, "What is still to be asked")


# `palate recipes`: what experiments come with Palate, and what a recipe may say.

app = typer.Typer(help="List, show and describe recipes and their keys.", no_args_is_help=True)


@app.command("list")
def list_recipes(form: FormatOption = Format.TABLE) -> None:
    """List the built-in recipes.

    Example: [bold]palate recipes list[/bold]
    """
    from palate.recipe import built_in, load_recipe

    rows = [
        {
            "recipe": name,
            "what": " ".join(recipe.description.split()),
            "models": ", ".join(recipe.models),
            "benchmarks": len(recipe.benchmarks),
        }
        for name, recipe in ((name, load_recipe(name)) for name in built_in())
    ]
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
    column: ColumnOption = None,
    value: ValueOption = None,
    ties: TiesOption = Ties.SKIP,
    annotators: AnnotatorsOption = Annotators.SEPARATE,
    attribute: AttributeOption = None,
    quiet: QuietOption = False,
) -> None:
    """Train the reward models of a recipe, or one on a file.

    Makes what comes before first, where that is not done. With a FILE, --set takes the keys of
    [bold]backbone[/bold] and [bold]train[/bold], --out is the checkpoint's folder, and --column,
    --value, --ties, --annotators and --attribute say how it is read, as in
    [bold]palate data import[/bold].
    Example: [bold]palate train week-1.parquet --out model --set train.epochs=2[/bold]
    Example: [bold]palate train votes.csv --out model --column response_a=left
    --column response_b=right --ties keep --set train.loss=rao-kupper[/bold]
    """
    from palate.cli.sources import by_name, comparison_file, reading
    from palate.data.sources import Request
    from palate.data.sources.own import is_ours
    from palate.progress import log_to_file
    from palate.recipe.distributed import distributed
    from palate.recipe.open import load_options
    from palate.recipe.stages import fill_in, train_one
    from palate.recipe.yaml import is_data
    from palate.records import check_holds_model_or_nothing
    from palate.types import PalateError

    file = Path(what)
    request = reading(column, value, ties.value, annotators.value, attribute)
    if request != Request() and (not is_data(file) or is_ours(file)):
        raise PalateError(
            f"{what}: --column, --value, --ties, --annotators and --attribute say how a file that "
            "Palate did not write is read; in a recipe they are keys of data.sources.NAME"
        )
    if not is_data(file):
        run_recipe(what, overrides, data, out, resume, until="train", quiet=quiet)
        return
    if out is None:
        raise PalateError("a file is trained into a folder of your choice; add --out FOLDER")
    check_holds_model_or_nothing(out)
    watching = by_name(watch or ())
    for path in (file, *watching.values()):  # Before the first is read.
        if not path.exists():
            raise PalateError(f"{path}: no such file")
    folder = out.with_name(f"{out.name}.train")
    with interruptible(command_line()), distributed() as leads:
        if not leads:
            return
        log = progress(quiet=quiet)
        options, base = load_options(overrides or ())
        with log_to_file(folder / LOG, command_line()):
            mixture = comparison_file(file, folder / "data", request)
            watched = folder / "data" / "watched"
            eval_sets = {
                name: comparison_file(path, watched, request) for name, path in watching.items()
            }
            options, base = fill_in(
                out.name, options, base, mixture, folder, resume=resume, log=log
            )
            train_one(out.name, base, options, mixture, eval_sets, folder, out, resume=resume)
    log(f"checkpoint: {out}")


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
    judge(what, list(map(str, benchmark)), out, order, seed, form, dry_run, budget, quiet)
    progress()(f"palate evaluate --benchmark is now: palate judge {what} FILES")


def judge_spec(name: str) -> JudgeSpec:
    """The judge that was typed: a checkpoint, a trivial judge, or `{KIND: {OPTION: VALUE}}`."""
    import yaml

    from palate.data.sources.files import ending
    from palate.judges import JUDGES
    from palate.types import PalateError

    spec: JudgeSpec = name if name in JUDGES else {"reward-model": name}
    if name.startswith("{"):
        try:
            spec = yaml.safe_load(name)
        except yaml.YAMLError:
            raise PalateError(f"{name}: expected one judge such as '{{chat: MODEL}}'") from None
    if not name.startswith("{") and Path(name).is_file() and ending(Path(name)):
        raise PalateError(f"{name}: is a file of data; the judge comes first, then the files")
    bare = not name.startswith("{") and "/" not in name and not Path(name).exists()
    near = get_close_matches(name, JUDGES, n=1, cutoff=0.7) if bare else []
    if near and name not in JUDGES:
        raise PalateError(f"{name}: no such folder or judge; did you mean {near[0]!r}?")
    return spec


def judge(
    name: Annotated[
        str,
        typer.Argument(
            metavar="JUDGE",
            help="A checkpoint, a trivial judge such as longer, or '{KIND: {OPTION: VALUE}}'.",
        ),
    ],
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILES",
            help="Comparisons, in any format; or a benchmark of the field such as rewardbench-2, "
            "from the hub, or NAME=FOLDER (`palate data benchmarks`).",
        ),
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
    subset: Annotated[
        str | None, typer.Option(help="Of benchmarks: a configuration, such as a language.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Of benchmarks: a split of the hub.")] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Judge a benchmark that is not whole.")
    ] = False,
    trivial: Annotated[
        bool,
        typer.Option("--trivial/--no-trivial", help="Trivial judges beside, on benchmarks."),
    ] = True,
) -> None:
    """Ask one judge on files of comparisons or on benchmarks, and keep its verdicts.

    A judge is asked once: what was answered is kept, also when stopped. Of a benchmark of the field
    its own score and sections are printed, each with its interval, with what chance and trivial
    judges reach; judges that share a letter cannot be told apart.
    Example: [bold]palate judge runs/demo/models/helpfulness mine.parquet[/bold]
    Example: [bold]palate judge runs/demo/models/helpfulness llmbar=LLMBar/Dataset[/bold]
    """

    from palate.cli.sources import benchmark_files
    from palate.evaluate.benchmark import Benchmark, order_for, selection_probabilities
    from palate.evaluate.journal import sharing
    from palate.evaluate.metrics import read_judge_results, summarise
    from palate.evaluate.run import evaluate as ask
    from palate.judges import open_judge
    from palate.judges.baselines import TRIVIAL
    from palate.recipe.forecast import costs, with_budget

    spec = judge_spec(name)
    if budget is not None:
        (spec,) = with_budget([spec], budget)
    progress(quiet=quiet)
    folder = out or Path("verdicts")
    asked = benchmark_files(
        files, folder / "benchmarks", subset=subset, split=split, partial=partial
    )
    if dry_run:
        show_costs(costs([spec], asked, seed=seed, order=order), form)
        return
    rows, scored = [], dict[str, list[Path]]()
    with interruptible(command_line()), sharing() as share:
        opened = open_judge(spec)
        sides = order_for(opened, cast("OrderPlan", order))
        for title, file in asked.items():
            benchmark = Benchmark(title, file)
            if benchmark.named:
                paths = scored.setdefault(title, [])
                for beside in TRIVIAL if trivial and opened.name not in TRIVIAL else ():
                    one = open_judge(beside)
                    paths.append(ask(one, benchmark, folder, seed=seed, share=share))
            with counting(f"{opened.name} on {benchmark.name}") as bar:
                path = ask(
                    opened, benchmark, folder, seed=seed, order=sides, progress=bar, share=share
                )
            if benchmark.named:
                paths.append(path)
                continue
            accuracy = summarise(
                read_judge_results(path), probabilities=selection_probabilities(file)
            ).overall
            rows.append(
                {
                    "judge": opened.name,
                    "benchmark": benchmark.name,
                    "accuracy": round(accuracy.value, 4),
                    "low": round(accuracy.low, 4),
                    "high": round(accuracy.high, 4),
                    "n": accuracy.n,
                    "unscored": accuracy.n_unscored,
                    "verdicts": str(path),
                }
            )
    if not share.leads:
        return
    for path in (path for paths in scored.values() for path in paths):
        progress()(f"verdicts: {path}")
    by_part = [row for paths in scored.values() for row in _scores(paths)]
    if rows or not by_part:
        emit(rows, form, "Accuracy")
    if by_part:
        emit(by_part, form, "Scores, as the benchmarks define them")


def _scores(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """A row a judge and part of a benchmark: its figure, and what random scores reach."""
    import numpy as np

    from palate.evaluate.scores import letters, read_score

    scores = [score for path in paths if (score := read_score(path)) is not None]
    groups = letters(scores, np.random.default_rng(0))
    rows = []
    for number, part in enumerate(scores[0].parts):
        for score in scores:
            figure = score.estimate(score.parts[number])
            rows.append(
                {
                    "benchmark": score.benchmark,
                    "part": part.name,
                    "judge": score.judge,
                    "score": round(figure.value, 4),
                    "low": round(figure.low, 4),
                    "high": round(figure.high, 4),
                    "chance": round(part.chance, 4),
                    "group": groups[score.judge] if number == 0 else "",
                    "n": figure.n,
                    "unscored": figure.n_unscored,
                }
            )
    return rows


# `palate report`: tables and one page from verdicts, without a model.

RunsArgument = Annotated[
    list[Path], typer.Argument(metavar="RUN", help="Folders of runs, or of `palate judge`.")
]
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
    from rich.console import Console

    from palate.report import report as make_report
    from palate.report import write_page
    from palate.types import PalateError

    for folder in folders:
        if not folder.is_dir():
            raise PalateError(f"{folder}: no such run; make one with `palate run`")
    written = make_report(folders, Console() if form is Format.TABLE else None, out=out)
    tables = written.run_dir / "tables"
    if form is Format.JSON:
        sys.stdout.write((tables / "tables.json").read_text(encoding="utf-8"))
    elif form is Format.CSV:
        first = written.tables[0].name
        sys.stdout.write((tables / f"{first}.csv").read_text(encoding="utf-8"))
    _print_problems(written.problems)
    if page:
        progress()(f"page: {write_page(written)} (open it in a browser)")


# What a stage of a run has to show, on stdout.

MOST_CAUTIONS = 4


def show_mixtures(folder: Path, form: Format) -> None:
    """Print the shares of every mixture, asked and achieved."""

    def percent(share: float | None) -> str:
        return "" if share is None else f"{share:.1%}"

    rows = [
        {
            "mixture": path.name.removesuffix(".shares.json"),
            "group": share["group"],
            "pool": share["pool"],
            "available": share["available"],
            "rows asked": share["rows_asked"],
            "rows": share["rows"],
            "asked": percent(share["share_asked"]),
            "of rows": percent(share["share_rows"]),
            "of tokens": percent(share["share_tokens"]),
        }
        for path in sorted((folder / "mixtures").glob("*.shares.json"))
        for share in json.loads(path.read_text(encoding="utf-8"))["shares"]
    ]
    emit(rows, form, "Shares asked and achieved")


def show_checkpoints(folder: Path, form: Format) -> None:
    """Print where the models of a run or a study are."""
    rows = [
        {**names, "model": path.name, "checkpoint": str(path)}
        for run, names in run_folders(folder)
        for path in _models(run)
    ]
    emit(rows, form, "Checkpoints")


def _models(run: Path) -> list[Path]:
    return sorted(path for path in (run / "models").glob("*") if path.is_dir())


def show_verdicts(folder: Path, form: Format) -> None:
    """Print how many verdicts of each kind every judge gave."""
    from palate.records import read_header, verdict_paths
    from palate.types import Outcome

    rows = []
    for run, names in run_folders(folder):
        for path in verdict_paths(run):
            details = read_header(path, "verdicts").details
            judged = {key: details[key] for key in ("judge", "benchmark")}
            # Those of an earlier Palate do not say how many items were undecided.
            outcomes = {outcome.value: 0 for outcome in Outcome} | details["outcomes"]
            rows.append({**names, **judged, **outcomes})
    emit(rows, form, "Verdicts")


def show_conclusions(folder: Path, form: Format) -> None:
    """Print what can be concluded of a run that has just written its page, and what to do next."""
    from rich.console import Console
    from rich.text import Text

    from palate.report import report
    from palate.report.page import PAGE

    del form  # A run has no --format: its tables are `palate report`'s.
    written, console = report(folder), Console()
    # A sentence a model and a few cautions; the rest is on the page.
    lines = ["".join(words) for words in written.verdict.models]
    models = [path for one, _ in run_folders(folder) for path in _models(one)]
    answering = written.judged.judges()
    judged = [name for name in dict.fromkeys(path.name for path in models) if name in answering]
    if not lines and judged:
        lines = [
            f"{', '.join(judged)}: nothing to compare with; add a baseline to `judges`, such as "
            "longer. What was answered is on the page."
        ]
    if not lines:
        lines = ["No model was judged; what the judges answered is on the page."]
    cautions = [f"Caution: {finding.sentence}" for finding in written.verdict.of("caution")]
    lines += cautions[:MOST_CAUTIONS]
    if (more := len(cautions) - MOST_CAUTIONS) > 0:
        lines.append(f"{more} more cautions are on the page.")
    console.print()
    for line in lines:
        console.print(Text(line), soft_wrap=not console.is_terminal)
    _print_problems(written.problems)
    console.print(
        f"\npage: {folder / PAGE} (open it in a browser)\nnext:", style=None, markup=False
    )
    run = shlex.quote(str(folder))
    commands = {  # As they can be pasted.
        f"palate report {run}": "all tables",
        f"palate view {run}": "every comparison, to look at and to mark",
    }
    if models:
        score = f"palate score {shlex.quote(str(models[0]))} responses.jsonl"
        commands[score] = "rewards for your own rows"
    else:
        commands["palate recipes show demo"] = "a recipe that trains models"
    width = max(map(len, commands))
    for command, why in commands.items():
        console.print(
            f"  {command:{width}}  # {why}", markup=False, highlight=False, soft_wrap=True
        )


def _print_problems(problems: Sequence[str]) -> None:
    for problem in problems:
        sys.stderr.write(f"palate: left out: {problem}\n")


SHOW: Mapping[str, Callable[[Path, Format], None]] = {
    "mix": show_mixtures,
    "train": show_checkpoints,
    "evaluate": show_verdicts,
    "report": show_conclusions,
}
