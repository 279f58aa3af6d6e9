"""What was found wrong with the data of a run: sources and licences, lint, overlap, examples."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from palate.data.sources import SOURCES
from palate.records import read_batches, read_columns, read_header
from palate.report import escape
from palate.report.tables import DASH, Cell, Column, Row, Table, count, percent
from palate.types import PalateError

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
