"""This process: which of those that torchrun started it is, and its start; without torch."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory


@dataclass(frozen=True, slots=True)
class Process:
    """This process: its rank of `size` in all, and of `local_size` on this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    torchrun: bool = False

    @property
    def leads(self) -> bool:
        """Whether this is the one that logs, writes and exports."""
        return self.rank == 0


def this_process() -> Process:
    """As torchrun's environment describes it; rank 0 of 1 where torchrun did not start it."""

    def number(name: str, default: int) -> int:
        return int(os.environ.get(name, default))

    size = number("WORLD_SIZE", 1)
    return Process(
        rank=number("RANK", 0),
        size=size,
        local_rank=number("LOCAL_RANK", 0),
        local_size=number("LOCAL_WORLD_SIZE", size),
        torchrun="RANK" in os.environ,
    )


@contextmanager
def importing() -> Generator[None]:
    """Collect no garbage while torch, transformers and a model's classes are imported inside.

    What modules define stays. The collector looks through it again and again as it grows, which is
    a fifth of the time that such a start takes (`LOG.md`).
    """
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()


@contextmanager
def temporary_folder(prefix: str) -> Generator[str]:
    """A folder that is removed at the end, also where SIGTERM ends this process.

    By itself SIGTERM ends Python at once, and what was to be for a while, gigabytes of weights
    among it, stays. Whoever handles SIGTERM already goes on doing so.
    """

    def leave(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    with TemporaryDirectory(prefix=prefix) as folder:
        if ours:
            signal.signal(signal.SIGTERM, leave)
        try:
            yield folder
        finally:
            if ours:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
