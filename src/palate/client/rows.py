"""From (prompt, response) rows to items in bounded requests.

Rows of one prompt that stand together become one item, which the server encodes once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from palate.client.options import Options
from palate.data.messages import unread
from palate.data.transcript import Prompt as Written
from palate.data.transcript import read_prompt
from palate.types import ROLES, Message, PalateError

Turn = Message | Mapping[str, Any]
Prompt = str | Sequence[Turn]
"""What stands before the response: all turns, or text: one user's, or with its turns marked."""
Row = tuple[Prompt, str]
"""A prompt and a response to it."""
_Row = tuple[tuple[Message, ...], str, bool | None]


@dataclass(frozen=True, slots=True)
class Item:
    """One prompt and some responses to it; `safety` says whether the prompt is about safety."""

    prompt: tuple[Message, ...]
    responses: tuple[str, ...]
    safety: bool | None = None

    @property
    def body(self) -> dict[str, Any]:
        """As it is sent."""
        prompt = [{"role": turn.role, "content": turn.content} for turn in self.prompt]
        known = {} if self.safety is None else {"safety_prompt": self.safety}
        return {"prompt": prompt, "responses": list(self.responses), **known}

    @property
    def characters(self) -> int:
        """About its size."""
        return sum(map(len, self.responses)) + sum(len(turn.content) for turn in self.prompt)


def requests(
    rows: Iterable[Row], safety: Iterable[bool | None] | None, chosen: Options
) -> Iterator[tuple[Item, ...]]:
    """Items of the rows, in order, as many together as one request may hold."""
    taken: list[Item] = []
    responses = characters = 0
    for item in _items(_rows(rows, safety), chosen.responses_per_request):
        responses += len(item.responses)
        characters += item.characters
        full = responses > chosen.responses_per_request
        if taken and (full or characters > chosen.characters_per_request):
            yield tuple(taken)
            taken, responses, characters = [], len(item.responses), item.characters
        taken.append(item)
    if taken:
        yield tuple(taken)


def told(safety: bool | None, count: int) -> list[bool] | None:
    """What is said of one prompt, for each of its responses."""
    return None if safety is None else [safety] * count


def halves(items: Sequence[Item]) -> tuple[Sequence[Item], Sequence[Item]] | None:
    """Two smaller requests for the same rows in order; None where there is one row."""
    if len(items) > 1:
        return items[: len(items) // 2], items[len(items) // 2 :]
    (item,) = items
    middle = len(item.responses) // 2
    if not middle:
        return None
    first, second = item.responses[:middle], item.responses[middle:]
    return [replace(item, responses=first)], [replace(item, responses=second)]


def conversation(prompt: Prompt, response: Any) -> tuple[tuple[Message, ...], str]:
    """A prompt as messages, and the response as text.

    Raises:
        PalateError: either is neither text nor turns, or has content that Palate does not read.
    """
    if not isinstance(prompt, str):
        return turns(prompt), text(response)
    read = _read(prompt)
    return read.turns, read.reply(text(response))


def turns(prompt: Prompt) -> tuple[Message, ...]:
    """A prompt as messages; raises `PalateError` as `conversation` does."""
    if isinstance(prompt, str):
        return _read(prompt).turns
    if not isinstance(prompt, Sequence):
        raise PalateError(f"reward client: expected text or turns, got {_shown(prompt)}")
    return tuple(turn if isinstance(turn, Message) else _message(turn) for turn in prompt)


def text(content: Any) -> str:
    """Text, also where it comes as blocks of text; raises `PalateError` where it is another."""
    if isinstance(content, str):
        return content
    try:
        return "".join(block["text"] for block in content)
    except (KeyError, TypeError):
        raise PalateError(f"reward client: expected text, got {_shown(content)}") from None


def _rows(rows: Iterable[Row], safety: Iterable[bool | None] | None) -> Iterator[_Row]:
    if safety is None:
        yield from ((*conversation(*row), None) for row in rows)
        return
    for row, flag in zip(rows, safety, strict=True):
        yield (*conversation(*row), flag)


def _items(rows: Iterable[_Row], most: int) -> Iterator[Item]:
    for (prompt, flag), group in groupby(rows, key=lambda row: (row[0], row[2])):
        responses = tuple(response for _, response, _ in group)
        for start in range(0, len(responses), most):
            yield Item(prompt, responses[start : start + most], flag)


def _message(turn: Any) -> Message:
    try:
        role, content = turn["role"], turn["content"]
    except (KeyError, TypeError):
        raise PalateError(
            f"reward client: expected turns with role and content, got {_shown(turn)}"
        ) from None
    if role not in ROLES:
        raise PalateError(
            f"reward client: a turn of role {_shown(role)}; a reward model reads {', '.join(ROLES)}"
        )
    if reason := unread(turn):
        raise PalateError(f"reward client: {reason}")
    return Message(role, text(content))


def _read(prompt: str) -> Written:
    try:
        return read_prompt(prompt)
    except PalateError as error:
        raise PalateError(f"reward client: {error}") from None


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:60]!r}"
