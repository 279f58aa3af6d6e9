"""Files that say where they came from: Parquet tables with a header and a fingerprint.

Every table carries a header (kind, format version, recipe, seed, fingerprints of its inputs, git
revision, package versions) and a fingerprint of its ordered rows. Files appear whole or not at
all: they are written beside their name and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from array import array
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from palate.types import (
    PREFERRED,
    Attributes,
    BenchmarkItem,
    Bin,
    Comparison,
    JudgedResponse,
    Judgement,
    Message,
    Outcome,
    PalateError,
    Ranks,
    RatedAttribute,
    Rating,
    Verdict,
)

# Files that appear whole or not at all, written beside their name and renamed; their digests.


@contextmanager
def atomic(path: Path) -> Generator[Path]:
    """Yield a temporary path beside `path`; rename it there on success, remove it on failure.

    Folders are made where they are missing; one that was made for nothing does not stay.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise PalateError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with suppress(OSError):  # What went wrong was said above.
            partial.unlink(missing_ok=True)
            for folder in made:
                folder.rmdir()  # Innermost first, up to the first that has something in it.


@contextmanager
def atomic_folder(path: Path, *, replace: bool = True) -> Generator[Path]:
    """Yield an empty temporary folder beside `path`; rename it there on success.

    A folder already at `path` is replaced, or kept where `replace` is false (a cache that
    another process filled meanwhile). On failure nothing is left behind. What may read the files
    is the umask's affair, whichever library wrote them.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        yield partial
        follow_umask(partial)
        if path.exists() and replace:
            path.rename(old)
        if not path.exists():
            partial.rename(path)
    except OSError as error:
        raise PalateError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def check_holds_model_or_nothing(folder: Path) -> None:
    """Raise `PalateError` where a model written to `folder` would replace anything but a model."""
    if folder.name in ("", ".."):
        raise PalateError(f"{folder}: expected the name of a folder, such as models/mine")
    kinds = ("*.safetensors", "*.onnx", "*.gguf")
    weights = [path for kind in kinds for path in folder.glob(kind)] if folder.is_dir() else []
    configs = ("config.json", "adapter_config.json")
    model = bool(weights) and any((folder / name).is_file() for name in configs)
    empty = folder.is_dir() and not any(folder.iterdir())
    if folder.exists() and not model and not empty:
        raise PalateError(f"{folder}: is something else than a model; name another or remove it")


def follow_umask(folder: Path) -> None:
    """Give the files in `folder` the mode of any new file, as `folder` has that of a new one.

    safetensors 0.8 makes files that nobody but their owner reads (mode 0600), and a server that
    runs as another user cannot open the model.
    """
    # Of a folder that was just made: the umask itself can only be read by setting it, for every
    # thread at once.
    mode = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(mode)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="surrogatepass")


def write_json(path: Path, value: object) -> None:
    """Write an indented JSON file whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


WHOLE_DIGEST_BYTES = 1 << 30  # Above it a file is sampled: reading 140 GB takes minutes.
SAMPLES, SAMPLE_BYTES = 256, 1 << 16


def file_digest(path: Path, *, whole: bool = False) -> str:
    """A 128-bit hex digest of a file's bytes; above 1 GiB, of its size and 256 spaced samples.

    With `whole`, of every byte at any size.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if whole or size <= WHOLE_DIGEST_BYTES:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        hashed = hashlib.blake2b(str(size).encode(), digest_size=16)
        for index in range(SAMPLES):
            file.seek(index * (size - SAMPLE_BYTES) // (SAMPLES - 1))
            hashed.update(file.read(SAMPLE_BYTES))
    return hashed.hexdigest()


FORMAT_VERSION = 1
# Kinds whose columns have changed since. By kind, so that a new column in one does not make every
# other file of a run, and all that was trained on it, out of date.
VERSIONS: Mapping[str, int] = {"verdicts": 3}
# The cure of a file of an earlier format, and of one that is not whole.
UPDATES: Mapping[str, str] = {"verdicts": "evaluate again, its answers are kept"}
REPAIRS: Mapping[str, str] = {"verdicts": "remove it and evaluate again to remake it"}
# Columns that files of an earlier form lack.
LATER_COLUMNS = frozenset(
    {
        "judgement", "ranks", "preferred", "chosen_attributes", "rejected_attributes", "attributes",
        "spread",
        "value", "chance", "responses",
    }
)  # fmt: skip
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
    versions = {}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


@cache
def git_revision() -> str:
    """The revision of the working folder's repository with `+dirty`, or "" outside one."""
    command = ["git", "describe", "--always", "--dirty=+dirty", "--abbrev=12"]
    try:
        git = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return git.stdout.strip()


class Fingerprint:
    """Running digest of ordered rows."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, row: Mapping[str, Any]) -> int:
        """Add a row; returns its size as JSON in bytes.

        An empty cell of a later column adds nothing, so that a file of the same rows in an
        earlier form has the same fingerprint.
        """
        line = row_line(row)
        self._hash.update(line)
        return len(line)

    def add_lines(self, lines: bytes | memoryview) -> None:
        """Add rows whose lines (`row_line`) stand one after the other."""
        self._hash.update(lines)

    def hex(self) -> str:
        return self._hash.hexdigest()


def row_line(row: Mapping[str, Any]) -> bytes:
    """A row as its fingerprint takes it: JSON and a line break."""
    row = {k: v for k, v in row.items() if v is not None or k not in LATER_COLUMNS}
    text = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass") + b"\n"


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
    fingerprint = Fingerprint()
    groups = _groups(rows, fingerprint)
    tables = (pa.Table.from_pylist(group, schema=schema) for group in groups)
    return _write(path, tables, schema, fingerprint, kind, inputs, details)


def _write(
    path: Path,
    groups: Iterable[pa.Table],
    schema: pa.Schema,
    fingerprint: Fingerprint,
    kind: str,
    inputs: Mapping[str, str] | None,
    details: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None,
) -> Header:
    """Write row groups and the header; whoever makes them adds their rows to the fingerprint."""
    count = 0
    with atomic(path) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for group in groups:
            count += len(group)
            writer.write_table(group)
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


# A table of rows that other processes made: in the parent they are never Python objects.


@dataclass(frozen=True, slots=True)
class PackedRows:
    """Rows as an Arrow message, and the lines of their fingerprint with the size of each."""

    message: bytes
    lines: bytes
    sizes: array[int]

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> PackedRows:
        """The rows packed."""
        lines = [row_line(row) for row in rows]
        batch = pa.RecordBatch.from_pylist(list(rows), schema=schema)
        sizes = array("q", map(len, lines))
        return cls(batch.serialize().to_pybytes(), b"".join(lines), sizes)

    def runs(self, kept: Sequence[bool], schema: pa.Schema) -> Iterator[PackedRun]:
        """The rows that are kept, a run of neighbours at a time."""
        batch = pa.ipc.read_record_batch(pa.py_buffer(self.message), schema)
        lines, start, first = memoryview(self.lines), 0, 0
        for keep, same in groupby(kept):
            count = len(list(same))
            sizes = self.sizes[first : first + count]
            end = start + sum(sizes)
            if keep:
                yield PackedRun(batch.slice(first, count), lines[start:end], sizes)
            first, start = first + count, end


@dataclass(frozen=True, slots=True)
class PackedRun:
    """Neighbouring rows that stay together."""

    batch: pa.RecordBatch
    lines: memoryview
    sizes: array[int]


def write_packed(
    path: Path,
    runs: Iterable[PackedRun],
    schema: pa.Schema,
    *,
    kind: str,
    inputs: Mapping[str, str] | None = None,
    details: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
) -> Header:
    """As `write_table`, which makes the same file of the same rows."""
    fingerprint = Fingerprint()
    tables = _regrouped(runs, schema, fingerprint)
    return _write(path, tables, schema, fingerprint, kind, inputs, details)


def _regrouped(
    runs: Iterable[PackedRun], schema: pa.Schema, fingerprint: Fingerprint
) -> Iterator[pa.Table]:
    """The row groups that `_groups` would make of these rows."""
    group: list[pa.RecordBatch] = []
    rows = size = 0
    for run in runs:
        fingerprint.add_lines(run.lines)
        first = 0
        for number, line in enumerate(run.sizes, 1):
            rows, size = rows + 1, size + line
            if rows == ROWS_PER_GROUP or size >= BYTES_PER_GROUP:
                group.append(run.batch.slice(first, number - first))
                yield pa.Table.from_batches(group, schema).combine_chunks()
                group, rows, size, first = [], 0, 0, number
        if first < len(run.sizes):
            group.append(run.batch.slice(first))
    if group:
        yield pa.Table.from_batches(group, schema).combine_chunks()


def version_of(kind: str) -> int:
    """The format in which tables of this kind are written and read."""
    return VERSIONS.get(kind, FORMAT_VERSION)


def read_header(path: Path, kind: str | None = None, *, older: bool = False) -> Header:
    """Read a table's header; a missing, foreign, cut or newer file is a one-line error.

    A file of an earlier format is an error too, unless `older`.
    """
    with _open(path, kind) as file:
        raw = (file.metadata.metadata or {}).get(HEADER_KEY)
    if raw is None:
        raise PalateError(f"{path}: no Palate header; make it with `palate data import`")
    try:
        header = Header(**json.loads(raw))
    except (ValueError, TypeError):
        raise PalateError(f"{path}: its Palate header cannot be read; remake it") from None
    if kind is not None and header.kind != kind:
        cure = (
            "; items of several responses are for judging: `palate judge`, or a recipe's benchmarks"
        )
        raise PalateError(
            f"{path}: holds {header.kind}, expected {kind}{cure if header.kind == 'items' else ''}"
        )
    ours = version_of(header.kind)
    if header.version > ours or (header.version < ours and not older):
        remake = UPDATES.get(header.kind, "remake it with this version")
        raise PalateError(
            f"{path}: {header.kind} written in format {header.version}, this Palate reads {ours}; "
            f"{'update Palate' if header.version > ours else remake}"
        )
    return header


def count_groups(path: Path) -> int:
    """The number of row groups of a table, the parts in which it can be read."""
    with _open(path) as file:
        return file.num_row_groups


def has_values(path: Path, column: str) -> bool:
    """Whether some row of a table has a value in `column`; read from the file's statistics."""
    with _open(path) as file:
        schema, metadata = file.schema, file.metadata
        names = [schema.column(i).path for i in range(len(schema))]
        leaf = next((i for i, n in enumerate(names) if n.split(".")[0] == column), None)
        if leaf is None:
            return False
        groups = (metadata.row_group(i).column(leaf) for i in range(metadata.num_row_groups))
        return any(
            c.statistics is None
            or not c.statistics.has_null_count
            or c.statistics.null_count < c.num_values
            for c in groups
        )


def read_rows(
    path: Path, columns: list[str] | None = None, *, groups: list[int] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield a table's rows in order, in bounded memory; `columns`, `groups` limit what is read."""
    with _open(path) as file:
        # One by one: a batch may run across groups, and rows may be large.
        for group in range(file.num_row_groups) if groups is None else groups:
            for batch in file.iter_batches(ROWS_PER_GROUP, row_groups=[group], columns=columns):
                yield from batch.to_pylist()


def read_columns(path: Path, names: list[str], kind: str) -> pa.Table:
    """Some columns of a table of that kind, whole, as far as its form has them.

    Raises as `read_header` does.
    """
    read_header(path, kind)
    with _open(path, kind) as file:
        return file.read([name for name in names if name in file.schema_arrow.names])


def read_batches(path: Path, names: list[str], kind: str) -> Iterator[pa.RecordBatch]:
    """The same batch by batch, in bounded memory."""
    read_header(path, kind)
    with _open(path, kind) as file:
        present = [name for name in names if name in file.schema_arrow.names]
        yield from file.iter_batches(ROWS_PER_GROUP, columns=present)


@contextmanager
def _open(path: Path, kind: str | None = None) -> Generator[pq.ParquetFile]:
    try:
        # With pre_buffer, its default, pyarrow keeps every row group that it has read.
        with pq.ParquetFile(path, pre_buffer=False) as file:
            yield file
    except FileNotFoundError:
        raise PalateError(f"{path}: no such file; run the stage that makes it first") from None
    except (pa.ArrowInvalid, OSError) as error:
        reason, cure = str(error).splitlines()[0], REPAIRS.get(kind or "", "remake it")
        raise PalateError(f"{path}: not a whole Parquet file ({reason}); {cure}") from None


# Comparisons and verdicts as rows of a table, and back.

_JUDGEMENT = pa.struct([(name, pa.float64()) for name in Judgement.__slots__])
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_ATTRIBUTES = pa.list_(pa.struct([("name", pa.string()), ("value", pa.float64())]))
_RATED = pa.list_(
    pa.struct(
        [
            ("name", pa.string()),
            ("side", pa.string()),
            ("rated", pa.float64()),
            ("predicted", pa.float64()),
        ]
    )
)
_JUDGED = pa.list_(
    pa.struct(
        [
            ("place", pa.int32()),
            ("length", pa.int64()),
            ("score", pa.float64()),
            ("reason", pa.string()),
        ]
    )
)

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
        pa.field("judgement", _JUDGEMENT),
        pa.field(
            "ranks",
            pa.struct([("ranking", pa.string()), ("chosen", pa.int32()), ("rejected", pa.int32())]),
        ),
        pa.field("chosen_attributes", _ATTRIBUTES),
        pa.field("rejected_attributes", _ATTRIBUTES),
    ]
)

ITEM_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("prompt", _MESSAGES, nullable=False),
        pa.field("responses", pa.list_(pa.string()), nullable=False),
        pa.field("places", pa.list_(pa.int32()), nullable=False),
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("pairs", pa.list_(pa.struct([("better", pa.int32()), ("worse", pa.int32())]))),
        pa.field("turns", pa.list_(_MESSAGES)),
        pa.field("labels", pa.list_(pa.string())),
        pa.field("judgement", _JUDGEMENT),
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
        pa.field("judgement", _JUDGEMENT),
        pa.field("preferred", pa.string()),
        pa.field("attributes", _RATED),
        pa.field("spread", pa.float64()),
        pa.field("value", pa.float64()),
        pa.field("chance", pa.float64()),
        pa.field("responses", _JUDGED),
    ]
)


BEST_OF_MANY_SCHEMA = pa.schema(
    [
        pa.field("prompt", pa.int64(), nullable=False),
        pa.field("truth", pa.float64(), nullable=False),
        pa.field("reward", pa.float64()),
        pa.field("members", pa.list_(pa.float64())),
        pa.field("average", pa.float64()),  # Of an ensemble's weights, where it is not `reward`.
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
    rows, schema = map(comparison_to_row, comparisons), COMPARISON_SCHEMA
    return write_table(path, rows, schema, kind="comparisons", inputs=inputs, details=details)


def read_comparisons(path: Path, *, groups: list[int] | None = None) -> Iterator[Comparison]:
    """Yield the comparisons of a Palate Parquet file (or of some row groups) in order."""
    read_header(path, "comparisons")
    return map(comparison_from_row, read_rows(path, groups=groups))


def write_items(
    path: Path,
    items: Iterable[BenchmarkItem],
    *,
    inputs: Mapping[str, str] | None = None,
    details: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
) -> Header:
    """Write a benchmark's items of K responses to Parquet; see `write_table`."""
    rows = map(item_to_row, items)
    return write_table(path, rows, ITEM_SCHEMA, kind="items", inputs=inputs, details=details)


def read_benchmark_items(path: Path) -> Iterator[BenchmarkItem]:
    """Yield the items of a Palate Parquet file in order."""
    read_header(path, "items")
    return map(item_from_row, read_rows(path))


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


def verdict_paths(folder: Path) -> list[Path]:
    """The verdict files of a run's folder, or of one that `palate judge` filled, by name."""
    if (folder / "verdicts").is_dir():
        return sorted((folder / "verdicts").glob("*.parquet"))
    found = []
    for path in sorted(folder.glob("*.parquet")):
        with suppress(PalateError):
            found += [path] if read_header(path, older=True).kind == "verdicts" else []
    return found


def read_verdicts(path: Path, *, older: bool = False) -> Iterator[Verdict]:
    """Yield the verdicts of a Palate Parquet file in order.

    With `older`, of an earlier format too: what it had no column for is empty.
    """
    read_header(path, "verdicts", older=older)
    return map(verdict_from_row, read_rows(path))


def comparison_to_row(comparison: Comparison) -> dict[str, Any]:
    """The row of `COMPARISON_SCHEMA` for a comparison."""
    ranks = comparison.ranks
    return {name: getattr(comparison, name) for name in COMPARISON_SCHEMA.names} | {
        "prompt": _messages_cell(comparison.prompt),
        "rating": comparison.rating and comparison.rating.label,
        "meta": json.dumps(comparison.meta, ensure_ascii=False) if comparison.meta else None,
        "judgement": _judgement_cell(comparison.judgement),
        "ranks": ranks and asdict(ranks),
        "chosen_attributes": _attributes_cell(comparison.chosen_attributes),
        "rejected_attributes": _attributes_cell(comparison.rejected_attributes),
    }


def comparison_from_row(row: Mapping[str, Any]) -> Comparison:
    """The comparison that `comparison_to_row` wrote."""
    typed = {
        "prompt": _messages(row["prompt"]),
        "rating": _rating(row["rating"]),
        "meta": json.loads(row["meta"]) if row["meta"] else {},
        "judgement": _judgement(row.get("judgement")),
        "ranks": Ranks(**ranks) if (ranks := row.get("ranks")) else None,
        "chosen_attributes": attributes_of(row.get("chosen_attributes")),
        "rejected_attributes": attributes_of(row.get("rejected_attributes")),
    }
    return Comparison(
        **{name: row[name] for name in COMPARISON_SCHEMA.names if name not in typed} | typed
    )


def item_to_row(item: BenchmarkItem) -> dict[str, Any]:
    """The row of `ITEM_SCHEMA` for an item."""
    return {
        "id": item.id,
        "source": item.source,
        "prompt": _messages_cell(item.prompt),
        "responses": list(item.responses),
        "places": list(item.places),
        "prompt_id": item.prompt_id,
        "pairs": [{"better": a, "worse": b} for a, b in item.pairs] or None,
        "turns": [_messages_cell(turns) for turns in item.turns] or None,
        "labels": list(item.labels) or None,
        "judgement": _judgement_cell(item.judgement),
        "meta": json.dumps(item.meta, ensure_ascii=False) if item.meta else None,
    }


def item_from_row(row: Mapping[str, Any]) -> BenchmarkItem:
    """The item that `item_to_row` wrote."""
    return BenchmarkItem(
        id=row["id"],
        source=row["source"],
        prompt=_messages(row["prompt"]),
        responses=tuple(row["responses"]),
        places=tuple(row["places"]),
        prompt_id=row["prompt_id"],
        pairs=tuple((pair["better"], pair["worse"]) for pair in row["pairs"] or ()),
        turns=tuple(_messages(turns) for turns in row["turns"] or ()),
        labels=tuple(row["labels"] or ()),
        judgement=_judgement(row["judgement"]),
        meta=json.loads(row["meta"]) if row["meta"] else {},
    )


def _messages_cell(turns: Iterable[Message]) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def _messages(cell: Iterable[Mapping[str, Any]]) -> tuple[Message, ...]:
    return tuple(Message(turn["role"], turn["content"]) for turn in cell)


def verdict_to_row(verdict: Verdict) -> dict[str, Any]:
    """The row of `VERDICT_SCHEMA` for a verdict."""
    return {name: getattr(verdict, name) for name in VERDICT_SCHEMA.names} | {
        "outcome": verdict.outcome.value,
        "rating": verdict.rating and verdict.rating.label,
        "bin": verdict.bin and verdict.bin.value,
        "reason": _utf8(verdict.reason),
        "answer": _utf8(verdict.answer),
        "judgement": _judgement_cell(verdict.judgement),
        "attributes": [asdict(rated) for rated in verdict.attributes] or None,
        "responses": [{**asdict(one), "reason": _utf8(one.reason)} for one in verdict.responses]
        or None,
    }


def verdict_from_row(row: Mapping[str, Any]) -> Verdict:
    """The verdict that `verdict_to_row` wrote."""
    typed = {
        "outcome": Outcome(row["outcome"]),
        "rating": _rating(row["rating"]),
        "bin": None if row["bin"] is None else Bin(row["bin"]),
        "judgement": _judgement(row.get("judgement")),
        "attributes": tuple(RatedAttribute(**cell) for cell in row.get("attributes") or ()),
        "responses": tuple(JudgedResponse(**cell) for cell in row.get("responses") or ()),
    }
    known = {name: row[name] for name in VERDICT_SCHEMA.names if name in row}
    return Verdict(**known | typed)


def _utf8(text: str) -> str:
    r"""The text with lone surrogates, which no file of UTF-8 can hold, written out as `\udc80`."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _judgement_cell(judgement: Judgement) -> dict[str, float] | None:
    return None if judgement == PREFERRED else asdict(judgement)


def _judgement(cell: Mapping[str, float] | None) -> Judgement:
    return Judgement(**cell) if cell else PREFERRED


def _attributes_cell(attributes: Attributes) -> list[dict[str, Any]] | None:
    return [{"name": name, "value": attributes[name]} for name in sorted(attributes)] or None


def attributes_of(cell: Iterable[Mapping[str, Any]] | None) -> dict[str, float]:
    """The attributes that a cell of a table holds."""
    return {pair["name"]: pair["value"] for pair in cell or ()}


def _rating(label: str | None) -> Rating | None:
    return None if label is None else Rating[label.upper()]
