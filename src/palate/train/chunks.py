"""Row groups of comparisons as chunks of tokens, made in this process or by several.

Pairs that tokenise to the same conversation, and pairs with a response over the limit, teach
nothing or the wrong thing; they are left out here and counted (pitfalls 1, 2). So are pairs that
the chat template refuses, each with the reason. A chunk is a pure function of its row group, so it
does not matter who makes it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

import numpy as np
import pyarrow as pa

from palate.model.templates import RefusedTurnsError
from palate.model.tokenizer import ChatTokens
from palate.records import read_comparisons
from palate.train.example import Example
from palate.types import Comparison, PalateError, digest

# Rows are read whole and at random, so each is one piece; what plans need of all rows is beside it.
SCHEMA = pa.schema(
    [
        pa.field("prompt", pa.binary(16), nullable=False),
        pa.field("lengths", pa.list_(pa.int32(), 3), nullable=False),
        pa.field("example", pa.binary(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class Chunk:
    """One row group as an Arrow message, and what making it cost, by name in `Cuts`.

    `refused` are the ids of rows that the chat template refuses, with its reason.
    """

    message: bytes
    counts: Counter[str]
    refused: tuple[tuple[str, str], ...] = ()


def chunks(
    comparisons: Path, chat: ChatTokens, groups: Sequence[int], workers: int
) -> Generator[Chunk]:
    """The chunks of row groups in order; more than one worker are processes of their own.

    Raises:
        PalateError: the template writes no stable end, or a process died.
    """
    if workers == 1:
        return (_chunk(comparisons, chat, number) for number in groups)
    return _spread(comparisons, chat, groups, workers)


def _chunk(comparisons: Path, chat: ChatTokens, number: int) -> Chunk:
    counts: Counter[str] = Counter()
    refused: list[tuple[str, str]] = []
    prompts, lengths, packed = [], [], []
    rows = read_comparisons(comparisons, groups=[number])
    for example in _examples(rows, chat, counts, refused):
        tokens, data = example.pack()
        prompts.append(bytes.fromhex(example.prompt))
        lengths.append(tokens)
        packed.append(data)
    arrays = [pa.array(c, t) for c, t in zip((prompts, lengths, packed), SCHEMA.types, strict=True)]
    message = pa.record_batch(arrays, schema=SCHEMA).serialize().to_pybytes()
    return Chunk(message, counts, tuple(refused))


def _examples(
    comparisons: Iterable[Comparison],
    chat: ChatTokens,
    counts: Counter[str],
    refused: list[tuple[str, str]],
) -> Iterator[Example]:
    for comparison in comparisons:
        counts["rows"] += 1
        try:
            chosen = chat.encode(comparison.prompt, comparison.chosen)
            rejected = chat.encode(comparison.prompt, comparison.rejected)
        except RefusedTurnsError as refusal:
            counts["refused"] += 1
            refused.append((comparison.id, str(refusal)))
            continue
        if chosen is None or rejected is None:
            counts["too_long"] += 1
        elif np.array_equal(chosen.ids, rejected.ids):
            counts["identical"] += 1
            counts["alike"] += comparison.chosen != comparison.rejected
        else:
            counts["kept"] += 1
            counts["truncated"] += chosen.truncated or rejected.truncated
            yield Example(
                id=comparison.id,
                prompt=digest([[m.role, m.content] for m in comparison.prompt]),
                chosen=chosen.ids,
                rejected=rejected.ids,
                rating=comparison.rating,
                chosen_safe=comparison.chosen_safe,
                rejected_safe=comparison.rejected_safe,
            )


def _spread(
    comparisons: Path, chat: ChatTokens, groups: Sequence[int], workers: int
) -> Generator[Chunk]:
    """Worker i of n makes every n-th group from the i-th on, and waits until it is fetched.

    So the order is that of the file, and at most one finished chunk a worker is held.
    """
    team = [_start(comparisons, chat, groups[first::workers]) for first in range(workers)]
    try:
        for index in range(len(groups)):
            yield _fetch(*team[index % workers])
    finally:
        for process, receiver in team:
            process.terminate()
            process.join()
            receiver.close()


def _start(
    comparisons: Path, chat: ChatTokens, groups: Sequence[int]
) -> tuple[SpawnProcess, Connection]:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_work, args=(comparisons, chat, groups, sender), daemon=True, name="tokenise"
    )
    # Ctrl-C reaches the whole foreground group, and each worker would print a traceback; what it
    # inherits blocked stays so. This process ends it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    sender.close()  # The worker holds the only other end: where it dies, `_fetch` is told.
    return process, receiver


def _work(comparisons: Path, chat: ChatTokens, groups: Sequence[int], sender: Connection) -> None:
    """Send the chunks of `groups`; a broken pipe means that nobody waits for them any more."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # Each core has a process already.
    with suppress(BrokenPipeError):
        try:
            for number in groups:
                sender.send(_chunk(comparisons, chat, number))
        except PalateError as error:
            sender.send(error)


def _fetch(process: SpawnProcess, receiver: Connection) -> Chunk:
    try:
        sent = receiver.recv()
    except EOFError:
        process.join()
        raise PalateError(
            f"a tokenising process ended with exit code {process.exitcode}; what was finished is "
            "kept. -9 is too little memory; a script of your own needs its "
            "`if __name__ == '__main__':` around training"
        ) from None
    if isinstance(sent, PalateError):
        raise sent
    assert isinstance(sent, Chunk)
    return sent
