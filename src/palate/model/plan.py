"""The planner: whole prompt groups into micro-batches of equal work, the same number on each rank.

A micro-batch holds at most a budget of tokens. How few micro-batches that takes is found first;
then the groups are spread evenly over them, so that no rank waits for the one that got the most.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

from palate.types import PalateError

Bins = list[list[int]]


def plan(tokens: Sequence[int], budget: int, ranks: int = 1) -> list[Bins]:
    """Partition groups into micro-batches of at most `budget` tokens, `ranks` lists of equal count.

    A pure function of its arguments. A group longer than the budget is alone in its micro-batch;
    where there are fewer groups than micro-batches, some are empty (their weight is zero). The
    lengths that lie together do not depend on the order of `tokens`.

    Args:
        tokens: tokens of each group, at least 1. budget: tokens of one micro-batch.

    Returns:
        For each rank its micro-batches as lists of indices into `tokens`; every index once.
        Micro-batches of the same place run at the same time and are of nearly equal size.

    Raises:
        PalateError: the budget is not positive.
    """
    if budget < 1:
        raise PalateError(f"tokens_per_microbatch must be at least 1, got {budget}")
    order = sorted(range(len(tokens)), key=lambda i: (-tokens[i], i))
    packed = _best_fit(order, tokens, budget)
    count = math.ceil(len(packed) / ranks) * ranks
    even = _spread(order, tokens, count)
    fits = all(len(held) <= 1 or _sum(held, tokens) <= budget for held in even)
    bins = even if fits else packed + [[] for _ in range(count - len(packed))]
    return _deal(bins, tokens, ranks)


def _sum(held: Sequence[int], tokens: Sequence[int]) -> int:
    return sum(tokens[i] for i in held)


def _best_fit(order: Sequence[int], tokens: Sequence[int], budget: int) -> Bins:
    """Few bins: the longest group first, each into the fullest bin that it fits."""
    bins: Bins = []
    room: list[int] = []
    for index in order:
        fits = [b for b, left in enumerate(room) if left >= tokens[index]]
        if fits:
            best = min(fits, key=lambda b: (room[b], b))
            bins[best].append(index)
            room[best] -= tokens[index]
        else:
            bins.append([index])
            room.append(budget - tokens[index])
    return bins


def _spread(order: Sequence[int], tokens: Sequence[int], count: int) -> Bins:
    """Even bins: the longest group first, each into the emptiest bin."""
    bins: Bins = [[] for _ in range(count)]
    heap = [(0, b) for b in range(count)]
    for index in order:
        held, emptiest = heapq.heappop(heap)
        bins[emptiest].append(index)
        heapq.heappush(heap, (held + tokens[index], emptiest))
    return bins


def _deal(bins: Bins, tokens: Sequence[int], ranks: int) -> list[Bins]:
    """The largest bins first, a row of them over the ranks and the next row back again."""
    largest_first = sorted(bins, key=lambda held: -_sum(held, tokens))
    dealt: list[Bins] = [[] for _ in range(ranks)]
    for start in range(0, len(bins), ranks):
        row = largest_first[start : start + ranks]
        back = start // ranks % 2
        for rank, held in enumerate(reversed(row) if back else row):
            dealt[rank].append(sorted(held))
    return dealt
