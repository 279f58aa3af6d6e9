"""Queues: lists of comparisons to be looked at in an order, each with a reason and a score.

A queue is a Parquet file below `queues/` of the folder that `palate view` is given; the
comparisons are those of that folder. Whoever has a list of rows for people writes one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from palate.records import Header, read_columns, read_header, write_table

QUEUES = "queues"
"""The folder of queues in a run's folder."""
KIND = "queue"
_SCHEMA = pa.schema(
    [
        pa.field("comparison_id", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("score", pa.float64()),
    ]
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One comparison in a queue: why it stands there, in a line, and how much it is worth.

    A `score` of None is none.
    """

    comparison_id: str
    reason: str = ""
    score: float | None = None


def queue_path(folder: Path, name: str) -> Path:
    """Where the queue of this name is in a folder to view."""
    return folder / QUEUES / f"{name}.parquet"


def write_queue(path: Path, entries: Iterable[Entry], *, scored_by: str = "") -> Header:
    """Write a queue in the order in which it is shown; `scored_by` says what its scores are."""
    rows = (
        {
            "comparison_id": entry.comparison_id,
            "reason": entry.reason,
            "score": entry.score
            if entry.score is not None and math.isfinite(entry.score)
            else None,
        }
        for entry in entries
    )
    return write_table(path, rows, _SCHEMA, kind=KIND, details={"scored_by": scored_by})


def read_queue(path: Path) -> tuple[list[Entry], str]:
    """The entries of a queue in their order, and what its scores are.

    Raises:
        PalateError: no whole file of a queue.
    """
    scored_by = str(read_header(path, KIND).details.get("scored_by", ""))
    table = read_columns(path, _SCHEMA.names, KIND)
    return [Entry(**row) for row in table.to_pylist()], scored_by
