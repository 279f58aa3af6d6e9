"""What a source is: where its rows come from, under which licence, and how it grades them."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from palate.data.messages import as_messages
from palate.data.transcript import Prompt, read_conversation, read_prompt
from palate.types import Comparison, Message, PalateError, Rating, digest


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that gave no comparison, and why.

    `kind` is "bad" for a row that breaks its format, "tie" for one in which nothing was
    preferred, and "left out" for one that the source's own stated rule excludes; only bad rows
    count against the tolerated share. `row` counts lines or records of the file from 1.
    """

    file: str
    row: int
    reason: str
    kind: Literal["bad", "tie", "left out"] = "bad"

    def __str__(self) -> str:
        return f"{self.file}:{self.row}: {self.reason}"


Row = Comparison | BadRow


class Unfit(Exception):  # noqa: N818 - not an error of the program: it becomes a BadRow.
    """A record that gives no comparison; caught where records are read, see `each`."""

    def __init__(self, reason: str, kind: Literal["bad", "tie", "left out"] = "bad") -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind: Literal["bad", "tie", "left out"] = kind


@dataclass(frozen=True, slots=True)
class Record:
    """One raw record: its file as the user knows it, its row there, and its columns.

    `part` names the file without folders above the data set and without endings
    ("train", "helpful-base/test"), so that ids do not depend on where the data lies.
    """

    file: str
    row: int
    part: str
    data: Mapping[str, Any]

    @property
    def key(self) -> str:
        """The record's name within its source."""
        return f"{self.part}:{self.row}"

    @property
    def origin(self) -> dict[str, Any]:
        """What a comparison's `meta` says of where it came from."""
        return {"file": self.part, "row": self.row}


Records = Iterator[Record | BadRow]


@dataclass(frozen=True, slots=True)
class Request:
    """Which part of a source is asked for, and from where.

    `location` is a local file or folder, or a hub id; None is the source's own hub id.
    """

    location: Path | str | None = None
    split: str | None = None
    subset: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Cuts:
    """Cut points from a source's strength of preference to the four ratings.

    A strength below `slightly` is *negligibly better*; from `slightly` on it is *slightly
    better*, from `better` on *better*, from `significantly` on *significantly better*.
    `shares` are the shares of the four levels, weakest first, measured on `measured_on`.
    """

    strength: str
    slightly: float
    better: float
    significantly: float
    shares: tuple[float, float, float, float] | None = None
    measured_on: str = ""

    def rate(self, strength: float) -> Rating:
        """The rating of a strength."""
        steps = (self.slightly, self.better, self.significantly)
        return Rating(1 + sum(strength >= step for step in steps))

    def __str__(self) -> str:
        steps = f"slightly >= {self.slightly:g}, better >= {self.better:g}"
        text = f"{self.strength}: {steps}, significantly >= {self.significantly:g}"
        if self.shares is None:
            return f"{text} (shares not measured)"
        shares = " / ".join(f"{share:.1%}" for share in reversed(self.shares))
        return f"{text} (significantly to negligibly {shares} of {self.measured_on})"


@dataclass(frozen=True, slots=True)
class Source:
    """A data set that Palate reads.

    `options` names the keys that `Request.options` may hold, each with its meaning and default;
    `folder` is the name of its folder in a local data root; `tried_on` says what of it the
    loader has been run against.
    """

    name: str
    title: str
    hub_id: str | None
    licence: str
    url: str
    kind: Literal["helpful", "safety", "both"]
    load: Callable[[Request], Iterator[Row]]
    tried_on: str
    cuts: tuple[Cuts, ...] | None = None
    notes: str = ""
    options: Mapping[str, str] = field(default_factory=dict[str, str])
    subsets: tuple[str, ...] = ()
    folder: str | None = None


@dataclass(frozen=True, slots=True)
class LabelledResponse:
    """One response with its safety label and nothing to compare it with."""

    id: str
    source: str
    prompt: tuple[Message, ...]
    response: str
    safe: bool
    prompt_id: str
    batch: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])


def each(
    records: Iterable[Record | BadRow], make: Callable[[Record], Iterable[Row]]
) -> Iterator[Row]:
    """Make every record's comparisons; a record that is `Unfit` becomes a `BadRow`."""
    for record in records:
        if isinstance(record, BadRow):
            yield record
            continue
        try:
            yield from make(record)
        except Unfit as unfit:
            yield BadRow(record.file, record.row, unfit.reason, unfit.kind)


def prompt_cluster(text: str) -> str:
    """The cluster of a prompt known by its text: case and white space do not tell two apart.

    It is the same for every source, so that a prompt used by two of them is one cluster.
    """
    return digest("prompt", " ".join(text.casefold().split()))


def ask(text: str) -> tuple[Message, ...]:
    """A prompt of one user turn."""
    return (Message("user", text),)


# Reading one column of one record: the value, or `Unfit` with what was expected and what came.
#
# Everything a source takes from a file passes here, so nothing but valid Unicode text, finite
# numbers and known labels goes further.

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


# Conversations with the reply inside: transcripts and message lists, split at the last turn.

# The marker that lint finds: the two sides answer different prompts, and `prompt` is the chosen
# side's. Cutting one side by the length of the other's prompt would corrupt both.
PROMPTS_DIFFER = "rejected_prompt_differs"

_TURN = re.compile(r"\n\n(Human|Assistant):")
_LAST_REPLY = "\n\nAssistant:"

Turns = tuple[Message, ...]


def split_transcript(text: str, column: str) -> tuple[Turns, str]:
    """Split "\\n\\nHuman: ... \\n\\nAssistant: ..." at its *last* assistant turn.

    Returns the turns before it and the reply, each without white space around it. What follows
    the last "\\n\\nAssistant:" is the reply even where it imitates a human turn.
    """
    before, found, reply = text.rpartition(_LAST_REPLY)
    if not found:
        raise Unfit(f"{column}: expected a transcript with an assistant turn, found none")
    pieces = _TURN.split(before)
    if pieces[0].strip() or len(pieces) < 2:
        raise Unfit(f"{column}: expected a transcript that begins with a human turn")
    pairs = zip(pieces[1::2], pieces[2::2], strict=True)
    turns = tuple(
        Message("user" if who == "Human" else "assistant", said.strip()) for who, said in pairs
    )
    return turns, reply.strip()


def split_messages(turns: Turns, column: str) -> tuple[Turns, str]:
    """Split a message list at its last message, which must be the assistant's."""
    if turns[-1].role != "assistant":
        raise Unfit(f"{column}: expected the last message to be assistant, got {turns[-1].role}")
    if len(turns) < 2:
        raise Unfit(f"{column}: expected a prompt before the reply, found the reply alone")
    return turns[:-1], turns[-1].content


def join(chosen: tuple[Turns, str], rejected: tuple[Turns, str]) -> dict[str, Any]:
    """The marker for `meta` if the two sides have different prompts, else nothing."""
    return {PROMPTS_DIFFER: True} if chosen[0] != rejected[0] else {}


def first_user_turn(prompt: Turns) -> str:
    """The text that tells a conversation: its first user turn, or all of it if it has none."""
    said = (turn.content for turn in prompt if turn.role == "user")
    return next(said, None) or "\n".join(turn.content for turn in prompt)
