"""Your own comparisons: JSONL, JSON, CSV or Parquet, or a hub id.

Three layouts are told apart row by row:
- Palate's columns: `prompt` (text or messages), `chosen`, `rejected` and, if you have them,
  `rating`, `batch`, `chosen_safe`, `rejected_safe`, `prompt_id`, `annotator`, `source`;
- TRL's explicit prompt: the same, with messages for `prompt` and one assistant message each for
  `chosen` and `rejected`;
- TRL's implicit prompt: `chosen` and `rejected` are whole conversations, as messages or as
  "\\n\\nHuman: ... \\n\\nAssistant: ..." transcripts; both end in the assistant's turn. A `prompt`
  may stand beside them (UltraFeedback-binarized), with which they must begin.

Other columns are named once a file and kept in `meta`, where lint looks at scores beside the pair.

A `prompt` in text whose turns are marked inside (a transcript, ChatML, ...) is read as these turns
(`palate.data.transcript`), and its replies without what that form puts around them.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from palate.data.messages import unread_beside
from palate.data.prompts import EARLIER_KEY, text_key
from palate.data.sources import base
from palate.data.sources.base import (
    Record,
    Records,
    Request,
    Row,
    Source,
    Turns,
    Unfit,
    ask,
    each,
    first_user_turn,
    join,
    prompt_cluster,
    split_messages,
)
from palate.data.sources.files import ending, locate, parts, read_file, records
from palate.data.transcript import Prompt
from palate.progress import say
from palate.records import HEADER_KEY, read_comparisons
from palate.types import UNREAD_COLUMNS, Comparison, comparison_id, digest

NAME = "own"
READ = (
    "prompt", "chosen", "rejected", "rating", "batch", "chosen_safe", "rejected_safe", "prompt_id",
    "annotator", "source",
)  # fmt: skip
MOST_VALUES = 4  # A column with no more is a label, and its values are said.
SHOWN_CHARACTERS = 40
KEPT_CHARACTERS = 4_096  # Of a column's JSON in `meta`: longer ones repeat the conversation.


def load(request: Request) -> Iterator[Row]:
    """Comparisons of a file, of all files of a folder, or of a hub data set."""
    named, where = request.options.get("source"), locate(request, None)
    if isinstance(where, str):
        yield from comparisons(where, records(request, None), named)
        return
    for path, part in parts(where, request.split, request.subset):
        if is_ours(path):
            yield from read_comparisons(path)
        else:
            yield from comparisons(str(path), read_file(path, part), named)


def comparisons(name: str, records: Records, named: str | None) -> Iterator[Row]:
    """The comparisons of one file, and at its end a line that says which columns were read."""
    columns = Columns()
    yield from each(records, partial(comparison, named=named, columns=columns))
    if columns.read:
        say(f"{name}: {columns.said()}")


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


def comparison(record: Record, named: str | None, columns: Columns) -> Iterator[Comparison]:
    """The comparison of a record in any of the layouts; raises `Unfit` where it is in none."""
    data = record.data
    prompt, chosen, rejected, marks = sides(data)
    source = base.optional_text(data, "source") or named or NAME
    cluster = base.optional_text(data, "prompt_id")
    yield Comparison(
        id=comparison_id(source, prompt, chosen, rejected, record.key),
        source=source,
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        prompt_id=(digest(source, cluster) if cluster else prompt_cluster(first_user_turn(prompt))),
        batch=base.optional_text(data, "batch") or record.part,
        rating=base.rating(data),
        chosen_safe=base.truth(data, "chosen_safe"),
        rejected_safe=base.truth(data, "rejected_safe"),
        annotator=base.optional_text(data, "annotator"),
        meta={**record.origin, **marks, **columns.unread(data)},
    )


@dataclass(slots=True)
class Columns:
    """Which columns of a file are read and which are not, and what stands in those."""

    read: Counter[str] = field(default_factory=Counter[str])
    others: dict[str, Counter[str]] = field(default_factory=dict[str, Counter[str]])
    too_long: Counter[str] = field(default_factory=Counter[str])

    def unread(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Count a row's columns; what is not read of it, for `meta`."""
        kept = {}
        for name, value in data.items():
            if value is None or value == "" or value == []:
                continue
            if name in READ:
                self.read[name] += 1
                continue
            text = _json(value)
            values = self.others.setdefault(str(name), Counter())
            if len(values) <= MOST_VALUES or text in values:
                values[text[:SHOWN_CHARACTERS]] += 1
            if len(text) > KEPT_CHARACTERS:
                self.too_long[str(name)] += 1
            else:
                kept[_shown(str(name))] = json.loads(text)
        return {UNREAD_COLUMNS: kept} if kept else {}

    def said(self) -> str:
        """One line: what was read, what was not and what it holds."""
        line = f"read {', '.join(name for name in READ if self.read[name])}"
        if not self.others:
            return line
        others = "; ".join(f"{_shown(name)}{self._held(name)}" for name in self.others)
        line = f"{line}; not read, kept in meta: {others}"
        if "margin" in self.others:
            line += (
                "; trainers such as TRL subtract this margin, Palate takes margins from `rating`"
            )
        return line

    def _held(self, name: str) -> str:
        """What a column holds, where that is a few words: `status` may say "discarded"."""
        notes = []
        values = self.others[name]
        if len(values) <= MOST_VALUES and values.total() > 1:
            notes = [f"{_shown(text.strip(chr(34)))} × {n}" for text, n in values.most_common()]
        if self.too_long[name]:
            notes = [f"too long to keep in {self.too_long[name]} rows"]
        return f" ({', '.join(notes)})" if notes else ""


def _json(value: Any) -> str:
    """A value as JSON that a file of UTF-8 can hold; what JSON has no form for, as its text."""
    if isinstance(value, float) and not math.isfinite(value):
        value = str(value)
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _shown(text: str) -> str:
    """Text of a file in a line of ours: short, and nothing that moves a terminal's cursor."""
    return "".join(c if c.isprintable() else " " for c in text[:SHOWN_CHARACTERS])


def sides(data: Mapping[str, Any]) -> tuple[Turns, str, str, dict[str, Any]]:
    """Prompt, chosen and rejected reply of a row in any layout, and markers for `meta`.

    Raises:
        Unfit: it is in none, or has content that Palate does not read.
    """
    if reason := unread_beside(data):
        raise Unfit(reason)
    if data.get("prompt") is None:
        chosen, rejected = _conversation(data, "chosen"), _conversation(data, "rejected")
        return chosen[0], chosen[1], rejected[1], join(chosen, rejected)
    prompt = base.prompt(data)
    chosen, rejected = _answer(data, "chosen", prompt), _answer(data, "rejected", prompt)
    marks = join(chosen, rejected)
    if isinstance(text := data["prompt"], str) and prompt.turns != ask(text):
        # What this prompt was known by when its text was one user's turn; see `data.groups`.
        marks[EARLIER_KEY] = f"{text_key(text):016x}"
    if chosen[0][-1].role == "assistant":
        raise Unfit("prompt: expected the last message to be the user's, got assistant")
    return chosen[0], chosen[1], rejected[1], marks


def _answer(data: Mapping[str, Any], column: str, prompt: Prompt) -> tuple[Turns, str]:
    """The prompt and the reply of a column beside a prompt: a reply, or both in one."""
    value = base.structured(base.required(data, column))
    if isinstance(value, str):
        text = base.as_text(value, column)
        found = base.conversation(text, column)
        if found is not None and _begins(found[0], prompt.turns):
            return found
        # Prompt and response in one text, as older trainers want them.
        whole = prompt.form is not None and text.startswith(data["prompt"])
        return prompt.turns, prompt.reply(text.removeprefix(data["prompt"]) if whole else text)
    if not isinstance(value, list):
        raise Unfit(f"{column}: expected text or one assistant message, got {base.shown(value)}")
    turns = base.messages(value, column)
    if len(turns) == 1 and turns[0].role == "assistant":
        return prompt.turns, turns[0].content
    before, reply = split_messages(turns, column)
    if not _begins(before, prompt.turns):
        roles = ", ".join(turn.role for turn in turns)
        raise Unfit(
            f"{column}: expected one assistant message beside a prompt, or a conversation that "
            f"begins with that prompt, got {roles}"
        )
    return before, reply


def _begins(turns: Turns, prompt: Turns) -> bool:
    """Whether a conversation begins with a prompt, a system's turn before it aside."""
    if turns[0].role == "system" and prompt[0].role != "system":
        turns = turns[1:]
    pairs = list(zip(turns, prompt, strict=False))
    return len(pairs) == len(prompt) and all(
        one.role == other.role and one.content.strip() == other.content.strip()
        for one, other in pairs
    )


def _conversation(data: Mapping[str, Any], column: str) -> tuple[Turns, str]:
    value = base.structured(base.required(data, column))
    if isinstance(value, list):
        return split_messages(base.messages(value, column), column)
    found = base.conversation(base.as_text(value, column), column)
    if found is None:
        raise Unfit(
            f"missing column 'prompt', and {column} is no conversation that would hold it "
            "(a list of messages, or a transcript)"
        )
    return found


SOURCE = Source(
    name=NAME,
    title="Your own comparisons",
    hub_id=None,
    licence="yours",
    url="",
    kind="both",
    load=load,
    options={"source": "the name these rows go by (default: their `source` column, or own)"},
    tried_on="hand-made files of every layout",
    notes=(
        "batch: the `batch` column, else the file's name; cluster: `prompt_id`, else the first "
        "user turn"
    ),
)
