"""`palate audit`: what a benchmark can show, before anybody is measured with it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from palate.cli.data import (
    Annotators,
    AnnotatorsOption,
    BadShareOption,
    ColumnOption,
    OptionOption,
    PathOption,
    SplitOption,
    SubsetOption,
    Ties,
    TiesOption,
    ValueOption,
)
from palate.cli.options import (
    DataOption,
    Format,
    FormatOption,
    QuietOption,
    command_line,
    counting,
    interruptible,
    progress,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from palate.data.sources import BadRow
    from palate.evaluate.audit import Audit
    from palate.types import BenchmarkItem, Comparison

FORMS = (".json", ".md")


def audit(
    benchmark: Annotated[
        str,
        typer.Argument(
            help="A file of your own, a name of `palate data list`, or a benchmark of the field "
            "such as llmbar or rewardbench-2=FOLDER, where it was fetched to."
        ),
    ],
    path: PathOption = None,
    subset: SubsetOption = None,
    split: SplitOption = None,
    option: OptionOption = None,
    column: ColumnOption = None,
    value: ValueOption = None,
    ties: TiesOption = Ties.KEEP,
    annotators: AnnotatorsOption = Annotators.SEPARATE,
    data: DataOption = None,
    max_bad_share: BadShareOption = 0.01,
    name: Annotated[
        str | None, typer.Option("--name", help="Of the benchmark; default: its source or file.")
    ] = None,
    train: Annotated[
        list[str] | None,
        typer.Option(
            "--train",
            metavar="SOURCE|FILE",
            help="Training set in which its prompts are looked for; repeatable.",
        ),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            "--against", metavar="FILE", help="Another version, to hold labels against; repeatable."
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="JUDGE",
            help="Measure how far its figure moves by order, wording, length, number format and "
            "batch; as for `palate judge`; repeatable.",
        ),
    ] = None,
    sample: Annotated[
        int, typer.Option("--sample", min=1, help="Pairs that a model is asked, whole prompts.")
    ] = 200,
    verdicts: Annotated[
        Path | None, typer.Option("--verdicts", help="Of the models; default: audits/NAME.")
    ] = None,
    out: Annotated[
        list[Path] | None,
        typer.Option("--out", "-o", metavar="FILE", help=".json or .md to write; repeatable."),
    ] = None,
    form: FormatOption = Format.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Say what a benchmark can show: the smallest lead, and what trivial judges reach.

    Also: what length and formatting give away, what stands in it twice, how far its annotators
    agree; with --train what of it models have seen, with --against what another version says, with
    --model how far a model's figure moves where nothing should. One sentence first.

    Example: [bold]palate audit anthropic-hh --subset helpful-base --data DIR[/bold]
    Example: [bold]palate audit llmbar --path LLMBar[/bold]
    Example: [bold]palate audit bench.jsonl --train mine.parquet -o audit.md -o audit.json[/bold]
    """
    from dataclasses import replace

    from palate.cli.recipes import judge_spec
    from palate.cli.sources import (
        all_of,
        asked_in,
        check_output,
        comparisons,
        holds_items,
        identity,
        items_of,
    )
    from palate.data.sources import not_read
    from palate.evaluate.audit import as_pairs
    from palate.evaluate.audit import audit as measure
    from palate.evaluate.run import slug
    from palate.evaluate.sensitivity import sensitivity
    from palate.judges import open_judge
    from palate.types import PalateError

    benchmark, path = _name_and_path(benchmark, path)
    if twice := [one for one in model or () if (model or []).count(one) > 1]:
        raise PalateError(f"--model {twice[0]}: given twice; name it once")
    for file in out or ():
        check_output(file, benchmark, path, *(train or ()), *map(str, against or ()))
        if file.suffix not in FORMS:
            raise PalateError(f"--out {file}: expected a name that ends in {' or '.join(FORMS)}")
    for version in against or ():
        if not version.exists():
            raise PalateError(f"--against {version}: no such file")
    say = progress(quiet=quiet)
    title = name or _name(benchmark, path, subset)
    specs = [judge_spec(one) for one in model or ()]
    with interruptible(command_line()):
        rows: Iterable[Comparison | BenchmarkItem]
        bad: list[BadRow] = []
        of_items = holds_items(Path(benchmark))
        if of_items or _is_named(benchmark):
            for typed, said in (
                ("--option", option),
                ("--column", column),
                ("--value", value),
                ("--ties", ties is not Ties.KEEP),
                ("--annotators", annotators is not Annotators.SEPARATE),
                ("--max-bad-share", max_bad_share != 0.01),
            ):
                if said:
                    raise PalateError(
                        f"{typed}: {benchmark} is read whole, by its own rules; leave it out"
                    )
            rows = (
                asked_in(Path(benchmark))
                if of_items
                else items_of(benchmark, path, subset, split, data)
            )
        else:
            rows, bad = comparisons(
                benchmark, path, subset, split, option, data, max_bad_share, column, value,
                ties.value, annotators.value,
            )  # fmt: skip
        training = [(one, _training(one, data)) for one in train or ()]
        every = list(rows)
        made = measure(
            title,
            every,
            training=training,
            versions=[(one.name, all_of(one)) for one in against or ()],
            say=say,
        )
        pairs = [one for row in every for one in as_pairs(row)] if specs else []
        moved = []
        for number, spec in enumerate(specs):
            folder = (verdicts or Path("audits") / slug(title)) / str(number)
            with counting("pairs") as bar:
                moved.append(
                    sensitivity(title, pairs, spec, folder, open_judge, pairs=sample, progress=bar)
                )
        made = replace(made, sensitivity=tuple(moved))
    where, sha256 = identity(benchmark, path, subset, split, data)
    made = replace(made, not_read=not_read(bad) if bad else "", file=where, sha256=sha256)
    _show(made, form)
    for file in out or ():
        _write(made, file)
        say(f"audit: {file}")


def _name_and_path(benchmark: str, path: str | None) -> tuple[str, str | None]:
    """A benchmark and where it is: `NAME=PATH`, as for `palate judge`, is NAME with --path PATH."""
    from palate.data.benchmarks import BENCHMARKS
    from palate.types import PalateError
    from palate.validation import did_you_mean

    name, equals, where = benchmark.partition("=")
    if not equals or Path(benchmark).exists():
        return benchmark, path
    if name not in BENCHMARKS:
        raise PalateError(f"{benchmark}: no benchmark {name!r}; {did_you_mean(name, BENCHMARKS)}")
    if path is not None:
        raise PalateError(f"{benchmark}: and --path {path}; say once where it is")
    return name, where


def _is_named(benchmark: str) -> bool:
    """Whether it is a benchmark of the field, which is read whole; sources have their own ways."""
    from palate.data.benchmarks import BENCHMARKS
    from palate.data.sources import SOURCES
    from palate.types import PalateError
    from palate.validation import did_you_mean

    if benchmark in SOURCES or Path(benchmark).exists():
        return False
    if benchmark not in BENCHMARKS and not (Path(benchmark).suffix or "/" in benchmark):
        known = sorted({*BENCHMARKS, *SOURCES})
        raise PalateError(
            f"no benchmark, source or file {benchmark!r}; {did_you_mean(benchmark, known)}"
        )
    return benchmark in BENCHMARKS


def _name(benchmark: str, path: str | None, subset: str | None) -> str:
    """What a benchmark is called: its source with its subset, or its file."""
    from palate.data.sources import SOURCES
    from palate.data.sources.files import stem

    if _is_named(benchmark) or (benchmark in SOURCES and benchmark != "own"):
        return f"{benchmark} {subset}" if subset else benchmark
    return stem(Path(path or benchmark))


def _training(source: str, data: str | None) -> Iterator[Comparison]:
    """The comparisons of a training set: a file, SOURCE or SOURCE:SUBSET."""
    from palate.cli.sources import comparisons

    subset = None
    if not Path(source).exists():
        source, _, part = source.partition(":")
        subset = part or None
    return comparisons(source, None, subset, None, None, data, 1.0)[0]


def _show(made: Audit, form: Format) -> None:
    from palate.report.audit import sentences, tables
    from palate.report.render import comma_separated, show

    if form is Format.JSON:
        sys.stdout.write(_json(made))
        return
    if form is Format.CSV:
        sys.stdout.write(comma_separated(tables([made])[0]))
        return
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console()
    first, *rest = sentences(made)
    console.print(Text(first, style="bold"), soft_wrap=not console.is_terminal)
    console.print()
    for line in rest:
        text = Text(f"- {line}")
        if console.is_terminal:
            console.print(Padding(text, (0, 0, 0, 2)))
        else:
            console.print(text, soft_wrap=True)
    console.print()
    show(tables([made]), console)


def _write(made: Audit, file: Path) -> None:
    from palate.records import write_text
    from palate.report.audit import markdown

    text = _json(made) if file.suffix == ".json" else markdown(made, command_line())
    write_text(file, text)


def _json(made: Audit) -> str:
    import json

    from palate.evaluate.audit import to_json
    from palate.report.audit import sentences

    values = {"sentences": sentences(made), **to_json(made)}
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
