"""A run's comparisons as columns, and the DuckDB connection behind them.

`open_index` reads what a list filters and sorts by into numpy, one entry an item: facets of the
comparisons, and of each judge the outcome and the margin. Texts stay in the Parquet files and are
read for the rows of a page; for the search they are loaded beside (`Texts`).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import duckdb
import numpy as np
from numpy.typing import NDArray

from palate.cpus import cores
from palate.explorer.queue import QUEUES, Entry, read_queue
from palate.item_view import ItemVerdict
from palate.judges.baselines import TRIVIAL
from palate.records import (
    comparison_from_row,
    item_from_row,
    read_columns,
    read_header,
    verdict_paths,
)
from palate.types import BenchmarkItem, Bin, Comparison, Judgement, PalateError, Rating

Mask = NDArray[np.bool_]

# Verdict files as columns.

CORRECT, WRONG, TIE, UNSCORED, UNDECIDED = range(1, 6)
OUTCOMES = ("not asked", "correct", "wrong", "tie", "unscored", "undecided")

_VERDICTS = """
WITH verdicts AS (
  SELECT comparison_id, list_position($1, filename)::SMALLINT - 1 AS file,
    (chosen_score - rejected_score)::FLOAT AS margin,
    CASE WHEN abs(chosen_score + rejected_score - 1) < 1e-6 THEN chosen_score - rejected_score
      ELSE tanh((chosen_score - rejected_score) / 2) END AS lean,
    CASE outcome WHEN 'correct' THEN 1.0::FLOAT WHEN 'wrong' THEN 0.0::FLOAT
      WHEN 'tie' THEN 0.5::FLOAT END AS value, outcome = 'undecided' AS undecided
  FROM read_parquet($1, filename = true)
)
"""
_ONE_ORDER = f"""{_VERDICTS}
SELECT file, item, margin, undecided, coalesce(value, -1)::FLOAT AS value
FROM verdicts JOIN items ON id = comparison_id WHERE part = $2
"""
# As `evaluate.results` reads them: where both orders have scores P(chosen) is averaged, otherwise
# the values of those that were scored. Grouping takes three times as long as all the rest.
_BOTH_ORDERS = f"""{_VERDICTS}
SELECT file, item, avg(margin)::FLOAT AS margin, bool_or(undecided) AS undecided,
  coalesce(CASE WHEN count(*) > 1 AND count(lean) = count(*) AND count(value) = count(*)
    THEN (sign(sum(lean)) + 1) / 2 ELSE avg(value) END, -1)::FLOAT AS value
FROM verdicts JOIN items ON id = comparison_id WHERE part = $2 GROUP BY file, item
"""


@dataclass(frozen=True, slots=True)
class VerdictFile:
    """A judge's verdicts on one benchmark, in `both` orders or one."""

    judge: str
    benchmark: str
    path: Path
    trivial: bool
    both: bool


@dataclass(frozen=True, slots=True, eq=False)
class JudgeColumns:
    """One judge on every item, [N]: codes of `OUTCOMES`, and chosen minus rejected score."""

    judge: str
    trivial: bool
    outcomes: NDArray[np.int8]
    margins: NDArray[np.float32]

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
    """The verdicts on a run's benchmarks, trivial judges last; adds why others are left out.

    Of any format: no figure is made of them.
    """
    files: dict[tuple[str, str], VerdictFile] = {}
    for path in verdict_paths(folder):
        try:
            details = read_header(path, "verdicts", older=True).details
        except PalateError as error:
            problems.append(str(error))
            continue
        protocol = details.get("protocol") or {}
        judge, benchmark = str(details.get("judge", "")), str(details.get("benchmark", ""))
        kind = protocol.get("judge")
        if isinstance(kind, Mapping):
            kind = kind.get("judge")
        trivial = (kind or judge) in TRIVIAL
        both = protocol.get("order") == "both"
        if benchmark not in benchmarks:
            problems.append(f"{path}: no comparisons of {benchmark!r} under benchmarks/")
        elif (judge, benchmark) in files:
            problems.append(f"{path}: {judge!r} on {benchmark!r} is in another file too")
        else:
            files[judge, benchmark] = VerdictFile(judge, benchmark, path, trivial, both)
    return sorted(files.values(), key=lambda f: (f.trivial, f.judge, f.benchmark))


def _read_judges(
    database: duckdb.DuckDBPyConnection,
    benchmarks: Mapping[str, int],
    size: int,
    files: Sequence[VerdictFile],
    problems: list[str],
) -> dict[str, JudgeColumns]:
    """Every judge's columns of `size` items; `benchmarks` gives the number of the part."""
    judges = {
        file.judge: JudgeColumns(
            file.judge,
            file.trivial,
            outcomes=np.zeros(size, dtype=np.int8),
            margins=np.full(size, np.nan, dtype=np.float32),
        )
        for file in files
    }
    for benchmark, part in benchmarks.items():
        for both, query in ((False, _ONE_ORDER), (True, _BOTH_ORDERS)):
            of_query = [f for f in files if f.benchmark == benchmark and f.both == both]
            _read_verdicts(database, query, part, of_query, judges, problems)
    return {judge: columns for judge, columns in judges.items() if columns.outcomes.any()}


def _read_verdicts(
    database: duckdb.DuckDBPyConnection,
    query: str,
    part: int,
    files: Sequence[VerdictFile],
    judges: Mapping[str, JudgeColumns],
    problems: list[str],
) -> None:
    """Read all files on one benchmark at once; one by one where that fails, to name the broken."""
    if not files:
        return
    try:
        read = database.execute(query, [[str(f.path) for f in files], part]).fetchnumpy()
    except duckdb.Error as error:
        if len(files) == 1:
            problems.append(_problem(files[0].path, error))
            return
        for file in files:
            _read_verdicts(database, query, part, [file], judges, problems)
        return
    # 1 correct, 0 wrong, 0.5 tie, -1 unscored; a mean of two orders goes to its nearer side.
    values, margins = np.asarray(read["value"]), np.ma.filled(read["margin"], np.nan)
    cases = [np.asarray(read["undecided"]), values < 0, values > 0.5, values < 0.5]
    outcomes = np.select(cases, [UNDECIDED, UNSCORED, CORRECT, WRONG], TIE).astype(np.int8)
    for number, file in enumerate(files):
        rows = read["file"] == number
        judges[file.judge].outcomes[read["item"][rows]] = outcomes[rows]
        judges[file.judge].margins[read["item"][rows]] = margins[rows]


def _problem(path: Path, error: Exception) -> str:
    """What is wrong with a file, in one line with its path."""
    text = str(error).splitlines()[0]
    return text if str(path) in text else f"{path}: {text}"


# Comparison files as columns.

Kind = Literal["benchmark", "mixture", "comparisons"]
# What is left to DuckDB before it goes to disk: 100,000 HH comparisons take about 0.2 GB.
MEMORY = "4GB"

_INSERT = f"""
INSERT INTO items SELECT ($1 + file_row_number)::INTEGER, $2, id, prompt_id, source, rating,
  CASE WHEN chosen_safe AND NOT rejected_safe THEN '{Bin.SAFE_UNSAFE}'
  WHEN chosen_safe AND rejected_safe THEN '{Bin.BOTH_SAFE}'
  WHEN NOT chosen_safe AND NOT rejected_safe THEN '{Bin.BOTH_UNSAFE}' END
FROM read_parquet($3, file_row_number = true)
"""
_INSERT_ITEMS = """
INSERT INTO items SELECT ($1 + file_row_number)::INTEGER, $2, id, prompt_id, source, NULL, NULL
FROM read_parquet($3, file_row_number = true)
"""
_ORDERED = {"rating": [r.label for r in reversed(Rating)], "bin": [b.value for b in Bin]}


@dataclass(frozen=True, slots=True)
class Part:
    """One file of comparisons: a benchmark, a mixture that was trained on, or neither.

    A benchmark's rows may be items of K responses (`of_items`).
    """

    name: str
    kind: Kind
    path: Path
    start: int
    rows: int
    of_items: bool = False

    @property
    def holds(self) -> str:
        """The kind of its file: `comparisons` or `items`."""
        return "items" if self.of_items else "comparisons"


@dataclass(frozen=True, slots=True, eq=False)
class Facet:
    """One value of each item out of few; `codes` [N] index `names`, -1 where there is none."""

    names: tuple[str, ...]
    codes: NDArray[np.signedinteger[Any]]

    def is_any(self, names: Sequence[str]) -> Mask:
        """Which items have one of these values, [N]."""
        codes = [code for code, name in enumerate(self.names) if name in names]
        return np.isin(self.codes, np.array(codes, dtype=self.codes.dtype))


@dataclass(frozen=True, slots=True, eq=False)
class Queue:
    """Items in the order in which they are to be looked at, with the reason and the score of each.

    `items` [Q], each once; a score is NaN where there is none. `scored_by` says what scores are.
    """

    items: NDArray[np.int32]
    reasons: tuple[str, ...]
    scores: NDArray[np.float64]
    scored_by: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """All comparisons of a run in the order of its files; item n is row n over all parts."""

    folder: Path
    database: duckdb.DuckDBPyConnection
    parts: tuple[Part, ...]
    files: tuple[VerdictFile, ...]
    facets: Mapping[str, Facet]
    judges: Mapping[str, JudgeColumns]
    problems: tuple[str, ...]
    queues: Mapping[str, Queue] = field(default_factory=dict[str, Queue])

    @property
    def size(self) -> int:
        """How many items there are."""
        return sum(part.rows for part in self.parts)

    def part_of(self, item: int) -> Part:
        """The file that an item is in."""
        return next(p for p in reversed(self.parts) if item >= p.start)

    def first_items(self, ids: Sequence[str]) -> dict[str, tuple[int, str]]:
        """The first item of each comparison id that is in this run, and its prompt's id."""
        rows = self._select(
            "SELECT id, min(item), any_value(prompt_id) FROM items "
            "WHERE id IN (SELECT unnest(?::VARCHAR[])) GROUP BY id",
            ids,
        )
        return {id: (item, prompt) for id, item, prompt in rows}

    def mask_of(self, ids: Sequence[str]) -> Mask:
        """Which items are one of these comparisons, in whatever part they are, [N]."""
        rows = self._select("SELECT item FROM items WHERE id IN (SELECT unnest(?::VARCHAR[]))", ids)
        mask = np.zeros(self.size, dtype=np.bool_)
        mask[[item for (item,) in rows]] = True
        return mask

    def ids_of(self, items: Sequence[int]) -> list[str]:
        """The comparison id of each item."""
        query = "SELECT item, id FROM items WHERE item IN (SELECT unnest(?::INTEGER[]))"
        ids = dict(self._select(query, items))
        return [ids[item] for item in items]

    def ties_among(self, items: Iterable[int]) -> set[int]:
        """Those of some items on which the annotators' judgement is a tie."""
        ties: set[int] = set()
        for part, of_part in groupby(sorted(set(items)), key=self.part_of):
            said = read_columns(part.path, ["judgement"], part.holds)
            for item in of_part if said.column_names else ():  # None in a file of an earlier form.
                judgement = said["judgement"][item - part.start].as_py()
                if judgement and Judgement(**judgement).decides == "tie":
                    ties.add(item)
        return ties

    def _select(self, query: str, values: Sequence[Any]) -> list[Any]:
        if not values:
            return []
        return self.database.cursor().execute(query, [list(values)]).fetchall()


def open_index(folder: Path) -> Index:
    """Read the columns of a run; nothing is written there, and a broken file is a problem.

    Raises:
        PalateError: the folder has no comparison that can be read.
    """
    paths = comparison_files(folder)
    options: dict[str, Any] = {
        "memory_limit": MEMORY, "threads": cores(), "autoinstall_known_extensions": False,
    }  # fmt: skip
    database = duckdb.connect(config=options)
    database.execute(
        "CREATE TABLE items (item INTEGER, part UTINYINT, id VARCHAR, prompt_id VARCHAR, "
        "source VARCHAR, rating VARCHAR, bin VARCHAR)"
    )
    parts: list[Part] = []
    problems: list[str] = []
    size = 0
    for kind, path in paths:
        try:
            header = read_header(path)
            of_items = kind == "benchmark" and header.kind == "items"
            if not of_items:
                read_header(path, "comparisons")
            if rows := header.rows:
                insert = _INSERT_ITEMS if of_items else _INSERT
                database.execute(insert, [size, len(parts), str(path)])
        except (PalateError, duckdb.Error) as error:
            problems.append(_problem(path, error))
            continue
        if rows:
            # A benchmark and a mixture may be of one name, and a model of a third.
            name = path.stem
            if kind == "mixture" or any(part.name == name for part in parts):
                name = f"{name} ({kind})"
            parts.append(Part(name, kind, path, size, rows, of_items))
            size += rows
    if not parts:
        raise PalateError(problems[0] if problems else f"{folder}: holds no comparison")

    codes = np.repeat(np.arange(len(parts), dtype=np.int16), [part.rows for part in parts])
    facets = {"part": Facet(tuple(part.name for part in parts), codes)}
    facets |= {name: _read_facet(database, name) for name in ("source", "rating", "bin")}
    benchmarks = {part.name: n for n, part in enumerate(parts) if part.kind == "benchmark"}
    files = verdict_files(folder, benchmarks, problems)
    judges = _read_judges(database, benchmarks, size, files, problems)
    queues = _read_queues(folder, database, problems)
    return Index(
        folder, database, tuple(parts), tuple(files), facets, judges, tuple(problems), queues
    )  # fmt: skip


def _read_queues(
    folder: Path, database: duckdb.DuckDBPyConnection, problems: list[str]
) -> dict[str, Queue]:
    """The queues of a run by name; adds what is left out of one, and why."""
    queues: dict[str, Queue] = {}
    for path in sorted((folder / QUEUES).glob("*.parquet")):
        try:
            entries, scored_by = read_queue(path)
        except PalateError as error:
            problems.append(str(error))
            continue
        ids = [entry.comparison_id for entry in entries]
        found = dict(
            database.execute(
                "SELECT id, min(item) FROM items WHERE id IN (SELECT unnest(?::VARCHAR[])) "
                "GROUP BY id",
                [ids],
            ).fetchall()
        )
        first: dict[int, Entry] = {}  # Of one that stands there twice the first place.
        for entry in entries:
            if entry.comparison_id in found:
                first.setdefault(found[entry.comparison_id], entry)
        if absent := len(set(ids) - found.keys()):
            problems.append(f"{path}: {absent:,} of its comparisons are not in this run")
        scores = (np.nan if entry.score is None else entry.score for entry in first.values())
        queues[path.stem] = Queue(
            np.array(list(first), dtype=np.int32),
            tuple(entry.reason for entry in first.values()),
            np.array(list(scores), dtype=np.float64),
            scored_by,
        )
    return queues


def comparison_files(folder: Path) -> list[tuple[Kind, Path]]:
    """The files of comparisons of a run, or of another folder to look at; benchmarks first.

    Raises:
        PalateError: there is none.
    """
    places: tuple[tuple[Kind, str], ...] = (
        ("benchmark", "benchmarks"), ("mixture", "mixtures"), ("comparisons", "comparisons"),
    )  # fmt: skip
    files = [
        (kind, path)
        for kind, name in places
        for path in sorted((folder / name).glob("*.parquet"))
        if kind != "mixture" or not path.name.endswith(".ids.parquet")
    ]
    if not files:
        raise PalateError(
            f"{folder}: no comparisons under benchmarks/ or mixtures/; make them with `palate run`"
        )
    return files


def _read_facet(database: duckdb.DuckDBPyConnection, name: str) -> Facet:
    names = _ORDERED.get(name)
    if names is None:
        values = database.execute(f"SELECT DISTINCT {name} FROM items").fetchall()
        names = sorted(value for (value,) in values if value is not None)
    codes = database.execute(
        f"SELECT (coalesce(list_position(?::VARCHAR[], {name}), 0) - 1)::SMALLINT AS code "
        "FROM items ORDER BY item",
        [names],
    ).fetchnumpy()["code"]
    return Facet(tuple(names), np.asarray(codes, dtype=np.int16))


# The texts of a run's comparisons: searched in any case, and the beginnings that a list shows.

CACHED_SEARCHES = 64  # 0.1 MB each at 100,000 items.
# Without the mark before the JSON of a message with fields, which would be a control character.
_EXCERPT = "ltrim(prompt[-1].content, chr(30))[:240]"
# Lower case once, not at every search: of 100,000 comparisons 1 s, in a thread of its own.
_LOAD = f"""
INSERT INTO texts SELECT (? + file_row_number)::INTEGER, {_EXCERPT}, lower(concat_ws(chr(10),
  array_to_string(list_transform(prompt, lambda turn: turn.content), chr(10)), chosen, rejected
)) FROM read_parquet(?, file_row_number = true)
"""
# All responses, and the turns between the prompt and each, where there are some.
_LOAD_ITEMS = f"""
INSERT INTO texts SELECT (? + file_row_number)::INTEGER, {_EXCERPT}, lower(concat_ws(chr(10),
  array_to_string(list_transform(prompt, lambda turn: turn.content), chr(10)),
  array_to_string(list_transform(flatten(turns), lambda turn: turn.content), chr(10)),
  array_to_string(responses, chr(10))
)) FROM read_parquet(?, file_row_number = true)
"""
_PHRASE_OR_WORD = re.compile(r'"([^"]+)"|(\S+)')


class Texts:
    """The texts of an index in DuckDB's memory, which goes to disk where it is too little.

    They are read when `load` is first called, in a thread; a search waits for them, a list does
    not.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._loader = threading.Thread(target=self._load, daemon=True, name="texts")
        self._starting = threading.Lock()
        self._loaded, self._error = False, ""
        self.find = lru_cache(CACHED_SEARCHES)(self._find)

    def load(self) -> None:
        """Begin to read the texts, once."""
        with self._starting:
            if self._loader.ident is None:
                self._loader.start()

    def _load(self) -> None:
        cursor = self._index.database.cursor()
        try:
            cursor.execute("CREATE TABLE texts (item INTEGER, excerpt VARCHAR, text VARCHAR)")
            for part in self._index.parts:
                load = _LOAD_ITEMS if part.of_items else _LOAD
                cursor.execute(load, [part.start, str(part.path)])
            self._loaded = True
        except duckdb.Error as error:
            self._error = str(error).splitlines()[0]

    def _find(self, search: str) -> Mask:
        """Items that hold every word or "quoted phrase", in any case, [N]."""
        self.load()
        self._loader.join()
        if self._error:
            raise PalateError(f"search: the texts cannot be read ({self._error})")
        words = [phrase or word for phrase, word in _PHRASE_OR_WORD.findall(search.lower())]
        where = " AND ".join(["contains(text, ?)"] * len(words)) or "true"
        cursor = self._index.database.cursor()
        items = cursor.execute(f"SELECT item FROM texts WHERE {where}", words).fetchnumpy()["item"]
        mask = np.zeros(self._index.size, dtype=np.bool_)
        mask[items] = True
        return mask

    def excerpts(self, items: Sequence[int]) -> list[str]:
        """The beginning of each item's last turn before the responses."""
        excerpts: dict[int, str] = {}
        if self._loaded:
            query = "SELECT item, excerpt FROM texts WHERE item IN (SELECT unnest(?::INTEGER[]))"
            excerpts |= self._index.database.cursor().execute(query, [list(items)]).fetchall()
        else:
            query = f"SELECT ? + file_row_number, {_EXCERPT} FROM {_ROWS_OF_FILE}"
            for part, of_part in groupby(sorted(items), key=self._index.part_of):
                rows = [item - part.start for item in of_part]
                parameters = [part.start, str(part.path), rows]
                excerpts |= self._index.database.cursor().execute(query, parameters).fetchall()
        return [excerpts.get(item) or "" for item in items]


_ROWS_OF_FILE = """read_parquet(?, file_row_number = true)
WHERE file_row_number IN (SELECT unnest(?::BIGINT[]))"""

# One comparison or item of K, with what every judge made of it.


@dataclass(frozen=True, slots=True)
class Item:
    """A comparison with its verdicts by judge, in both orders where it was judged in both.

    Of an item of K responses (`row`) `scores` are what each judge scored of them, in the item's
    order, and `values` what it was right about; both are empty of a comparison.
    """

    part: Part
    row: Comparison | BenchmarkItem
    verdicts: Mapping[str, tuple[ItemVerdict, ...]]
    scores: Mapping[str, tuple[float | None, ...]]
    values: Mapping[str, float | None]


def read_item(index: Index, number: int) -> Item:
    """Read an item and its verdicts from their files.

    Raises:
        PalateError: there is no such item, or its file was replaced since the run was opened.
    """
    asked = read_items(index, [number])[number]
    part = index.part_of(number)
    verdicts: dict[str, tuple[ItemVerdict, ...]] = {}
    scores: dict[str, tuple[float | None, ...]] = {}
    values: dict[str, float | None] = {}
    for file in index.files:
        if part.kind == "benchmark" and file.benchmark == part.name:
            query = "SELECT * FROM read_parquet(?) WHERE comparison_id = ?"
            rows = _read_rows(index, query, [str(file.path), asked.id])
            # Verdicts of an earlier format have no column for the answer.
            names = ItemVerdict.__dataclass_fields__.keys()
            verdicts[file.judge] = tuple(
                ItemVerdict(**{name: row[name] for name in names & row.keys()}) for row in rows
            )
            for row in rows if part.of_items else ():
                scores[file.judge] = tuple(one["score"] for one in row["responses"] or ())
                values[file.judge] = row["value"]
    return Item(part, asked, verdicts, scores, values)


def read_items(index: Index, numbers: Iterable[int]) -> dict[int, Comparison | BenchmarkItem]:
    """The rows behind some items, by item; raises as `read_item` does."""
    numbers = sorted(set(numbers))
    if numbers and not 0 <= numbers[0] <= numbers[-1] < index.size:
        raise PalateError(f"items {numbers[0]} to {numbers[-1]}: the run has {index.size}")
    ids = dict(zip(numbers, index.ids_of(numbers), strict=True))
    found: dict[int, Comparison | BenchmarkItem] = {}
    for part, of_part in groupby(numbers, key=index.part_of):
        rows = [number - part.start for number in of_part]
        for row in _read_rows(index, f"SELECT * FROM {_ROWS_OF_FILE}", [str(part.path), rows]):
            made = item_from_row if part.of_items else comparison_from_row
            found[part.start + row["file_row_number"]] = made(row)
    if {number: row.id for number, row in found.items()} != ids:
        raise PalateError(f"{index.folder}: changed since it was opened; start `palate view` again")
    return found


def _read_rows(index: Index, query: str, parameters: list[Any]) -> list[dict[str, Any]]:
    result = index.database.cursor().execute(query, parameters)
    names = [column[0] for column in result.description or ()]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]
