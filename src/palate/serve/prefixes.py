"""Which conversations share a prompt: found from their tokens, whoever asked for them.

Shape letters: N conversations.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from palate.model.packing import Group, Integers, Tokens, common_prefix, group

# A shorter common beginning is a template's, and saves fewer tokens than its segments cost time.
LEAST_SHARED_TOKENS = 8


def by_prompt(conversations: Sequence[Tokens]) -> list[list[int]]:
    """Partition conversations into prompt groups that together hold the fewest tokens.

    In lexicographic order whatever shares a prefix lies together, and a run of n conversations
    with common prefix p saves (n - 1) p tokens. Over prefixes of that order,

        saved[j] = max over i < j of saved[i] + (j - i - 1) * p(i..j-1),

    which is the best of all partitions into runs: N steps of vectors of at most N.

    Args:
        conversations: [N] token ids, each at least one long.

    Returns:
        Indices into `conversations`, every one once, a list for each group.
    """
    count = len(conversations)
    keys = [c.astype(">i4").tobytes() for c in conversations]
    order = sorted(range(count), key=keys.__getitem__)
    neighbours = [common_prefix(conversations[a], conversations[b]) for a, b in pairwise(order)]
    shared = np.array(neighbours, dtype=np.int64)
    shared[shared < LEAST_SHARED_TOKENS] = 0
    starts = _run_starts(shared, count)
    runs, end = [], count
    while end:
        runs.append(order[starts[end] : end])
        end = int(starts[end])
    return runs[::-1]


def _run_starts(shared: Integers, count: int) -> Integers:
    """[N + 1]: where the last run begins of the best partition of the first j conversations."""
    saved = np.zeros(count + 1, dtype=np.int64)
    starts = np.arange(-1, count)
    for j in range(2, count + 1):
        if not shared[j - 2]:
            saved[j] = saved[j - 1]
            continue
        prefixes = np.minimum.accumulate(shared[: j - 1][::-1])[::-1]
        gains = saved[: j - 1] + prefixes * np.arange(j - 1, 0, -1)
        best = int(gains.argmax())
        saved[j], starts[j] = saved[j - 1], j - 1
        if gains[best] > saved[j]:
            saved[j], starts[j] = gains[best], best
    return starts


def prompt_group(conversations: Sequence[Tokens]) -> Group:
    """The conversations as one group; a single one is a response without a prompt, one segment."""
    return group(conversations, shared=len(conversations) > 1)
