"""OASST: conversation trees whose sibling replies were ranked by volunteers.

Source: https://huggingface.co/datasets/OpenAssistant/oasst1 (arXiv 2304.07327). Every two
siblings with different ranks are a comparison; the prompt is the path from the root.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations, groupby
from typing import Any

from palate.data.sources import base
from palate.data.sources.base import (
    BadRow,
    Cuts,
    Record,
    Records,
    Request,
    Row,
    Source,
    Unfit,
)
from palate.data.sources.files import records
from palate.types import Comparison, Message, Role, comparison_id, digest

NAME = "oasst"
HUB_ID = "OpenAssistant/oasst1"
# Volunteers ranked without ties, so nothing is "negligible", and few trees have a gap of 3.
CUTS = Cuts("rank gap", 1, 2, 3, (0.0, 0.694, 0.290, 0.016), "the English validation split")
ROLES: Mapping[str, Role] = {"prompter": "user", "assistant": "assistant"}


def load(request: Request) -> Iterator[Row]:
    """Comparisons of ranked siblings; option `language` keeps one language ("en").

    Messages of a tree must follow each other, as they do in the published files; one tree is
    held in memory.
    """
    language = request.options.get("language")
    found = _flat(records(request, HUB_ID, splits=("train", "validation")))
    for _, group in groupby(found, key=_tree):
        rows = list(group)
        yield from (row for row in rows if isinstance(row, BadRow))
        messages = [row for row in rows if isinstance(row, Record)]
        if language is None or any(m.data.get("lang") == language for m in messages[:1]):
            yield from _comparisons(messages)


def _flat(found: Records) -> Records:
    """Message rows; a row that holds a whole tree (`prompt` with `replies`) gives its messages."""
    for row in found:
        if isinstance(row, BadRow) or "prompt" not in row.data:
            yield row
            continue
        tree, waiting = row.data.get("message_tree_id"), [row.data["prompt"]]
        while waiting:
            message = waiting.pop(0)
            if not isinstance(message, Mapping):
                yield BadRow(row.file, row.row, "prompt: expected a tree of messages")
                break
            replies = message.get("replies") or []
            waiting.extend({**r, "parent_id": message.get("message_id")} for r in replies)
            yield Record(row.file, row.row, row.part, {"message_tree_id": tree, **message})


def _tree(row: Record | BadRow) -> object:
    return (row.file, "" if isinstance(row, BadRow) else row.data.get("message_tree_id"))


def _comparisons(messages: Iterable[Record]) -> Iterator[Row]:
    known: dict[str, Record] = {}
    siblings: dict[str, list[tuple[int, Record]]] = defaultdict(list)
    for record in messages:
        try:
            known[base.text(record.data, "message_id")] = record
            if (rank := _rank(record.data)) is not None:
                siblings[base.text(record.data, "parent_id")].append((rank, record))
        except Unfit as unfit:
            yield BadRow(record.file, record.row, unfit.reason)
    for parent, ranked in siblings.items():
        ranked.sort(key=lambda item: item[0])
        for (high, better), (low, worse) in combinations(ranked, 2):
            yield _row(better, worse, low - high, parent, known)


def _rank(data: Mapping[str, Any]) -> int | None:
    """The rank of an assistant message, 0 the best; None where it was not ranked."""
    if data.get("role") != "assistant" or data.get("rank") is None:
        return None
    rank = base.number(data, "rank")
    if rank < 0 or rank != int(rank):
        raise Unfit(f"rank: expected 0, 1, 2, ..., got {rank:g}")
    return int(rank)


def _row(better: Record, worse: Record, gap: int, parent: str, known: Mapping[str, Record]) -> Row:
    try:
        if gap == 0:
            raise Unfit("two siblings of one rank", "tie")
        return _comparison(better, worse, gap, _path(parent, known))
    except Unfit as unfit:
        return BadRow(worse.file, worse.row, unfit.reason, unfit.kind)


def _path(parent: str, known: Mapping[str, Record]) -> tuple[Message, ...]:
    """The turns from the root to the parent."""
    turns: list[Message] = []
    at: str | None = parent
    while at is not None:
        if at not in known or len(turns) > len(known):
            raise Unfit(f"parent_id: expected a message of the same tree, got {base.shown(at)}")
        data = known[at].data
        said = base.text(data, "role")
        if said not in ROLES:
            raise Unfit(f"role: expected prompter or assistant, got {base.shown(said)}")
        turns.append(Message(ROLES[said], base.text(data, "text")))
        at = base.optional_text(data, "parent_id")
    return tuple(reversed(turns))


def _comparison(better: Record, worse: Record, gap: int, prompt: tuple[Message, ...]) -> Comparison:
    chosen, rejected = (base.text(side.data, "text").strip() for side in (better, worse))
    ids = [side.data["message_id"] for side in (better, worse)]
    return Comparison(
        id=comparison_id(NAME, prompt, chosen, rejected, ">".join(ids)),
        source=NAME,
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        prompt_id=digest(NAME, base.text(better.data, "message_tree_id")),
        batch=NAME,
        rating=CUTS.rate(gap),
        meta={**better.origin, "strength": gap, "message_ids": ids},
    )


SOURCE = Source(
    name=NAME,
    title="Open Assistant conversations",
    hub_id=HUB_ID,
    licence="Apache-2.0",
    url=f"https://huggingface.co/datasets/{HUB_ID}",
    kind="helpful",
    load=load,
    cuts=(CUTS,),
    options={"language": "keep the trees of one language, as `lang` has it (default: all)"},
    folder="oasst1_en_validation",
    tried_on="English validation split (2,022 messages); hub form: hand-made rows only",
    notes="siblings ranked; prompt: path from the root; cluster: tree",
)
