"""What people said of comparisons, in one SQLite file beside the run.

Every change is one transaction in write-ahead mode, on disk before it is answered: a process that
is killed, or a machine that loses power, loses none. Several people may write to one file on a
local disk (SQLite's WAL does not work over NFS).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from palate.types import PalateError, Rating, digest

Choice = Literal["chosen", "rejected", ""]
VERSION = 1
LOCK_SECONDS = 30.0
MAX_NOTE_CHARACTERS = 4_000
MAX_NAME_CHARACTERS = 40
_SCHEMA = """
CREATE TABLE IF NOT EXISTS marks (
  annotator TEXT NOT NULL, comparison_id TEXT NOT NULL,
  choice TEXT NOT NULL CHECK (choice IN ('chosen', 'rejected', '')),
  rating INTEGER CHECK (rating BETWEEN 1 AND 4), note TEXT NOT NULL,
  blind INTEGER NOT NULL, part TEXT NOT NULL, changed_at TEXT NOT NULL,
  PRIMARY KEY (annotator, comparison_id)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Mark:
    """One person's opinion of one comparison.

    `choice` is the response they prefer by its label (`chosen`: they agree with the label), ""
    where they only wrote a note. `blind` says that label and scores were hidden; `part` is the
    file they saw it in.
    """

    annotator: str
    comparison_id: str
    choice: Choice = ""
    rating: Rating | None = None
    note: str = ""
    blind: bool = False
    part: str = ""
    changed_at: str = ""


_SELECT = f"SELECT {', '.join(field.name for field in fields(Mark))} FROM marks"
_ONE = "WHERE annotator = ? AND comparison_id = ?"


class Marks:
    """The file of marks; it is made with the first mark, so that looking writes nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists():
            with self._open():  # Says at once where it is no file of marks.
                pass

    def put(self, mark: Mark) -> None:
        """Keep a mark in place of an earlier one of the same person and comparison."""
        with self._open() as database:
            _write(database, mark)

    def change(self, blank: Mark, change: Callable[[Mark], Mark]) -> None:
        """Change the mark of one person and comparison, or `blank` where there is none.

        Nobody else writes meanwhile: of two keys pressed at once none is lost.
        """
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            where = (blank.annotator, blank.comparison_id)
            row = database.execute(f"{_SELECT} {_ONE}", where).fetchone()
            old = _mark(*row) if row else blank
            new = change(old)
            if new != old:
                _write(database, new)

    def remove(self, annotator: str, comparison_id: str) -> None:
        """Forget a mark."""
        with self._open() as database:
            database.execute(
                "DELETE FROM marks WHERE annotator = ? AND comparison_id = ?",
                (annotator, comparison_id),
            )

    def get(self, annotator: str, comparison_id: str) -> Mark | None:
        """A person's mark of a comparison."""
        found = self._read(_ONE, annotator, comparison_id)
        return found[0] if found else None

    def of(self, annotator: str) -> list[Mark]:
        """All marks of a person, in the order they were made."""
        return self._read("WHERE annotator = ? ORDER BY changed_at", annotator)

    def all(self) -> list[Mark]:
        """Everybody's marks, by person and then in the order they were made."""
        return self._read("ORDER BY annotator, changed_at")

    def _read(self, where: str, *values: str) -> list[Mark]:
        if not self.path.exists():
            return []
        with self._open() as database:
            rows = database.execute(f"{_SELECT} {where}", values).fetchall()
        return [_mark(*row) for row in rows]

    @contextmanager
    def _open(self) -> Generator[sqlite3.Connection]:
        """A connection of this thread's own; what is done with it is one transaction."""
        try:
            with closing(sqlite3.connect(self.path, timeout=LOCK_SECONDS)) as database:
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = FULL")
                self._prepare(database)
                with database:
                    yield database
        except sqlite3.Error as error:
            raise PalateError(
                f"{self.path}: cannot be used for marks ({error}); use --marks FILE"
            ) from None

    def _prepare(self, database: sqlite3.Connection) -> None:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version == 0:
            database.executescript(f"{_SCHEMA} PRAGMA user_version = {VERSION};")
        elif version != VERSION:
            raise PalateError(
                f"{self.path}: marks of format {version}, this Palate reads {VERSION}"
            )


def _write(database: sqlite3.Connection, mark: Mark) -> None:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    row = (
        mark.annotator, mark.comparison_id, mark.choice, mark.rating,
        mark.note[:MAX_NOTE_CHARACTERS], mark.blind, mark.part, now,
    )  # fmt: skip
    database.execute("INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)


def _mark(
    annotator: str, comparison_id: str, choice: Choice, rating: int | None, note: str, blind: int,
    part: str, changed_at: str,
) -> Mark:  # fmt: skip
    level = None if rating is None else Rating(rating)
    return Mark(annotator, comparison_id, choice, level, note, bool(blind), part, changed_at)


def chosen_stands_first(annotator: str, comparison_id: str) -> bool:
    """The side of the chosen response for one person in blind mode: a hash, so it stays."""
    return int(digest("blind", annotator, comparison_id)[-1], 16) % 2 == 0


def annotator_name(text: str) -> str:
    """A name as it is kept: one line, printable.

    Raises:
        PalateError: nothing is left of it, or it is too long.
    """
    name = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if not 0 < len(name) <= MAX_NAME_CHARACTERS:
        raise PalateError(f"a name of 1 to {MAX_NAME_CHARACTERS} characters was expected")
    return name
