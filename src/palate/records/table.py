"""Parquet tables with a header that says where they came from, and a fingerprint of their rows."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from palate.records.disk import atomic
from palate.types import PalateError

FORMAT_VERSION = 1
# Kinds whose columns have changed since. By kind, so that a new column in one does not make every
# other file of a run, and all that was trained on it, out of date.
VERSIONS: Mapping[str, int] = {"verdicts": 3}
# What to do with a file of an earlier format, and with one that is not whole.
UPDATES: Mapping[str, str] = {"verdicts": "evaluate again, its answers are kept"}
REPAIRS: Mapping[str, str] = {"verdicts": "remove it and evaluate again to remake it"}
ROWS_PER_GROUP = 4_096  # Bounds memory on write and read: about 4 MB of HH text a group.
BYTES_PER_GROUP = 1 << 26  # The same where a row is large: a judge may answer with a megabyte.
HEADER_KEY = b"palate"
PACKAGES = ("palate", "torch", "transformers", "datasets", "pyarrow", "peft", "scipy")


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


class Fingerprint:
    """Running digest of ordered rows."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, row: Mapping[str, Any]) -> int:
        """Add a row; returns its size as JSON in bytes."""
        text = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
        line = text.encode("utf-8", "surrogatepass") + b"\n"
        self._hash.update(line)
        return len(line)

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
    with atomic(path) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for group in _groups(rows, fingerprint):
            count += len(group)
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
        header = Header(
            kind=kind,
            version=version_of(kind),
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


def _groups(
    rows: Iterable[Mapping[str, Any]], fingerprint: Fingerprint
) -> Iterator[list[Mapping[str, Any]]]:
    """Rows in groups of bounded number and size, each row added to the fingerprint."""
    group: list[Mapping[str, Any]] = []
    size = 0
    for row in rows:
        group.append(row)
        size += fingerprint.add(row)
        if len(group) == ROWS_PER_GROUP or size >= BYTES_PER_GROUP:
            yield group
            group, size = [], 0
    if group:
        yield group


def version_of(kind: str) -> int:
    """The format in which tables of this kind are written and read."""
    return VERSIONS.get(kind, FORMAT_VERSION)


def read_header(path: Path, kind: str | None = None, *, older: bool = False) -> Header:
    """Read a table's header; a missing, foreign, cut or newer file is a one-line error.

    A file of an earlier format is an error too, unless `older`.
    """
    with _opened(path, kind) as file:
        raw = (file.metadata.metadata or {}).get(HEADER_KEY)
    if raw is None:
        raise PalateError(f"{path}: no Palate header; make it with `palate data import`")
    header = _header(path, raw)
    if kind is not None and header.kind != kind:
        raise PalateError(f"{path}: holds {header.kind}, expected {kind}")
    _check_version(path, header, older)
    return header


def _header(path: Path, raw: bytes) -> Header:
    try:
        return Header(**json.loads(raw))
    except (ValueError, TypeError):
        raise PalateError(f"{path}: its Palate header cannot be read; remake it") from None


def _check_version(path: Path, header: Header, older: bool) -> None:
    ours = version_of(header.kind)
    if header.version == ours or (older and header.version < ours):
        return
    remake = UPDATES.get(header.kind, "remake it with this version")
    cure = "update Palate" if header.version > ours else remake
    raise PalateError(
        f"{path}: {header.kind} written in format {header.version}, this Palate reads {ours}; "
        f"{cure}"
    )


def count_groups(path: Path) -> int:
    """The number of row groups of a table, the parts in which it can be read."""
    with _opened(path) as file:
        return file.num_row_groups


def read_rows(
    path: Path, columns: list[str] | None = None, *, groups: list[int] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield a table's rows in order, in bounded memory; `columns`, `groups` limit what is read."""
    with _opened(path) as file:
        # One by one: a batch may run across groups, and rows may be large.
        for group in range(file.num_row_groups) if groups is None else groups:
            for batch in file.iter_batches(ROWS_PER_GROUP, row_groups=[group], columns=columns):
                yield from batch.to_pylist()


def read_columns(path: Path, names: list[str], kind: str) -> pa.Table:
    """Some columns of a table of that kind, whole; raises as `read_header` does."""
    read_header(path, kind)
    with _opened(path, kind) as file:
        return file.read(names)


def read_batches(path: Path, names: list[str], kind: str) -> Iterator[pa.RecordBatch]:
    """The same batch by batch, in bounded memory."""
    read_header(path, kind)
    with _opened(path, kind) as file:
        yield from file.iter_batches(ROWS_PER_GROUP, columns=names)


@contextmanager
def _opened(path: Path, kind: str | None = None) -> Generator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except FileNotFoundError:
        raise PalateError(f"{path}: no such file; run the stage that makes it first") from None
    except (pa.ArrowInvalid, OSError) as error:
        reason, cure = str(error).splitlines()[0], REPAIRS.get(kind or "", "remake it")
        raise PalateError(f"{path}: not a whole Parquet file ({reason}); {cure}") from None
