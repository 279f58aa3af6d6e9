"""An ask cut into what one micro-batch can hold: prompt groups, or parts of large ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from palate.model.packing import Tokens, common_prefix
from palate.serve.prefixes import by_prompt, prompt_group

LEAD_TOKENS = 64  # Units that begin alike for so long may share a prompt, and are looked at.

Owner = TypeVar("Owner")


@dataclass(slots=True, eq=False)
class Unit(Generic[Owner]):
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


class Together(Generic[Owner]):
    """A unit and those that joined it because they have its prompt: one group of a micro-batch."""

    def __init__(self, unit: Unit[Owner]) -> None:
        self._first = unit.conversations[0]
        self._count, self._prefix = len(unit.places), unit.prefix

    def prefix_with(self, other: Unit[Owner]) -> int:
        """Tokens that all would share if `other` joined."""
        common = common_prefix(self._first, other.conversations[0])
        return min(common, self._prefix, other.prefix)

    def cost_of(self, other: Unit[Owner]) -> int:
        """Tokens that `other` adds to the group, those included that the others no longer share."""
        prefix, count = self.prefix_with(other), len(other.places)
        own = other.tokens + (count - 1) * other.prefix - count * prefix
        return own + (self._count - 1) * (self._prefix - prefix)

    def join(self, other: Unit[Owner]) -> None:
        """Let `other` share."""
        self._prefix = self.prefix_with(other)
        self._count += len(other.places)


def units_of(
    owner: Owner, client: str, conversations: Sequence[Tokens], budget: int, *, shared: bool = True
) -> list[Unit[Owner]]:
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
) -> Unit[Owner]:
    held = tuple(conversations[place] for place in places)
    alone = len(held) == 1
    group = prompt_group(held)
    # A single one can share all but its last token with a unit that begins alike.
    prefix = len(held[0]) - 1 if alone else len(group.prefix)
    return Unit(owner, client, tuple(places), held, prefix, group.tokens)


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
