"""One file of questions shared out over processes: each asks its own, each answer counts once.

Every process keeps its answers in a journal of its own on the folder that all of them see. What
is asked is what no journal holds, and the answers are gathered from the journals by id, so a run
that was killed may go on with another number of processes (pitfall 23).
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from palate.evaluate.journal import answers_of
from palate.types import PalateError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Share:
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


ALONE = Share()


def gathered(path: Path, fingerprint: str) -> dict[str, Any]:
    """The answers of every process to the questions of `path`, by id."""
    answers: dict[str, Any] = {}
    for journal in journals(path):
        answers |= answers_of(journal, fingerprint)
    return answers


def journals(path: Path) -> list[Path]:
    """The journals that any number of processes left at `path`."""
    return sorted(path.parent.glob(f"{glob.escape(path.name)}*"))
