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

from palate import escape
from palate.data.sources import SOURCES
from palate.evaluate.results import Floats
from palate.records import read_batches, read_columns, read_header
from palate.report.accuracy import RATINGS
from palate.report.table import DASH, Cell, Column, Row, Table, count, percent
from palate.types import Bin, PalateError

LABELS = {
    (True, False): Bin.SAFE_UNSAFE,
    (True, True): Bin.BOTH_SAFE,
    (False, False): Bin.BOTH_UNSAFE,
}
NONE = "none"


@dataclass(slots=True)
class Contents:
    """What is in a file of comparisons; `lengths` are characters of chosen and rejected, [N, 2]."""

    name: str
    role: str
    rows: int = 0
    prompts: set[str] = field(default_factory=set)
    sources: Counter[str] = field(default_factory=Counter)
    ratings: Counter[str] = field(default_factory=Counter)
    bins: Counter[str] = field(default_factory=Counter)
    batches: Counter[tuple[str, str]] = field(default_factory=Counter)
    turns: Counter[int] = field(default_factory=Counter)
    lengths: Floats = field(default_factory=lambda: np.empty((0, 2)))


COLUMNS = [
    "source", "prompt", "chosen", "rejected", "prompt_id", "batch", "rating", "chosen_safe",
    "rejected_safe",
]  # fmt: skip


def read_contents(run: Path) -> tuple[list[Contents], list[str]]:
    """What is in the mixtures and benchmarks of a run, and which files are broken."""
    found, problems = [], []
    paths = [(p, "mixture") for p in sorted((run / "mixtures").glob("*.parquet"))]
    paths += [(p, "benchmark") for p in sorted((run / "benchmarks").glob("*.parquet"))]
    for path, role in paths:
        if path.name.endswith(".ids.parquet"):
            continue
        try:
            found.append(_contents(path, role))
        except PalateError as error:
            problems.append(str(error))
    return found, problems


def _contents(path: Path, role: str) -> Contents:
    made, lengths = Contents(path.stem, role), []
    for batch in read_batches(path, COLUMNS, "comparisons"):
        made.rows += batch.num_rows
        of = {name: batch.column(name).to_pylist() for name in COLUMNS[4:]}
        ratings = [rating or NONE for rating in of["rating"]]
        made.prompts.update(of["prompt_id"])
        made.sources.update(batch.column("source").to_pylist())
        made.ratings.update(ratings)
        safe = zip(of["chosen_safe"], of["rejected_safe"], strict=True)
        made.bins.update(LABELS.get(pair, NONE) for pair in safe)
        made.batches.update(zip(of["batch"], ratings, strict=True))
        made.turns.update(pc.list_value_length(batch.column("prompt")).to_pylist())
        sides = [pc.utf8_length(batch.column(name)).to_numpy() for name in ("chosen", "rejected")]
        lengths.append(np.stack(sides, axis=1).astype(np.float64))
    made.lengths = np.concatenate(lengths) if lengths else made.lengths
    return made


def mixture_table(runs: Sequence[Path]) -> Table | None:
    """Shares asked and achieved, by group and pool; None where no mixture was made."""
    rows = [
        Row((Cell(escape.name(name)), *_share(share)), escape.name(name))
        for name, share in _shares(runs)
    ]
    columns = (
        *(Column(name, figures=False) for name in ("Mixture", "Group", "Source")),
        *(Column(name) for name in ("Available", "Asked", "Taken")),
        *(Column(name) for name in ("Share asked (%)", "of rows (%)", "of tokens (%)")),
    )
    remark = "Tokens are estimated from characters where the mixture was made without a tokenizer."
    title = "Mixtures: shares asked and achieved"
    return Table("mixture", title, columns, tuple(rows), (remark,)) if rows else None


def _shares(runs: Sequence[Path]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for run in runs:
        for path in sorted((run / "mixtures").glob("*.shares.json")):
            name = path.name.removesuffix(".shares.json")
            try:
                shares = json.loads(path.read_text(encoding="utf-8"))["shares"]
                found = [share for share in shares if isinstance(share["rows"], int)]
            except (ValueError, KeyError, TypeError):
                continue
            whole = f"{run.name}: {name}" if len(runs) > 1 else name
            yield from ((whole, share) for share in found)


def _share(share: Mapping[str, Any]) -> Iterator[Cell]:
    yield Cell(escape.name(str(share["group"])))
    yield Cell(escape.name(str(share["pool"])) if share["pool"] else "whole group")
    yield from (_count(share.get(key)) for key in ("available", "rows_asked", "rows"))
    for key in ("share_asked", "share_rows", "share_tokens"):
        value = share.get(key)
        yield Cell(DASH if value is None else percent(float(value)))


def _count(value: int | None) -> Cell:
    return Cell(DASH) if value is None else count(value)


def contents_table(contents: Sequence[Contents]) -> Table | None:
    """Ratings, safety bins and lengths of mixtures and benchmarks; None where there are none."""
    bins = [bin.value for bin in Bin]
    columns = (
        *(Column(name, figures=False) for name in ("Data", "Use")),
        *(Column(name) for name in ("Comparisons", "Prompts")),
        *(Column(rating.label.capitalize()) for rating in RATINGS),
        Column("Unrated"),
        *(Column(name.capitalize()) for name in bins),
        *(Column(name) for name in ("Chosen, characters", "Rejected, characters")),
    )
    rows = tuple(
        Row(
            (
                Cell(escape.name(one.name)),
                Cell(one.role),
                *map(count, (one.rows, len(one.prompts))),
                *(_some(one.ratings[rating.label]) for rating in RATINGS),
                _some(one.ratings[NONE]),
                *(_some(one.bins[name]) for name in bins),
                *(_median(one, side) for side in (0, 1)),
            ),
            one.role,
        )
        for one in contents
    )
    remark = "Characters: the median length of the preferred and of the other response."
    title = "Contents: ratings, safety bins and lengths"
    return Table("contents", title, columns, rows, (remark,)) if rows else None


def _some(number: int) -> Cell:
    return count(number) if number else Cell(DASH)


def _median(one: Contents, side: int) -> Cell:
    return count(round(float(np.median(one.lengths[:, side])))) if one.rows else Cell(DASH)


def batches_table(contents: Sequence[Contents]) -> Table | None:
    """Comparisons by annotation batch; None where no mixture has more than one."""
    rows = []
    for one in contents:
        names = sorted({batch for batch, _ in one.batches})
        if one.role != "mixture" or len(names) < 2:
            continue
        for name in names:
            by = [one.batches[name, rating.label] for rating in RATINGS]
            unrated = one.batches[name, NONE]
            cells = (count(sum(by) + unrated), *map(_some, by), _some(unrated))
            heads = (Cell(escape.name(one.name)), Cell(escape.name(name)))
            rows.append(Row((*heads, *cells), heads[0].text))
    columns = (
        *(Column(name, figures=False) for name in ("Mixture", "Batch")),
        Column("Comparisons"),
        *(Column(rating.label.capitalize()) for rating in RATINGS),
        Column("Unrated"),
    )
    title = "Batches: comparisons by annotation batch"
    return Table("batches", title, columns, tuple(rows)) if rows else None


# What was found wrong with the data of a run: sources and licences, lint, overlap, examples.

EXAMPLES = 2
SNIPPET = 160
MOST_SEARCHED = 200_000  # Rows; above it an example has no text, for finding it would take seconds.


def read_recipe(run: Path) -> Mapping[str, Any]:
    """The resolved recipe of a run as plain values; empty where there is none or it is broken."""
    try:
        found = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def sources_table(runs: Sequence[Path]) -> Table | None:
    """Every source of the runs with its licence and what became of its rows; or None."""
    rows = [row for run in runs for row in _sources(run)]
    columns = (
        *(Column(name, figures=False) for name in ("Source", "Data set", "Licence")),
        *(Column(name) for name in ("Read", "Unreadable", "Excluded by lint", "Overlapping")),
    )
    remark = (
        "Overlapping: rows of the training pool that share a prompt with a benchmark; they are "
        "left out of training unless the recipe keeps them."
    )
    title = "Sources, licences, and what was left out"
    unique = tuple(dict.fromkeys(rows))
    return Table("sources", title, columns, unique, (remark,)) if rows else None


def _sources(run: Path) -> Iterator[Row]:
    plans = read_recipe(run).get("data", {})
    plans = plans.get("sources", {}) if isinstance(plans, Mapping) else {}
    overlapping = _json(run / "data" / "pools" / "overlap.json").get("excluded", {})
    for alias, plan in plans.items() if isinstance(plans, Mapping) else ():
        name = str(plan.get("source", "")) if isinstance(plan, Mapping) else ""
        source = SOURCES.get(name)
        imported = _details(run / "data" / "imported" / f"{alias}.parquet")
        excluded = _details(run / "data" / "clean" / f"{alias}.parquet").get("excluded", {})
        rows = imported.get("rows")
        yield Row(
            (
                Cell(escape.name(str(alias))),
                Cell(source.title if source else escape.name(name)),
                Cell(source.licence if source else DASH),
                Cell(DASH) if rows is None else count(rows),
                count(int(imported.get("bad_rows", 0))),
                count(int(excluded.get(alias, 0))),
                count(int(overlapping.get(alias, 0))),
            )
        )


def _details(path: Path) -> dict[str, Any]:
    try:
        header = read_header(path)
    except PalateError:
        return {}
    return {**header.details, "rows": header.rows}


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def lint_table(runs: Sequence[Path]) -> Table | None:
    """Findings of lint by source and kind, with an example of each; or None."""
    rows = [row for run in runs for row in _lint(run)]
    columns = (
        *(Column(name, figures=False) for name in ("Source", "Finding")),
        *(Column(name) for name in ("Rows", "of rows (%)")),
        *(Column(name, figures=False) for name in ("What became of them", "Why", "Example prompt")),
    )
    title = "Lint: what was found in the comparisons"
    remarks = tuple(dict.fromkeys(line for run in runs for line in _agreement(run)))
    return Table("lint", title, columns, tuple(dict.fromkeys(rows)), remarks) if rows else None


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


def _lint(run: Path) -> Iterator[Row]:
    for path in sorted((run / "data" / "clean").glob("*.findings.parquet")):
        try:
            found = read_columns(path, ["id", "source", "kind", "detail"], "lint")
        except PalateError:
            continue
        alias = path.name.removesuffix(".findings.parquet")
        firsts = {kind: _first(found, kind) for kind in pc.unique(found["kind"]).to_pylist()}
        prompts = _prompts(
            run / "data" / "imported" / f"{alias}.parquet", [row["id"] for row in firsts.values()]
        )
        counts = _details(path).get("findings", [])
        for line in counts:
            example = firsts.get(line["kind"], {})
            yield Row(
                (
                    Cell(escape.name(line["source"])),
                    Cell(escape.name(line["kind"])),
                    count(line["findings"]),
                    Cell(percent(line["share"])),
                    Cell(line.get("rows", "left out")),
                    Cell(escape.plain(str(example.get("detail", "")), SNIPPET)),
                    Cell(prompts.get(str(example.get("id", "")), "")),
                ),
                escape.name(line["source"]),
            )


def _first(found: pa.Table, kind: str) -> dict[str, Any]:
    row = pc.index(found["kind"], kind).as_py()
    return found.slice(row, 1).to_pylist()[0]


def overlap_table(runs: Sequence[Path]) -> Table | None:
    """Training rows that share a prompt with a benchmark, where there were any; or None."""
    rows, looked = [], set()
    for run in runs:
        for line in _json(run / "data" / "pools" / "overlap.json").get("overlaps", []):
            looked.add(line["benchmark"])
            if line["overlapping"]:
                rows.append(_overlap(run, line))
    columns = (
        *(Column(name, figures=False) for name in ("Benchmark", "Source")),
        *(Column(name) for name in ("Rows", "Overlapping", "Same prompt", "Contains", "Near")),
        Column("Example, prompt of the benchmark", figures=False),
    )
    without = sorted(looked - {row.group for row in rows})
    remarks = [
        "Contains: the training prompt holds most of a benchmark prompt's word 5-grams. Near: "
        "most of both are shared."
    ]
    if without:
        remarks.append(f"No overlap was found with {', '.join(map(escape.name, without))}.")
    title = "Overlap of training data with benchmarks"
    return Table("overlap", title, columns, tuple(rows), tuple(remarks)) if looked else None


def _overlap(run: Path, line: Mapping[str, Any]) -> Row:
    ids = [pair[1] for pair in line["examples"][:1]]
    prompts = _prompts(run / "benchmarks" / f"{line['benchmark']}.parquet", ids)
    numbers = ("rows", "overlapping", "exact", "contains", "near")
    return Row(
        (
            Cell(escape.name(line["benchmark"])),
            Cell(escape.name(line["source"])),
            *(count(line[key]) for key in numbers),
            Cell(next(iter(prompts.values()), "")),
        ),
        line["benchmark"],
    )


def _prompts(path: Path, ids: Sequence[str]) -> dict[str, str]:
    """The last turns of these comparisons' prompts as one line each."""
    try:
        if not ids or read_header(path, "comparisons").rows > MOST_SEARCHED:
            return {}
        found = {}
        for batch in read_batches(path, ["id", "prompt"], "comparisons"):
            held = batch.filter(pc.is_in(batch.column("id"), pa.array(ids)))
            for row in held.to_pylist():
                last = row["prompt"][-1]["content"] if row["prompt"] else ""
                found[row["id"]] = escape.plain(last, SNIPPET)
    except PalateError:
        return {}
    return found
