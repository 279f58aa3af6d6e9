"""A run's comparisons as columns: what a list shows, filters and sorts by, one entry an item."""

from __future__ import annotations

import re
import threading
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import duckdb
import numpy as np
from numpy.typing import NDArray

from palate.cpus import cores
from palate.item_view import ItemVerdict
from palate.judges.baselines import TRIVIAL
from palate.records import Header, comparison_from_row, read_header
from palate.types import Bin, Comparison, PalateError, Rating

# What the judges of a run made of its items: verdict files as columns, one entry an item.

Floats = NDArray[np.float32]

NOT_ASKED, CORRECT, WRONG, TIE, UNSCORED = range(5)
OUTCOMES = ("not asked", "correct", "wrong", "tie", "unscored")

_SAID = """
WITH said AS (
  SELECT comparison_id, list_position($1, filename)::SMALLINT - 1 AS file,
    (chosen_score - rejected_score)::FLOAT AS margin,
    CASE WHEN abs(chosen_score + rejected_score - 1) < 1e-6 THEN chosen_score - rejected_score
      ELSE tanh((chosen_score - rejected_score) / 2) END AS lean,
    CASE outcome WHEN 'correct' THEN 1.0::FLOAT WHEN 'wrong' THEN 0.0::FLOAT
      WHEN 'tie' THEN 0.5::FLOAT END AS value
  FROM read_parquet($1, filename = true)
)
"""
_ONE_ORDER = f"""{_SAID}
SELECT file, item, margin, coalesce(value, -1)::FLOAT AS value
FROM said JOIN items ON id = comparison_id WHERE part = $2
"""
# As `evaluate.results` reads them: where both orders have scores P(chosen) is averaged, otherwise
# the values of those that were scored. Grouping takes three times as long as all the rest.
_BOTH_ORDERS = f"""{_SAID}
SELECT file, item, avg(margin)::FLOAT AS margin,
  coalesce(CASE WHEN count(*) > 1 AND count(lean) = count(*) AND count(value) = count(*)
    THEN (sign(sum(lean)) + 1) / 2 ELSE avg(value) END, -1)::FLOAT AS value
FROM said JOIN items ON id = comparison_id WHERE part = $2 GROUP BY file, item
"""


@dataclass(frozen=True, slots=True)
class VerdictFile:
    """A judge's verdicts on one benchmark, in `both` orders or one; `trivial` ones read none."""

    judge: str
    benchmark: str
    path: Path
    trivial: bool
    both: bool


@dataclass(frozen=True, slots=True, eq=False)
class Opinions:
    """What one judge made of every item, [N]: outcome codes, and chosen minus rejected score."""

    judge: str
    trivial: bool
    outcomes: NDArray[np.int8]
    margins: Floats

    @property
    def scored(self) -> bool:
        """Whether this judge gives scores at all."""
        return not bool(np.isnan(self.margins).all())

    def reach(self) -> float:
        """A margin that few exceed: what fills the bar of one."""
        sizes = np.abs(self.margins[~np.isnan(self.margins)])
        return float(np.quantile(sizes, 0.98)) if sizes.size else 0.0


def verdict_files(
    folder: Path, benchmarks: Container[str], problems: list[str]
) -> list[VerdictFile]:
    """The verdicts on benchmarks that are here, trivial judges last; why others are left out.

    Of any format: no figure is made of them.
    """
    found: dict[tuple[str, str], VerdictFile] = {}
    for path in sorted((folder / "verdicts").glob("*.parquet")):
        try:
            file = _verdict_file(path, read_header(path, "verdicts", older=True))
        except PalateError as error:
            problems.append(str(error))
            continue
        key = (file.judge, file.benchmark)
        if file.benchmark not in benchmarks:
            problems.append(f"{path}: no comparisons of {file.benchmark!r} under benchmarks/")
        elif key in found:
            problems.append(f"{path}: {file.judge!r} on {file.benchmark!r} is in another file too")
        else:
            found[key] = file
    return sorted(found.values(), key=lambda f: (f.trivial, f.judge, f.benchmark))


def _verdict_file(path: Path, header: Header) -> VerdictFile:
    details = header.details
    protocol = details.get("protocol") or {}
    said = protocol.get("judge")
    kind = said.get("judge") if isinstance(said, Mapping) else said
    judge = str(details.get("judge", ""))
    trivial = kind in TRIVIAL or (not kind and judge in TRIVIAL)
    both = protocol.get("order") == "both"
    return VerdictFile(judge, str(details.get("benchmark", "")), path, trivial, both)


def read_opinions(
    database: duckdb.DuckDBPyConnection,
    benchmarks: Mapping[str, int],
    size: int,
    files: Sequence[VerdictFile],
    problems: list[str],
) -> dict[str, Opinions]:
    """What every judge made of each of `size` items; `benchmarks` gives the number of the part."""
    made = {file.judge: _unasked(file, size) for file in files}
    for benchmark, part in benchmarks.items():
        asked = [file for file in files if file.benchmark == benchmark]
        both = [file for file in asked if file.both]
        once = [file for file in asked if not file.both]
        problems += _read(database, _ONE_ORDER, part, once, made)
        problems += _read(database, _BOTH_ORDERS, part, both, made)
    return {judge: opinions for judge, opinions in made.items() if opinions.outcomes.any()}


def _read(
    database: duckdb.DuckDBPyConnection,
    query: str,
    part: int,
    files: Sequence[VerdictFile],
    into: Mapping[str, Opinions],
) -> list[str]:
    """Read verdicts on one benchmark, all files at once; returns why a file could not be read."""
    if not files:
        return []
    try:
        read = database.execute(query, [[str(f.path) for f in files], part]).fetchnumpy()
    except duckdb.Error as error:
        if len(files) == 1:
            return [one_line(files[0].path, error)]
        return [why for file in files for why in _read(database, query, part, [file], into)]
    outcomes, margins = _outcome(np.asarray(read["value"])), np.ma.filled(read["margin"], np.nan)
    for number, file in enumerate(files):
        rows = read["file"] == number
        into[file.judge].outcomes[read["item"][rows]] = outcomes[rows]
        into[file.judge].margins[read["item"][rows]] = margins[rows]
    return []


def _unasked(file: VerdictFile, size: int) -> Opinions:
    empty = np.full(size, np.nan, dtype=np.float32)
    return Opinions(file.judge, file.trivial, np.zeros(size, dtype=np.int8), empty)


def _outcome(values: Floats) -> NDArray[np.int8]:
    """Codes of values: 1 correct, 0 wrong, 0.5 tie, -1 unscored; a mean goes to its nearer side."""
    cases = [values < 0, values > 0.5, values < 0.5]
    return np.select(cases, [UNSCORED, CORRECT, WRONG], TIE).astype(np.int8)


def one_line(path: Path, error: Exception) -> str:
    """What is wrong with a file, and which file it is."""
    text = str(error).splitlines()[0]
    return text if str(path) in text else f"{path}: {text}"


Codes = NDArray[np.signedinteger[Any]]

Kind = Literal["benchmark", "mixture"]
# What is left to DuckDB before it goes to disk: 100,000 HH comparisons take about 0.2 GB.
MEMORY = "4GB"

_BIN = f"""CASE WHEN chosen_safe AND NOT rejected_safe THEN '{Bin.SAFE_UNSAFE}'
  WHEN chosen_safe AND rejected_safe THEN '{Bin.BOTH_SAFE}'
  WHEN NOT chosen_safe AND NOT rejected_safe THEN '{Bin.BOTH_UNSAFE}' END"""
FACETS = {"source": "source", "rating": "rating", "bin": _BIN}
_ORDERED = {"rating": [r.label for r in reversed(Rating)], "bin": [b.value for b in Bin]}


@dataclass(frozen=True, slots=True)
class Part:
    """One file of comparisons: a benchmark, or a mixture that was trained on."""

    name: str
    kind: Kind
    path: Path
    start: int
    rows: int


@dataclass(frozen=True, slots=True, eq=False)
class Facet:
    """One value of each item out of few; `codes` [N] index `names`, -1 where there is none."""

    names: tuple[str, ...]
    codes: Codes

    def is_any(self, wanted: Sequence[str]) -> NDArray[np.bool_]:
        """Which items have one of the wanted values, [N]."""
        known = [code for code, name in enumerate(self.names) if name in wanted]
        return np.isin(self.codes, np.array(known, dtype=self.codes.dtype))


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """All comparisons of a run in the order of its files; item n is row n over all parts."""

    folder: Path
    database: duckdb.DuckDBPyConnection
    parts: tuple[Part, ...]
    files: tuple[VerdictFile, ...]
    facets: Mapping[str, Facet]
    opinions: Mapping[str, Opinions]
    problems: tuple[str, ...]

    @property
    def size(self) -> int:
        """How many items there are."""
        return sum(part.rows for part in self.parts)

    def part_of(self, item: int) -> Part:
        """The file that an item is in."""
        return next(p for p in reversed(self.parts) if item >= p.start)

    def items_of(self, ids: Sequence[str]) -> dict[str, tuple[int, str]]:
        """The first item of each comparison id that is here, and its prompt's id."""
        rows = self._fetch(
            "SELECT id, min(item), any_value(prompt_id) FROM items "
            "WHERE id IN (SELECT unnest(?::VARCHAR[])) GROUP BY id",
            list(ids),
        )
        return {id: (item, prompt) for id, item, prompt in rows}

    def all_items_of(self, ids: Sequence[str]) -> NDArray[np.bool_]:
        """Which items are one of these comparisons, in whatever part they stand, [N]."""
        rows = self._fetch(
            "SELECT item FROM items WHERE id IN (SELECT unnest(?::VARCHAR[]))", list(ids)
        )
        mask = np.zeros(self.size, dtype=np.bool_)
        mask[[item for (item,) in rows]] = True
        return mask

    def ids_of(self, items: Sequence[int]) -> list[str]:
        """The comparison id of each item."""
        rows = self._fetch(
            "SELECT item, id FROM items WHERE item IN (SELECT unnest(?::INTEGER[]))", list(items)
        )
        found = dict(rows)
        return [found[item] for item in items]

    def _fetch(self, query: str, values: list[Any]) -> list[Any]:
        return self.database.cursor().execute(query, [values]).fetchall() if values else []


def open_index(folder: Path) -> Index:
    """Read the columns of a run; nothing is written there, and a broken file is a problem.

    Raises:
        PalateError: the folder has no comparison that can be read.
    """
    files_here = comparison_files(folder)
    database, problems = _database(), list[str]()
    parts, columns = _parts(files_here, database, problems)
    if not parts:
        raise PalateError(problems[0] if problems else f"{folder}: holds no comparison")
    benchmarks = {part.name: n for n, part in enumerate(parts) if part.kind == "benchmark"}
    files = verdict_files(folder, benchmarks, problems)
    size = sum(part.rows for part in parts)
    names = [part.name for part in parts]
    codes = np.repeat(np.arange(len(parts), dtype=np.int16), [part.rows for part in parts])
    facets = {"part": Facet(tuple(names), codes)}
    facets |= {name: _joined(name, [c[name] for c in columns]) for name in FACETS}
    return Index(
        folder,
        database,
        tuple(parts),
        tuple(files),
        facets,
        read_opinions(database, benchmarks, size, files, problems),
        tuple(problems),
    )


def _database() -> duckdb.DuckDBPyConnection:
    options: dict[str, Any] = {
        "memory_limit": MEMORY, "threads": cores(), "autoinstall_known_extensions": False,
    }  # fmt: skip
    database = duckdb.connect(config=options)
    database.execute(
        "CREATE TABLE items (item INTEGER, part UTINYINT, id VARCHAR, prompt_id VARCHAR)"
    )
    return database


def _parts(
    files: Sequence[tuple[Kind, Path]], database: duckdb.DuckDBPyConnection, problems: list[str]
) -> tuple[list[Part], list[dict[str, Facet]]]:
    """Every readable file of comparisons and its columns; benchmarks first, by name."""
    parts: list[Part] = []
    columns: list[dict[str, Facet]] = []
    for kind, path in files:
        start = sum(part.rows for part in parts)
        try:
            rows = read_header(path, "comparisons").rows
            # A benchmark and a mixture may be of one name, and a model of a third.
            name = path.stem if kind == "benchmark" else f"{path.stem} (mixture)"
            part = Part(name, kind, path, start, rows)
            found = _columns(database, part, len(parts)) if rows else None
        except (PalateError, duckdb.Error) as error:
            problems.append(one_line(path, error))
            continue
        if found is not None:
            parts.append(part)
            columns.append(found)
    return parts, columns


def comparison_files(folder: Path) -> list[tuple[Kind, Path]]:
    """The files of comparisons of a run.

    Raises:
        PalateError: there is none.
    """
    benchmarks = sorted((folder / "benchmarks").glob("*.parquet"))
    mixtures = sorted((folder / "mixtures").glob("*.parquet"))
    found: list[tuple[Kind, Path]] = [("benchmark", path) for path in benchmarks]
    found += [("mixture", p) for p in mixtures if not p.name.endswith(".ids.parquet")]
    if not found:
        raise PalateError(
            f"{folder}: no comparisons under benchmarks/ or mixtures/; make them with `palate run`"
        )
    return found


def _columns(database: duckdb.DuckDBPyConnection, part: Part, number: int) -> dict[str, Facet]:
    """Facets of one file, its ids put into `items`."""
    path = str(part.path)
    found = {name: _facet(database, name, column, path) for name, column in FACETS.items()}
    database.execute(
        "INSERT INTO items SELECT ($1 + file_row_number)::INTEGER, $2, id, prompt_id "
        "FROM read_parquet($3, file_row_number = true)",
        [part.start, number, path],
    )
    return found


def _facet(database: duckdb.DuckDBPyConnection, name: str, column: str, path: str) -> Facet:
    values = f"SELECT {column} AS value FROM read_parquet($1)"
    names = _ORDERED.get(name)
    if names is None:
        rows = database.execute(f"SELECT DISTINCT value FROM ({values}) ORDER BY 1", [path])
        names = [value for (value,) in rows.fetchall() if value is not None]
    codes = database.execute(
        f"SELECT (coalesce(list_position($2::VARCHAR[], value), 0) - 1)::SMALLINT AS code "
        f"FROM ({values})",
        [path, names],
    ).fetchnumpy()["code"]
    return Facet(tuple(names), np.asarray(codes, dtype=np.int16))


def _joined(name: str, parts: Sequence[Facet]) -> Facet:
    """One facet over all files, whose codes may each have their own names."""
    names = _ORDERED.get(name) or sorted({n for facet in parts for n in facet.names})
    place = {value: code for code, value in enumerate(names)}
    # The last entry is for code -1: none.
    maps = [np.array([*(place[n] for n in f.names), -1], dtype=np.int16) for f in parts]
    codes = [lookup[facet.codes] for lookup, facet in zip(maps, parts, strict=True)]
    return Facet(tuple(names), np.concatenate(codes))


# The texts of a run's comparisons: searched in any case, and the beginnings that a list shows.

Flags = NDArray[np.bool_]
SEARCHES_KEPT = 64  # 0.1 MB each at 100,000 items.
_EXCERPT = "prompt[-1].content[:240]"
# Lower case once, not at every search: of 100,000 comparisons 1 s, in a thread of its own.
_LOAD = f"""
INSERT INTO texts SELECT (? + file_row_number)::INTEGER, {_EXCERPT}, lower(concat_ws(chr(10),
  array_to_string(list_transform(prompt, lambda turn: turn.content), chr(10)), chosen, rejected
)) FROM read_parquet(?, file_row_number = true)
"""
_WORDS = re.compile(r'"([^"]+)"|(\S+)')


class Texts:
    """The texts of a catalogue in DuckDB's memory, which goes to disk where it is too little.

    They are read when `load` is first called, beside whatever else is done; a search waits for
    them, a list does not.
    """

    def __init__(self, catalogue: Index) -> None:
        self._catalogue = catalogue
        self._loader = threading.Thread(target=self._load, daemon=True, name="texts")
        self._starting = threading.Lock()
        self._ready, self._failed = False, ""
        self.find = lru_cache(SEARCHES_KEPT)(self._find)

    def load(self) -> None:
        """Begin to read the texts, once."""
        with self._starting:
            if self._loader.ident is None:
                self._loader.start()

    def _load(self) -> None:
        cursor = self._catalogue.database.cursor()
        try:
            cursor.execute("CREATE TABLE texts (item INTEGER, excerpt VARCHAR, text VARCHAR)")
            for part in self._catalogue.parts:
                cursor.execute(_LOAD, [part.start, str(part.path)])
            self._ready = True
        except duckdb.Error as error:
            self._failed = str(error).splitlines()[0]

    def _find(self, search: str) -> Flags:
        """Items that hold every word or "quoted phrase", in any case, [N]."""
        self.load()
        self._loader.join()
        if self._failed:
            raise PalateError(f"search: the texts cannot be read ({self._failed})")
        words = [phrase or word for phrase, word in _WORDS.findall(search.lower())]
        where = " AND ".join(["contains(text, ?)"] * len(words)) or "true"
        cursor = self._catalogue.database.cursor()
        found = cursor.execute(f"SELECT item FROM texts WHERE {where}", words).fetchnumpy()
        mask = np.zeros(self._catalogue.size, dtype=np.bool_)
        mask[found["item"]] = True
        return mask

    def excerpts(self, items: Sequence[int]) -> list[str]:
        """The beginning of each item's last turn before the responses."""
        if self._ready:
            query = "SELECT item, excerpt FROM texts WHERE item IN (SELECT unnest(?::INTEGER[]))"
            found = dict(self._rows(query, [list(items)]))
        else:
            found = self._excerpts_on_disk(items)
        return [found.get(item) or "" for item in items]

    def _excerpts_on_disk(self, items: Sequence[int]) -> dict[int, str]:
        found: dict[int, str] = {}
        query = f"""SELECT ? + file_row_number, {_EXCERPT}
            FROM read_parquet(?, file_row_number = true)
            WHERE file_row_number IN (SELECT unnest(?::BIGINT[]))"""
        for part, own in groupby(sorted(items), key=self._catalogue.part_of):
            rows = [item - part.start for item in own]
            found |= dict(self._rows(query, [part.start, str(part.path), rows]))
        return found

    def _rows(self, query: str, values: list[Any]) -> list[Any]:
        return self._catalogue.database.cursor().execute(query, values).fetchall()


# One comparison, with what every judge made of it.

_AT = """
SELECT * FROM read_parquet(?, file_row_number = true)
WHERE file_row_number IN (SELECT unnest(?::BIGINT[]))
"""


@dataclass(frozen=True, slots=True)
class Item:
    """A comparison with its verdicts by judge, in both orders where it was judged in both."""

    part: Part
    comparison: Comparison
    verdicts: Mapping[str, tuple[ItemVerdict, ...]]


def read_item(catalogue: Index, number: int) -> Item:
    """Read an item and its verdicts from their files.

    Raises:
        PalateError: there is no such item, or its file was replaced since the run was opened.
    """
    comparison = comparisons_at(catalogue, [number])[number]
    part = catalogue.part_of(number)
    verdicts: dict[str, tuple[ItemVerdict, ...]] = {}
    for file in catalogue.files:
        if part.kind == "benchmark" and file.benchmark == part.name:
            query = "SELECT * FROM read_parquet(?) WHERE comparison_id = ?"
            rows = _rows(catalogue, query, [str(file.path), comparison.id])
            # Verdicts of an earlier format have no column for the answer.
            names = ItemVerdict.__dataclass_fields__.keys()
            verdicts[file.judge] = tuple(
                ItemVerdict(**{name: row[name] for name in names & row.keys()}) for row in rows
            )
    return Item(part, comparison, verdicts)


def comparisons_at(catalogue: Index, numbers: Iterable[int]) -> dict[int, Comparison]:
    """The comparisons of some items, by item; raises as `read_item` does."""
    numbers = sorted(set(numbers))
    if numbers and not 0 <= numbers[0] <= numbers[-1] < catalogue.size:
        raise PalateError(f"items {numbers[0]} to {numbers[-1]}: the run has {catalogue.size}")
    ids = dict(zip(numbers, catalogue.ids_of(numbers), strict=True))
    found: dict[int, Comparison] = {}
    for part, own in groupby(numbers, key=catalogue.part_of):
        rows = [number - part.start for number in own]
        for row in _rows(catalogue, _AT, [str(part.path), rows]):
            found[part.start + row["file_row_number"]] = comparison_from_row(row)
    if {number: comparison.id for number, comparison in found.items()} != ids:
        raise PalateError(
            f"{catalogue.folder}: changed since it was opened; start `palate view` again"
        )
    return found


def _rows(catalogue: Index, query: str, parameters: list[Any]) -> list[dict[str, Any]]:
    found = catalogue.database.cursor().execute(query, parameters)
    names = [column[0] for column in found.description or ()]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
