"""Where a source's rows are, and how they are read: local files, one record at a time, or the hub.

JSONL, JSON arrays, CSV and TSV, gzipped or not; Parquet and Arrow. Text is UTF-8, or UTF-16 and
UTF-32 where the file begins with their mark, as Windows writes them.

A line that cannot be read becomes a `BadRow` and reading goes on; a file that cannot be read at
all (missing, empty, cut, not what its name says) is a `PalateError`. A new format is a reader
`(path, part) -> Records` and a line in `READERS`.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import mmap
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from palate.data.messages import shown, without_filled
from palate.data.sources.base import BadRow, Record, Records, Request
from palate.types import BenchmarkItem, Comparison, PalateError

DATA_VARIABLE = "PALATE_DATA"  # The data root, where none is given.
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
# Where the hub keeps the converted copy of data sets whose own form is a program.
CONVERTED = "refs/convert/parquet"

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
GZIP, PARQUET, ARROW = b"\x1f\x8b", b"PAR1", b"ARROW1"  # What such files begin with.
LFS = b"version https://git-lfs"  # A clone without Git LFS holds this in a file's place.
# A longer line or cell is damage, not a conversation; a line is skipped without being kept.
MAX_LINE_CHARACTERS = 32 * 2**20
HEADER_CHARACTERS = 65_536
ROWS_PER_READ = 1_024
CHARACTERS_PER_READ = 2**20
LONGEST_WORD = 16  # Of JSON, an escape in a string among it: -Infinity, \uD83D\uDE00.
JSON_SPACE = re.compile(r"[ \t\n\r]*")
ENDS_EARLY = "it ends early"
_NOT_UTF8_BYTE = re.compile("[\udc80-\udcff]")  # What Python makes of bytes that are no UTF-8.


# Where the rows are.


def locate(path: str | None, folder: str | None, root: str | None) -> Path | str | None:
    """The location to read: an existing path under `root` or as given, else `path` itself.

    Without a `path`, the source's own `folder` below `root` where it exists, else None, which
    is the source's hub id.

    Raises:
        PalateError: a `root` that is no folder; it would send every source to the hub in silence.
    """
    if path is None and folder is None:
        return None  # Made, not read.
    if root and not Path(root).is_dir():
        raise PalateError(
            f"{root}: no such data folder; give an existing one to --data, PALATE_DATA or data.root"
        )
    if path is None:
        own_folder = Path(root, folder) if root and folder else None
        return own_folder if own_folder is not None and own_folder.exists() else None
    given = Path(path).expanduser()
    candidates = [Path(root) / given] if root else []
    return next((p for p in (*candidates, given) if p.exists()), path)


def resolve(request: Request, hub_id: str | None) -> Path | str:
    """The local path of a request, which exists, or else a hub id."""
    location = request.location
    if location is None:
        if hub_id is None:
            raise PalateError("expected a local file or folder or a hub id, got none")
        return hub_id
    path = Path(location).expanduser()
    if path.exists():
        return path
    if isinstance(location, str) and is_hub_id(location):
        return location
    raise PalateError(f"{location}: no such file or folder")


def is_hub_id(location: str) -> bool:
    """Whether a name that no file here has is one of a data set of the hub."""
    return HUB_ID.fullmatch(location) is not None and not ending(Path(location))


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
    location = resolve(request, hub_id)
    if isinstance(location, str):
        name, data_dir = (None, request.subset) if folder else (request.subset, None)
        for split in [request.split] if request.split else splits:
            yield from stream(location, split=split, name=name, data_dir=data_dir)
        return
    # A configuration of the hub is a folder of a local copy, if it is there at all.
    for path, part in data_files(location, request.split, request.subset):
        yield from read_file(path, part)


def data_files(
    location: Path, split: str | None = None, subset: str | None = None
) -> Iterator[tuple[Path, str]]:
    """The data files at a location, each with its name below it ("askculinary/train")."""
    for path in find_files(location, split, subset):
        yield path, part_of(path, location)


def part_of(path: Path, location: Path) -> str:
    """The name of a data file at a location, which `meta.file` of its comparisons holds."""
    above = path.relative_to(location).parent.parts if location.is_dir() else ()
    return "/".join((*above, stem(path)))


def paths_by_part(location: Path | str | None) -> dict[str, str]:
    """The data files at a location, as the user knows them, by their names there."""
    if location is None or not (path := Path(location).expanduser()).exists():
        return {}
    with suppress(PalateError):  # In a form that its source alone reads.
        return {part: str(file) for file, part in data_files(path)}
    return {}


def place_of(row: Comparison | BenchmarkItem, paths: Mapping[str, str]) -> str:
    """Where a row stands, FILE:ROW, as far as its source says; `paths` as in `paths_by_part`."""
    file, number = row.meta.get("file"), row.meta.get("row")
    return f"{paths.get(str(file), file)}:{number}" if file else f"{row.source} {row.id}"


def find_files(location: Path, split: str | None = None, subset: str | None = None) -> list[Path]:
    """The data files at a location, in the order of their names.

    A split is a file of that name ("train.jsonl", "train-00000-of-00002.parquet") or a folder;
    a subset is a folder.
    """
    if location.is_file():
        return [location]
    if not location.is_dir():
        raise PalateError(f"{location}: no such file or folder")
    files = sorted(
        path
        for path in location.rglob("*")
        if path.is_file()
        and ending(path)
        and not path.name.startswith((".", "dataset_info", "state.json"))
    )
    return those_of(files, location, split, subset)


def those_of(
    files: Sequence[Path], location: Path, split: str | None, subset: str | None
) -> list[Path]:
    """The files of a folder that are of a split and of a subset; all of them where neither is said.

    Raises:
        PalateError: there is none; says which files there are.
    """

    def matches(path: Path) -> bool:
        folders, name = path.relative_to(location).parts[:-1], stem(path)
        of_split = not split or name == split or name.startswith(f"{split}-") or split in folders
        return of_split and (not subset or subset in folders)

    if matching := [path for path in files if matches(path)]:
        return matching
    wanted = "".join(f" {k}={v}" for k, v in (("subset", subset), ("split", split)) if v)
    names = ", ".join(str(path.relative_to(location)) for path in files[:8]) or "none"
    raise PalateError(f"{location}: expected data files{wanted}, found {names}")


def ending(path: Path) -> str:
    """The format of a file by its name, without `.gz`; "" if it is none that Palate reads."""
    name = path.name.lower().removesuffix(".gz")
    return next((end for end in READERS if name.endswith(end)), "")


def stem(path: Path) -> str:
    """The file's name without its format: "train" of "train.jsonl.gz"."""
    name = path.name[:-3] if path.name.lower().endswith(".gz") else path.name
    return name[: len(name) - len(ending(path))]


# Rows of the Hugging Face hub, streamed or downloaded; code of a data set is never run.


def stream(
    hub_id: str, *, split: str, name: str | None = None, data_dir: str | None = None
) -> Records:
    """Yield the rows of one split of a hub data set, without storing it.

    `name` is a configuration, `data_dir` a folder of the data set.
    """
    import datasets  # Heavy, and needed only for rows of the hub.

    wanted = {"split": split, "name": name, "data_dir": data_dir}
    arguments: dict[str, Any] = {key: value for key, value in wanted.items() if value is not None}
    part = "/".join(filter(None, (name or data_dir, split)))
    try:
        try:
            rows = datasets.load_dataset(hub_id, streaming=True, **arguments)
        except RuntimeError as error:
            if "script" not in str(error):
                raise
            if name is not None:  # In the converted copy a configuration is a folder.
                arguments["data_dir"] = arguments.pop("name")
            rows = datasets.load_dataset(hub_id, streaming=True, revision=CONVERTED, **arguments)
        is_filled = has_filled_arguments(rows)
        for row, data in enumerate(rows, start=1):
            data = without_filled(data) if is_filled else data
            yield Record(f"hub:{hub_id}:{split}", row, part, cast(Mapping[str, Any], data))
    except Exception as error:
        # datasets, huggingface_hub, fsspec, pyarrow and the network each raise their own.
        raise _not_read(hub_id, error) from error


def download(hub_id: str, filename: str) -> Path:
    """The local copy of one file of a hub data set."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(hub_id, filename, repo_type="dataset"))
    except Exception as error:
        raise _not_read(f"{hub_id}/{filename}", error) from error


def _not_read(name: str, error: Exception) -> PalateError:
    reason = (str(error).strip().splitlines() or [""])[0]
    return PalateError(
        f"{name}: not read from the hub ({type(error).__name__}: {reason}); "
        "check the name and the connection, or give a local file or folder"
    )


# Local files.


def read_file(path: Path, part: str | None = None) -> Records:
    """The records of one file in order; `part` is the name it gives them, else its own.

    Raises:
        PalateError: what is wrong with the file as a whole, in one line.
    """
    if not ending(path):
        raise PalateError(f"{path}: expected one of {', '.join(READERS)} (or these with .gz)")
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(LFS)) == LFS:
                raise PalateError(
                    f"{path}: is a pointer of Git LFS in the file's place; fetch it: git lfs pull"
                )
    return _read(path, READERS[ending(path)](path, part or stem(path)))


def _read(path: Path, records: Records) -> Records:
    empty = True
    try:
        for record in records:
            empty = False
            yield record
    except FileNotFoundError:
        raise PalateError(f"{path}: no such file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise PalateError(f"{path}: cut or not gzip ({error}); fetch it again") from None
    except UnicodeDecodeError as error:
        raise PalateError(f"{path}: cut or not {error.encoding} ({error.reason})") from None
    except pa.ArrowInvalid as error:
        reason = str(error).splitlines()[0]
        kind = "Arrow" if ending(path) == ".arrow" else "Parquet"
        raise PalateError(f"{path}: not a whole {kind} file ({reason})") from None
    except OSError as error:
        raise PalateError(f"{path}: cannot be read ({error.strerror or error})") from None
    if empty:
        raise PalateError(f"{path}: expected rows, {_without_rows(path)}")


def _without_rows(path: Path) -> str:
    """What a file without rows has."""
    if ending(path) in (".parquet", ".arrow"):
        return "the table has none"
    with _open_text(path) as file:
        text = file.read(HEADER_CHARACTERS).strip()
    if ending(path) in (".csv", ".tsv") and text:
        return "found a header and none below it"
    return "found an empty list" if text else "the file is empty"


def _open_text(path: Path, newline: str = "\n") -> io.TextIOWrapper:
    """The file's text, unpacked; bytes that are not UTF-8 pass as surrogates (`_not_utf8`)."""
    packed = path.name.lower().endswith(".gz")
    opened = gzip.open if packed else open
    file = cast(io.BufferedReader, opened(path, "rb"))
    head = file.peek(4)[:4]
    if (head.startswith(GZIP) and not packed) or head == PARQUET:
        file.close()
        cure = ("is a Parquet file", ".parquet") if head == PARQUET else ("is packed", ".gz")
        raise PalateError(f"{path}: {cure[0]}; let its name end in {cure[1]}")
    encoding = next((name for mark, name in ENCODINGS if head.startswith(mark)), "")
    errors = "surrogatepass" if encoding else "surrogateescape"
    return io.TextIOWrapper(file, encoding or "utf-8-sig", errors, newline)


def _not_utf8(text: str) -> bool:
    return not text.isascii() and _NOT_UTF8_BYTE.search(text) is not None


def _read_jsonl(path: Path, part: str) -> Records:
    with _open_text(path) as file:
        row = 0
        while line := file.readline(MAX_LINE_CHARACTERS):
            row += 1
            if len(line) == MAX_LINE_CHARACTERS and not line.endswith("\n"):
                while (rest := file.readline(MAX_LINE_CHARACTERS)) and not rest.endswith("\n"):
                    pass
                yield BadRow(str(path), row, f"line longer than {MAX_LINE_CHARACTERS} characters")
            elif not line.isspace():
                yield _json_line(path, part, row, line)


def _json_line(path: Path, part: str, row: int, line: str) -> Record | BadRow:
    if _not_utf8(line):
        return BadRow(str(path), row, NOT_UTF8)
    try:
        data = json.loads(line.removeprefix("\ufeff"))
    except RecursionError:
        return BadRow(str(path), row, "JSON nested too deeply")
    except ValueError as error:  # JSONDecodeError, or a number of too many digits.
        return BadRow(str(path), row, f"expected one JSON object a line, got broken JSON ({error})")
    return _json_object(path, part, row, data)


def _json_object(path: Path, part: str, row: int, data: Any) -> Record | BadRow:
    if not isinstance(data, dict):
        return BadRow(str(path), row, f"expected a JSON object, got {shown(data)}")
    return Record(str(path), row, part, data)


def _read_json(path: Path, part: str) -> Records:
    """A JSON array, item by item; a `.json` of one object a line is read as JSONL."""
    with _open_text(path) as file:
        text = file.read(HEADER_CHARACTERS)
        is_array = text.lstrip().startswith("[")
        for row, (raw, item) in enumerate(_items(path, file, text) if is_array else (), start=1):
            if _not_utf8(raw):
                yield BadRow(str(path), row, NOT_UTF8)
            else:
                yield _json_object(path, part, row, item)
    if not is_array:
        yield from _read_jsonl(path, part)


def _items(path: Path, file: io.TextIOWrapper, text: str) -> Iterator[tuple[str, Any]]:
    """Text and value of each item of the array that `text`, and after it the file, begins with.

    An item is held, and as much of the file again. What is cut or broken somewhere ends in an error
    after the items before that place.
    """
    decode, place, row = json.JSONDecoder().raw_decode, text.index("[") + 1, 0

    def broken(reason: str) -> PalateError:
        where = f" in item {row + 1:,}" if row else ""
        return PalateError(f"{path}: expected a JSON array, got broken JSON{where} ({reason})")

    def following() -> str:
        """The next character that is no space, to which `place` goes; none at the file's end."""
        nonlocal text, place
        while text:
            space = JSON_SPACE.match(text, place)
            place = place if space is None else space.end()
            if place < len(text):
                return text[place]
            text, place = file.read(CHARACTERS_PER_READ), 0
        return ""

    while (mark := following()) != "]":
        if not mark:
            raise broken(ENDS_EARLY)
        if row:
            if mark != ",":
                raise broken("expected , or ] behind the item before")
            place += 1
            following()
        while True:
            reason = ENDS_EARLY
            try:
                item, end = decode(text, place)
            except json.JSONDecodeError as error:
                # At the end of what is read it may be cut there, a string from its beginning on.
                cut = error.msg.startswith("Unterminated") or error.pos > len(text) - LONGEST_WORD
                if not cut:
                    raise broken(error.msg) from None
                reason, end = error.msg, len(text)
            except (ValueError, RecursionError) as error:  # A number of too many digits.
                raise broken(str(error)) from None
            if end < len(text):  # Else a number may go on.
                break
            if len(text) - place > MAX_LINE_CHARACTERS:
                raise broken(f"longer than {MAX_LINE_CHARACTERS} characters")
            more = file.read(max(CHARACTERS_PER_READ, len(text) - place))
            if not more:
                raise broken(reason)
            text, place = text[place:] + more, 0
        yield text[place:end], item
        place, row = end, row + 1
    place += 1
    if following():
        raise broken("more behind its end")


def _read_csv(path: Path, part: str) -> Records:
    # The module's default of 131,072 characters a cell is less than a long conversation.
    csv.field_size_limit(MAX_LINE_CHARACTERS)
    separator, skipped = _separator(path)
    with _open_text(path, newline="") as file:
        for _ in range(skipped):
            file.readline()
        reader = csv.reader(file, strict=True, delimiter=separator)
        columns: list[str] | None = None
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield BadRow(str(path), reader.line_num, f"broken CSV ({error})")
                continue
            row = skipped + reader.line_num
            if columns is None:
                columns = cells
                if twice := [name for name, n in Counter(cells).items() if n > 1 and name]:
                    raise PalateError(
                        f"{path}: column {shown(twice[0])} stands twice in the header; rename one"
                    )
            elif cells and len(cells) != len(columns):
                yield BadRow(str(path), row, f"expected {len(columns)} cells, got {len(cells)}")
            elif any(map(_not_utf8, cells)):
                yield BadRow(str(path), row, NOT_UTF8)
            elif cells:
                yield Record(str(path), row, part, dict(zip(columns, cells, strict=True)))


def describe_file(path: Path) -> dict[str, str]:
    """Format, encoding and separator of a file, as far as it has them."""
    form = ending(path)
    facts = {"format": form.removeprefix(".") + (", gzip" if path.suffix.lower() == ".gz" else "")}
    if form not in (".parquet", ".arrow"):
        with _open_text(path) as file:
            facts["encoding"] = file.encoding.removesuffix("-sig")
    if form in (".csv", ".tsv"):
        names = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
        separator = _separator(path)[0]
        facts["separator"] = names.get(separator, separator)
    return facts


def _separator(path: Path) -> tuple[str, int]:
    """What parts the cells of a CSV, and how many lines come before its header.

    Spreadsheets of half of Europe write semicolons; some say so in a first line, `sep=;`. Else it
    is what parts the header into most cells.
    """
    with _open_text(path, newline="") as file:
        text = file.read(HEADER_CHARACTERS)
    first, _, rest = text.partition("\n")
    if declared := re.fullmatch(r"sep=(.)\r?", first):
        return declared[1], 1
    header = first if first.count('"') % 2 == 0 else first + "\n" + rest
    order = ("\t", *SEPARATORS) if ending(path) == ".tsv" else SEPARATORS
    counts = {one: len(next(csv.reader(io.StringIO(header), delimiter=one), ())) for one in order}
    return max(order, key=counts.__getitem__), 0


def _read_parquet(path: Path, part: str) -> Records:
    with pq.ParquetFile(path, pre_buffer=False) as file:
        row = 0
        for batch in file.iter_batches(ROWS_PER_READ):
            for data in _rows(batch):
                row += 1
                yield Record(str(path), row, part, data)


def _read_arrow(path: Path, part: str) -> Records:
    """Arrow's file format, or its stream, in which `datasets` saves."""
    with path.open("rb") as file:
        if not file.read(1):
            return
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    row = 0
    for batch in _arrow_batches(pa.BufferReader(pa.py_buffer(memory))):
        for start in range(0, batch.num_rows, ROWS_PER_READ):
            for data in _rows(batch.slice(start, ROWS_PER_READ)):
                row += 1
                yield Record(str(path), row, part, data)
            # Given back, not lost: mapped again when read. Else all of the file stays resident.
            memory.madvise(mmap.MADV_DONTNEED)


def _rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = batch.to_pylist()
    is_filled = any(_has_arguments(field.type) for field in batch.schema)
    return [without_filled(row) for row in rows] if is_filled else rows


def has_filled_arguments(rows: object) -> bool:
    """Whether a data set of `datasets` has calls whose arguments are a struct; see `_rows`."""
    features = getattr(rows, "features", None)
    return features is not None and any(_has_arguments(f.type) for f in features.arrow_schema)


def _has_arguments(kind: pa.DataType) -> bool:
    """Whether a type has, at any depth, a field `arguments` that is a struct."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _has_arguments(kind.value_type)
    return pa.types.is_struct(kind) and any(
        (field.name == "arguments" and pa.types.is_struct(field.type)) or _has_arguments(field.type)
        for field in kind
    )


def _arrow_batches(file: pa.BufferReader) -> Iterator[pa.RecordBatch]:
    is_file = file.read(len(ARROW)) == ARROW
    file.seek(0)
    if not is_file:
        yield from pa.ipc.open_stream(file)
        return
    reader = pa.ipc.open_file(file)
    for at in range(reader.num_record_batches):
        yield reader.get_batch(at)


READERS: Mapping[str, Callable[[Path, str], Records]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
}
