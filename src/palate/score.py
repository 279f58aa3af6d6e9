"""Responses in, rewards out: JSON Lines or Parquet, of any size, in bounded memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from palate.data.sources import BadRow, fields
from palate.data.sources.files import read_file
from palate.data.sources.source import Record, Unfit
from palate.records import atomic
from palate.types import Candidates, Message, PalateError, Score, Scorer

ROWS_PER_CHUNK = 1_024
Row = dict[str, Any]


def score_file(
    scorer: Scorer,
    file: Path,
    out: Path | IO[str],
    *,
    progress: Callable[[int, int], None] = lambda _done, _unscored: None,
) -> tuple[int, int]:
    """Score every row of `file` and write it with its reward; return (rows, rows without one).

    A row has `prompt` (text or messages) and `response` (text), or `responses` (several texts).
    It is written as it came, with `reward` (or `rewards`), `truncated`, and `reason`, which says
    why a reward is null. `out` is a .jsonl or .parquet file, whole or not at all, or an open
    text stream, which gets JSON Lines.

    Raises:
        PalateError: no row of the file could be scored, or the file is not readable.
    """
    counted = _Counted(scored_rows(scorer, read_file(file, file.stem)), progress)
    if not isinstance(out, Path):
        for row in counted:
            out.write(_line(row))
    elif out.suffix == ".parquet":
        _write_parquet(out, counted)
    elif out.suffix in (".jsonl", ".ndjson"):
        with atomic(out) as partial, partial.open("w", encoding="utf-8") as stream:
            stream.writelines(map(_line, counted))
    else:
        raise PalateError(f"{out}: expected a name that ends in .jsonl or .parquet")
    return counted.rows, counted.unscored


def scored_rows(scorer: Scorer, records: Iterable[Record | BadRow]) -> Iterator[Row]:
    """Each record with its reward, in order; a record that cannot be scored says why."""
    stream = iter(records)
    while chunk := list(islice(stream, ROWS_PER_CHUNK)):
        read = [_candidates(record) for record in chunk]
        scores = scorer.score([c for c in read if isinstance(c, Candidates)])
        for record, candidates in zip(chunk, read, strict=True):
            data = {} if isinstance(record, BadRow) else dict(record.data)
            if isinstance(candidates, str):
                yield data | {"reward": None, "truncated": False, "reason": candidates}
            else:
                yield data | _rewards(next(scores), several="responses" in data)


def _candidates(record: Record | BadRow) -> Candidates | str:
    """What to score, or why it cannot be."""
    if isinstance(record, BadRow):
        return str(record)
    try:
        return Candidates(_prompt(record.data), _responses(record.data))
    except Unfit as unfit:
        return f"{record.file}:{record.row}: {unfit.reason}"


def _prompt(data: Mapping[str, Any]) -> tuple[Message, ...]:
    value = fields.required(data, "prompt")
    if isinstance(value, str):
        return (Message("user", fields.as_text(value, "prompt")),)
    return fields.messages(value, "prompt")


def _responses(data: Mapping[str, Any]) -> tuple[str, ...]:
    if "responses" not in data:
        return (fields.text(data, "response"),)
    values = data["responses"]
    if not isinstance(values, list) or not values:
        raise Unfit(f"responses: expected a list of texts, got {fields.shown(values)}")
    return tuple(fields.as_text(value, "responses") for value in values)


def _rewards(scores: tuple[Score, ...], *, several: bool) -> Row:
    about = {
        "truncated": any(score.truncated for score in scores),
        "reason": "; ".join(sorted({score.reason for score in scores if score.value is None})),
    }
    if several:
        return {"rewards": [score.value for score in scores], **about}
    return {"reward": scores[0].value, **about}


class _Counted:
    """Rows on their way out, counted."""

    def __init__(self, rows: Iterator[Row], progress: Callable[[int, int], None]) -> None:
        self._stream, self._progress = rows, progress
        self.rows = self.unscored = 0

    def __iter__(self) -> Iterator[Row]:
        for row in self._stream:
            self.rows += 1
            self.unscored += bool(row["reason"])
            self._progress(self.rows, self.unscored)
            yield row
        if self.rows and self.unscored == self.rows:
            raise PalateError(
                f"none of {self.rows} rows could be scored; the last: {row['reason']}"
            )


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False, default=str) + "\n"


def _write_parquet(out: Path, rows: Iterable[Row]) -> None:
    """Columns are those of the first chunk; Parquet knows one shape for all rows."""
    stream = iter(rows)
    with atomic(out) as partial:
        writer: pq.ParquetWriter | None = None
        while chunk := list(islice(stream, ROWS_PER_CHUNK)):
            schema = writer.schema if writer else None
            try:
                table = pa.Table.from_pylist(chunk, schema=schema)
            except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
                reason = str(error).splitlines()[0]
                raise PalateError(
                    f"{out}: rows of different shapes ({reason}); use .jsonl"
                ) from None
            writer = writer or pq.ParquetWriter(partial, table.schema, compression="zstd")
            writer.write_table(table)
        if writer is None:
            raise PalateError(f"{out}: no rows to write")
        writer.close()
