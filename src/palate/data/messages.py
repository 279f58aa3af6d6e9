"""Chat messages as files and requests hold them, and what of them Palate does not read.

A message is a role and a text. Whatever else belongs to what was said (a call of a tool, reasoning
in a field of its own, an image) would change what a judge sees, so a message that has it is refused
rather than read without it. Facts about a message (its date, its weight) change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from palate.types import ROLES, Message, PalateError, Role

# Facts about a message, whatever their value; numbers, true and false are facts under any name.
FACTS = frozenset(
    {
        "id", "message_id", "turn_id", "turn_identifier", "uuid", "created", "created_at",
        "timestamp", "date", "time", "model", "language", "lang", "country", "source", "header",
        "hashed_ip", "state", "object", "finish_reason", "stop_reason", "usage", "cache_control",
    }
)  # fmt: skip
# Columns of a row, and keys of a request, that a chat template would write beside the messages.
BESIDE = (
    "tools", "functions", "documents", "image", "images", "video", "videos", "audio", "audios",
)  # fmt: skip
_READ = frozenset({"role", "content"})
_TEXT_PARTS = ("text", "input_text", "output_text")
SHOWN_CHARACTERS = 40


def unread(message: Mapping[Any, Any]) -> str:
    """Why a chat message cannot be read without losing some of what it says, or "".

    >>> unread({"role": "assistant", "content": "Hi", "tool_calls": []})
    ''
    >>> unread({"role": "assistant", "content": "", "tool_calls": [{"type": "function"}]})
    "'tool_calls' is content that Palate does not read; write it into the text, or remove it"
    """
    for key, value in message.items():
        if key not in _READ and key not in FACTS and _has_content(value):
            return (
                f"{ascii(key)[:SHOWN_CHARACTERS]} is content that Palate does not read; "
                "write it into the text, or remove it"
            )
    content = message.get("content")
    for at, part in enumerate(content if isinstance(content, list | tuple) else ()):
        if reason := _unread_part(part):
            return f"content[{at}]: {reason}"
    return ""


def unread_beside(row: Mapping[Any, Any]) -> str:
    """Why a row or request holds more than its messages say, or ""."""
    for key in BESIDE:
        if key in row and _has_content(row[key]):
            return (
                f"{key!r} is content that Palate does not read; "
                "write it into the messages, or remove it"
            )
    return ""


def as_messages(value: object, where: str) -> tuple[Message, ...]:
    """A list of chat messages, at least one; `where` begins what an error says.

    Each is an object with `role` and `content`, a text or a list of text parts. `developer` is
    OpenAI's later name of the system's role.

    Raises:
        PalateError: it is no such list, or a message has content that Palate does not read.
    """
    if not isinstance(value, list | tuple) or not value:
        got = "an empty list" if value == [] else shown(value)
        raise PalateError(f"{where}: expected a list of messages, got {got}")
    return tuple(_message(item, f"{where}[{at}]") for at, item in enumerate(value))


def _message(value: object, where: str) -> Message:
    if not isinstance(value, Mapping):
        raise PalateError(f"{where}: expected an object, got {shown(value)}")
    for key in ("role", "content"):
        if key not in value:
            keys = ", ".join(sorted(map(str, value))[:12])
            raise PalateError(f"{where}: missing {key!r}; the message has: {keys or 'nothing'}")
    role = "system" if value["role"] == "developer" else value["role"]
    if role not in ROLES:
        raise PalateError(
            f"{where}.role: expected {', '.join(ROLES[:-1])} or {ROLES[-1]}, got {shown(role)}"
        )
    if reason := unread(value):
        raise PalateError(f"{where}: {reason}")
    return Message(cast(Role, role), _text(value["content"], f"{where}.content"))


def _unread_part(part: object) -> str:
    """Why a part of a message's content is not read, or ""."""
    if not isinstance(part, Mapping):
        return f"expected text or a part with type and text, got {shown(part)}"
    if part.get("type") not in _TEXT_PARTS:
        return f"a part of type {shown(part.get('type'))} is content that Palate does not read"
    extra = {k: v for k, v in part.items() if k not in ("type", "text", "annotations")}
    return unread(extra)


def _has_content(value: object) -> bool:
    """Whether a value holds text: columnar files fill absent keys with null, which is none."""
    if isinstance(value, str | bytes):
        return bool(value.strip())
    if isinstance(value, Mapping):
        return not all(map(_empty, value.values()))
    return isinstance(value, Sequence) and not all(map(_empty, value))


def _empty(value: object) -> bool:
    return value is None or (
        isinstance(value, str | bytes | Mapping | Sequence) and not _has_content(value)
    )


def _text(content: object, where: str) -> str:
    if isinstance(content, list | tuple):
        return "".join(_text(part.get("text"), where) for part in content)
    if type(content) is not str:
        raise PalateError(f"{where}: expected text, got {shown(content)}")
    try:
        content.encode()
    except UnicodeEncodeError:
        raise PalateError(f"{where}: expected UTF-8 text, got broken characters") from None
    return content


def shown(value: object) -> str:
    """A wrong value as an error message repeats it: short, on one line, nothing executable."""
    if value is None:
        return "nothing"
    if not isinstance(value, str | bytes | int | float):
        return f"a {type(value).__name__}"
    text = ascii(value)
    return text[:SHOWN_CHARACTERS] + "..." if len(text) > SHOWN_CHARACTERS else text
