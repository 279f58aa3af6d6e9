"""What waits for a model: clients take turns by tokens, and those who share a prompt go together.

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


# An ask cut into what one micro-batch can hold: prompt groups, or parts of large ones.

LEAD_TOKENS = 64  # Units that begin alike for so long may share a prompt, and are looked at.

Owner = TypeVar("Owner")


@dataclass(slots=True, eq=False)
class WorkItem(Generic[Owner]):
    """Conversations of one prompt that are scored in one micro-batch.

    `places` are their indices in what the owner asked, `prefix` the tokens they share, `tokens`
    what a micro-batch spends on them where nothing else shares their prompt.
    """

    owner: Owner
    client: str
    places: tuple[int, ...]
    conversations: tuple[Tokens, ...]
    prefix: int
    tokens: int

    @property
    def lead(self) -> bytes:
        """What units that share a prompt begin with."""
        return self.conversations[0][:LEAD_TOKENS].tobytes()


class PrefixGroup(Generic[Owner]):
    """A unit and those that joined it because they have its prompt: one group of a micro-batch."""

    def __init__(self, unit: WorkItem[Owner]) -> None:
        self._first = unit.conversations[0]
        self._count, self._prefix = len(unit.places), unit.prefix

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
    owner: Owner, client: str, conversations: Sequence[Tokens], budget: int, *, shared: bool = True
) -> list[WorkItem[Owner]]:
    """The conversations as units of at most `budget` tokens; a longer one is a unit of its own.

    With `shared` off nothing shares a prompt: for a model that reads padded rows.
    """
    found = by_prompt(conversations) if shared else [[i] for i in range(len(conversations))]
    return [
        _unit(owner, client, places, conversations)
        for together in found
        for places in _parts(together, conversations, budget)
    ]


def _unit(
    owner: Owner, client: str, places: Sequence[int], conversations: Sequence[Tokens]
) -> WorkItem[Owner]:
    held = tuple(conversations[place] for place in places)
    alone = len(held) == 1
    group = prompt_group(held)
    # A single one can share all but its last token with a unit that begins alike.
    prefix = len(held[0]) - 1 if alone else len(group.prefix)
    return WorkItem(owner, client, tuple(places), held, prefix, group.tokens)


def _parts(
    together: Sequence[int], conversations: Sequence[Tokens], budget: int
) -> Iterator[list[int]]:
    """Runs of a prompt's conversations that fit the budget, each with the prompt again."""
    prefix = len(prompt_group([conversations[place] for place in together]).prefix)
    part: list[int] = []
    room = budget - prefix
    for place in together:
        cost = len(conversations[place]) - prefix
        if part and cost > room:
            yield part
            part, room = [], budget - prefix
        part.append(place)
        room -= cost
    yield part


KIN_LOOKED_AT = 64  # A deep queue behind one long system prompt must not cost a quadratic search.


@dataclass(slots=True, eq=False)
class _Line(Generic[Owner]):
    """One client's units, oldest first; `due` are the tokens its turn is counted from."""

    due: int
    number: int
    units: OrderedDict[WorkItem[Owner], None] = field(default_factory=OrderedDict)


class FairQueue(Generic[Owner]):
    """A line for each client; the client that was given the fewest tokens is next.

    Start-time fair queueing: a client that comes (back) starts where the others are, so idleness
    earns nothing, and who asks much delays itself and no one else. A unit that does not fit leaves
    its client first for the next micro-batch.
    """

    def __init__(self) -> None:
        self.tokens = 0
        self._lines: dict[str, _Line[Owner]] = {}
        self._kin: dict[bytes, OrderedDict[WorkItem[Owner], None]] = {}
        self._clock = 0
        self._numbers = count()

    def __len__(self) -> int:
        return sum(len(line.units) for line in self._lines.values())

    def push(self, units: Iterable[WorkItem[Owner]]) -> None:
        """Let units wait, each behind what its client asked before."""
        for unit in units:
            if unit.client not in self._lines:
                self._lines[unit.client] = _Line(self._clock, next(self._numbers))
            self._lines[unit.client].units[unit] = None
            self._kin.setdefault(unit.lead, OrderedDict())[unit] = None
            self.tokens += unit.tokens

    def drop(self, units: Iterable[WorkItem[Owner]]) -> None:
        """Forget those of `units` that still wait."""
        for unit in units:
            line = self._lines.get(unit.client)
            if line is not None and unit in line.units:
                self._remove(unit)

    def take(self, budget: int) -> list[WorkItem[Owner]]:
        """Units for one micro-batch of at most `budget` tokens; one that is longer goes alone."""
        taken: list[WorkItem[Owner]] = []
        room = budget
        turns = [(line.due, line.number, line) for line in self._lines.values()]
        heapq.heapify(turns)
        while turns and room > 0:
            due, _, line = heapq.heappop(turns)
            if not line.units:  # They went along with others.
                continue
            if due < line.due:  # Some did.
                heapq.heappush(turns, (line.due, line.number, line))
                continue
            unit = next(iter(line.units))
            if taken and unit.tokens > room:
                continue
            self._clock = max(self._clock, line.due)
            room -= self._serve(unit, unit.tokens, taken)
            room -= self._serve_kin(unit, room, taken)
            if line.units:
                heapq.heappush(turns, (line.due, line.number, line))
        return taken

    def _serve(self, unit: WorkItem[Owner], cost: int, taken: list[WorkItem[Owner]]) -> int:
        self._lines[unit.client].due += cost
        self._remove(unit)
        taken.append(unit)
        return cost

    def _serve_kin(self, unit: WorkItem[Owner], room: int, taken: list[WorkItem[Owner]]) -> int:
        """Take along, out of turn, what has `unit`'s prompt and costs less than half beside it."""
        together, spent = PrefixGroup(unit), 0
        for other in list(islice(self._kin.get(unit.lead, ()), KIN_LOOKED_AT)):
            cost = together.cost_of(other)
            shared = together.prefix_with(other) >= LEAST_SHARED_TOKENS
            if shared and 2 * cost <= other.tokens and spent + cost <= room:
                together.join(other)
                spent += self._serve(other, cost, taken)
        return spent

    def _remove(self, unit: WorkItem[Owner]) -> None:
        line, kin = self._lines[unit.client], self._kin[unit.lead]
        del line.units[unit], kin[unit]
        self.tokens -= unit.tokens
        if not line.units:
            del self._lines[unit.client]
        if not kin:
            del self._kin[unit.lead]
