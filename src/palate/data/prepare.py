"""From raw comparisons to clean pools: lint and overlap in one pass, then the hold-out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate.data.holdout import Holdout, Split, split
from palate.data.lint import LintReport, lint
from palate.data.overlap import (
    BenchmarkIndex,
    OverlapOptions,
    OverlapReport,
    exclude_overlap,
)
from palate.records import Header, read_comparisons, read_header, write_comparisons
from palate.types import Comparison


@dataclass(frozen=True, slots=True)
class Prepared:
    """Pools ready to be mixed, and what was taken out of them on the way."""

    split: Split
    lint: Mapping[str, LintReport]
    overlap: Mapping[str, OverlapReport]


def clean(
    comparisons: Iterable[Comparison],
    out: Path,
    *,
    index: BenchmarkIndex | None = None,
    inputs: Mapping[str, str] | None = None,
    keep_overlap: bool = False,
    max_characters: int | None = None,
) -> tuple[Header, LintReport, OverlapReport]:
    """Write the comparisons that pass lint and overlap no benchmark to `out`.

    Findings go beside it, to `*.lint.parquet` and `*.overlap.parquet`.
    """
    linted, overlap = LintReport(), OverlapReport()
    rows = lint(comparisons, linted, max_characters=max_characters)
    if index is not None:
        rows = exclude_overlap(rows, index, overlap, keep=keep_overlap)

    def details() -> dict[str, Any]:
        return {"lint": linted.to_json(), "overlap": overlap.to_json()}

    header = write_comparisons(out, rows, inputs=inputs, details=details)
    linted.write(out.with_suffix(".lint.parquet"))
    overlap.write(out.with_suffix(".overlap.parquet"))
    return header, linted, overlap


def prepare(
    pools: Mapping[str, Path],
    benchmarks: Mapping[str, Path],
    folder: Path,
    holdout: Holdout,
    state: Path,
    *,
    options: OverlapOptions | None = None,
    keep_overlap: bool = False,
    max_characters: int | None = None,
) -> Prepared:
    """Clean every pool against every benchmark, then split it by prompt.

    Writes `folder/clean/POOL.parquet` with its findings, `folder/train/POOL.parquet` and
    `folder/test/POOL.parquet`; `state` is the hold-out that later runs extend.
    """
    index = BenchmarkIndex.build(
        {name: read_comparisons(path) for name, path in benchmarks.items()}, options
    )
    seen = {name: read_header(path).fingerprint for name, path in benchmarks.items()}
    linted, overlaps, cleaned = {}, {}, {}
    for name, path in pools.items():
        cleaned[name] = folder / "clean" / f"{name}.parquet"
        _, linted[name], overlaps[name] = clean(
            read_comparisons(path),
            cleaned[name],
            index=index,
            inputs={name: read_header(path).fingerprint, **seen},
            keep_overlap=keep_overlap,
            max_characters=max_characters,
        )
    return Prepared(split(cleaned, folder, holdout, state), linted, overlaps)
