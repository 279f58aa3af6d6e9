"""Chat messages as files and requests hold them, and what of them Palate does not read.

A message is a role, a text and, of the assistant's and the tools', fields: reasoning, the calls of
tools, what a tool's result belongs to. Whatever else belongs to what was said (an image, a
document) would change what a judge sees, so a message that has it is refused rather than read
without it. Facts about a message (its date, its weight) change nothing.

The names of a field are many; these are read as one:
- `reasoning`, `reasoning_content`, `thinking`;
- `tool_calls` in OpenAI's form, or each call flat as `{name, arguments}`; `function_call`, OpenAI's
  first form of one call. Arguments are an object, also as the JSON of one.
- role `tool`, and `function`, its first form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from palate.types import FORM, ROLES, Message, PalateError, Role, content_of, parts_of

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
TOOLS = ("tools", "functions")
REASONING = ("reasoning", "reasoning_content", "thinking")
CALLS = ("tool_calls", "function_call")
_READ: Mapping[str, frozenset[str]] = {
    "assistant": frozenset({"role", "content", *REASONING, *CALLS}),
    "tool": frozenset({"role", "content", "name", "tool_call_id"}),
}
_READ_OF_ALL = frozenset({"role", "content"})
_OTHER_ROLES: Mapping[Any, Role] = {"developer": "system", "function": "tool"}
_CALL_KEYS = frozenset({"id", "type", "index", "function", "name", "arguments"})
_TEXT_PARTS = ("text", "input_text", "output_text")
SHOWN_CHARACTERS = 40


def unread(message: Mapping[Any, Any]) -> str:
    """Why a chat message cannot be read without losing some of what it says, or "".

    >>> unread({"role": "assistant", "content": "Hi", "tool_calls": []})
    ''
    >>> unread({"role": "user", "content": "Hi", "images": ["a.png"]})
    "'images' is content that Palate does not read; write it into the text, or remove it"
    """
    read = _READ.get(_role(message.get("role")), _READ_OF_ALL)
    for key, value in message.items():
        if key not in read and key not in FACTS and _has_content(value):
            of_assistant = "an assistant's " if key in (*REASONING, *CALLS) else ""
            where = f"outside {of_assistant}message " if of_assistant else ""
            return (
                f"{ascii(key)[:SHOWN_CHARACTERS]} {where}is content that Palate does not read; "
                "write it into the text, or remove it"
            )
    content = message.get("content")
    for at, part in enumerate(content if isinstance(content, list | tuple) else ()):
        if reason := _unread_part(part):
            return f"content[{at}]: {reason}"
    return ""


def more_than_text(message: Mapping[Any, Any]) -> str:
    """Why a chat message is more than its role and text, for what takes no more, or ""."""
    for key in (*REASONING, *CALLS, "tool_call_id", "name"):
        if _has_content(message.get(key)):
            return f"{key!r} is content that is not taken here; write it into the text"
    return unread(message)


def unread_beside(row: Mapping[Any, Any]) -> str:
    """Why a row or request holds more than its messages and tools say, or ""."""
    for key in BESIDE:
        if key not in TOOLS and key in row and _has_content(row[key]):
            return (
                f"{key!r} is content that Palate does not read; "
                "write it into the messages, or remove it"
            )
    return ""


def as_messages(value: object, where: str) -> tuple[Message, ...]:
    """A list of chat messages, at least one; `where` begins what an error says.

    Each is an object with `role` and `content`, a text or a list of text parts, and the fields
    named above; a message that calls a tool or reasons need have no content. `developer` is
    OpenAI's later name of the system's role.

    Raises:
        PalateError: it is no such list, or a message has content that Palate does not read.
    """
    if not isinstance(value, list | tuple) or not value:
        got = "an empty list" if value == [] else shown(value)
        raise PalateError(f"{where}: expected a list of messages, got {got}")
    return tuple(as_message(item, f"{where}[{at}]") for at, item in enumerate(value))


def as_message(value: object, where: str) -> Message:
    """One chat message; raises as `as_messages` does."""
    if not isinstance(value, Mapping):
        raise PalateError(f"{where}: expected an object, got {shown(value)}")
    role = _role(value.get("role"))
    fields = _fields(value, where) if role in _READ else {}
    for key in ("role", "content"):
        if key not in value and not (key == "content" and fields):
            keys = ", ".join(sorted(map(str, value))[:12])
            raise PalateError(f"{where}: missing {key!r}; the message has: {keys or 'nothing'}")
    if role not in ROLES:
        raise PalateError(
            f"{where}.role: expected {', '.join(ROLES[:-1])} or {ROLES[-1]}, got {shown(role)}"
        )
    if reason := unread(value):
        raise PalateError(f"{where}: {reason}")
    content = value.get("content")
    text = "" if content is None and fields else _text(content, f"{where}.content")
    return Message(cast(Role, role), content_of(text, fields))


def as_tools(row: Mapping[Any, Any], where: str = "") -> tuple[Message, ...]:
    """The turn that begins a prompt where a row or request names `tools`, else nothing.

    They are a list of functions, each in OpenAI's form or as its bare `{name, parameters}`, or the
    JSON of such a list.

    Raises:
        PalateError: they are no such list; `where` begins the message.
    """
    for key in TOOLS:
        value = row.get(key)
        if not _has_content(value):
            continue
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise PalateError(f"{where}{key}: expected a list of tools, got text") from None
        if not isinstance(value, list | tuple):
            raise PalateError(f"{where}{key}: expected a list of tools, got {shown(value)}")
        tools = [_tool(one, f"{where}{key}[{at}]") for at, one in enumerate(value)]
        return (Message("tools", json.dumps(tools, ensure_ascii=False)),)
    return ()


def _tool(value: object, where: str) -> Mapping[str, Any]:
    function = value.get("function", value) if isinstance(value, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise PalateError(f"{where}: expected a function with a name, got {shown(value)}")
    # A columnar file fills absent keys with null.
    return {"type": "function", "function": _json(_without_null(function), where)}


def as_chat(turns: Sequence[Message]) -> dict[str, Any]:
    """Turns as a row or request holds them: `messages`, and `tools` where they have such a turn.

    It is what `as_messages` and `as_tools` read.
    """
    messages = [
        {"role": turn.role, "content": turn.text, **turn.fields}
        for turn in turns
        if turn.role != "tools"
    ]
    tools = [json.loads(turn.content) for turn in turns if turn.role == "tools"]
    return {"messages": messages} | ({"tools": tools[0]} if tools else {})


def without_filled(value: Any) -> Any:
    """A row of a columnar file without the null arguments of calls.

    Columns of structs have every key of every row, so that a call has, as null, the arguments that
    other calls are given.
    """
    if isinstance(value, Mapping):
        return {
            key: _without_null(item) if key == "arguments" else without_filled(item)
            for key, item in value.items()
        }
    return [without_filled(item) for item in value] if isinstance(value, list) else value


def _role(role: object) -> Any:
    return _OTHER_ROLES.get(role, role) if isinstance(role, str) else role


def _fields(message: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """What a message of the assistant's or a tool's has beside its text."""
    fields: dict[str, Any] = {}
    if _role(message.get("role")) == "tool":
        for key in ("name", "tool_call_id"):
            if _has_content(message.get(key)):
                fields[key] = _text(message[key], f"{where}.{key}")
        return fields
    thoughts = {
        _text(message[key], f"{where}.{key}") for key in REASONING if _has_content(message.get(key))
    }
    if len(thoughts) > 1:
        raise PalateError(f"{where}: {' and '.join(REASONING)} differ; leave one of them")
    if thoughts:
        fields["reasoning"] = thoughts.pop()
    given = [message[key] for key in CALLS if _has_content(message.get(key))]
    if len(given) > 1:
        raise PalateError(f"{where}: both {' and '.join(CALLS)}; leave one of them")
    if given:
        calls = [given[0]] if isinstance(given[0], Mapping) else given[0]
        if not isinstance(calls, list | tuple):
            raise PalateError(f"{where}.tool_calls: expected a list of calls, got {shown(calls)}")
        fields["tool_calls"] = [
            _call(call, f"{where}.tool_calls[{at}]") for at, call in enumerate(calls)
        ]
    return fields


def _call(value: object, where: str) -> dict[str, Any]:
    """One call in OpenAI's form, its arguments an object wherever they are one."""
    call = value if isinstance(value, Mapping) else {}
    function = call.get("function") or call
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise PalateError(
            f"{where}: expected a function with name and arguments, got {shown(value)}"
        )
    for key in (*call, *function):
        if key not in _CALL_KEYS and _has_content({**function, **call}[key]):
            raise PalateError(f"{where}: {shown(key)} is content that Palate does not read")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            parsed = json.loads(arguments)
        except (ValueError, RecursionError):
            parsed = None  # What a model wrote need be no JSON; it is judged as it stands.
        arguments = parsed if isinstance(parsed, dict) else _text(arguments, f"{where}.arguments")
    elif not isinstance(arguments, Mapping | None):
        raise PalateError(f"{where}.arguments: expected an object, got {shown(arguments)}")
    name = _text(function["name"], f"{where}.name")
    named = {"id": call["id"]} if isinstance(call.get("id"), str) and call["id"] else {}
    written = {} if arguments is None else _json(arguments, f"{where}.arguments")
    return {**named, "type": "function", "function": {"name": name, "arguments": written}}


def _json(value: Any, where: str) -> Any:
    """A value as plain JSON that a file of UTF-8 can hold."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (TypeError, ValueError, RecursionError):
        raise PalateError(f"{where}: expected JSON values in UTF-8") from None
    return json.loads(text)


def _without_null(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_null(v) for k, v in value.items() if v is not None}
    return [_without_null(one) for one in value] if isinstance(value, list) else value


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
    if parts_of(content)[1]:
        raise PalateError(
            f"{where}: expected text, got {shown(FORM)}..., Palate's form of a message"
        )
    return content


def shown(value: object) -> str:
    """A wrong value as an error message repeats it: short, on one line, nothing executable."""
    if value is None:
        return "nothing"
    if not isinstance(value, str | bytes | int | float):
        return f"a {type(value).__name__}"
    text = ascii(value)
    return text[:SHOWN_CHARACTERS] + "..." if len(text) > SHOWN_CHARACTERS else text
