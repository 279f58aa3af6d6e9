"""What waits for a model: clients take turns by tokens, and those who share a prompt go together.

Pure bookkeeping, without threads or clocks; `engine.py` holds the lock.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Generic

from palate.serve.prefixes import LEAST_SHARED_TOKENS
from palate.serve.units import Owner, Together, Unit

KIN_LOOKED_AT = 64  # A deep queue behind one long system prompt must not cost a quadratic search.


@dataclass(slots=True, eq=False)
class _Line(Generic[Owner]):
    """One client's units, oldest first; `due` are the tokens its turn is counted from."""

    due: int
    number: int
    units: OrderedDict[Unit[Owner], None] = field(default_factory=OrderedDict)


class Waiting(Generic[Owner]):
    """A line for each client; the client that was given the fewest tokens is next.

    Start-time fair queueing: a client that comes (back) starts where the others are, so idleness
    earns nothing, and who asks much delays itself and no one else. A unit that does not fit leaves
    its client first for the next micro-batch.
    """

    def __init__(self) -> None:
        self.tokens = 0
        self._lines: dict[str, _Line[Owner]] = {}
        self._kin: dict[bytes, OrderedDict[Unit[Owner], None]] = {}
        self._clock = 0
        self._numbers = count()

    def __len__(self) -> int:
        return sum(len(line.units) for line in self._lines.values())

    def push(self, units: Iterable[Unit[Owner]]) -> None:
        """Let units wait, each behind what its client asked before."""
        for unit in units:
            if unit.client not in self._lines:
                self._lines[unit.client] = _Line(self._clock, next(self._numbers))
            self._lines[unit.client].units[unit] = None
            self._kin.setdefault(unit.lead, OrderedDict())[unit] = None
            self.tokens += unit.tokens

    def drop(self, units: Iterable[Unit[Owner]]) -> None:
        """Forget those of `units` that still wait."""
        for unit in units:
            line = self._lines.get(unit.client)
            if line is not None and unit in line.units:
                self._remove(unit)

    def take(self, budget: int) -> list[Unit[Owner]]:
        """Units for one micro-batch of at most `budget` tokens; one that is longer goes alone."""
        taken: list[Unit[Owner]] = []
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

    def _serve(self, unit: Unit[Owner], cost: int, taken: list[Unit[Owner]]) -> int:
        self._lines[unit.client].due += cost
        self._remove(unit)
        taken.append(unit)
        return cost

    def _serve_kin(self, unit: Unit[Owner], room: int, taken: list[Unit[Owner]]) -> int:
        """Take along, out of turn, what has `unit`'s prompt and costs less than half beside it."""
        together, spent = Together(unit), 0
        for other in list(islice(self._kin.get(unit.lead, ()), KIN_LOOKED_AT)):
            cost = together.cost_of(other)
            shared = together.prefix_with(other) >= LEAST_SHARED_TOKENS
            if shared and 2 * cost <= other.tokens and spent + cost <= room:
                together.join(other)
                spent += self._serve(other, cost, taken)
        return spent

    def _remove(self, unit: Unit[Owner]) -> None:
        line, kin = self._lines[unit.client], self._kin[unit.lead]
        del line.units[unit], kin[unit]
        self.tokens -= unit.tokens
        if not line.units:
            del self._lines[unit.client]
        if not kin:
            del self._kin[unit.lead]
