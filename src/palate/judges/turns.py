"""A conversation as plain text: turns under prefixes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from palate.types import Message, Role


def labelled(turns: Sequence[Message], prefixes: Mapping[Role, str]) -> str:
    """Every turn under its prefix."""
    return "".join(prefixes.get(turn.role, "") + turn.content for turn in turns)


def question(prompt: Sequence[Message], prefixes: Mapping[Role, str]) -> str:
    """A lone turn as it stands; several turns each under its prefix."""
    if len(prompt) == 1:
        return prompt[0].content
    return labelled(prompt, prefixes).strip()


def without_oldest(turns: Sequence[Message]) -> tuple[Message, ...]:
    """What is left after the oldest turn, from a user turn on, as templates require."""
    left = tuple(turns[1:])
    while len(left) > 1 and left[0].role != "user":
        left = left[1:]
    return left
