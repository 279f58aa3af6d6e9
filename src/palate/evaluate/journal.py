"""Asking questions once: answers go to a journal as they arrive, and a killed run continues there.

`ask_missing` asks what no journal beside the output holds and writes the output from the journals.
Several processes share the questions: each asks a run of neighbours and keeps a journal of its
own in the folder that all of them see, so a killed run may continue with another number of
processes (pitfall 23). In memory is where each answer is, never the answers.
"""

from __future__ import annotations

import glob
import json
import os
import time
from array import array
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from palate.process import this_process
from palate.types import PalateError

if TYPE_CHECKING:
    from palate.train.distributed import Distributed

Question = TypeVar("Question")
Progress = Callable[[int, int, str], None]
"""Called with (answers so far, answers in all, a message or "")."""

ABSENT = -1
SYNC_SECONDS = 2.0  # What a power cut may cost; a killed process loses nothing.


def no_progress(_done: int, _total: int, _message: str) -> None:
    """The progress of a run that nobody watches."""


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
            end = 0
            for start, line, _ in _lines(self._file, fingerprint):
                end = start + len(line)
            self._file.truncate(end)
            if not end:
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


class Answers(Mapping[str, Any]):
    """The answers of any number of journals by key, left on the disk until asked for.

    Journals that other processes are writing can be read too. With `rows` the keys are the numbers
    0 to rows - 1 as text, and memory is 8 bytes a key.
    """

    def __init__(self, paths: Sequence[Path], fingerprint: str, rows: int | None = None) -> None:
        self._files: list[BinaryIO] = [path.open("rb") for path in paths]
        # Of each key the place of its line in a file, times the number of files, plus which one.
        self._places: dict[str, int] | array[int]
        self._places = {} if rows is None else array("q", [ABSENT]) * rows
        for number, file in enumerate(self._files):
            for start, _, value in _lines(file, fingerprint):
                if isinstance(value, list) and len(value) == 2:
                    place = start * len(paths) + number
                    if isinstance(self._places, dict):
                        self._places[value[0]] = place
                    else:
                        self._places[int(value[0])] = place

    def _place(self, key: str) -> int:
        if isinstance(self._places, dict):
            return self._places.get(key, ABSENT)
        return self._places[int(key)]

    def __contains__(self, key: object) -> bool:
        return self._place(str(key)) != ABSENT

    def __len__(self) -> int:
        if isinstance(self._places, dict):
            return len(self._places)
        return len(self._places) - self._places.count(ABSENT)

    def __iter__(self) -> Iterator[str]:
        if isinstance(self._places, dict):
            return iter(self._places)
        return (str(row) for row, place in enumerate(self._places) if place != ABSENT)

    def __getitem__(self, key: str) -> Any:
        if (place := self._place(key)) == ABSENT:
            raise KeyError(key)
        start, number = divmod(place, len(self._files))
        self._files[number].seek(start)
        return json.loads(self._files[number].readline())[1]

    def close(self) -> None:
        for file in self._files:
            file.close()


def _lines(file: BinaryIO, fingerprint: str) -> Iterator[tuple[int, bytes, Any]]:
    """Where each whole line begins, the line and its value, None where it cannot be read.

    The first line is one of them; there is none where it names another protocol.
    """
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
        yield start, line, value
        start += len(line)


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


@dataclass(frozen=True, slots=True)
class Shard:
    """Which part of the questions is this process's; by default all of them.

    `any` returns whether the flag is up in any process, when every process has called it.
    """

    rank: int = 0
    ranks: int = 1
    any: Callable[[bool], bool] = bool

    @property
    def leads(self) -> bool:
        """Whether this process writes what all of them answered."""
        return self.rank == 0

    def together(self, do: Callable[[], None]) -> None:
        """Do it in every process; where one of them cannot, none goes on, nor waits for it.

        Raises:
            PalateError: this process's own error, or that another has had one.
        """
        mine: PalateError | None = None
        try:
            do()
        except PalateError as error:
            mine = error
        if self.any(mine is not None):
            raise mine or PalateError("another process could not go on; its own line says why")

    def part(self, questions: Iterable[Question], total: int) -> Iterator[Question]:
        """This process's run of the `total` questions: neighbours share prompts."""
        start, end = (total * rank // self.ranks for rank in (self.rank, self.rank + 1))
        return islice(questions, start, end)

    def journal(self, path: Path) -> Path:
        """Where this process keeps its answers: `path` itself where it is alone."""
        if self.ranks == 1:
            return path
        return path.with_name(f"{path.name}.{self.rank}-of-{self.ranks}")


ALONE = Shard()


@contextmanager
def sharing() -> Generator[Shard]:
    """Yield this process's part of a command that all ranks run alike."""
    if this_process().size == 1:
        yield ALONE
        return
    from palate.train.distributed import join, leave

    world = join()
    yield shard_of(world)
    leave(world)


def shard_of(world: Distributed) -> Shard:
    """The part of one of several processes that have found each other."""
    return Shard(world.rank, world.size, lambda flag: world.any(flag)[0])


def journal_path(output: Path, fingerprint: str) -> Path:
    """Where answers under the protocol of that fingerprint are kept until `output` is written."""
    return output.with_name(f"{output.name}.{fingerprint[:12]}.journal.jsonl")


def journals(path: Path) -> list[Path]:
    """The journals that any number of processes left at `path`."""
    return sorted(path.parent.glob(f"{glob.escape(path.name)}*"))


def ask_missing(
    path: Path,
    fingerprint: str,
    questions: Iterable[Question],
    key: Callable[[Question], str],
    ask: Callable[[Iterator[Question]], Iterator[tuple[str, Any]]],
    write: Callable[[Mapping[str, Any]], None],
    *,
    total: int,
    rows: int | None = None,
    earlier: Mapping[str, Any] | None = None,
    progress: Progress = no_progress,
    shard: Shard = ALONE,
) -> None:
    """Ask the questions that have no answer yet, then write the output from all answers.

    Every answer is in a journal before the next one is waited for, so nothing is asked twice
    however often the process is killed. The journals go when the output is written.

    Args:
        path: the journal, see `journal_path`.
        fingerprint: of all that may change an answer; answers under another one are not used.
        questions: `total` of them, in the same order in every process and every run.
        key: names a question in the journal.
        ask: answers the questions in their order, as (key, JSON values); may read ahead.
        write: makes the output, given the answers by key; called in one process alone.
        rows: given where keys are row numbers, see `Answers`.
        earlier: answers known from elsewhere; they are copied, not asked for.
        progress: called before the first question, which may take long, and after each answer.
        shard: which part of the questions this process asks.

    Raises:
        PalateError: a journal that cannot be written, and what `ask` and `write` raise.
    """
    earlier = earlier or {}

    def ask_part() -> None:
        with closing(Answers(journals(path), fingerprint, rows)) as kept:
            known = len(kept) + sum(name not in kept for name in earlier)
            progress(known, total, f"continued: {known} answers were kept" if known else "")
            with closing(Journal(shard.journal(path), fingerprint)) as journal:

                def missing() -> Iterator[Question]:
                    for question in shard.part(questions, total):
                        name = key(question)
                        if name in kept:
                            continue
                        if name in earlier:
                            journal.add(name, earlier[name])
                        else:
                            yield question

                for done, (name, answer) in enumerate(ask(missing()), known + 1):
                    journal.add(name, answer)
                    progress(done, total, "")

    def finish() -> None:
        if shard.leads:
            with closing(Answers(journals(path), fingerprint, rows)) as answers:
                write(answers)
            for used in journals(path):
                used.unlink()

    shard.together(ask_part)
    shard.together(finish)
