"""Layouts that other tools and data sets give their files, told by the columns of the first rows.

Votes of Chatbot Arena (33k, 55k, 100k and 140k), UltraFeedback's rated completions, rankings such
as Nectar's, the preference forms of LLaMA-Factory and ms-swift, and thumbs (KTO). A row that has
`chosen` and `rejected` as Palate reads them is in Palate's columns, whatever else it has.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from palate.data.messages import BESIDE, shown
from palate.data.sources import base
from palate.data.sources.base import BadRow, InvalidRecord, Record, SingleResponse
from palate.data.sources.mapping import WORDS, Layout, Reading, number, pair, ranked
from palate.types import PalateError

SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
"""ShareGPT's names, beside `system`; what else speaks there is a tool."""


# Chatbot Arena. After the first turn each side has its own earlier answers, so that the two
# responses answer different prompts: only votes on one turn are comparisons.

_SEVERAL_TURNS = "several turns: each side has its own earlier answers"


def _arena(data: Mapping[str, Any]) -> bool:
    return {"conversation_a", "conversation_b", "winner"} <= data.keys()


ARENA_COLUMNS = {
    "response_a": "conversation_a",
    "response_b": "conversation_b",
    "winner": "winner",
    "annotator": "judge",
}


def _arena_votes(record: Record) -> Iterator[Reading]:
    turns = base.structured(record.data.get("conversation_a"))
    if isinstance(turns, list | tuple) and sum(_is_user(turn) for turn in turns) > 1:
        raise InvalidRecord(_SEVERAL_TURNS, "left out")
    yield pair(record, ARENA_COLUMNS, WORDS)


def _is_user(turn: object) -> bool:
    return isinstance(turn, Mapping) and turn.get("role") == "user"


def _arena_lists(data: Mapping[str, Any]) -> bool:
    columns = {"prompt", "response_a", "response_b", "winner_model_a", "winner_model_b"}
    return columns <= data.keys()


ARENA_LIST_COLUMNS = {
    "prompt": "prompt",
    "response_a": "response_a",
    "response_b": "response_b",
    "winner_a": "winner_model_a",
    "winner_b": "winner_model_b",
    "winner_tie": "winner_tie",
}


def _arena_list_votes(record: Record) -> Iterator[Reading]:
    texts = {name: _turn_of(record, name) for name in ("prompt", "response_a", "response_b")}
    yield pair(replace(record, data={**record.data, **texts}), ARENA_LIST_COLUMNS, {})


def _turn_of(record: Record, column: str) -> str:
    """The text of a column that holds the texts of all turns as a JSON list."""
    value = base.required(record.data, column)
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            return base.as_text(value, column)  # A text that begins with a bracket.
    if isinstance(value, list | tuple):
        if len(value) > 1:
            raise InvalidRecord(_SEVERAL_TURNS, "left out")
        value = value[0] if value else None
    return base.as_text(value, column)


# Rankings: UltraFeedback's rated completions, and answers with a rank.


def _rated(data: Mapping[str, Any]) -> bool:
    return "instruction" in data and _objects(data.get("completions"), "response")


def _objects(value: object, key: str) -> bool:
    """Whether a value is a list of objects that have this key."""
    if not isinstance(value, list | tuple) or not value:
        return False
    return all(isinstance(item, Mapping) and key in item for item in value)


def _rated_completions(record: Record) -> Iterator[Reading]:
    completions = [
        base.mapping(item, "completions") for item in base.items(record.data, "completions")
    ]
    texts = [base.text(item, "response") for item in completions]
    order = [-_overall(item) for item in completions]
    facts = {"prompt": record.data["instruction"]}
    rated = [_aspects(item) for item in completions]
    yield from ranked(record, facts, texts, order, strengths=True, rated=rated)


def _aspects(completion: Mapping[str, Any]) -> dict[str, Any]:
    """The rating of each aspect of a completion, a model's."""
    aspects = completion.get("annotations")
    if not isinstance(aspects, Mapping):
        return {}
    return {
        str(name): aspect["Rating"]
        for name, aspect in aspects.items()
        if isinstance(aspect, Mapping) and "Rating" in aspect
    }


def _overall(completion: Mapping[str, Any]) -> float:
    """The overall score of a completion, else the mean of its aspects' ratings."""
    if completion.get("overall_score") is not None:
        return number(completion["overall_score"], "overall_score", -math.inf, math.inf, "a number")
    aspects = base.mapping(completion.get("annotations"), "annotations")
    ratings = [
        number(aspect["Rating"], "Rating", -math.inf, math.inf, "a number")
        for aspect in aspects.values()
        if isinstance(aspect, Mapping) and aspect.get("Rating") not in (None, "N/A")
    ]
    if not ratings:
        raise InvalidRecord("completions: expected overall_score or ratings, got none", "left out")
    return sum(ratings) / len(ratings)


def _answers(data: Mapping[str, Any]) -> bool:
    return "prompt" in data and _objects(data.get("answers"), "rank")


def _ranked_answers(record: Record) -> Iterator[Reading]:
    answers = [base.mapping(item, "answers") for item in base.items(record.data, "answers")]
    texts = [base.text(item, "answer") for item in answers]
    order = [number(item.get("rank"), "rank", 0, math.inf, "a rank") for item in answers]
    yield from ranked(record, {"prompt": record.data["prompt"]}, texts, order)


# LLaMA-Factory and ms-swift.


def _alpaca(data: Mapping[str, Any]) -> bool:
    return data.keys() >= {"instruction", "chosen", "rejected"} and not _plain(data)


def _alpaca_pair(record: Record) -> Iterator[Reading]:
    data = record.data
    sides = {name: base.text(data, name) for name in ("chosen", "rejected")}
    yield Reading({**_beside(data), "prompt": _alpaca_prompt(data), **sides})


def _alpaca_prompt(data: Mapping[str, Any]) -> list[dict[str, str]]:
    """System, history, then instruction and input, a line break between them."""
    turns = _system(data)
    for asked, answered in (
        base.items({"history": turn}, "history", 2) for turn in data.get("history") or ()
    ):
        turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    parts = [base.text(data, "instruction"), base.optional_text(data, "input") or ""]
    return [*turns, {"role": "user", "content": "\n".join(filter(None, parts))}]


def _system(data: Mapping[str, Any]) -> list[dict[str, str]]:
    system = base.optional_text(data, "system")
    return [{"role": "system", "content": system}] if system else []


def _beside(data: Mapping[str, Any]) -> dict[str, Any]:
    """Tools, images and so on beside the messages, which are not to be lost in silence."""
    return {name: data[name] for name in BESIDE if name in data}


def _sharegpt(data: Mapping[str, Any]) -> bool:
    sides = (data.get("chosen"), data.get("rejected"))
    return "conversations" in data and all(isinstance(side, Mapping) for side in sides)


def _sharegpt_pair(record: Record) -> Iterator[Reading]:
    data = record.data
    turns = [_sharegpt_turn(turn) for turn in base.items(data, "conversations")]
    sides = {name: [_sharegpt_turn(base.required(data, name))] for name in ("chosen", "rejected")}
    yield Reading({**_beside(data), "prompt": [*_system(data), *turns], **sides})


def _sharegpt_turn(value: object) -> dict[str, Any]:
    turn = base.mapping(value, "conversations")
    if "role" in turn:
        return dict(turn)
    speaker = turn.get("from")
    role = "system" if speaker == "system" else SPEAKERS.get(str(speaker))
    if role is None:
        raise InvalidRecord(
            f"conversations: expected human, gpt or system, got {shown(speaker)}; what a tool says "
            "is not read in this form, write it as messages with role and content"
        )
    return {"role": role, "content": turn.get("value")}


def _swift(data: Mapping[str, Any]) -> bool:
    return "messages" in data and bool(data.keys() & {"rejected_response", "rejected_messages"})


def _swift_pair(record: Record) -> Iterator[Reading]:
    data = record.data
    messages = base.items({"messages": base.structured(data["messages"])}, "messages")
    column = next(c for c in ("rejected_response", "rejected_messages") if data.get(c) is not None)
    facts = {**_beside(data), "chosen": [*_system(data), *messages]}
    if column == "rejected_messages":
        other = base.items({column: base.structured(data[column])}, column)
        yield Reading({**facts, "rejected": [*_system(data), *other]})
        return
    reply = {"role": "assistant", "content": base.text(data, column)}
    yield Reading({**facts, "rejected": [*facts["chosen"][:-1], reply]})


# Thumbs: one response a row, good or bad. Pairs are of a good and a bad one to the same prompt.


def _thumbs(data: Mapping[str, Any]) -> bool:
    return any(form <= data.keys() for form in THUMBS) and "chosen" not in data


THUMBS = (
    frozenset({"prompt", "completion", "label"}),
    frozenset({"prompt", "response", "label"}),
    frozenset({"prompt", "response", "is_safe"}),
    frozenset({"instruction", "output", "kto_tag"}),
    frozenset({"messages", "label"}),
    frozenset({"messages", "kto_tag"}),
    frozenset({"conversations", "kto_tag"}),
)
"""TRL's and BeaverTails' columns, LLaMA-Factory's two forms, ms-swift's."""


def thumb(data: Mapping[str, Any]) -> tuple[Any, Any, bool]:
    """Prompt, response and whether it is a good one, of a row in any of the forms."""
    mark = next((c for c in ("label", "kto_tag", "is_safe") if c in data), "label")
    good = base.boolean(data, mark)
    if good is None:
        raise InvalidRecord(f"{mark}: empty, so nothing was judged", "left out")
    if "instruction" in data:
        return _alpaca_prompt(data), base.text(data, "output"), good
    if "prompt" in data:
        response = data["completion"] if "completion" in data else base.required(data, "response")
        return data["prompt"], base.structured(response), good
    if "conversations" in data:
        turns = [_sharegpt_turn(turn) for turn in base.items(data, "conversations")]
    else:
        turns = list(base.items({"messages": base.structured(data["messages"])}, "messages"))
    if len(turns) < 2:
        raise InvalidRecord("expected a prompt and a response, got one message")
    return [*_system(data), *turns[:-1]], turns[-1:], good


def thumb_pairs(
    records: Iterable[Record | BadRow],
) -> Iterator[tuple[Record, Reading] | BadRow]:
    """Every good response against every bad one to the same prompt; all rows are held in memory.

    A response that stands in several rows is what most of them say. What has no counterpart is
    left out.

    Raises:
        PalateError: no prompt has both.
    """
    prompts = yield from base.responses_by_prompt(records, lambda record: thumb(record.data))
    pairs = 0
    for responses in prompts:
        sides: dict[bool, list[SingleResponse[bool]]] = {True: [], False: []}
        for rows in responses:
            goods = sum(row.opinion for row in rows)
            if 2 * goods == len(rows):
                yield from _left_out(rows, "as many rows call it good as bad")
            else:
                sides[2 * goods > len(rows)].append(rows[0])
        if not (sides[True] and sides[False]):
            only = "good" if sides[True] else "bad"
            yield from _left_out(
                [*sides[True], *sides[False]], f"its prompt has {only} responses alone"
            )
        for good in sides[True]:
            for bad in sides[False]:
                pairs += 1
                better, worse = good.record, bad.record
                data = {**_beside(better.data), "prompt": good.prompt}
                data |= {"chosen": good.response, "rejected": bad.response}
                if "is_safe" in better.data:
                    data |= {"chosen_safe": True, "rejected_safe": False}
                yield better, Reading(data, key=f"{better.part}:{better.row}>{worse.row}")
    if prompts and not pairs:
        raise PalateError(
            f"{prompts[-1][-1][-1].record.file}: thumbs for single responses, and none of its "
            f"{len(prompts):,} prompts has both a good and a bad one; a reward model learns from "
            "two responses to one prompt"
        )


def _left_out(rows: Sequence[SingleResponse[bool]], reason: str) -> Iterator[BadRow]:
    for row in rows:
        yield row.record.bad(InvalidRecord(f"single response: {reason}", "left out"))


def _plain(data: Mapping[str, Any]) -> bool:
    """Whether a row is in Palate's columns: a prompt, or conversations that hold it."""
    if "chosen" not in data or "rejected" not in data:
        return False
    chosen = base.structured(data["chosen"])
    if data.get("prompt") is not None or isinstance(chosen, list | tuple):
        return True
    try:
        return isinstance(chosen, str) and base.conversation(chosen, "chosen") is not None
    except InvalidRecord:
        return True  # It is a conversation, of which the row's own reading says what is wrong.


def _own(*columns: str) -> dict[str, str]:
    return {column: column for column in columns}


PLAIN = Layout(
    "Palate's columns",
    _own(
        "prompt", "chosen", "rejected", "rating", "batch", "chosen_safe", "rejected_safe",
        "prompt_id", "annotator", "source",
    ),
    lambda record: (Reading(record.data),),
    _plain,
)  # fmt: skip
LAYOUTS = (
    PLAIN,
    Layout("Chatbot Arena votes", ARENA_COLUMNS, _arena_votes, _arena),
    Layout("Chatbot Arena votes, 55k", ARENA_LIST_COLUMNS, _arena_list_votes, _arena_lists),
    Layout(
        "UltraFeedback, rated completions",
        {"prompt": "instruction", "responses": "completions"},
        _rated_completions,
        _rated,
    ),
    Layout(
        "ranked answers", {"prompt": "prompt", "responses": "answers"}, _ranked_answers, _answers
    ),
    Layout(
        "LLaMA-Factory, alpaca preference",
        {"prompt": "instruction", **_own("input", "system", "history", "chosen", "rejected")},
        _alpaca_pair,
        _alpaca,
    ),
    Layout(
        "LLaMA-Factory, sharegpt preference",
        {"prompt": "conversations", **_own("system", "chosen", "rejected")},
        _sharegpt_pair,
        _sharegpt,
    ),
    Layout(
        "ms-swift preference",
        {"chosen": "messages", **_own("system", "rejected_response", "rejected_messages")},
        _swift_pair,
        _swift,
    ),
    Layout(
        "thumbs",
        _own(*sorted({column for form in THUMBS for column in form}), "system"),
        None,
        _thumbs,
        thumb_pairs,
    ),
)
"""In the order in which they are tried."""
