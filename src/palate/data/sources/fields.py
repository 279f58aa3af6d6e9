"""Reading one column of one record: the value, or `Unfit` with what was expected and what came.

Everything a source takes from a file passes here, so nothing but valid Unicode text, finite
numbers and known labels goes further.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from palate.data.messages import as_messages
from palate.data.sources.source import Unfit
from palate.data.transcript import Prompt, read_conversation, read_prompt
from palate.types import Message, PalateError, Rating

_SHOWN = 40  # Characters of a wrong value that an error repeats.
_ABSENT = object()
_MESSAGES_AS_TEXT = re.compile(r"""\s*\[\s*\{\s*['"](?:role|content)['"]""")

RATINGS: Mapping[str, Rating] = {
    "significantly": Rating.SIGNIFICANTLY,
    "significantly better": Rating.SIGNIFICANTLY,
    "better": Rating.BETTER,
    "slightly": Rating.SLIGHTLY,
    "slightly better": Rating.SLIGHTLY,
    "negligibly": Rating.NEGLIGIBLY,
    "negligibly better": Rating.NEGLIGIBLY,
    "unsure": Rating.NEGLIGIBLY,
    "negligibly better / unsure": Rating.NEGLIGIBLY,
    "negligibly better or unsure": Rating.NEGLIGIBLY,
}
TRUTHS: Mapping[str, bool] = {
    "true": True,
    "1": True,
    "yes": True,
    "safe": True,
    "false": False,
    "0": False,
    "no": False,
    "unsafe": False,
}


def shown(value: object) -> str:
    """A wrong value as an error message repeats it: short, on one line, nothing executable."""
    text = ascii(value) if isinstance(value, str | bytes | int | float | bool) else ""
    if value is None:
        return "nothing"
    return (text[:_SHOWN] + "..." if len(text) > _SHOWN else text) or f"a {type(value).__name__}"


def required(data: Mapping[str, Any], column: str) -> Any:
    """The value of a column that must be there."""
    value = data.get(column, _ABSENT)
    if value is _ABSENT:
        there = ", ".join(sorted(map(str, data))[:12])
        raise Unfit(f"missing column {column!r}; the row has: {there or 'none'}")
    return value


def as_text(value: object, column: str) -> str:
    """Plain text that UTF-8 can hold."""
    if type(value) is not str:
        raise Unfit(f"{column}: expected text, got {shown(value)}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Unfit(f"{column}: expected UTF-8 text, got broken characters") from None
    return value


def text(data: Mapping[str, Any], column: str) -> str:
    """A text column."""
    return as_text(required(data, column), column)


def optional_text(data: Mapping[str, Any], column: str) -> str | None:
    """A text or whole number as text; None where it is absent or null."""
    value = data.get(column)
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return as_text(value, column)


def number(data: Mapping[str, Any], column: str) -> float:
    """A finite number."""
    value = required(data, column)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unfit(f"{column}: expected a number, got {shown(value)}")
    try:
        finite = float(value)
    except OverflowError:
        finite = math.inf
    if not math.isfinite(finite):
        raise Unfit(f"{column}: expected a finite number, got {shown(value)}")
    return finite


def whole(data: Mapping[str, Any], column: str, allowed: Sequence[int]) -> int:
    """A whole number out of those allowed."""
    value = required(data, column)
    if isinstance(value, bool) or not isinstance(value, int) or value not in allowed:
        raise Unfit(f"{column}: expected {_either(allowed)}, got {shown(value)}")
    return value


def truth(data: Mapping[str, Any], column: str) -> bool | None:
    """True or false (also 1/0, yes/no, safe/unsafe); None where absent, null or empty."""
    value = data.get(column)
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return value
    known = TRUTHS.get(str(value).strip().casefold()) if isinstance(value, str | int) else None
    if known is None:
        raise Unfit(f"{column}: expected true or false, got {shown(value)}")
    return known


def rating(data: Mapping[str, Any], column: str = "rating") -> Rating | None:
    """A rating as a name ("significantly", "slightly better", ...) or 1 (weakest) to 4."""
    value = data.get(column)
    if value is None or value == "":
        return None
    found = None
    if isinstance(value, str):
        name = " ".join(value.casefold().replace("_", " ").split())
        found = RATINGS.get(name) or _rating_of_number(name)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        found = _rating_of_number(f"{value:g}") if math.isfinite(value) else None
    if found is None:
        raise Unfit(
            f"{column}: expected significantly, better, slightly, negligibly or 4 to 1, "
            f"got {shown(value)}"
        )
    return found


def _rating_of_number(text: str) -> Rating | None:
    return Rating(int(text)) if text in {"1", "2", "3", "4"} else None


def items(data: Mapping[str, Any], column: str, count: int | None = None) -> Sequence[Any]:
    """A list column, of `count` items if that is given."""
    value = required(data, column)
    if not isinstance(value, list | tuple) or (count is not None and len(value) != count):
        wanted = "a list" if count is None else f"a list of {count}"
        got = f"{len(value)} items" if isinstance(value, list | tuple) else shown(value)
        raise Unfit(f"{column}: expected {wanted}, got {got}")
    return value


def mapping(value: object, column: str) -> Mapping[str, Any]:
    """An object (a record within the record)."""
    if not isinstance(value, Mapping):
        raise Unfit(f"{column}: expected an object, got {shown(value)}")
    return value


def messages(value: object, column: str) -> tuple[Message, ...]:
    """Chat messages: objects with `role` and `content`; see `palate.data.messages`."""
    try:
        return as_messages(value, column)
    except PalateError as error:
        raise Unfit(str(error)) from None


def prompt(data: Mapping[str, Any], column: str = "prompt") -> Prompt:
    """A prompt: messages, text with its turns marked inside, or the text of one user's turn."""
    value = structured(required(data, column))
    if not isinstance(value, str):
        return Prompt(messages(value, column))
    try:
        return read_prompt(as_text(value, column))
    except PalateError as error:
        raise Unfit(f"{column}: {error}") from None


def conversation(value: str, column: str) -> tuple[tuple[Message, ...], str] | None:
    """A conversation in one text as prompt and reply; None where it is none."""
    try:
        return read_conversation(value)
    except PalateError as error:
        raise Unfit(f"{column}: {error}") from None


def structured(value: Any) -> Any:
    """A list of messages that a format without lists, such as CSV, holds as text; else the value.

    JSON, or what Python prints for it, as pandas writes into a CSV.
    """
    if not isinstance(value, str) or not _MESSAGES_AS_TEXT.match(value):
        return value
    for reader in (json.loads, ast.literal_eval):
        try:
            found = reader(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list) and all(
            isinstance(item, dict) and {"role", "content"} <= item.keys() for item in found
        ):
            return found
    return value


def _either(values: Sequence[object]) -> str:
    return f"{', '.join(map(str, values[:-1]))} or {values[-1]}"
