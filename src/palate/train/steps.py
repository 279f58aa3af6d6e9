"""Which comparisons each step holds, and the next step made while this one computes."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from palate.train.example import Example
from palate.train.examples import Examples

Item = TypeVar("Item")
Keys = NDArray[np.uint64]


def epoch_order(keys: Keys, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order in which an epoch goes through its rows; a pure function of its arguments.

    Prompts are shuffled, and the comparisons of one prompt lie together, shuffled too: a step
    then computes a ranked set from one pass, its prompt and each response encoded once.

    Args:
        keys: one number a row, equal where the prompts are, [N].

    Returns:
        Row numbers, [N], each once.
    """
    rng = np.random.default_rng([seed, epoch])
    _, prompt = np.unique(keys, return_inverse=True)
    place = rng.permutation(prompt.max(initial=-1) + 1)[prompt]
    rows = rng.permutation(len(keys))
    return rows[np.argsort(place[rows], kind="stable")]


def steps_per_epoch(rows: int, pairs_per_step: int) -> int:
    """Steps of one pass over the data; the last may be smaller."""
    return math.ceil(rows / pairs_per_step)


def steps(
    examples: Examples, pairs_per_step: int, epochs: int, seed: int, *, start: int = 0
) -> Iterator[tuple[int, list[Example]]]:
    """(step, its examples) after step `start`: consecutive slices of each epoch's order.

    A step has exactly `pairs_per_step` comparisons, the last of an epoch what is left. A prompt
    with more comparisons than a step has room for is split at the cut.
    """
    keys = examples.prompt_keys()
    per_epoch = steps_per_epoch(len(examples), pairs_per_step)
    for epoch in range(start // per_epoch, epochs):
        order = epoch_order(keys, seed, epoch)
        for index in range(start % per_epoch if epoch == start // per_epoch else 0, per_epoch):
            rows = order[index * pairs_per_step :][:pairs_per_step]
            yield epoch * per_epoch + index + 1, [examples[int(row)] for row in rows]


def ahead(items: Iterable[Item]) -> Generator[Item]:
    """The same items, the next one made in a background thread while this one is used.

    What making it raises is raised here. Closing the generator waits for the item being made.
    """
    end = object()
    iterator = iter(items)
    take: Callable[[], Item | object] = lambda: next(iterator, end)  # noqa: E731
    with ThreadPoolExecutor(1, "ahead") as thread:
        coming = thread.submit(take)
        while (item := coming.result()) is not end:
            coming = thread.submit(take)
            yield item  # type: ignore[misc]
