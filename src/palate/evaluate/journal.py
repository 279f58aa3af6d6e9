"""Answers kept as they arrive, so that a killed run asks only for what is missing."""

from __future__ import annotations

import glob
import json
import os
import time
from array import array
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from palate.types import PalateError

ABSENT = -1
SYNC_SECONDS = 2.0  # What a power cut may cost; a killed process loses nothing.


class Journal:
    """JSON lines `[key, answer]` under a first line that names the protocol's fingerprint.

    Lines of another protocol are dropped, a last line that was cut is dropped, and a line that
    cannot be read is dropped: its key is asked again. One answer a key; the last one counts.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        """Open or make the journal at `path`; raises `PalateError` where it cannot be written."""
        self.path = path
        self._synced = time.monotonic()
        with _writable(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = path.open("ab+")
            self._file.seek(0)
            whole = 0
            for line in _lines(self._file, fingerprint):
                whole = line.end
            self._file.truncate(whole)
            if not whole:
                self._write({"palate": "journal", "protocol": fingerprint})

    def add(self, key: str, answer: Any) -> None:
        """Keep one answer; it is in the file when this returns, on the disk seconds later."""
        with _writable(self.path):
            self._write([key, answer])
            if time.monotonic() - self._synced > SYNC_SECONDS:
                self._sync()

    def close(self) -> None:
        """Bring everything to the disk."""
        with _writable(self.path):
            try:
                self._sync()
            finally:
                self._file.close()

    def _write(self, value: object) -> None:
        self._file.write(json.dumps(value, ensure_ascii=True).encode() + b"\n")
        self._file.flush()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()


def answers_of(path: Path, fingerprint: str) -> dict[str, Any]:
    """What a journal holds, also while another process writes it."""
    with path.open("rb") as file:
        kept = (line.kept for line in _lines(file, fingerprint))
        return dict(pair for pair in kept if pair is not None)


class Located:
    """Answers to questions 0..N-1 of any number of journals, left on the disk until asked for.

    Memory is 8 bytes a question, whatever the answers hold. Keys are the numbers as text.
    """

    def __init__(self, paths: Sequence[Path], fingerprint: str, total: int) -> None:
        self._files: list[BinaryIO] = [path.open("rb") for path in paths]
        self._places = array("q", [ABSENT]) * total  # Place in the file, and which file it is.
        for number, file in enumerate(self._files):
            for line in _lines(file, fingerprint):
                if line.kept is not None:
                    self._places[int(line.kept[0])] = line.start * len(paths) + number

    def __contains__(self, question: int) -> bool:
        return self._places[question] != ABSENT

    def __len__(self) -> int:
        return len(self._places) - self._places.count(ABSENT)

    def __getitem__(self, question: int) -> Any:
        start, number = divmod(self._places[question], len(self._files))
        self._files[number].seek(start)
        return json.loads(self._files[number].readline())[1]

    def close(self) -> None:
        for file in self._files:
            file.close()


@dataclass(frozen=True, slots=True)
class _Line:
    """A whole line of a journal: its first and last byte, and key and answer if it has them."""

    start: int
    end: int
    kept: tuple[str, Any] | None


def _lines(file: BinaryIO, fingerprint: str) -> Iterator[_Line]:
    """The whole lines, the first included; none where it names another protocol."""
    start = 0
    for number, line in enumerate(file):
        if not line.endswith(b"\n"):
            break
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if number == 0 and (not isinstance(value, dict) or value.get("protocol") != fingerprint):
            break
        answered = number and isinstance(value, list) and len(value) == 2
        yield _Line(start, start + len(line), (value[0], value[1]) if answered else None)
        start += len(line)


@contextmanager
def journal(path: Path, fingerprint: str) -> Generator[Journal]:
    """An open journal, on the disk and closed when the block ends, however it ends."""
    opened = Journal(path, fingerprint)
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def _writable(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise PalateError(
            f"{path}: cannot be written ({reason}); free or name another folder and run again, "
            "answers so far are kept"
        ) from error


# One file of questions shared out over processes: each asks its own, each answer counts once.
#
# Every process keeps its answers in a journal of its own on the folder that all of them see. What
# is asked is what no journal holds, and the answers are gathered from the journals by id, so a
# run
# that was killed may go on with another number of processes (pitfall 23).

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Shard:
    """Which part of the questions is this process's; by default all of them.

    `any` says whether something is so in any process, and returns when every process has called
    it.
    """

    rank: int = 0
    ranks: int = 1
    any: Callable[[bool], bool] = bool

    @property
    def leads(self) -> bool:
        """Whether this process writes what all of them answered."""
        return self.rank == 0

    def wait(self) -> None:
        """Go on when every process is here."""
        self.any(False)

    def together(self, do: Callable[[], None]) -> None:
        """Do it in every process; where one of them cannot, none goes on, nor waits for it.

        Raises:
            PalateError: this process's own trouble, or that another has had some.
        """
        trouble: PalateError | None = None
        try:
            do()
        except PalateError as error:
            trouble = error
        if self.any(trouble is not None):
            raise trouble or PalateError("another process could not go on; its own line says why")

    def part(self, questions: Iterable[T], total: int) -> Iterator[T]:
        """This process's run of the `total` questions: neighbours share prompts."""
        start, end = (total * rank // self.ranks for rank in (self.rank, self.rank + 1))
        return islice(questions, start, end)

    def journal(self, path: Path) -> Path:
        """Where this process keeps its answers: `path` itself where it is alone."""
        if self.ranks == 1:
            return path
        return path.with_name(f"{path.name}.{self.rank}-of-{self.ranks}")


ALONE = Shard()


def gathered(path: Path, fingerprint: str) -> dict[str, Any]:
    """The answers of every process to the questions of `path`, by id."""
    answers: dict[str, Any] = {}
    for journal in journals(path):
        answers |= answers_of(journal, fingerprint)
    return answers


def journals(path: Path) -> list[Path]:
    """The journals that any number of processes left at `path`."""
    return sorted(path.parent.glob(f"{glob.escape(path.name)}*"))
