"""Which conversations share a prompt, and the queue of what waits for a model.

Clients take turns by tokens (start-time fair queueing), and what shares a prompt is taken together.
Pure bookkeeping, without threads or clocks; `engine.py` holds the lock.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice, pairwise
from typing import Generic, TypeVar

import numpy as np

from palate.model.packing import Group, Integers, Tokens, common_prefix, group

# Which conversations share a prompt: found from their tokens, whoever asked for them.
#
# Shape letters: N conversations.

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


# A request cut into what one micro-batch can hold: prompt groups, or parts of large ones.

LEAD_TOKENS = 64  # Items that begin alike for so long may share a prompt, and are compared.

Owner = TypeVar("Owner")


@dataclass(slots=True, eq=False)
class WorkItem(Generic[Owner]):
    """Conversations of one prompt that are scored in one micro-batch.

    `places` are their indices in the owner's request, `prefix` the tokens they share, `tokens`
    what a micro-batch spends on them where nothing else shares their prompt, and nothing is kept
    of it. What is kept is kept apart by `salt`.
    """

    owner: Owner
    client: str
    places: tuple[int, ...]
    conversations: tuple[Tokens, ...]
    prefix: int
    tokens: int
    salt: str = ""

    @property
    def lead(self) -> bytes:
        """What items that share a prompt begin with."""
        return self.conversations[0][:LEAD_TOKENS].tobytes()


class PrefixGroup(Generic[Owner]):
    """An item and those that joined it because they have its prompt: one group of a micro-batch."""

    def __init__(self, item: WorkItem[Owner]) -> None:
        self._first = item.conversations[0]
        self._count, self._prefix = len(item.places), item.prefix

    def prefix_with(self, other: WorkItem[Owner]) -> int:
        """Tokens that all would share if `other` joined."""
        common = common_prefix(self._first, other.conversations[0])
        return min(common, self._prefix, other.prefix)

    def cost_of(self, other: WorkItem[Owner]) -> int:
        """Tokens that `other` adds to the group, those included that the others no longer share."""
        prefix, count = self.prefix_with(other), len(other.places)
        own = other.tokens + (count - 1) * other.prefix - count * prefix
        return own + (self._count - 1) * (self._prefix - prefix)

    def join(self, other: WorkItem[Owner]) -> None:
        """Let `other` share."""
        self._prefix = self.prefix_with(other)
        self._count += len(other.places)


def work_items(
    owner: Owner,
    client: str,
    conversations: Sequence[Tokens],
    budget: int,
    *,
    shared: bool = True,
    salt: str = "",
) -> list[WorkItem[Owner]]:
    """The conversations as items of at most `budget` tokens; a longer one is an item of its own.

    With `shared` off nothing shares a prompt: for a model that reads padded rows.
    """
    runs = by_prompt(conversations) if shared else [[i] for i in range(len(conversations))]
    items = []
    for run in runs:
        for places in _parts(run, conversations, budget):
            rows = tuple(conversations[place] for place in places)
            group = prompt_group(rows)
            # A single one can share all but its last token with an item that begins alike.
            prefix = len(rows[0]) - 1 if len(rows) == 1 else len(group.prefix)
            items.append(WorkItem(owner, client, tuple(places), rows, prefix, group.tokens, salt))
    return items


def _parts(run: Sequence[int], conversations: Sequence[Tokens], budget: int) -> Iterator[list[int]]:
    """Parts of a prompt's conversations that fit the budget, each with the prompt again."""
    prefix = len(prompt_group([conversations[place] for place in run]).prefix)
    part: list[int] = []
    room = budget - prefix
    for place in run:
        cost = len(conversations[place]) - prefix
        if part and cost > room:
            yield part
            part, room = [], budget - prefix
        part.append(place)
        room -= cost
    yield part


MOST_COMPARED = 64  # A deep queue behind one long system prompt must not cost a quadratic search.


@dataclass(slots=True, eq=False)
class _ClientQueue(Generic[Owner]):
    """One client's items, oldest first; `due` are the tokens its turn is counted from."""

    due: int
    number: int
    items: OrderedDict[WorkItem[Owner], None] = field(default_factory=OrderedDict)


class FairQueue(Generic[Owner]):
    """A queue for each client; the client that was given the fewest tokens is next.

    Start-time fair queueing: a client that comes (back) starts where the others are, so idleness
    earns nothing, and who asks much delays itself and no one else. An item that does not fit leaves
    its client first for the next micro-batch.
    """

    def __init__(self) -> None:
        self.tokens = 0
        self._clients: dict[str, _ClientQueue[Owner]] = {}
        self._by_lead: dict[bytes, OrderedDict[WorkItem[Owner], None]] = {}
        self._virtual_time = 0
        self._numbers = count()

    def __len__(self) -> int:
        return sum(len(client.items) for client in self._clients.values())

    def push(self, items: Iterable[WorkItem[Owner]]) -> None:
        """Let items wait, each behind what its client asked before."""
        for item in items:
            if item.client not in self._clients:
                self._clients[item.client] = _ClientQueue(self._virtual_time, next(self._numbers))
            self._clients[item.client].items[item] = None
            self._by_lead.setdefault(item.lead, OrderedDict())[item] = None
            self.tokens += item.tokens

    def drop(self, items: Iterable[WorkItem[Owner]]) -> None:
        """Forget those of `items` that still wait."""
        for item in items:
            client = self._clients.get(item.client)
            if client is not None and item in client.items:
                self._remove(item)

    def take(self, budget: int) -> list[WorkItem[Owner]]:
        """Items for one micro-batch of at most `budget` tokens; one that is longer goes alone."""
        taken: list[WorkItem[Owner]] = []
        room = budget
        turns = [(client.due, client.number, client) for client in self._clients.values()]
        heapq.heapify(turns)
        while turns and room > 0:
            due, _, client = heapq.heappop(turns)
            if not client.items:  # They went along with others.
                continue
            if due < client.due:  # Some did.
                heapq.heappush(turns, (client.due, client.number, client))
                continue
            item = next(iter(client.items))
            if taken and item.tokens > room:
                continue
            self._virtual_time = max(self._virtual_time, client.due)
            room -= self._serve(item, item.tokens, taken)
            # Take along, out of turn, what has its prompt and costs less than half beside it.
            group = PrefixGroup(item)
            for other in list(islice(self._by_lead.get(item.lead, ()), MOST_COMPARED)):
                cost = group.cost_of(other)
                shared = group.prefix_with(other) >= LEAST_SHARED_TOKENS
                if shared and 2 * cost <= other.tokens and cost <= room:
                    group.join(other)
                    room -= self._serve(other, cost, taken)
            if client.items:
                heapq.heappush(turns, (client.due, client.number, client))
        return taken

    def _serve(self, item: WorkItem[Owner], cost: int, taken: list[WorkItem[Owner]]) -> int:
        self._clients[item.client].due += cost
        self._remove(item)
        taken.append(item)
        return cost

    def _remove(self, item: WorkItem[Owner]) -> None:
        client, same_lead = self._clients[item.client], self._by_lead[item.lead]
        del client.items[item], same_lead[item]
        self.tokens -= item.tokens
        if not client.items:
            del self._clients[item.client]
        if not same_lead:
            del self._by_lead[item.lead]
