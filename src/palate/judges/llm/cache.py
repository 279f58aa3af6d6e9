"""Answers by content hash, calls in flight, and what was paid, in one SQLite file.

Several processes may share the file (on a local disk: SQLite's WAL does not work over NFS). Every
change is one transaction, so a process killed at any point leaves whole answers and, of each
call in flight, a row that the next process counts at its worst case.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Self

import psutil

from palate.judges.llm.answer import Answer
from palate.types import PalateError

VERSION = 1
LOCK_SECONDS = 30.0
SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
  key TEXT PRIMARY KEY, text TEXT NOT NULL, finish TEXT NOT NULL, top TEXT NOT NULL,
  seconds REAL NOT NULL, prompt_tokens INTEGER, completion_tokens INTEGER,
  answered_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS calls (
  id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, endpoint TEXT NOT NULL, model TEXT NOT NULL,
  worst REAL, pid INTEGER NOT NULL, expires REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS ledger (
  endpoint TEXT NOT NULL, model TEXT NOT NULL, answered INTEGER NOT NULL DEFAULT 0,
  failed INTEGER NOT NULL DEFAULT 0, prompt_tokens INTEGER NOT NULL DEFAULT 0,
  completion_tokens INTEGER NOT NULL DEFAULT 0, money REAL NOT NULL DEFAULT 0,
  unpriced INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (endpoint, model)
) WITHOUT ROWID;
"""
BILL = """
INSERT INTO ledger VALUES (:endpoint, :model, :answered, :failed, :prompt, :completion, :money,
  :unpriced) ON CONFLICT DO UPDATE SET answered = answered + :answered,
  failed = failed + :failed, prompt_tokens = prompt_tokens + :prompt,
  completion_tokens = completion_tokens + :completion, money = money + :money,
  unpriced = unpriced + :unpriced
"""


@dataclass(frozen=True, slots=True)
class Account:
    """What one model at one endpoint was asked and cost, by every run with this file.

    `failed` are calls without an answer; `money` counts those that may have been billed at their
    worst case; `unpriced` are calls that cost money unknown to us.
    """

    endpoint: str
    model: str
    answered: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    money: float = 0.0
    unpriced: int = 0


class Blocked(Enum):
    """Why a call may not be made now."""

    IN_FLIGHT = "another call asks the same"
    RESERVED = "calls in flight may take what is left of the budget"
    SPENT = "the budget is spent"


@dataclass(frozen=True, slots=True)
class Claim:
    """Leave to make one call; `worst` is what it may cost."""

    id: int
    worst: float | None


class Cache:
    """One connection to the file; use it in the thread that opened it."""

    def __init__(self, path: Path, endpoint: str, model: str) -> None:
        """Open or make the file; raises `PalateError` where it cannot be used."""
        self.path, self.endpoint, self.model = path, endpoint, model
        with self._errors_explained():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None)
            self._enable_write_ahead_log()
            # Where the process is killed nothing is lost; a power cut may cost the last answers.
            self._database.execute("PRAGMA synchronous = NORMAL")
            version = int(self._number("PRAGMA user_version"))
            if version not in (0, VERSION):
                raise PalateError(
                    f"{path}: answers of version {version}, this Palate keeps version {VERSION}; "
                    "name another file: cache: FILE"
                )
            if version == 0:  # A new file.
                self._database.execute(f"PRAGMA user_version = {VERSION}")
            self._database.executescript(SCHEMA)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def get(self, key: str) -> Answer | None:
        """The answer kept under `key`."""
        with self._errors_explained():
            row = self._database.execute(
                "SELECT text, finish, top, seconds, prompt_tokens, completion_tokens "
                "FROM answers WHERE key = ?",
                (key,),
            ).fetchone()
        if row is None:
            return None
        text, finish, top, *rest = row
        return Answer(text, finish, tuple((t, p) for t, p in json.loads(top)), *rest)

    def count(self) -> int:
        """How many answers the file holds."""
        with self._errors_explained():
            return int(self._number("SELECT COUNT(*) FROM answers"))

    def account(self) -> Account:
        """What this model at this endpoint has cost so far, calls in flight left out."""
        with self._errors_explained():
            row = self._database.execute(
                "SELECT * FROM ledger WHERE endpoint = ? AND model = ?",
                (self.endpoint, self.model),
            ).fetchone()
        return Account(*row) if row else Account(self.endpoint, self.model)

    def claim(
        self, key: str, worst: float | None, budget: float | None, seconds: float
    ) -> Claim | Answer | Blocked:
        """Leave to ask `key` within `seconds`; or its answer; or why not now.

        The check of the budget and the reservation of `worst` are one transaction, so processes
        that share a budget do not exceed it together.
        """
        with self._transaction():
            if (answer := self.get(key)) is not None:
                return answer
            self._bill_abandoned_calls()
            if self._number("SELECT COUNT(*) FROM calls WHERE key = ?", key):
                return Blocked.IN_FLIGHT
            account = (self.endpoint, self.model)
            if budget is not None:
                where = "FROM calls WHERE endpoint = ? AND model = ?"
                reserved = self._number(f"SELECT COALESCE(SUM(worst), 0) {where}", *account)
                if self.account().money + reserved + (worst or 0.0) > budget:
                    return Blocked.RESERVED if reserved else Blocked.SPENT
            inserted = self._database.execute(
                "INSERT INTO calls (key, endpoint, model, worst, pid, expires) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (key, *account, worst, os.getpid(), time.time() + seconds),
            )
            return Claim(int(inserted.lastrowid or 0), worst)

    def keep(self, claim: Claim, key: str, answer: Answer, money: float | None) -> None:
        """Keep a complete answer and what it cost, and end its call."""
        with self._transaction():
            self._database.execute(
                "INSERT OR REPLACE INTO answers (key, text, finish, top, seconds, prompt_tokens, "
                "completion_tokens) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    key, answer.text, answer.finish, json.dumps(answer.top), answer.seconds,
                    answer.prompt_tokens, answer.completion_tokens,
                ),
            )  # fmt: skip
            self._bill(claim.id, money, answer)

    def fail(self, claim: Claim, *, billed: bool) -> None:
        """End a call that gave no answer; one that may have been billed counts at its worst."""
        with self._transaction():
            self._bill(claim.id, claim.worst if billed else 0.0)

    def _bill_abandoned_calls(self) -> None:
        """Calls of processes that are gone may have been billed, and nobody waits for them."""
        now = time.time()
        for number, pid, expires, worst in self._database.execute(
            "SELECT id, pid, expires, worst FROM calls"
        ).fetchall():
            if expires < now or not (pid == os.getpid() or psutil.pid_exists(pid)):
                self._bill(number, worst)

    def _bill(self, call: int, money: float | None, answer: Answer | None = None) -> None:
        row = self._database.execute(
            "DELETE FROM calls WHERE id = ? RETURNING endpoint, model", (call,)
        ).fetchone()
        if row is None and answer is None:
            return  # Given up by another process, which billed it.
        endpoint, model = row or (self.endpoint, self.model)
        entry = {
            "endpoint": endpoint,
            "model": model,
            "answered": int(answer is not None),
            "failed": int(answer is None),
            "prompt": (answer and answer.prompt_tokens) or 0,
            "completion": (answer and answer.completion_tokens) or 0,
            "money": money or 0.0,
            "unpriced": int(money is None),
        }
        self._database.execute(BILL, entry)

    def _number(self, query: str, *values: object) -> float:
        return float(self._database.execute(query, values).fetchone()[0])

    def _enable_write_ahead_log(self) -> None:
        """Switch a new file to WAL; SQLite does not wait its turn here, so this does."""
        until = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                self._database.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)

    @contextmanager
    def _transaction(self) -> Generator[None]:
        with self._errors_explained():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    @contextmanager
    def _errors_explained(self) -> Generator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise PalateError(
                f"{self.path}: the answers cannot be read or kept ({error}); expected a SQLite "
                "file on a local disk with space left; mend it, or name another: cache: FILE"
            ) from None
