"""The data of a run as tables: what mixtures asked for and got, what is in them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from numpy.typing import NDArray

from palate import escape
from palate.data.annotators import SHOWN_ANNOTATORS, Disagreement
from palate.data.sources import SOURCES
from palate.evaluate.results import Floats
from palate.records import read_batches, read_columns, read_header
from palate.report.accuracy import RATINGS
from palate.report.table import (
    Column,
    Row,
    Table,
    Unit,
    Values,
    columns,
    figure,
    make_table,
    row,
)
from palate.types import Bin, Judgement, PalateError

LABELS = {
    (True, False): Bin.SAFE_UNSAFE,
    (True, True): Bin.BOTH_SAFE,
    (False, False): Bin.BOTH_UNSAFE,
}
NONE = "none"
RATING_LABELS = (*(rating.label for rating in RATINGS), NONE)
RATING_HEADS = (*(rating.label.capitalize() for rating in RATINGS), "Unrated")
WHOLE_GROUP = "whole group"


@dataclass(slots=True)
class Contents:
    """What is in a file of comparisons; `lengths` are characters of chosen and rejected, [N, 2]."""

    name: str
    role: str
    rows: int = 0
    prompts: set[str] = field(default_factory=set)
    ratings: Counter[str] = field(default_factory=Counter)
    bins: Counter[str] = field(default_factory=Counter)
    batches: Counter[tuple[str, str]] = field(default_factory=Counter)
    lengths: Floats = field(default_factory=lambda: np.empty((0, 2)))


COLUMNS = ["prompt_id", "batch", "rating", "chosen_safe", "rejected_safe"]


def read_contents(run: Path) -> tuple[list[Contents], list[str]]:
    """What is in the mixtures and benchmarks of a run, and which files are broken."""
    contents, problems = [], []
    paths = [(p, "mixture") for p in sorted((run / "mixtures").glob("*.parquet"))]
    paths += [(p, "benchmark") for p in sorted((run / "benchmarks").glob("*.parquet"))]
    for path, role in paths:
        if path.name.endswith(".ids.parquet"):
            continue
        try:
            contents.append(_contents(path, role))
        except PalateError as error:
            problems.append(str(error))
    return contents, problems


def _contents(path: Path, role: str) -> Contents:
    contents, lengths = Contents(path.stem, role), []
    if role == "benchmark" and read_header(path).kind == "items":  # No rating, bin or chosen one.
        for batch in read_batches(path, ["prompt_id"], "items"):
            contents.rows += batch.num_rows
            contents.prompts.update(batch.column("prompt_id").to_pylist())
        contents.ratings[NONE] = contents.rows
        return contents
    names = [*COLUMNS, "chosen", "rejected", "judgement"]
    for batch in read_batches(path, names, "comparisons"):
        prompts, batches, labels, *safe = (batch.column(name).to_pylist() for name in COLUMNS)
        ratings = [label or NONE for label in labels]
        contents.rows += batch.num_rows
        contents.prompts.update(prompts)
        contents.ratings.update(ratings)
        contents.bins.update(LABELS.get(sides, NONE) for sides in zip(*safe, strict=True))
        contents.batches.update(zip(batches, ratings, strict=True))
        sides = [pc.utf8_length(batch.column(name)).to_numpy() for name in ("chosen", "rejected")]
        lengths.append(np.stack(sides, axis=1).astype(np.float64)[_preferred(batch)])
    if lengths:
        contents.lengths = np.concatenate(lengths)
    return contents


def _preferred(batch: pa.RecordBatch) -> NDArray[np.bool_]:
    """Whether people preferred one response, [rows]: the sides of a tie are not chosen or not."""
    if "judgement" not in batch.schema.names:
        return np.ones(batch.num_rows, dtype=np.bool_)
    judgements = batch.column("judgement").to_pylist()
    return np.array([not one or Judgement(**one).decides != "tie" for one in judgements], bool)


def mixture_table(runs: Sequence[Path]) -> Table | None:
    """Shares asked and achieved, by group and pool; None where no mixture was made."""
    rows = [
        (
            escape.name(name),
            escape.name(str(share["group"])),
            escape.name(str(share["pool"])) if share["pool"] else WHOLE_GROUP,
            *(share.get(key) for key in ("available", "rows_asked", "rows")),
            # JSON may have written a share of one as a whole number.
            *(
                None if (value := share.get(key)) is None else float(value)
                for key in ("share_asked", "share_rows", "share_tokens")
            ),
        )
        for name, share in _shares(runs)
    ]
    heads = [
        *columns(Unit.TEXT, "Mixture", "Group", "Source"),
        *columns(Unit.COUNT, "Available", "Asked", "Taken"),
        *columns(Unit.PERCENT, "Share asked (%)", "of rows (%)", "of tokens (%)"),
    ]
    remark = "Tokens are estimated from characters where the mixture was made without a tokenizer."
    title = "Mixtures: shares asked and achieved"
    return make_table("mixture", title, heads, rows, (remark,), group_by=1)


def _shares(runs: Sequence[Path]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for run in runs:
        for path in sorted((run / "mixtures").glob("*.shares.json")):
            name = path.name.removesuffix(".shares.json")
            try:
                shares = json.loads(path.read_text(encoding="utf-8"))["shares"]
                valid = [share for share in shares if isinstance(share["rows"], int)]
            except (ValueError, KeyError, TypeError):
                continue
            full_name = f"{run.name}: {name}" if len(runs) > 1 else name
            yield from ((full_name, share) for share in valid)


def contents_table(contents: Sequence[Contents]) -> Table | None:
    """Ratings, safety bins and lengths of mixtures and benchmarks; None where there are none."""
    bins = [bin.value for bin in Bin]
    rows = []
    for one in contents:
        rated = [one.ratings[label] or None for label in RATING_LABELS]
        binned = [one.bins[name] or None for name in bins]
        medians = [
            round(float(np.median(side))) if one.lengths.size else None for side in one.lengths.T
        ]
        heads_of = (escape.name(one.name), one.role, one.rows, len(one.prompts))
        rows.append(row(*heads_of, *rated, *binned, *medians, group=one.role))
    heads = [
        *columns(Unit.TEXT, "Data", "Use"),
        *columns(
            Unit.COUNT, "Comparisons", "Prompts", *RATING_HEADS,
            *(name.capitalize() for name in bins), "Chosen, characters", "Rejected, characters",
        ),
    ]  # fmt: skip
    remark = "Characters: the median length of the preferred and of the other response."
    title = "Contents: ratings, safety bins and lengths"
    return make_table("contents", title, heads, rows, (remark,))


def batches_table(contents: Sequence[Contents]) -> Table | None:
    """Comparisons by annotation batch; None where no mixture has more than one."""
    rows: list[Values] = []
    for one in contents:
        names = sorted({batch for batch, _ in one.batches})
        if one.role != "mixture" or len(names) < 2:
            continue
        for name in names:
            rated = [one.batches[name, label] or None for label in RATING_LABELS]
            rows.append(
                (escape.name(one.name), escape.name(name), sum(filter(None, rated)), *rated)
            )
    heads = [
        *columns(Unit.TEXT, "Mixture", "Batch"),
        *columns(Unit.COUNT, "Comparisons", *RATING_HEADS),
    ]
    title = "Batches: comparisons by annotation batch"
    return make_table("batches", title, heads, rows, group_by=1)


# What is wrong with the data of a run: sources and licences, lint, overlap, examples.

SNIPPET = 160
MOST_SEARCHED = 200_000  # Rows; above it an example has no text, for finding it would take seconds.


def read_recipe(run: Path) -> Mapping[str, Any]:
    """The resolved recipe of a run as plain values; empty where there is none or it is broken."""
    try:
        recipe = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return recipe if isinstance(recipe, dict) else {}


def sources_table(runs: Sequence[Path]) -> Table | None:
    """Every source of the runs with its licence and what became of its rows; or None."""
    rows = dict.fromkeys(values for run in runs for values in _sources(run))
    heads = [
        *columns(Unit.TEXT, "Source", "Data set", "Licence"),
        *columns(Unit.COUNT, "Read", "Unreadable", "Excluded by lint", "Overlapping"),
    ]
    remark = (
        "Overlapping: rows of the training pool that share a prompt with a benchmark; they are "
        "left out of training unless the recipe keeps them."
    )
    return make_table("sources", "Sources, licences, and what was left out", heads, rows, (remark,))


def _sources(run: Path) -> Iterator[Values]:
    data = read_recipe(run).get("data", {})
    sources = data.get("sources", {}) if isinstance(data, Mapping) else {}
    overlapping = _json(run / "data" / "pools" / "overlap.json").get("excluded", {})
    for alias, config in sources.items() if isinstance(sources, Mapping) else ():
        name = str(config.get("source", "")) if isinstance(config, Mapping) else ""
        source = SOURCES.get(name)
        imported = _details(run / "data" / "imported" / f"{alias}.parquet")
        excluded = _details(run / "data" / "clean" / f"{alias}.parquet").get("excluded", {})
        yield (
            escape.name(str(alias)),
            source.title if source else escape.name(name),
            source.licence if source else None,
            imported.get("rows"),
            int(imported.get("bad_rows", 0)),
            int(excluded.get(alias, 0)),
            int(overlapping.get(alias, 0)),
        )


def _details(path: Path) -> dict[str, Any]:
    try:
        header = read_header(path)
    except PalateError:
        return {}
    return {**header.details, "rows": header.rows}


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def lint_table(runs: Sequence[Path]) -> Table | None:
    """Findings of lint by source and kind, with an example of each; or None."""
    rows = dict.fromkeys(values for run in runs for values in _lint(run))
    heads = [
        *columns(Unit.TEXT, "Source", "Finding"),
        Column("Rows", Unit.COUNT),
        Column("of rows (%)", Unit.PERCENT),
        *columns(Unit.TEXT, "What became of them", "Why", "Example prompt"),
    ]
    title = "Lint: what was found in the comparisons"
    remarks = tuple(dict.fromkeys(line for run in runs for line in _agreement(run)))
    return make_table("lint", title, heads, rows, remarks, group_by=1)


def _agreement(run: Path) -> Iterator[str]:
    """How often the rows of one pair prefer different replies, for sources with such pairs."""
    for path in sorted((run / "data" / "clean").glob("*.findings.parquet")):
        for line in _details(path).get("agreement", []):
            again, disagreed = int(line["judged_again"]), int(line["disagreed"])
            yield (
                f"{escape.name(line['source'])}: {again:,} of {int(line['pairs']):,} pairs stand "
                f"in several rows; in {disagreed:,} of these ({disagreed / again:.1%}) the rows "
                "prefer different replies."
            )


FAR = (
    "agrees less with the others than they do among themselves, by more than chance: look at these "
    "votes"
)


def annotator_tables(disagreements: Sequence[Disagreement]) -> list[Table]:
    """How far annotators agree by source and batch, and each of them beside the others."""
    tables = agreement_table(disagreements), annotators_table(disagreements)
    return [table for table in tables if table is not None]


def agreement_table(disagreements: Sequence[Disagreement]) -> Table | None:
    """Agreement, alpha and noise ceiling by source and batch; None without several annotators."""
    groups = dict.fromkeys(group for one in disagreements for group in one.groups)
    rows = [
        (
            escape.name(group.source),
            escape.name(group.batch) if group.batch else "all",
            *(group.annotators, group.votes, group.pairs),
            *(group.agreement and group.agreement.n, group.agreement),
            *(group.alpha, group.ceiling, group.ties),
        )
        for group in groups
    ]
    heads = [
        *columns(Unit.TEXT, "Source", "Batch"),
        *columns(Unit.COUNT, "Annotators", "Votes", "Pairs", "With several votes"),
        Column("Two annotators agree (%)", Unit.SHARE),
        Column("Krippendorff's alpha", Unit.SCORE),
        *columns(Unit.SHARE, "Noise ceiling (%)", "Ties (%)"),
    ]
    remark = (
        "Of the rows that lint keeps. A tie is an answer like the others; the noise ceiling, the "
        "highest accuracy of a judge against one annotator, is of votes for a side. 95 % "
        "intervals over prompts."
    )
    return make_table("agreement", "Agreement of annotators", heads, rows, (remark,), group_by=1)


def annotators_table(disagreements: Sequence[Disagreement]) -> Table | None:
    """Every annotator beside the others on the same pairs; None without several annotators."""
    people = dict.fromkeys(one for found in disagreements for one in found.annotators)
    rows = [
        row(
            escape.name(one.source),
            escape.name(one.name),
            *(one.votes, one.agreement and one.agreement.n),
            figure(one.agreement, *([FAR] if one.is_far else [])),
            *(one.others, one.p_value, one.ties),
            group=one.source,
        )
        for one in people
    ]
    heads = [
        *columns(Unit.TEXT, "Source", "Annotator"),
        *columns(Unit.COUNT, "Votes", "Beside others"),
        Column("Agrees with the others (%)", Unit.SHARE),
        Column("They among themselves (%)", Unit.PERCENT),
        Column("Same (p)", Unit.P_VALUE),
        Column("Ties (%)", Unit.SHARE),
    ]
    remark = (
        "p is adjusted by Holm over the annotators of a source, from a variance over prompts. "
        f"At most {SHOWN_ANNOTATORS} annotators of a source, those far from the rest before others."
    )
    return make_table("annotators", "Annotators beside the others", heads, rows, (remark,))


def _lint(run: Path) -> Iterator[Values]:
    for path in sorted((run / "data" / "clean").glob("*.findings.parquet")):
        try:
            findings = read_columns(path, ["id", "source", "kind", "detail"], "lint")
        except PalateError:
            continue
        first = {
            kind: findings.slice(pc.index(findings["kind"], kind).as_py(), 1).to_pylist()[0]
            for kind in pc.unique(findings["kind"]).to_pylist()
        }
        alias = path.name.removesuffix(".findings.parquet")
        imported = run / "data" / "imported" / f"{alias}.parquet"
        prompts = _prompts(imported, [example["id"] for example in first.values()])
        for line in _details(path).get("findings", []):
            example = first.get(line["kind"], {})
            yield (
                escape.name(line["source"]),
                escape.name(line["kind"]),
                line["findings"],
                float(line["share"]),
                line.get("rows", "left out"),
                escape.plain(str(example.get("detail", "")), SNIPPET),
                prompts.get(str(example.get("id", "")), ""),
            )


def overlap_table(runs: Sequence[Path]) -> Table | None:
    """Training rows that share a prompt with a benchmark, where there were any; or None."""
    rows: list[Row] = []
    benchmarks: dict[str, bool] = {}
    for run in runs:
        for line in _json(run / "data" / "pools" / "overlap.json").get("overlaps", []):
            name, overlapping = line["benchmark"], bool(line["overlapping"])
            benchmarks[name] = overlapping or benchmarks.get(name, False)
            if overlapping:
                ids = [pair[1] for pair in line["examples"][:1]]
                prompts = _prompts(run / "benchmarks" / f"{name}.parquet", ids)
                counts = (line[key] for key in ("rows", "overlapping", "exact", "contains", "near"))
                example = next(iter(prompts.values()), "")
                names = escape.name(name), escape.name(line["source"])
                rows.append(row(*names, *counts, example, group=name))
    heads = (
        *columns(Unit.TEXT, "Benchmark", "Source"),
        *columns(Unit.COUNT, "Rows", "Overlapping", "Same prompt", "Contains", "Near"),
        Column("Example, prompt of the benchmark"),
    )
    remarks = [
        "Contains: the training prompt holds most of a benchmark prompt's word 5-grams. Near: "
        "most of both are shared."
    ]
    if without := sorted(name for name, overlapping in benchmarks.items() if not overlapping):
        remarks.append(f"No overlap was found with {', '.join(map(escape.name, without))}.")
    # Without rows too: that there is no overlap is a result.
    title = "Overlap of training data with benchmarks"
    return Table("overlap", title, heads, tuple(rows), tuple(remarks)) if benchmarks else None


def _prompts(path: Path, ids: Sequence[str]) -> dict[str, str]:
    """The last turns of these comparisons' prompts as one line each."""
    prompts: dict[str, str] = {}
    try:
        header = read_header(path)
        if not ids or header.rows > MOST_SEARCHED:
            return {}
        for batch in read_batches(path, ["id", "prompt"], header.kind):
            rows = batch.filter(pc.is_in(batch.column("id"), pa.array(ids)))
            for values in rows.to_pylist():
                last = values["prompt"][-1]["content"] if values["prompt"] else ""
                prompts[values["id"]] = escape.plain(last, SNIPPET)
    except PalateError:
        return {}
    return prompts
