"""What people answered in an annotation tool, as comparisons: what all tools have in common.

A tool shows a task (a prompt and responses) and keeps answers to it. A source of a tool reads its
export into `Answer`s, one a person and task; `comparisons` makes rows of one: one for a pair,
K(K-1)/2 for a ranking of K.

Tasks that `palate data export-tasks` wrote have a `comparison_id`: their answers keep the prompt's
cluster and name the comparison in `meta.of`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from palate.data.messages import shown
from palate.data.sources import base, own
from palate.data.sources.base import Cuts, InvalidRecord, Record
from palate.data.sources.files import find_files, read_file
from palate.data.sources.mapping import (
    OUTCOMES,
    SKIP,
    STRENGTHS,
    WORDS,
    Layout,
    Reading,
    ranked,
    word,
    words,
)
from palate.types import PREFERRED, Comparison, Judgement, PalateError, Rating

SIDES = {"response_a", "response_b"}
STRENGTH_CUTS = Cuts("strength, -3 to 3 by its size", 1, 2, 3)
TASK_COLUMNS = ("comparison_id", "prompt_id", "batch")
HAND_BACK = {
    "Label Studio": "label them there, and give what Export > JSON saves",
    "Potato": "label them there, and give its annotation_output (USER/user_state.json)",
    "Argilla": "label them there, and give what records.to_list(flatten=True) has, as JSON",
}
"""Of each tool whose tasks `palate data export-tasks` writes, what to hand back."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one person said of one task.

    `outcome` is a, b, tie or both_bad of two `responses`; else `places` are those of all of them, 0
    the best. `name` is the answer's in its tool: ids are made of it, so that an export in another
    form gives the same comparisons. `data` is the task as the user wrote it, `roles` says which of
    its columns is the prompt and which are the responses.
    """

    name: str
    data: Mapping[str, Any]
    roles: Mapping[str, str]
    responses: Sequence[Any]
    annotator: str | None
    outcome: str = ""
    places: Sequence[float] = ()
    rating: Rating | None = None
    strength: float | None = None
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])


def comparisons(
    record: Record, answer: Answer, source: str, columns: own.Columns
) -> Iterator[Comparison]:
    """The comparisons of an answer; raises `InvalidRecord` where a text cannot be read."""
    facts = {
        "prompt": base.required(answer.data, answer.roles["prompt"]),
        "annotator": answer.annotator,
        "batch": answer.data.get("batch"),
        "prompt_id": answer.data.get("prompt_id"),
    }
    of, cluster = (answer.data.get(name) for name in ("comparison_id", "prompt_id"))
    task = replace(record, data=answer.data)
    for reading in _readings(task, answer, facts):
        comparison = own.comparison(task, reading, source, columns)
        meta = {**comparison.meta, **answer.meta}
        if of and cluster:  # Written by Palate: the cluster is one already.
            comparison = replace(comparison, prompt_id=str(cluster))
            meta["of"] = of
        yield replace(comparison, meta=meta)


def _readings(record: Record, answer: Answer, facts: Mapping[str, Any]) -> Iterator[Reading]:
    if answer.places:
        for reading in ranked(record, facts, answer.responses, answer.places):
            pair = reading.key.rpartition(":")[2]
            ranks = reading.ranks and replace(reading.ranks, ranking=answer.name)
            yield replace(reading, ranks=ranks, key=f"{answer.name}:{pair}")
        return
    a, b = answer.responses
    chosen, rejected = (b, a) if answer.outcome == "b" else (a, b)
    decided = answer.outcome in ("a", "b")
    rating = answer.rating.label if answer.rating and decided else None
    judgement = PREFERRED if decided else Judgement(chosen=0, **{answer.outcome: 1})
    data = {**facts, "chosen": chosen, "rejected": rejected, "rating": rating}
    yield Reading(data, judgement, strength=answer.strength, key=answer.name)


def columns_of(answer: Answer) -> own.Columns:
    """What counts a task's columns: those of its roles, and those that every task may have."""
    task = {column: column for column in TASK_COLUMNS}
    return own.Columns(Layout("tasks", {**answer.roles, **task}, lambda _: ()))


# Tasks that went to nobody.


def refuse_unanswered(location: Path | str | None) -> None:
    """Raise `PalateError` where the tasks that Palate wrote for a tool lie there, and no answer."""
    if location is None or not (path := Path(location).expanduser()).exists():
        return
    tools: list[str] = []
    try:
        for file in find_files(path):
            first = next(iter(read_file(file)), None)
            tool = _tool_of(first.data) if isinstance(first, Record) else None
            if tool is None:
                return
            tools.append(tool)
    except PalateError:
        return  # Whoever reads it says what is wrong.
    tool = tools[0]
    raise PalateError(
        f"{path}: no task has been answered; these are the tasks as {tool} imports them: "
        f"{HAND_BACK[tool]}"
    )


def _tool_of(row: Mapping[str, Any]) -> str | None:
    """The tool whose task a row is, as `data.tasks` writes it: without any answer."""
    task = row.get("data")
    if isinstance(task, Mapping) and "annotations" not in row:
        return "Label Studio" if "comparison_id" in task else None
    shown_as = row.keys() - {"id", "prompt", *TASK_COLUMNS}
    if "comparison_id" not in row:
        return None
    return "Potato" if shown_as == {"text"} else "Argilla" if shown_as == SIDES else None


# What an answer says.


def meanings(options: Mapping[str, Any]) -> dict[str, str]:
    """The words that an answer may be, with those of the option `values`.

    Raises:
        PalateError: one means something else than an outcome, skip or a strength.
    """
    given = options.get("values", {})
    if not isinstance(given, Mapping):
        raise PalateError(f"values: expected words with what they mean, got {shown(given)}")
    known = (*OUTCOMES, SKIP, *map(str, STRENGTHS))
    for said, meaning in words(given).items():
        if meaning not in known:
            raise PalateError(
                f"values: {said} means {meaning!r}, expected one of {', '.join(known)}"
            )
    return {**WORDS, **words(given)}


def outcome(value: Any, name: str, known: Mapping[str, str]) -> str | int:
    """What a word says: a, b, tie, both_bad, or a strength above 0 where the first is better.

    Raises:
        InvalidRecord: it is unknown, or to be skipped.
    """
    said = word(value)
    meaning = known.get(said)
    if meaning is None:
        raise InvalidRecord(
            f"{name}: expected a, b, tie or both_bad, got {shown(value)}; say what it means by the "
            f"option values: {{{said[:40]}: tie}}"
        )
    if meaning == SKIP:
        raise InvalidRecord(f"{name}: {shown(value)} is to be skipped", "left out")
    return meaning if meaning in OUTCOMES else int(meaning)


def cuts_of(options: Mapping[str, Any], default: Cuts) -> Cuts:
    """The cuts of a strength: the option `cuts`, three rising numbers, or the default.

    Raises:
        PalateError: they are something else.
    """
    given = options.get("cuts")
    if given is None:
        return default
    if (
        isinstance(given, Sequence)
        and len(given) == 3
        and all(isinstance(n, int | float) and not isinstance(n, bool) for n in given)
        and given[0] < given[1] < given[2]
    ):
        return Cuts(default.strength, *given)
    raise PalateError(f"cuts: expected three rising numbers, such as [1, 2, 3], got {shown(given)}")


def parsed(value: Any) -> Any:
    """A cell of a CSV that holds JSON, as what it holds; any other value as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value
