"""A pure function over the parts of a stage, by processes of their own, its results in order.

Worker i of n does every n-th part from the i-th on, and waits until a result is received. So the
order is that of the parts, each worker has at most one finished result, and what is made of them
does not depend on how many there are. Workers are started anew (spawn): the function and what it
holds are pickled.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

from palate.cpus import cores
from palate.types import PalateError

Part = TypeVar("Part")
Result = TypeVar("Result")


def workers_for(rows: int, rows_per_worker: int) -> int:
    """One for each core, as far as so many rows pay for the start of each; at least 1."""
    return max(1, min(cores(), rows // rows_per_worker))


def in_order(
    do: Callable[[Part], Result],
    parts: Sequence[Part],
    workers: int,
    *,
    name: str,
    cure: str,
) -> Generator[Result]:
    """`do` of each part, in order; one worker is this process.

    Args:
        name: what a worker is, in the error and in lists of processes: a `tokenising process`.
        cure: what follows in the error where a worker has died.

    Raises:
        PalateError: what `do` raises, or a worker that died.
    """
    if workers == 1:
        yield from map(do, parts)
        return
    pool = [_start(do, parts[first::workers], name) for first in range(workers)]
    try:
        for index in range(len(parts)):
            yield _receive(*pool[index % workers], name, cure)
    finally:
        for process, receiver in pool:
            process.terminate()
            process.join()
            receiver.close()


def _start(
    do: Callable[[Part], Result], parts: Sequence[Part], name: str
) -> tuple[SpawnProcess, Connection]:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(do, parts, sender), daemon=True, name=name)
    # Ctrl-C reaches the whole foreground group, and each worker would print a traceback; what it
    # inherits blocked stays so. This process ends it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    sender.close()  # The worker holds the only other end: where it dies, `_receive` fails.
    return process, receiver


def _work(do: Callable[[Part], Result], parts: Sequence[Part], sender: Connection) -> None:
    """Send the results of `parts`; a broken pipe means that nobody waits for them any more."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # Each core has a process already.
    with suppress(BrokenPipeError):
        try:
            for part in parts:
                sender.send(do(part))
        except PalateError as error:
            sender.send(error)


def _receive(process: SpawnProcess, receiver: Connection, name: str, cure: str) -> Any:
    try:
        result = receiver.recv()
    except EOFError:
        process.join()
        raise PalateError(
            f"a {name} ended with exit code {process.exitcode}; {cure}. -9 is too little memory; "
            "a script of your own needs its `if __name__ == '__main__':` around what it calls"
        ) from None
    if isinstance(result, PalateError):
        raise result
    return result
