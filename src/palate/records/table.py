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
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from palate.records.disk import atomic
from palate.types import PalateError

FORMAT_VERSION = 1
ROWS_PER_GROUP = 4_096  # Bounds memory on write and read: about 4 MB of HH text a group.
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


def count_groups(path: Path) -> int:
    """The number of row groups of a table, the parts in which it can be read."""
    with _opened(path) as file:
        return file.num_row_groups


def read_rows(
    path: Path, columns: list[str] | None = None, *, groups: list[int] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield a table's rows in order, in bounded memory; `columns`, `groups` limit what is read."""
    with _opened(path) as file:
        for batch in file.iter_batches(ROWS_PER_GROUP, row_groups=groups, columns=columns):
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
