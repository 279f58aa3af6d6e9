"""Rows of several files in a chosen order, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from palate.records import ROWS_PER_GROUP
from palate.types import PalateError

ROWS_PER_BUCKET = 16_384  # About 32 MB of HH text: the memory of one sort.
MAX_BUCKETS = 256  # Open files; past 4 M rows the buckets grow instead.
_PLACE = "__place"


def shuffled(
    files: Sequence[tuple[Path, npt.NDArray[np.int64]]],
    folder: Path,
    rows_per_bucket: int = ROWS_PER_BUCKET,
) -> Iterator[dict[str, Any]]:
    """Yield the chosen rows of Parquet files of one schema, ordered by place.

    `files` pairs each file with the place of each of its rows in the result, -1 to leave it out;
    places are 0 .. n-1, each once. Every file is read once, front to back; rows wait in temporary
    files in `folder`, which must have room for the result.

    Raises:
        PalateError: the temporary files cannot be written.
    """
    total = sum(int((places >= 0).sum()) for _, places in files)
    width = max(rows_per_bucket, -(-total // MAX_BUCKETS), 1)
    try:
        with TemporaryDirectory(prefix=".shuffle-", dir=folder) as scratch:
            buckets = [Path(scratch) / f"{i}.arrow" for i in range(-(-total // width))]
            _scatter(files, buckets, width)
            for bucket in buckets:
                yield from _sorted_rows(bucket)
                bucket.unlink()
    except OSError as error:
        reason = error.strerror or error
        raise PalateError(f"{folder}: rows cannot be shuffled there ({reason})") from error


def _scatter(
    files: Sequence[tuple[Path, npt.NDArray[np.int64]]], buckets: Sequence[Path], width: int
) -> None:
    """Copy each chosen row, with its place, to the bucket of `width` places it belongs to."""
    if not buckets:
        return
    with ExitStack() as stack:
        schema = pq.read_schema(files[0][0]).remove_metadata()
        schema = schema.append(pa.field(_PLACE, pa.int64()))
        writers = [stack.enter_context(pa.ipc.new_file(str(path), schema)) for path in buckets]
        for rows in _placed(files):
            ends = np.searchsorted(rows[_PLACE].to_numpy() // width, np.arange(len(buckets) + 1))
            for number in np.flatnonzero(np.diff(ends)).tolist():
                first, last = int(ends[number]), int(ends[number + 1])
                writers[number].write_batch(rows.slice(first, last - first))


def _placed(files: Sequence[tuple[Path, npt.NDArray[np.int64]]]) -> Iterator[pa.RecordBatch]:
    """The chosen rows in pieces that are sorted by place, which is their last column."""
    for path, places in files:
        start = 0
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(ROWS_PER_GROUP * 4):
                part = places[start : start + len(batch)]
                start += len(batch)
                kept = np.flatnonzero(part >= 0)
                kept = kept[np.argsort(part[kept])]
                rows = batch.take(pa.array(kept)).replace_schema_metadata(None)
                yield rows.append_column(pa.field(_PLACE, pa.int64()), pa.array(part[kept]))


def _sorted_rows(bucket: Path) -> Iterator[dict[str, Any]]:
    with pa.ipc.open_file(str(bucket)) as reader:
        table = reader.read_all()
    table = table.sort_by(_PLACE).drop_columns([_PLACE])
    for batch in table.to_batches(max_chunksize=1_024):
        yield from batch.to_pylist()
