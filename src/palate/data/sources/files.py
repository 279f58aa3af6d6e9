"""Local files as records, one at a time: JSONL, JSON arrays, CSV, TSV and Parquet, gzipped or not.

Text is UTF-8, or UTF-16 and UTF-32 where the file begins with their mark, as Windows writes them.

A line that cannot be read becomes a `BadRow` and reading goes on; a file that cannot be read at
all (missing, empty, cut, not what its name says) is a `PalateError`.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from palate.data.sources.base import BadRow, Record, Records, Request, shown
from palate.types import PalateError

ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
SEPARATORS = (",", ";", "\t", "|")  # Of CSV: which it is shows in the header.
ENCODINGS = (  # By the mark at a file's beginning; UTF-32's little-endian one begins with UTF-16's.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
NOT_UTF8 = (
    "expected UTF-8, got other bytes (Windows-1252 or Latin-1?); convert the file: "
    "iconv -f WINDOWS-1252 -t UTF-8"
)
# A longer line is damage, not a conversation; it is skipped without being held in memory.
MAX_LINE_BYTES = 32 * 2**20
MAX_CELL_CHARACTERS = 32 * 2**20
GZIP, PARQUET = b"\x1f\x8b", b"PAR1"  # What such files begin with.
ROWS_PER_READ = 1_024
HEADER_BYTES = 65_536
_ESCAPED = re.compile("[\udc80-\udcff]")  # What Python makes of bytes that are no UTF-8.


def ending(path: Path) -> str:
    """The format of a file by its name, without `.gz`; "" if it is none that Palate reads."""
    name = path.name.lower().removesuffix(".gz")
    return next((end for end in ENDINGS if name.endswith(end)), "")


def stem(path: Path) -> str:
    """The file's name without its format: "train" of "train.jsonl.gz"."""
    name = path.name
    if name.lower().endswith(".gz"):
        name = name[:-3]
    return name[: -len(ending(path))] if ending(path) else name


def find_files(location: Path, split: str | None = None, subset: str | None = None) -> list[Path]:
    """The data files at a location, in the order of their names.

    A split is a file of that name ("train.jsonl", "train-00000-of-00002.parquet") or a folder;
    a subset is a folder.
    """
    if location.is_file():
        return [location]
    if not location.is_dir():
        raise PalateError(f"{location}: no such file or folder")
    found = sorted(p for p in location.rglob("*") if p.is_file() and ending(p) and _seen(p))
    kept = [p for p in found if _belongs(p.relative_to(location), split, subset)]
    if not kept:
        asked = " ".join(f"{k}={v}" for k, v in (("subset", subset), ("split", split)) if v)
        there = ", ".join(str(p.relative_to(location)) for p in found[:8]) or "no data file"
        raise PalateError(f"{location}: expected data files {asked}, found {there}")
    return kept


def _seen(path: Path) -> bool:
    return not path.name.startswith((".", "dataset_info", "state.json"))


def _belongs(path: Path, split: str | None, subset: str | None) -> bool:
    folders, name = path.parts[:-1], stem(path)
    of_split = split is None or name == split or name.startswith(f"{split}-") or split in folders
    return of_split and (subset is None or subset in folders)


def read_file(path: Path, part: str | None = None) -> Records:
    """Yield the records of one file in order."""
    part = part or stem(path)
    readers = {".csv": _read_csv, ".tsv": _read_csv, ".parquet": _read_parquet, ".json": _read_json}
    reader = readers.get(ending(path), _read_jsonl)
    if not ending(path):
        raise PalateError(f"{path}: expected one of {', '.join(ENDINGS)} (or these with .gz)")
    return _whole(path, reader(path, part))


def _whole(path: Path, records: Records) -> Records:
    """Pass records on; what is wrong with the file as a whole becomes one line."""
    seen = False
    try:
        for record in records:
            seen = True
            yield record
    except FileNotFoundError:
        raise PalateError(f"{path}: no such file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise PalateError(f"{path}: cut or not gzip ({error}); fetch it again") from None
    except pa.ArrowInvalid as error:
        reason = str(error).splitlines()[0]
        raise PalateError(f"{path}: not a whole Parquet file ({reason})") from None
    except OSError as error:
        raise PalateError(f"{path}: cannot be read ({error.strerror or error})") from None
    if not seen:
        raise PalateError(f"{path}: expected rows, the file is empty")


def _open(path: Path) -> IO[bytes]:
    """The file's bytes, unpacked, in UTF-8."""
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    file = cast(io.BufferedReader, opened(path, "rb"))
    head = file.peek(4)[:4]
    if head.startswith(GZIP) and opened is open:
        file.close()
        raise PalateError(f"{path}: is packed; let its name end in .gz")
    if head == PARQUET:
        file.close()
        raise PalateError(f"{path}: is a Parquet file; let its name end in .parquet")
    encoding = next((name for mark, name in ENCODINGS if head.startswith(mark)), None)
    return file if encoding is None else io.BufferedReader(_Recoded(file, encoding))


class _Recoded(io.RawIOBase):
    """A file in another encoding, as UTF-8."""

    def __init__(self, file: IO[bytes], encoding: str) -> None:
        self._file, self._kept = file, b""
        self._decoder = codecs.getincrementaldecoder(encoding)(errors="surrogatepass")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._kept:
            read = self._file.read(io.DEFAULT_BUFFER_SIZE)
            self._kept = self._decoder.decode(read, final=not read).encode(errors="surrogatepass")
            if not read:
                break
        count = min(len(buffer), len(self._kept))
        buffer[:count], self._kept = self._kept[:count], self._kept[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _lines(file: IO[bytes]) -> Iterator[bytes | None]:
    """Lines of a file; None for one longer than `MAX_LINE_BYTES`."""
    while line := file.readline(MAX_LINE_BYTES):
        whole = len(line) < MAX_LINE_BYTES or line.endswith(b"\n")
        while not whole:
            rest = file.readline(MAX_LINE_BYTES)
            whole = not rest or rest.endswith(b"\n")
            line = b""
        yield line or None


def _read_jsonl(path: Path, part: str) -> Records:
    with _open(path) as file:
        for row, line in enumerate(_lines(file), start=1):
            if line is None:
                yield BadRow(str(path), row, f"line longer than {MAX_LINE_BYTES} bytes")
            elif not line.isspace():
                yield _json_record(path, part, row, line)


def _json_record(path: Path, part: str, row: int, line: bytes) -> Record | BadRow:
    try:
        data = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except UnicodeDecodeError:
        return BadRow(str(path), row, NOT_UTF8)
    except RecursionError:
        return BadRow(str(path), row, "JSON nested too deeply")
    except ValueError as error:  # JSONDecodeError, or a number of too many digits.
        return BadRow(str(path), row, f"expected one JSON object a line, got broken JSON ({error})")
    return _as_record(path, part, row, data)


def _as_record(path: Path, part: str, row: int, data: Any) -> Record | BadRow:
    if not isinstance(data, dict):
        return BadRow(str(path), row, f"expected a JSON object, got {shown(data)}")
    return Record(str(path), row, part, data)


def _read_json(path: Path, part: str) -> Records:
    """A JSON array of objects, read whole; a `.json` of one object a line is read as JSONL."""
    with _open(path) as file:
        head = file.read(4_096).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not head.startswith(b"["):
        yield from _read_jsonl(path, part)
        return
    with _open(path) as file:
        try:
            data = json.loads(file.read().removeprefix(b"\xef\xbb\xbf"))
        except UnicodeDecodeError:
            raise PalateError(f"{path}: {NOT_UTF8}") from None
        except (ValueError, RecursionError) as error:
            raise PalateError(f"{path}: expected a JSON array, got broken JSON ({error})") from None
    for row, item in enumerate(data, start=1):
        yield _as_record(path, part, row, item)


def _read_csv(path: Path, part: str) -> Records:
    # The module's default of 131,072 characters a cell is less than a long conversation.
    csv.field_size_limit(MAX_CELL_CHARACTERS)
    with _open(path) as raw:
        # Bytes that are not UTF-8 pass as surrogates here and are refused with their column.
        lines = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")
        separator, skipped = _separator(path)
        for _ in range(skipped):
            lines.readline()
        reader = csv.reader(lines, strict=True, delimiter=separator)
        columns: list[str] | None = None
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield BadRow(str(path), reader.line_num, f"broken CSV ({error})")
                continue
            if columns is None:
                columns = cells
                if twice := [name for name, n in Counter(cells).items() if n > 1 and name]:
                    raise PalateError(
                        f"{path}: column {shown(twice[0])} stands twice in the header; rename one"
                    )
            elif cells:
                yield _csv_record(path, part, skipped + reader.line_num, columns, cells)


def _separator(path: Path) -> tuple[str, int]:
    """What parts the cells of a CSV, and how many lines stand before its header.

    Spreadsheets of half of Europe write semicolons; some say so in a first line, `sep=;`. Else it
    is what parts the header into most cells.
    """
    with _open(path) as file:
        text = file.read(HEADER_BYTES).decode("utf-8-sig", "replace")
    first, _, rest = text.partition("\n")
    if said := re.fullmatch(r"sep=(.)\r?", first):
        return said[1], 1
    header = first if first.count('"') % 2 == 0 else first + "\n" + rest
    order = ("\t", *SEPARATORS) if ending(path) == ".tsv" else SEPARATORS
    counts = {one: len(next(csv.reader(io.StringIO(header), delimiter=one), ())) for one in order}
    return max(order, key=counts.__getitem__), 0


def _csv_record(
    path: Path, part: str, row: int, columns: list[str], cells: list[str]
) -> Record | BadRow:
    if len(cells) != len(columns):
        return BadRow(str(path), row, f"expected {len(columns)} cells, got {len(cells)}")
    for cell in cells:
        if not cell.isascii() and _ESCAPED.search(cell):
            return BadRow(str(path), row, NOT_UTF8)
    return Record(str(path), row, part, dict(zip(columns, cells, strict=True)))


def _read_parquet(path: Path, part: str) -> Records:
    with pq.ParquetFile(path) as file:
        row = 0
        for batch in file.iter_batches(ROWS_PER_READ):
            for data in batch.to_pylist():
                row += 1
                yield Record(str(path), row, part, data)


# Rows of the Hugging Face hub, streamed or downloaded; code of a data set is never run.

# Where the hub keeps the converted copy of data sets whose own form is a program.
CONVERTED = "refs/convert/parquet"


def stream(
    hub_id: str,
    *,
    split: str,
    name: str | None = None,
    data_dir: str | None = None,
) -> Records:
    """Yield the rows of one split of a hub data set, without storing it.

    `name` is a configuration, `data_dir` a folder of the data set.
    """
    file = f"hub:{hub_id}:{split}"
    part = "/".join(filter(None, (name or data_dir, split)))
    rows = _streamed(hub_id, {"split": split, "name": name, "data_dir": data_dir})
    for row, data in enumerate(rows, start=1):
        yield Record(file, row, part, data)


def _streamed(hub_id: str, wanted: dict[str, Any]) -> Iterator[dict[str, Any]]:
    arguments = {key: value for key, value in wanted.items() if value is not None}
    try:
        yield from _load_dataset(hub_id, arguments)
    except PalateError:
        raise
    except Exception as error:
        # datasets, huggingface_hub, fsspec, pyarrow and the network each raise their own.
        raise _unreachable(hub_id, error) from error


def _load_dataset(hub_id: str, arguments: dict[str, Any]) -> Any:
    import datasets  # Heavy, and needed only for rows of the hub.

    try:
        return datasets.load_dataset(hub_id, streaming=True, **arguments)
    except RuntimeError as error:
        if "script" not in str(error):
            raise
        # In the converted copy a configuration is a folder.
        folder = {"data_dir": arguments["name"]} if "name" in arguments else {}
        plain = {key: value for key, value in arguments.items() if key != "name"} | folder
        return datasets.load_dataset(hub_id, streaming=True, revision=CONVERTED, **plain)


def download(hub_id: str, filename: str) -> Path:
    """The local copy of one file of a hub data set."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(hub_id, filename, repo_type="dataset"))
    except Exception as error:
        raise _unreachable(f"{hub_id}/{filename}", error) from error


def _unreachable(what: str, error: Exception) -> PalateError:
    reason = (str(error).strip().splitlines() or [""])[0]
    return PalateError(
        f"{what}: not read from the hub ({type(error).__name__}: {reason}); "
        "check the name and the connection, or give a local file or folder"
    )


# From a request to its records: a local file or folder, or a hub id.

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def locate(request: Request, hub_id: str | None) -> Path | str:
    """The local path of a request, which exists, or else a hub id."""
    location = request.location
    if location is None:
        if hub_id is None:
            raise PalateError("expected a local file or folder or a hub id, got none")
        return hub_id
    path = Path(location).expanduser()
    if path.exists():
        return path
    if isinstance(location, str) and _HUB_ID.fullmatch(location) and not ending(path):
        return location
    raise PalateError(f"{location}: no such file or folder")


def records(
    request: Request,
    hub_id: str | None,
    *,
    splits: Sequence[str] = ("train",),
    folder: bool = False,
) -> Records:
    """The records of a request in order.

    `splits` are those of the hub form, all of them read unless one is asked for. With `folder`,
    a subset is a folder of the data set rather than a configuration of it.
    """
    where = locate(request, hub_id)
    if isinstance(where, str):
        name, data_dir = (None, request.subset) if folder else (request.subset, None)
        for split in [request.split] if request.split else splits:
            yield from stream(where, split=split, name=name, data_dir=data_dir)
        return
    for path, part in parts(where, request.split, request.subset if folder else None):
        yield from read_file(path, part)


def parts(
    location: Path, split: str | None = None, subset: str | None = None
) -> Iterator[tuple[Path, str]]:
    """The data files at a location, each with its name below it ("askculinary/train")."""
    for path in find_files(location, split, subset):
        above = path.relative_to(location).parent.parts if location.is_dir() else ()
        yield path, "/".join((*above, stem(path)))
