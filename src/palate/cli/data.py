"""`palate data`: what sources there are, what is in them, what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from palate.cli.options import DataOption, Format, FormatOption, emit, progress

HERE = {"own": "your file", "simulated": "made here"}
"""Of sources that are not read from a data root, where they are."""
SHOWN_CHARACTERS = 60
"""Of a text, where rows are shown to see which column is which."""
app = typer.Typer(
    help="Sources of comparisons: list, show, inspect, lint, import.", no_args_is_help=True
)

SourceArgument = Annotated[
    str, typer.Argument(help="A name of `palate data list`, or a file of your own.")
]
PathOption = Annotated[
    str | None, typer.Option("--path", help="File, folder or hub id; default: in the data root.")
]
SubsetOption = Annotated[str | None, typer.Option("--subset", help="Part of the source.")]
SplitOption = Annotated[str | None, typer.Option("--split", help="Split, such as train or test.")]
OptionOption = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="KEY=VALUE", help="What the source itself takes; repeatable."),
]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="ROLE=COLUMN",
        help="Which column is prompt, response_a, response_b, winner, ...; repeatable.",
    ),
]
ValueOption = Annotated[
    list[str] | None,
    typer.Option(
        "--value",
        metavar="WORD=MEANING",
        help="What a word for the winner means: a, b, tie, both_bad, skip; repeatable.",
    ),
]


class Ties(StrEnum):
    """What becomes of ties."""

    SKIP = "skip"
    KEEP = "keep"


TiesOption = Annotated[
    Ties, typer.Option("--ties", help="Count and skip ties, or keep them as comparisons.")
]


class Annotators(StrEnum):
    """What becomes of several annotators' votes on one pair."""

    SEPARATE = "separate"
    VOTES = "votes"
    MAJORITY = "majority"
    MEAN = "mean"
    DAWID_SKENE = "dawid-skene"


AnnotatorsOption = Annotated[
    Annotators,
    typer.Option(
        "--annotators",
        help="Votes of several annotators on one pair: each a row, or one row a pair by this rule.",
    ),
]
AttributeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--attribute",
        metavar="NAME=LOW..HIGH",
        help="What was rated of single responses, with its scale: helpfulness=0..4; repeatable.",
    ),
]
BadShareOption = Annotated[
    float, typer.Option("--max-bad-share", min=0, max=1, help="More unreadable rows stop it.")
]


@app.command("benchmarks")
def list_benchmarks(form: FormatOption = Format.TABLE) -> None:
    """List the benchmarks of the field that `palate judge` knows by name, and how each scores.

    With --format csv or json also the licence of each, and what it was tried on here.
    Example: [bold]palate data benchmarks[/bold]
    """
    from palate.data.benchmarks import BENCHMARKS

    rows = [
        {
            "benchmark": name,
            "title": one.title,
            "from": ", ".join(one.hub_ids) or one.url,
            "score": one.rule,
            "licence": one.licence,
            "tried on": one.tried_on,
        }
        for name, one in BENCHMARKS.items()
    ]
    if form is Format.TABLE:  # Six columns of sentences are read by nobody.
        rows = [{key: row[key] for key in ("benchmark", "from", "score")} for row in rows]
    emit(rows, form, "Benchmarks; all there is of each: --format json", width=100)


@app.command("list")
def list_sources(data: DataOption = None, form: FormatOption = Format.TABLE) -> None:
    """List the sources, their licence, and whether they are in the data root.

    Example: [bold]palate data list --data DIR[/bold]
    """
    from palate.data.sources import SOURCES
    from palate.data.sources.files import locate

    emit(
        (
            {
                "source": name,
                "title": source.title,
                "kind": source.kind,
                "hub id": source.hub_id,
                "licence": source.licence,
                "here": HERE.get(name) or str(locate(None, source.folder, data) or "no"),
                "tried on": source.tried_on,
            }
            for name, source in SOURCES.items()
        ),
        form,
        "Sources",
    )


@app.command("show")
def show(
    source: SourceArgument,
    path: PathOption = None,
    subset: SubsetOption = None,
    split: SplitOption = None,
    option: OptionOption = None,
    column: ColumnOption = None,
    value: ValueOption = None,
    ties: TiesOption = Ties.SKIP,
    annotators: AnnotatorsOption = Annotators.SEPARATE,
    attribute: AttributeOption = None,
    rows: Annotated[int, typer.Option("--rows", min=0, help="Comparisons to print.")] = 0,
    data: DataOption = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """Show a source: licence, cut points of its ratings, options; and some of its rows.

    Example: [bold]palate data show anthropic-hh --subset helpful-base --rows 2 --data DIR[/bold]
    """
    from itertools import islice

    from palate.cli.sources import comparisons
    from palate.data.sources import SOURCES, describe
    from palate.records import comparison_to_row

    facts = describe("own" if source not in SOURCES and Path(source).exists() else source)
    emit(({"what": what, "is": value} for what, value in facts), form, source)
    if rows:
        stream, _ = comparisons(
            source,
            path,
            subset,
            split,
            option,
            data,
            1.0,
            column,
            value,
            ties.value,
            annotators.value,
            attribute,
        )
        emit(map(comparison_to_row, islice(stream, rows)), form, f"First {rows} of {source}")


@app.command("inspect")
def inspect_file(
    file: Annotated[Path, typer.Argument(help="A file of your own, or a folder of them.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Recipe fragment to write, as YAML.")
    ] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """Guess how a file is read: format, layout, columns, ties; show rows as they are understood.

    The recipe fragment is printed, or written with --out. It guesses from the first 1,000 rows;
    look at the rows before you trust it.

    Example: [bold]palate data inspect votes.csv -o mine.yaml[/bold]
    """
    from textwrap import shorten

    import yaml

    from palate.cli.sources import check_output
    from palate.data.inspection import SHOWN_ROWS, inspect
    from palate.records import write_text
    from palate.types import PalateError, in_words

    def short(content: str) -> str:
        return shorten(in_words(content), SHOWN_CHARACTERS, placeholder=" ...")

    check_output(out, file)
    if out is not None and out.exists():  # It may be a recipe that was written by hand.
        raise PalateError(f"{out}: exists; name a new file, or leave --out away to see the lines")
    found = inspect(file)
    emit(({"what": what, "is": value} for what, value in found.facts()), form, str(file))
    emit(
        (
            {
                "prompt": short(comparison.prompt[-1].content),
                "chosen": short(comparison.chosen),
                "rejected": short(comparison.rejected),
                "decides": comparison.judgement.decides,
                "rating": comparison.rating.words if comparison.rating else None,
                "annotator": comparison.annotator,
            }
            for comparison in found.comparisons[:SHOWN_ROWS]
        ),
        form,
        "As understood",
    )
    fragment = "".join(f"# {note}\n" for note in found.notes())
    fragment += yaml.safe_dump(found.fragment(), sort_keys=False, allow_unicode=True)
    if out is None:
        typer.echo(fragment, nl=False)
    else:
        write_text(out, fragment)
        progress()(f"the recipe fragment is in {out}")


@app.command("lint")
def lint(
    source: SourceArgument,
    path: PathOption = None,
    subset: SubsetOption = None,
    split: SplitOption = None,
    option: OptionOption = None,
    column: ColumnOption = None,
    value: ValueOption = None,
    ties: TiesOption = Ties.SKIP,
    annotators: AnnotatorsOption = Annotators.SEPARATE,
    attribute: AttributeOption = None,
    data: DataOption = None,
    max_bad_share: BadShareOption = 0.01,
    out: Annotated[Path | None, typer.Option("--out", help="Every finding, as Parquet.")] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """Count what would teach nothing or the wrong thing: empty, identical, duplicate, mismatched.

    Example: [bold]palate data lint my-comparisons.jsonl --out findings.parquet[/bold]
    """
    from palate.cli.sources import check_output, check_parquet, comparisons
    from palate.data.lint import LintReport
    from palate.data.lint import lint as find
    from palate.data.sources import not_read

    check_output(out, source, path)
    check_parquet(out)
    log = progress()
    stream, bad = comparisons(
        source,
        path,
        subset,
        split,
        option,
        data,
        max_bad_share,
        column,
        value,
        ties.value,
        annotators.value,
        attribute,
    )
    report = LintReport()
    clean = sum(1 for _ in find(stream, report))
    emit(report.table(), form, f"Findings in {source}")
    for agreement in report.agreement():
        log(
            f"{agreement['source']}: {agreement['judged_again']:,} of {agreement['pairs']:,} pairs "
            f"stand in several rows; in {agreement['disagreed']:,} of them the rows disagree"
        )
    log(f"{clean:,} of {sum(report.rows.values()):,} rows kept, {not_read(bad)}")
    disagreement = report.disagreement()
    if form is not Format.TABLE:  # Which has the tables.
        for line in disagreement.lines():
            log(line)
    elif disagreement.groups:
        from rich.console import Console

        from palate.report.data import annotator_tables
        from palate.report.render import show as show_tables

        show_tables(annotator_tables([disagreement]), Console())
    if out is not None:
        report.write(out)


@app.command("import")
def import_file(
    source: SourceArgument,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Parquet to write; default: NAME.comparisons.parquet."),
    ] = None,
    path: PathOption = None,
    subset: SubsetOption = None,
    split: SplitOption = None,
    option: OptionOption = None,
    column: ColumnOption = None,
    value: ValueOption = None,
    ties: TiesOption = Ties.SKIP,
    annotators: AnnotatorsOption = Annotators.SEPARATE,
    attribute: AttributeOption = None,
    data: DataOption = None,
    max_bad_share: BadShareOption = 0.01,
    round_: Annotated[
        Path | None,
        typer.Option("--round", help="The round of `palate next` that these are the answers of."),
    ] = None,
) -> None:
    """Read a source, or a file of your own, into Palate's Parquet form.

    Columns of an own file: prompt (text or messages), chosen, rejected; optional rating, batch,
    chosen_safe, rejected_safe, prompt_id, annotator; TRL's forms too. Other names are mapped;
    [bold]palate data inspect FILE[/bold] proposes how.

    Example: [bold]palate data import week-1.jsonl --out week-1.parquet[/bold]
    Example: [bold]palate data import votes.csv --column prompt=question --column response_a=left
    --column response_b=right --column winner=better --value neither=both_bad --ties keep[/bold]
    Example: [bold]palate data import rated.csv --column prompt=question --column response=answer
    --column score=stars --attribute stars=1..5[/bold]

    Answers to the tasks of [bold]palate next[/bold], from the tool's export or from
    [bold]palate view ROUND --export[/bold], are added to those of the round, each once; held-out
    ones go to a file of their own. Default: ROUND/answers.parquet, ROUND/held-out.parquet.
    Example: [bold]palate data import export.json --round rounds/round-1[/bold]
    """
    from palate.cli.sources import check_output, check_parquet, comparisons
    from palate.data.sources import not_read, worst
    from palate.data.sources.files import stem
    from palate.records import write_comparisons

    if round_ is not None:
        given = {
            "--subset": subset, "--split": split, "--column": column, "--attribute": attribute,
            "--annotators": annotators is not Annotators.SEPARATE,
        }  # fmt: skip
        _import_answers(round_, source, path, out, option, value, max_bad_share, given)
        return
    out = out or Path(f"{stem(Path(source))}.comparisons.parquet")
    check_output(out, source, path)
    check_parquet(out)
    log = progress()
    stream, bad = comparisons(
        source,
        path,
        subset,
        split,
        option,
        data,
        max_bad_share,
        column,
        value,
        ties.value,
        annotators.value,
        attribute,
    )
    header = write_comparisons(out, stream, details={"source": source})
    for row in worst(bad):
        log(str(row))
    log(f"{header.rows:,} comparisons in {out}, {not_read(bad)}")


def _import_answers(
    folder: Path,
    source: str,
    path: str | None,
    out: Path | None,
    option: list[str] | None,
    value: list[str] | None,
    max_bad_share: float,
    given: Mapping[str, object],
) -> None:
    """The answers to a round's tasks, of whatever tool."""
    from palate.cli.sources import check_output, check_parquet, comparisons
    from palate.data.sources import SOURCES, not_read, placed, worst
    from palate.data.sources.answers import refuse_unanswered
    from palate.data.sources.own import is_ours
    from palate.labels.round import ANSWERS, HELD_OUT, import_answers, read_round
    from palate.types import PalateError

    for typed, said in given.items():
        if said:
            raise PalateError(f"{typed}: answers to a round's tasks are read whole; leave it out")
    asked = read_round(folder)
    own = folder / ANSWERS
    out = own if out is None or out.resolve() == own.resolve() else out
    if out.resolve().parent == folder.resolve() and out != own:
        raise PalateError(f"--out {out}: in a round's folder answers are kept as {ANSWERS}; "
                          "leave --out away, or name a file elsewhere")  # fmt: skip
    held_out = folder / HELD_OUT if out == own else out.with_suffix(f".{HELD_OUT}")
    check_output(out, source, path)
    check_parquet(out)
    if source not in SOURCES and path is None and Path(source).exists():
        known = [(name, one.recognise) for name, one in SOURCES.items()]
        tool = next((name for name, knows in known if knows and knows(Path(source))), None)
        if tool is not None:
            source, path = tool, source
        elif Path(source).is_dir():  # Of which the tasks themselves may be a part.
            exports = [file for file in sorted(Path(source).iterdir())
                       if any(knows and knows(file) for _, knows in known)]  # fmt: skip
            if exports:
                raise PalateError(f"{source}: is a folder; name its export: {exports[0]}")
        elif not is_ours(Path(source)):
            refuse_unanswered(Path(source))
            tools = ", ".join(SOURCES[name].title for name, knows in known if knows)
            raise PalateError(
                f"{source}: expected answers: an export of {tools}, or a file of "
                f"`palate view {folder} --export`"
            )
    log = progress()
    rows, bad = comparisons(
        source, path, None, None, option, None, max_bad_share, None, value, ties="keep"
    )
    answered = import_answers(asked, placed(rows, path or source), out, held_out)
    for row in worst(bad):
        log(str(row))
    log(f"{answered}, {not_read(bad)}")
    for file, count in ((out, answered.training), (held_out, answered.held_out)):
        if count:
            log(f"{file}: {count:,} comparisons")


class Tool(StrEnum):
    """An annotation tool that imports tasks."""

    LABEL_STUDIO = "label-studio"
    POTATO = "potato"
    ARGILLA = "argilla"


@app.command("export-tasks")
def export_tasks(
    source: SourceArgument,
    tool: Annotated[Tool, typer.Option("--for", help="The tool that people will answer in.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="A new folder.")],
    seed: Annotated[int, typer.Option("--seed", help="Which response stands first.")] = 0,
    path: PathOption = None,
    data: DataOption = None,
) -> None:
    """Write comparisons as tasks of an annotation tool: which response was better is not in them.

    Label Studio: import tasks.json, paste labelling.xml into the Code view of its settings.
    Potato: start it with config.yaml. Argilla, in Python:
    [bold]Dataset(NAME, settings=Settings.from_json("settings.json")).create().records.log(
    json.load(open("records.json")))[/bold]. What comes back is read by
    [bold]palate data import label-studio --path EXPORT[/bold], potato or argilla.

    Example: [bold]palate data export-tasks week-1.parquet --for label-studio -o tasks[/bold]
    """
    from palate.cli.sources import comparisons
    from palate.data.tasks import write_tasks
    from palate.evaluate.benchmark import seeded_side

    stream, _ = comparisons(source, path, None, None, None, data, 0.01, ties="keep")
    counts = write_tasks(stream, tool.value, out, lambda one: seeded_side(seed, one))
    progress()(f"{counts} in {out}")
