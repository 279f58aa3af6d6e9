"""OASST: conversation trees whose sibling replies were ranked by volunteers.

Source: https://huggingface.co/datasets/OpenAssistant/oasst1 (arXiv 2304.07327). Every two
siblings with different ranks are a comparison; the prompt is the path from the root.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations, groupby
from typing import Any

from palate.data.messages import shown
from palate.data.sources import base
from palate.data.sources.base import (
    BadRow,
    Cuts,
    InvalidRecord,
    Record,
    Records,
    Request,
    Row,
    Scales,
    Source,
)
from palate.data.sources.files import records
from palate.data.transcript import Turns
from palate.types import Message, Role, digest

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
    language, scales = request.options.get("language"), request.attributes
    rows = _messages(records(request, HUB_ID, splits=("train", "validation")))
    for _, tree in groupby(rows, key=lambda row: (row.file, _tree_id(row))):
        messages = []
        for row in tree:
            if isinstance(row, BadRow):
                yield row
            else:
                messages.append(row)
        if language is None or any(m.data.get("lang") == language for m in messages[:1]):
            yield from _comparisons(messages, scales)


def _messages(rows: Records) -> Records:
    """Message rows; a row that holds a whole tree (`prompt` with `replies`) gives its messages."""
    for row in rows:
        if isinstance(row, BadRow) or "prompt" not in row.data:
            yield row
            continue
        tree_id, queue = _tree_id(row), [row.data["prompt"]]
        while queue:
            message = queue.pop(0)
            if not isinstance(message, Mapping):
                yield BadRow(row.file, row.row, "prompt: expected a tree of messages")
                break
            replies = message.get("replies") or []
            queue.extend({**reply, "parent_id": message.get("message_id")} for reply in replies)
            yield Record(row.file, row.row, row.part, {"message_tree_id": tree_id, **message})


def _tree_id(row: Record | BadRow) -> object:
    return "" if isinstance(row, BadRow) else row.data.get("message_tree_id")


def _comparisons(messages: Iterable[Record], scales: Scales) -> Iterator[Row]:
    """The pairs of ranked siblings of one tree."""
    by_id: dict[str, Record] = {}
    siblings: dict[str, list[tuple[int, Record]]] = defaultdict(list)
    for record in messages:
        try:
            by_id[base.text(record.data, "message_id")] = record
            if (rank := _rank(record.data)) is not None:
                siblings[base.text(record.data, "parent_id")].append((rank, record))
        except InvalidRecord as invalid:
            yield record.bad(invalid)
    for parent, ranked in siblings.items():
        ranked.sort(key=lambda item: item[0])
        for (high, better), (low, worse) in combinations(ranked, 2):
            try:
                yield _comparison(better, worse, low - high, parent, by_id, scales)
            except InvalidRecord as invalid:
                yield worse.bad(invalid)


def _rank(data: Mapping[str, Any]) -> int | None:
    """The rank of an assistant message, 0 the best; None where it was not ranked."""
    if data.get("role") != "assistant" or data.get("rank") is None:
        return None
    rank = base.number(data, "rank")
    if rank < 0 or rank != int(rank):
        raise InvalidRecord(f"rank: expected 0, 1, 2, ..., got {rank:g}")
    return int(rank)


def _comparison(
    better: Record,
    worse: Record,
    gap: int,
    parent: str,
    by_id: Mapping[str, Record],
    scales: Scales,
) -> Row:
    if gap == 0:
        raise InvalidRecord("two siblings of one rank", "tie")
    prompt = _path(parent, by_id)
    chosen, rejected = (base.text(side.data, "text").strip() for side in (better, worse))
    ids = [side.data["message_id"] for side in (better, worse)]
    return better.comparison(
        NAME,
        prompt,
        chosen,
        rejected,
        key=">".join(ids),
        prompt_id=digest(NAME, base.text(better.data, "message_tree_id")),
        rating=CUTS.rate(gap),
        meta={"strength": gap, "message_ids": ids},
        attributes=(base.rated(_labels(better), scales), base.rated(_labels(worse), scales)),
    )


def _labels(message: Record) -> Mapping[str, Any]:
    """The mean of the volunteers' labels of a message, by name, 0 to 1."""
    labels = message.data.get("labels")
    if not isinstance(labels, Mapping):
        return {}
    names, values = (base.items(labels, key) for key in ("name", "value"))
    return dict(zip(names, values, strict=False))


def _path(parent: str, by_id: Mapping[str, Record]) -> Turns:
    """The turns from the root to the parent."""
    turns: list[Message] = []
    at: str | None = parent
    while at is not None:
        if at not in by_id or len(turns) > len(by_id):
            raise InvalidRecord(f"parent_id: expected a message of the same tree, got {shown(at)}")
        data = by_id[at].data
        role = base.text(data, "role")
        if role not in ROLES:
            raise InvalidRecord(f"role: expected prompter or assistant, got {shown(role)}")
        turns.append(Message(ROLES[role], base.text(data, "text")))
        at = base.optional_text(data, "parent_id")
    return tuple(reversed(turns))


SOURCE = Source(
    name=NAME,
    title="Open Assistant conversations",
    hub_id=HUB_ID,
    licence="Apache-2.0",
    kind="helpful",
    load=load,
    cuts=(CUTS,),
    options={"language": "keep the trees of one language, as `lang` has it (default: all)"},
    folder="oasst1_en_validation",
    tried_on="English validation split (2,022 messages); hub form: hand-made rows only",
    attributes=(
        "quality",
        "toxicity",
        "humor",
        "helpfulness",
        "creativity",
        "violence",
        "spam",
        "fails_task",
        "lang_mismatch",
        "pii",
        "not_appropriate",
        "hate_speech",
        "sexual_content",
    ),
    notes="siblings ranked; prompt: path from the root; cluster: tree; attributes: means of the "
    "volunteers' labels, 0 to 1",
)
