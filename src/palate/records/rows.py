"""Comparisons and verdicts as rows of a table, and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from palate.records.table import Header, read_header, read_rows, write_table
from palate.types import Bin, Comparison, Message, Outcome, Rating, Verdict

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))

COMPARISON_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("prompt", _MESSAGES, nullable=False),
        pa.field("chosen", pa.string(), nullable=False),
        pa.field("rejected", pa.string(), nullable=False),
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("batch", pa.string(), nullable=False),
        pa.field("rating", pa.string()),
        pa.field("chosen_safe", pa.bool_()),
        pa.field("rejected_safe", pa.bool_()),
        pa.field("annotator", pa.string()),
        pa.field("meta", pa.string()),
    ]
)

VERDICT_SCHEMA = pa.schema(
    [
        pa.field("judge", pa.string(), nullable=False),
        pa.field("benchmark", pa.string(), nullable=False),
        pa.field("comparison_id", pa.string(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("chosen_score", pa.float64()),
        pa.field("rejected_score", pa.float64()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("truncated", pa.bool_(), nullable=False),
        pa.field("cluster", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("rating", pa.string()),
        pa.field("bin", pa.string()),
        pa.field("chosen_first", pa.bool_(), nullable=False),
        pa.field("protocol", pa.string(), nullable=False),
        pa.field("answer", pa.string(), nullable=False),
        pa.field("seconds", pa.float64()),
        pa.field("chosen_length", pa.int64()),
        pa.field("rejected_length", pa.int64()),
    ]
)


def write_comparisons(
    path: Path,
    comparisons: Iterable[Comparison],
    *,
    inputs: Mapping[str, str] | None = None,
    details: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
) -> Header:
    """Write comparisons to Parquet; see `write_table`."""
    rows = map(comparison_to_row, comparisons)
    return write_table(
        path, rows, COMPARISON_SCHEMA, kind="comparisons", inputs=inputs, details=details
    )


def read_comparisons(path: Path, *, groups: list[int] | None = None) -> Iterator[Comparison]:
    """Yield the comparisons of a Palate Parquet file (or of some row groups) in order."""
    read_header(path, "comparisons")
    return map(comparison_from_row, read_rows(path, groups=groups))


def write_verdicts(
    path: Path,
    verdicts: Iterable[Verdict],
    *,
    inputs: Mapping[str, str] | None = None,
    details: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
) -> Header:
    """Write verdicts to Parquet; see `write_table`."""
    rows = map(verdict_to_row, verdicts)
    return write_table(path, rows, VERDICT_SCHEMA, kind="verdicts", inputs=inputs, details=details)


def read_verdicts(path: Path, *, older: bool = False) -> Iterator[Verdict]:
    """Yield the verdicts of a Palate Parquet file in order.

    With `older`, of an earlier format too: what it had no column for is empty.
    """
    read_header(path, "verdicts", older=older)
    return map(verdict_from_row, read_rows(path))


def comparison_to_row(comparison: Comparison) -> dict[str, Any]:
    """The row of `COMPARISON_SCHEMA` for a comparison."""
    rating = comparison.rating
    return {
        "id": comparison.id,
        "source": comparison.source,
        "prompt": [{"role": m.role, "content": m.content} for m in comparison.prompt],
        "chosen": comparison.chosen,
        "rejected": comparison.rejected,
        "prompt_id": comparison.prompt_id,
        "batch": comparison.batch,
        "rating": None if rating is None else rating.label,
        "chosen_safe": comparison.chosen_safe,
        "rejected_safe": comparison.rejected_safe,
        "annotator": comparison.annotator,
        "meta": json.dumps(comparison.meta, ensure_ascii=False) if comparison.meta else None,
    }


def comparison_from_row(row: Mapping[str, Any]) -> Comparison:
    """The comparison that `comparison_to_row` wrote."""
    return Comparison(
        id=row["id"],
        source=row["source"],
        prompt=tuple(Message(m["role"], m["content"]) for m in row["prompt"]),
        chosen=row["chosen"],
        rejected=row["rejected"],
        prompt_id=row["prompt_id"],
        batch=row["batch"],
        rating=_rating(row["rating"]),
        chosen_safe=row["chosen_safe"],
        rejected_safe=row["rejected_safe"],
        annotator=row["annotator"],
        meta=json.loads(row["meta"]) if row["meta"] else {},
    )


def verdict_to_row(verdict: Verdict) -> dict[str, Any]:
    """The row of `VERDICT_SCHEMA` for a verdict."""
    rating = verdict.rating
    return {name: getattr(verdict, name) for name in VERDICT_SCHEMA.names} | {
        "outcome": verdict.outcome.value,
        "rating": None if rating is None else rating.label,
        "bin": None if verdict.bin is None else verdict.bin.value,
        "reason": _utf8(verdict.reason),
        "answer": _utf8(verdict.answer),
    }


def verdict_from_row(row: Mapping[str, Any]) -> Verdict:
    """The verdict that `verdict_to_row` wrote."""
    typed = {
        "outcome": Outcome(row["outcome"]),
        "rating": _rating(row["rating"]),
        "bin": None if row["bin"] is None else Bin(row["bin"]),
    }
    known = {name: row[name] for name in VERDICT_SCHEMA.names if name in row}
    return Verdict(**known | typed)


def _utf8(text: str) -> str:
    r"""The text with lone surrogates, which no file of UTF-8 can hold, written out as `\udc80`."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _rating(label: str | None) -> Rating | None:
    return None if label is None else Rating[label.upper()]
