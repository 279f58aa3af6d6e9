"""Tables on disk: Parquet files that say where they came from.

Every file carries a header (kind, format version, recipe, seed, fingerprints of its inputs, git
revision, package versions) and a fingerprint of its ordered contents. Files appear whole or not
at all: they are written beside their name and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from palate.types import Bin, Comparison, Message, Outcome, PalateError, Rating, Verdict

FORMAT_VERSION = 1
ROWS_PER_GROUP = 4_096  # Bounds memory on write and read: about 4 MB of HH text a group.
HEADER_KEY = b"palate"
PACKAGES = ("palate", "torch", "transformers", "datasets", "pyarrow", "peft", "scipy")

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
    ]
)


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself.

    `details` holds what belongs to the stage: recipe, seed, counts, shares asked and achieved.
    `inputs` maps each input's name to its fingerprint.
    """

    kind: str
    fingerprint: str = ""
    rows: int = 0
    inputs: Mapping[str, str] = field(default_factory=dict[str, str])
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])
    version: int = FORMAT_VERSION
    created: str = ""
    git: str = ""
    packages: Mapping[str, str] = field(default_factory=dict[str, str])


@cache
def package_versions() -> Mapping[str, str]:
    """Versions of the packages that can change a number; absent ones are left out."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def git_revision() -> str:
    """The revision of the working folder's repository with `+dirty`, or "" outside one."""
    command = ["git", "describe", "--always", "--dirty=+dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


@contextmanager
def atomic(path: Path) -> Generator[Path]:
    """Yield a temporary path beside `path`; rename it there on success, remove it on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise PalateError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, *, replace: bool = True) -> Generator[Path]:
    """Yield an empty temporary folder beside `path`; rename it there on success.

    A folder already at `path` is replaced, or kept where `replace` is false (a cache that
    another process filled meanwhile). On failure nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        partial.mkdir()
        yield partial
        if path.exists() and replace:
            path.rename(old)
        if not path.exists():
            partial.rename(path)
    except OSError as error:
        raise PalateError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="surrogatepass")


def write_json(path: Path, value: object) -> None:
    """Write an indented JSON file whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


class Fingerprint:
    """Running digest of ordered rows."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, row: Mapping[str, Any]) -> None:
        text = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
        self._hash.update(text.encode("utf-8", "surrogatepass"))
        self._hash.update(b"\n")

    def hex(self) -> str:
        return self._hash.hexdigest()


def write_table(
    path: Path,
    rows: Iterable[Mapping[str, Any]],
    schema: pa.Schema,
    *,
    kind: str,
    inputs: Mapping[str, str] | None = None,
    details: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
) -> Header:
    """Stream `rows` to a Parquet file in bounded memory and return the header written with it.

    `details` may be a function; it is called after the last row, for counts made on the way.
    """
    fingerprint, count = Fingerprint(), 0
    stream = iter(rows)
    with atomic(path) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        while group := list(islice(stream, ROWS_PER_GROUP)):
            for row in group:
                fingerprint.add(row)
            count += len(group)
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
        header = Header(
            kind=kind,
            fingerprint=fingerprint.hex(),
            rows=count,
            inputs=dict(inputs or {}),
            details=dict(details() if callable(details) else details or {}),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            git=git_revision(),
            packages=dict(package_versions()),
        )
        writer.add_key_value_metadata({HEADER_KEY: json.dumps(asdict(header))})
    return header


def read_header(path: Path, kind: str | None = None) -> Header:
    """Read a table's header; a missing, foreign, cut or newer file is a one-line error."""
    with _opened(path) as file:
        raw = (file.metadata.metadata or {}).get(HEADER_KEY)
    if raw is None:
        raise PalateError(f"{path}: no Palate header; make it with `palate data import`")
    header = Header(**json.loads(raw))
    if header.version != FORMAT_VERSION:
        raise PalateError(
            f"{path}: written in format {header.version}, this Palate reads {FORMAT_VERSION}; "
            "remake it with this version"
        )
    if kind is not None and header.kind != kind:
        raise PalateError(f"{path}: holds {header.kind}, expected {kind}")
    return header


def read_rows(path: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield a table's rows in order, a row group at a time; `columns` limits what is read."""
    with _opened(path) as file:
        for batch in file.iter_batches(ROWS_PER_GROUP, columns=columns):
            yield from batch.to_pylist()


@contextmanager
def _opened(path: Path) -> Generator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except FileNotFoundError:
        raise PalateError(f"{path}: no such file; run the stage that makes it first") from None
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise PalateError(f"{path}: not a whole Parquet file ({reason}); remake it") from None


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


def read_comparisons(path: Path) -> Iterator[Comparison]:
    """Yield the comparisons of a Palate Parquet file in order, in bounded memory."""
    read_header(path, "comparisons")
    return map(comparison_from_row, read_rows(path))


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


def read_verdicts(path: Path) -> Iterator[Verdict]:
    """Yield the verdicts of a Palate Parquet file in order."""
    read_header(path, "verdicts")
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
    }


def verdict_from_row(row: Mapping[str, Any]) -> Verdict:
    """The verdict that `verdict_to_row` wrote."""
    typed = {
        "outcome": Outcome(row["outcome"]),
        "rating": _rating(row["rating"]),
        "bin": None if row["bin"] is None else Bin(row["bin"]),
    }
    return Verdict(**{name: row[name] for name in VERDICT_SCHEMA.names} | typed)


def _rating(label: str | None) -> Rating | None:
    return None if label is None else Rating[label.upper()]
