"""A run's comparisons as columns: what a list shows, filters and sorts by, one entry an item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb
import numpy as np
from numpy.typing import NDArray

from palate.cpus import cores
from palate.records import read_header
from palate.types import Bin, PalateError, Rating
from palate.view.opinions import (
    Opinions,
    VerdictFile,
    one_line,
    read_opinions,
    verdict_files,
)

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
class Catalogue:
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


def open_catalogue(folder: Path) -> Catalogue:
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
    return Catalogue(
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
