"""Your own comparisons: JSONL, JSON, CSV or Parquet, or a hub id.

Each row is in one of three layouts:
- Palate's columns: `prompt` (text or messages), `chosen`, `rejected` and, if you have them,
  `rating`, `batch`, `chosen_safe`, `rejected_safe`, `prompt_id`, `annotator`, `source`;
- TRL's explicit prompt: the same, with messages for `prompt` and one assistant message each for
  `chosen` and `rejected`;
- TRL's implicit prompt: `chosen` and `rejected` are whole conversations, as messages or as
  "\\n\\nHuman: ... \\n\\nAssistant: ..." transcripts; both end in the assistant's turn. A `prompt`
  may stand beside them (UltraFeedback-binarized), with which they must begin.

Other columns are named once a file and kept in `meta`, where lint looks at scores beside the pair.
`chosen_attributes` and `rejected_attributes` are objects of what was rated of either response by
itself, {"helpfulness": 4}; they are read where `attributes` states their scales.

A `prompt` in text whose turns are marked inside (a transcript, ChatML, ...) is read as these turns
(`palate.data.transcript`), and its replies without what that form puts around them.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from palate.data.messages import BESIDE, TOOLS, shown, unread_beside
from palate.data.prompts import EARLIER_KEY, text_key
from palate.data.sources import base
from palate.data.sources.base import (
    BadRow,
    InvalidRecord,
    Record,
    Records,
    Request,
    Row,
    Scales,
    Source,
    each,
    prompts_differ,
    split_messages,
    user_turn,
)
from palate.data.sources.files import data_files, ending, read_file, records, resolve
from palate.data.sources.layouts import LAYOUTS, PLAIN
from palate.data.sources.mapping import Layout, Reading, has_roles, mapped, with_attributes
from palate.data.transcript import Prompt, Turns
from palate.progress import info
from palate.records import HEADER_KEY, read_comparisons
from palate.types import UNREAD_COLUMNS, Comparison, PalateError, digest

NAME = "own"
HEAD_ROWS = 1_000  # Rows at the beginning of a file from which its layout is told.
MAX_LABELS = 4  # A column with no more values holds labels, and they are listed.
SHOWN_CHARACTERS = 40
KEPT_CHARACTERS = 4_096  # Of a column's JSON in `meta`: longer ones repeat the conversation.


def load(request: Request) -> Iterator[Row]:
    """Comparisons of a file, of all files of a folder, or of a hub data set."""
    location = resolve(request, None)
    if isinstance(location, str):
        yield from comparisons(location, records(request, None), request)
        return
    for path, part in data_files(location, request.split, request.subset):
        if not is_ours(path):
            yield from comparisons(str(path), read_file(path, part), request)
        elif request.columns or request.values:
            raise PalateError(f"{path}: is in Palate's form, in which no column is mapped")
        else:
            yield from read_comparisons(path)


def is_ours(path: Path) -> bool:
    """Whether Palate wrote the file, so that nothing of it need be guessed."""
    if ending(path) != ".parquet":
        return False
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return HEADER_KEY in (pq.read_metadata(path).metadata or {})
    except (pa.ArrowInvalid, OSError):
        return False  # read_file says what is wrong with it.


def comparisons(file: str, records: Records, request: Request) -> Iterator[Row]:
    """The comparisons of one file, and at its end a line that says which columns were read.

    The file's layout is that of its first rows, or what `request.columns` says.
    """
    head = list(islice(records, HEAD_ROWS))
    layout = layout_of([row for row in head if isinstance(row, Record)], file, request)
    source, scales, columns = request.options.get("source"), request.attributes, Columns(layout)

    def made(record: Record) -> Iterator[Row]:
        try:
            for reading in layout.readings(record) if layout.readings else ():
                yield comparison(record, reading, source, columns, scales)
        except InvalidRecord as invalid:
            if layout.name == PLAIN.name and invalid.reason.startswith("missing column"):
                cure = f"`palate data inspect {file}` proposes a mapping"
                raise InvalidRecord(f"{invalid.reason}; {cure}") from None
            raise

    rows = chain(head, records)
    if layout.together is not None:
        for row in layout.together(rows):
            if isinstance(row, BadRow):
                yield row
                continue
            try:
                yield comparison(*row, source, columns, scales)
            except InvalidRecord as invalid:
                yield row[0].bad(invalid)
    else:
        yield from each(rows, made)
    if columns.read:
        info(f"{file}: {columns.summary()}")


def layout_of(head: Sequence[Record], file: str, request: Request) -> Layout:
    """The layout of a file by its first rows; Palate's columns where they fit no other."""
    scales = request.attributes
    if request.columns or request.values:
        return mapped(request.columns, request.values, head, file, scales)
    for record in head:
        for layout in LAYOUTS:
            if layout.fits(record.data):
                return _rated_layout(layout, record.data, scales)
        if has_roles(record.data):
            return mapped({}, {}, head, file, scales)
    return PLAIN


def _rated_layout(layout: Layout, data: Mapping[str, Any], scales: Scales) -> Layout:
    """Palate's columns with those of the attributes that are asked for."""
    if layout is not PLAIN or not scales:
        return layout
    roles = with_attributes(layout.columns, "chosen", scales, data.keys())
    return replace(layout, columns=roles)


def comparison(
    record: Record,
    reading: Reading,
    source: str | None,
    columns: Columns,
    scales: Scales | None = None,
) -> Comparison:
    """The comparison of a reading; raises `InvalidRecord` if there is none in it.

    Of the attributes that the reading has, those of `scales` are read.
    """
    # What stands beside the messages belongs to them in every layout.
    beside = {name: record.data[name] for name in BESIDE if name in record.data}
    data = {**beside, **reading.data}
    prompt, chosen, rejected, marks = sides(data)
    source = base.optional_text(data, "source") or source or NAME
    cluster = base.optional_text(data, "prompt_id")
    strength = {} if reading.strength is None else {"strength": reading.strength}
    return record.comparison(
        source,
        prompt,
        chosen,
        rejected,
        key=reading.key,
        prompt_id=digest(source, cluster) if cluster else "",
        batch=base.optional_text(data, "batch") or record.part,
        rating=base.rating(data),
        safe=(base.boolean(data, "chosen_safe"), base.boolean(data, "rejected_safe")),
        annotator=base.optional_text(data, "annotator"),
        meta={**marks, **strength, **columns.count(record.data)},
        judgement=reading.judgement,
        ranks=reading.ranks,
        attributes=_attributes(record, reading, scales) if scales else ({}, {}),
    )


def _attributes(
    record: Record, reading: Reading, scales: Scales
) -> tuple[dict[str, float], dict[str, float]]:
    """The attributes of the chosen and the rejected response, in Palate's columns too."""
    chosen, rejected = (
        base.rated(values or _as_object(record.data.get(f"{side}_attributes")), scales)
        for side, values in zip(("chosen", "rejected"), reading.attributes, strict=True)
    )
    return chosen, rejected


def _as_object(value: Any) -> Mapping[str, Any]:
    """An object of a cell, which CSV holds as JSON; {} where there is none."""
    if isinstance(value, str):
        with suppress(ValueError):
            value = json.loads(value)
    return value if isinstance(value, Mapping) else {}


@dataclass(slots=True)
class Columns:
    """Which columns of a file are read and which are not, and what those hold."""

    layout: Layout
    read: Counter[str] = field(default_factory=Counter[str])
    unread: dict[str, Counter[str]] = field(default_factory=dict[str, Counter[str]])
    too_long: Counter[str] = field(default_factory=Counter[str])

    def count(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Count a row's columns; those that are not read, for `meta`."""
        kept = {}
        for name, value in data.items():
            if value is None or value == "" or value == []:
                continue
            if name in self.layout.read or name in TOOLS:
                self.read[name] += 1
                continue
            text = _json(value)
            labels = self.unread.setdefault(str(name), Counter())
            if len(labels) <= MAX_LABELS or text in labels:
                labels[text[:SHOWN_CHARACTERS]] += 1
            if len(text) > KEPT_CHARACTERS:
                self.too_long[str(name)] += 1
            else:
                kept[_printable(str(name))] = json.loads(text)
        return {UNREAD_COLUMNS: kept} if kept else {}

    def summary(self) -> str:
        """One line: what was read, what was not, and what that holds where it is a few words."""
        used = [
            _printable(column if column == role else f"{column} as {role}")
            for role, column in self.layout.columns.items()
            if self.read[column] or self.read[column.partition(".")[0]]
        ]
        used += [name for name in TOOLS if self.read[name]]
        line = f"read {', '.join(used)}"
        notes = []
        for name, labels in self.unread.items():
            note = ""
            if self.too_long[name]:
                note = f"too long to keep in {self.too_long[name]} rows"
            elif len(labels) <= MAX_LABELS and labels.total() > 1:  # `status`: "discarded".
                note = ", ".join(
                    f"{_printable(text.strip(chr(34)))} × {n}" for text, n in labels.most_common()
                )
            notes.append(f"{_printable(name)} ({note})" if note else _printable(name))
        if notes:
            line += f"; not read, kept in meta: {'; '.join(notes)}"
        if "margin" in self.unread:
            line += (
                "; trainers such as TRL subtract this margin, Palate takes margins from `rating`"
            )
        return line


def _json(value: Any) -> str:
    """A value as JSON that a file of UTF-8 can hold; what JSON has no form for, as its text."""
    if isinstance(value, float) and not math.isfinite(value):
        value = str(value)
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _printable(text: str) -> str:
    """Text of a file in a line of ours: short, and nothing that moves a terminal's cursor."""
    return "".join(c if c.isprintable() else " " for c in text[:SHOWN_CHARACTERS])


def sides(data: Mapping[str, Any]) -> tuple[Turns, str, str, dict[str, Any]]:
    """Prompt, chosen and rejected reply of a row in any layout, and markers for `meta`.

    Raises:
        InvalidRecord: it is in none, or has content that Palate does not read.
    """
    if reason := unread_beside(data):
        raise InvalidRecord(reason)
    tools = base.tools(data)
    if data.get("prompt") is None:
        (turns, chosen), (other, rejected) = (
            _conversation(data, column) for column in ("chosen", "rejected")
        )
        return (*tools, *turns), chosen, rejected, prompts_differ(turns, other)
    prompt = base.prompt(data)
    (turns, chosen), (other, rejected) = (
        _reply(data, column, prompt) for column in ("chosen", "rejected")
    )
    marks = prompts_differ(turns, other)
    if isinstance(text := data["prompt"], str) and prompt.turns != user_turn(text):
        # What this prompt was known by when its text was one user's turn; see `data.split`.
        marks[EARLIER_KEY] = f"{text_key(text):016x}"
    if turns[-1].role == "assistant":
        raise InvalidRecord("prompt: expected the last message to be the user's, got assistant")
    return (*tools, *turns), chosen, rejected, marks


def _reply(data: Mapping[str, Any], column: str, prompt: Prompt) -> tuple[Turns, str]:
    """The prompt and the reply of a column beside a prompt: a reply, or both in one."""
    value = base.structured(base.required(data, column))
    if isinstance(value, str):
        text = base.as_text(value, column)
        conversation = base.conversation(text, column)
        if conversation is not None and _begins_with(conversation[0], prompt.turns):
            return conversation
        if prompt.form is not None:  # Prompt and reply in one text, as older trainers want them.
            text = text.removeprefix(data["prompt"])
        return prompt.turns, prompt.reply(text)
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list):
        raise InvalidRecord(f"{column}: expected text or one assistant message, got {shown(value)}")
    if value and all(isinstance(one, str) for one in value):
        raise InvalidRecord(
            f"{column}: expected one response, got a list of {len(value)}; such items of several "
            "are judged and audited as best-of-k=FILE"
        )
    turns = base.messages(value, column)
    if len(turns) == 1 and turns[0].role == "assistant":
        return prompt.turns, turns[0].content
    before, reply = split_messages(turns, column)
    if not _begins_with(before, prompt.turns):
        roles = ", ".join(turn.role for turn in turns)
        raise InvalidRecord(
            f"{column}: expected one assistant message beside a prompt, or a conversation that "
            f"begins with that prompt, got {roles}"
        )
    return before, reply


def _begins_with(turns: Turns, prompt: Turns) -> bool:
    """Whether a conversation begins with a prompt, a system's turn before it aside."""
    if turns[0].role == "system" and prompt[0].role != "system":
        turns = turns[1:]
    start = [(turn.role, turn.content.strip()) for turn in turns[: len(prompt)]]
    return start == [(turn.role, turn.content.strip()) for turn in prompt]


def _conversation(data: Mapping[str, Any], column: str) -> tuple[Turns, str]:
    value = base.structured(base.required(data, column))
    if isinstance(value, list):
        return split_messages(base.messages(value, column), column)
    conversation = base.conversation(base.as_text(value, column), column)
    if conversation is None:
        raise InvalidRecord(
            f"missing column 'prompt', and {column} is no conversation that would hold it "
            "(a list of messages, or a transcript)"
        )
    return conversation


SOURCE = Source(
    name=NAME,
    title="Your own comparisons",
    hub_id=None,
    licence="yours",
    kind="both",
    load=load,
    attributes=("*",),
    options={"source": "the name these rows go by (default: their `source` column, or own)"},
    tried_on="hand-made files of every layout",
    notes=(
        "batch: the `batch` column, else the file's name; cluster: `prompt_id`, else the first "
        "user turn"
    ),
)
