"""What a source is, and how it reads one record: the shapes and helpers that all of them share.

From top to bottom: the shapes (`Source`, `Request`, `Record`, `BadRow`, `Cuts`), `each`, which
turns records into comparisons, the readers of one column (`text`, `number`, `prompt`, ...), and
whole conversations split into prompt and reply.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from palate.data.messages import as_messages, as_tools, shown
from palate.data.transcript import Prompt, Turns, read_conversation, read_prompt
from palate.types import (
    FORM,
    PREFERRED,
    Attributes,
    Comparison,
    Judgement,
    Message,
    PalateError,
    Ranks,
    Rating,
    comparison_id,
    digest,
)

if TYPE_CHECKING:
    from palate.data.annotators import Rule

RowKind = Literal["bad", "tie", "left out"]


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
    kind: RowKind = "bad"

    def __str__(self) -> str:
        return f"{self.file}:{self.row}: {self.reason}"


Row = Comparison | BadRow


class InvalidRecord(Exception):  # noqa: N818 - not an error of the program: it becomes a BadRow.
    """A record that gives no comparison; caught where records are read, see `each`."""

    def __init__(self, reason: str, kind: RowKind = "bad") -> None:
        super().__init__(reason)
        self.reason, self.kind = reason, kind


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

    def bad(self, invalid: InvalidRecord) -> BadRow:
        """The row as one that gave no comparison."""
        return BadRow(self.file, self.row, invalid.reason, invalid.kind)

    def comparison(
        self,
        source: str,
        prompt: str | Turns,
        chosen: str,
        rejected: str,
        *,
        key: str = "",
        prompt_id: str = "",
        batch: str = "",
        rating: Rating | None = None,
        safe: tuple[bool | None, bool | None] = (None, None),
        annotator: str | None = None,
        meta: Mapping[str, Any] | None = None,
        judgement: Judgement = PREFERRED,
        ranks: Ranks | None = None,
        attributes: tuple[Attributes, Attributes] = ({}, {}),
    ) -> Comparison:
        """The comparison that this record holds; `meta` gets file and row before what is given.

        Defaults: `key`, which tells apart equal texts, is part and row; `prompt_id` the cluster
        of the first user turn; `batch` the source. `safe` and `attributes` are of the chosen and
        the rejected reply.
        """
        turns = user_turn(prompt) if isinstance(prompt, str) else prompt
        return Comparison(
            id=comparison_id(source, turns, chosen, rejected, key or f"{self.part}:{self.row}"),
            source=source,
            prompt=turns,
            chosen=chosen,
            rejected=rejected,
            prompt_id=prompt_id or prompt_cluster(first_user_turn(turns)),
            batch=batch or source,
            rating=rating,
            chosen_safe=safe[0],
            rejected_safe=safe[1],
            annotator=annotator,
            meta={"file": self.part, "row": self.row, **(meta or {})},
            judgement=judgement,
            ranks=ranks,
            chosen_attributes=attributes[0],
            rejected_attributes=attributes[1],
        )


Records = Iterator[Record | BadRow]
Scales = Mapping[str, tuple[float, float]]
"""Attributes of single responses, each with the lowest and the highest rating that there is."""


@dataclass(frozen=True, slots=True)
class Request:
    """Which part of a source is asked for, and from where.

    `location` is a local file or folder, or a hub id; None is the source's own hub id. Ties are
    counted and skipped, or kept as comparisons whose `judgement` says so. `annotators` is the rule
    by which votes on one pair become one comparison: `data.annotators`. `columns` (role to
    column) and `values` (word to outcome) say how files of your own are read: `sources.mapping`.
    `attributes` are those of single responses that are to be read, each with the two ends of its
    scale.
    """

    location: Path | str | None = None
    split: str | None = None
    subset: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    ties: Literal["skip", "keep"] = "skip"
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    values: Mapping[str, str] = field(default_factory=dict[str, str])
    annotators: Rule = "separate"
    attributes: Scales = field(default_factory=dict[str, tuple[float, float]])


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
    loader has been run against. `url` is its page on the hub where none is given. `recognise`
    says of a file or folder whether it is an export that this source alone reads. `attributes`
    names what was rated of single responses; "*" is whatever a file has.
    """

    name: str
    title: str
    hub_id: str | None
    licence: str
    kind: Literal["helpful", "safety", "both"]
    load: Callable[[Request], Iterator[Row]]
    tried_on: str
    url: str = ""
    cuts: tuple[Cuts, ...] | None = None
    notes: str = ""
    options: Mapping[str, str] = field(default_factory=dict[str, str])
    subsets: tuple[str, ...] = ()
    folder: str | None = None
    recognise: Callable[[Path], bool] | None = None
    attributes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.url and self.hub_id:
            object.__setattr__(self, "url", f"https://huggingface.co/datasets/{self.hub_id}")


@dataclass(frozen=True, slots=True)
class LabelledResponse:
    """One response with its safety label and nothing to compare it with."""

    id: str
    source: str
    prompt: Turns
    response: str
    safe: bool
    prompt_id: str
    batch: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])


def each(
    records: Iterable[Record | BadRow], make: Callable[[Record], Iterable[Row]]
) -> Iterator[Row]:
    """Make every record's comparisons; an `InvalidRecord` becomes a `BadRow`."""
    for record in records:
        if isinstance(record, BadRow):
            yield record
            continue
        try:
            yield from make(record)
        except InvalidRecord as invalid:
            yield record.bad(invalid)


def prompt_cluster(text: str) -> str:
    """The cluster of a prompt known by its text: case and white space do not tell two apart.

    It is the same for every source, so that a prompt used by two of them is one cluster.
    """
    return digest("prompt", " ".join(text.casefold().split()))


def user_turn(text: str) -> Turns:
    """A prompt of one user turn."""
    return (Message("user", text),)


# Reading one column of one record: the value, or `InvalidRecord` with what was expected and what
# came. Everything a source takes from a file passes here, so nothing but valid Unicode text, finite
# numbers and known labels goes further.

_MESSAGES_AS_TEXT = re.compile(r"""\s*\[\s*\{\s*['"](?:role|content)['"]""")

RATINGS: Mapping[str, Rating] = {
    **{name: r for r in Rating for name in (str(r.value), r.label, r.words)},
    **{f"negligibly better {word} unsure": Rating.NEGLIGIBLY for word in ("/", "or")},
    "unsure": Rating.NEGLIGIBLY,
}
BOOLEANS: Mapping[str, bool] = {
    **dict.fromkeys(("true", "1", "yes", "safe"), True),
    **dict.fromkeys(("false", "0", "no", "unsafe"), False),
}


def required(data: Mapping[str, Any], column: str) -> Any:
    """The value of a column that must be there."""
    if column not in data:
        columns = ", ".join(sorted(map(str, data))[:12])
        raise InvalidRecord(f"missing column {column!r}; the row has: {columns or 'none'}")
    return data[column]


def as_text(value: object, column: str) -> str:
    """Plain text that UTF-8 can hold."""
    if type(value) is not str:
        raise InvalidRecord(f"{column}: expected text, got {shown(value)}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidRecord(f"{column}: expected UTF-8 text, got broken characters") from None
    if value.startswith(FORM):
        raise InvalidRecord(f"{column}: expected text, got {shown(FORM)}...; write it as a message")
    return value


def text(data: Mapping[str, Any], column: str) -> str:
    """A text column."""
    return as_text(required(data, column), column)


def optional_text(data: Mapping[str, Any], column: str) -> str | None:
    """A text or whole number as text; None where it is absent or null."""
    value = data.get(column)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None if value is None else as_text(value, column)


def number(data: Mapping[str, Any], column: str) -> float:
    """A finite number."""
    value = required(data, column)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRecord(f"{column}: expected a number, got {shown(value)}")
    try:
        as_float = float(value)
    except OverflowError:
        as_float = math.inf
    if not math.isfinite(as_float):
        raise InvalidRecord(f"{column}: expected a finite number, got {shown(value)}")
    return as_float


def integer(data: Mapping[str, Any], column: str, allowed: Sequence[int]) -> int:
    """A whole number out of those allowed."""
    value = required(data, column)
    if isinstance(value, bool) or not isinstance(value, int) or value not in allowed:
        choices = f"{', '.join(map(str, allowed[:-1]))} or {allowed[-1]}"
        raise InvalidRecord(f"{column}: expected {choices}, got {shown(value)}")
    return value


def boolean(data: Mapping[str, Any], column: str) -> bool | None:
    """True or false (also 1/0, yes/no, safe/unsafe); None where absent, null or empty."""
    value = data.get(column)
    if value is None or value == "":
        return None
    label = str(value).strip().casefold() if isinstance(value, str | int) else ""
    if label not in BOOLEANS:
        raise InvalidRecord(f"{column}: expected true or false, got {shown(value)}")
    return BOOLEANS[label]


def rating(data: Mapping[str, Any], column: str = "rating") -> Rating | None:
    """A rating as a name ("significantly", "slightly better", ...) or 1 (weakest) to 4."""
    value = data.get(column)
    if value is None or value == "":
        return None
    label = ""
    if isinstance(value, str):
        label = " ".join(value.casefold().replace("_", " ").split())
    elif not isinstance(value, bool) and value in (1, 2, 3, 4):
        label = str(int(value))
    if label not in RATINGS:
        raise InvalidRecord(
            f"{column}: expected significantly, better, slightly, negligibly or 4 to 1, "
            f"got {shown(value)}"
        )
    return RATINGS[label]


NOT_RATED = (None, "", "N/A")


def rated(values: Mapping[str, Any], scales: Scales) -> dict[str, float]:
    """The attributes that are asked for, of all that was rated of a response; without empty ones.

    Raises:
        InvalidRecord: one is no number, or outside its scale.
    """
    ratings: dict[str, float] = {}
    for name, (low, high) in scales.items():
        if (value := values.get(name)) in NOT_RATED:
            continue
        try:
            rating = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            rating = math.nan
        if not low <= rating <= high:
            raise InvalidRecord(
                f"{name}: expected a rating of {low:g} to {high:g}, got {shown(value)}; "
                "`attributes` states the scale"
            )
        ratings[name] = rating
    return ratings


def items(data: Mapping[str, Any], column: str, count: int | None = None) -> Sequence[Any]:
    """A list column, of `count` items if that is given."""
    value = required(data, column)
    if not isinstance(value, list | tuple) or (count is not None and len(value) != count):
        wanted = "a list" if count is None else f"a list of {count}"
        got = f"{len(value)} items" if isinstance(value, list | tuple) else shown(value)
        raise InvalidRecord(f"{column}: expected {wanted}, got {got}")
    return value


def mapping(value: object, column: str) -> Mapping[str, Any]:
    """An object (a record within the record)."""
    if not isinstance(value, Mapping):
        raise InvalidRecord(f"{column}: expected an object, got {shown(value)}")
    return value


def messages(value: object, column: str) -> Turns:
    """Chat messages: objects with `role` and `content`; see `palate.data.messages`."""
    try:
        return as_messages(value, column)
    except PalateError as error:
        raise InvalidRecord(str(error)) from None


def tools(data: Mapping[str, Any]) -> Turns:
    """The turn of the tools of a row, or none; see `palate.data.messages`."""
    try:
        return as_tools(data)
    except PalateError as error:
        raise InvalidRecord(str(error)) from None


def prompt(data: Mapping[str, Any], column: str = "prompt") -> Prompt:
    """A prompt: messages, text with its turns marked inside, or the text of one user's turn."""
    value = structured(required(data, column))
    if not isinstance(value, str):
        return Prompt(messages(value, column))
    try:
        return read_prompt(as_text(value, column))
    except PalateError as error:
        raise InvalidRecord(f"{column}: {error}") from None


def answer(value: object, column: str, prompt: Prompt) -> str:
    """A response to a prompt: text as the prompt's form writes it, or one assistant message."""
    if not isinstance(value, Mapping):
        return prompt.reply(as_text(value, column))
    (message,) = messages([value], column)
    if message.role != "assistant":
        raise InvalidRecord(f"{column}: expected an assistant message, got {message.role}")
    return message.content


def conversation(value: str, column: str) -> tuple[Turns, str] | None:
    """A conversation in one text as prompt and reply; None where it is none."""
    try:
        return read_conversation(value)
    except PalateError as error:
        raise InvalidRecord(f"{column}: {error}") from None


def structured(value: Any) -> Any:
    """A list of messages that a format without lists, such as CSV, holds as text; else the value.

    JSON, or what Python prints for it, as pandas writes into a CSV.
    """
    if not isinstance(value, str) or not _MESSAGES_AS_TEXT.match(value):
        return value
    for reader in (json.loads, ast.literal_eval):
        try:
            parsed = reader(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(parsed, list) and all(
            isinstance(item, dict) and {"role", "content"} <= item.keys() for item in parsed
        ):
            return parsed
    return value


# Conversations with the reply inside: transcripts and message lists, split at the last turn.

# The marker that lint finds: the two sides answer different prompts, and `prompt` is the chosen
# side's. Cutting one side by the length of the other's prompt would corrupt both.
PROMPTS_DIFFER = "rejected_prompt_differs"

_TURN = re.compile(r"\n\n(Human|Assistant):")


def split_transcript(text: str, column: str) -> tuple[Turns, str]:
    """Split "\\n\\nHuman: ... \\n\\nAssistant: ..." at its *last* assistant turn.

    Returns the turns before it and the reply, each without white space around it. What follows
    the last "\\n\\nAssistant:" is the reply even where it imitates a human turn.
    """
    before, mark, reply = text.rpartition("\n\nAssistant:")
    if not mark:
        raise InvalidRecord(f"{column}: expected a transcript with an assistant turn, found none")
    start, *pieces = _TURN.split(before)
    if start.strip() or not pieces:
        raise InvalidRecord(f"{column}: expected a transcript that begins with a human turn")
    turns = tuple(
        Message("user" if speaker == "Human" else "assistant", content.strip())
        for speaker, content in zip(pieces[::2], pieces[1::2], strict=True)
    )
    return turns, reply.strip()


def split_messages(turns: Turns, column: str) -> tuple[Turns, str]:
    """Split a message list at its last message, which must be the assistant's."""
    if turns[-1].role != "assistant":
        raise InvalidRecord(
            f"{column}: expected the last message to be assistant, got {turns[-1].role}"
        )
    if len(turns) < 2:
        raise InvalidRecord(f"{column}: expected a prompt before the reply, found the reply alone")
    return turns[:-1], turns[-1].content


def prompts_differ(chosen: Turns, rejected: Turns) -> dict[str, Any]:
    """The marker for `meta` if the two sides have different prompts, else nothing."""
    return {PROMPTS_DIFFER: True} if chosen != rejected else {}


def first_user_turn(prompt: Turns) -> str:
    """The text that tells a conversation: its first user turn, or all of it if it has none."""
    user_texts = (turn.content for turn in prompt if turn.role == "user")
    return next(user_texts, None) or "\n".join(turn.content for turn in prompt)


# Files of single responses, of which comparisons are made prompt by prompt.

Opinion = TypeVar("Opinion")


@dataclass(frozen=True, slots=True)
class SingleResponse(Generic[Opinion]):
    """A row that has one response to a prompt, and what it says of it: a thumb, a score."""

    record: Record
    prompt: Any
    response: Any
    opinion: Opinion


def responses_by_prompt(
    records: Iterable[Record | BadRow], read: Callable[[Record], tuple[Any, Any, Opinion]]
) -> Generator[BadRow, None, list[list[list[SingleResponse[Opinion]]]]]:
    """Yield the rows that cannot be read; return the others, all of them held in memory.

    Of each prompt, and in it of each response, the rows that have it; everything in the order of
    the file. `read` gives a row's prompt, response and opinion, or raises `InvalidRecord`.
    """
    prompts: dict[str, dict[str, list[SingleResponse[Opinion]]]] = {}
    for record in records:
        if isinstance(record, BadRow):
            yield record
            continue
        try:
            row = SingleResponse(record, *read(record))
            key, said = digest(row.prompt), digest(row.response)
        except InvalidRecord as invalid:
            yield record.bad(invalid)
            continue
        except TypeError:
            yield record.bad(InvalidRecord("expected text or messages, got other objects"))
            continue
        prompts.setdefault(key, {}).setdefault(said, []).append(row)
    return [list(responses.values()) for responses in prompts.values()]
