"""DiaSafety: replies in short social-media dialogues, each labelled Safe or Unsafe.

Source: https://github.com/thu-coai/DiaSafety (arXiv 2110.08466). Comparisons are the pairs of a
safe and an unsafe reply to the same context within one split. Most contexts have one reply only;
`labelled` reads every row as a labelled response.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, product

from palate.data.messages import shown
from palate.data.sources import base
from palate.data.sources.base import (
    BadRow,
    InvalidRecord,
    LabelledResponse,
    Record,
    Request,
    Row,
    Source,
    prompt_cluster,
    user_turn,
)
from palate.data.sources.files import records
from palate.types import Comparison, comparison_id, digest

NAME = "diasafety"
LABELS = {"Safe": True, "Unsafe": False}
SPLITS = ("train", "validation", "test")


def labelled(request: Request) -> Iterator[LabelledResponse | BadRow]:
    """Every row as one labelled response, for the auxiliary safety loss."""
    return map(_label, records(request, None, splits=SPLITS))


def load(request: Request) -> Iterator[Row]:
    """Every pair of a safe and an unsafe reply to one context; one split is held in memory."""
    for _, rows in groupby(records(request, None, splits=SPLITS), key=lambda row: row.file):
        by_context: dict[str, dict[bool, list[LabelledResponse]]] = {}
        for row in map(_label, rows):
            if isinstance(row, BadRow):
                yield row
            else:
                replies = by_context.setdefault(row.prompt[0].content, {True: [], False: []})
                replies[row.safe].append(row)
        for replies in by_context.values():
            yield from (_comparison(*pair) for pair in product(replies[True], replies[False]))


def _label(record: Record | BadRow) -> LabelledResponse | BadRow:
    if isinstance(record, BadRow):
        return record
    data = record.data
    try:
        context, response, label = (
            base.text(data, column) for column in ("context", "response", "label")
        )
        if label not in LABELS:
            raise InvalidRecord(f"label: expected Safe or Unsafe, got {shown(label)}")
        category = base.optional_text(data, "category")
    except InvalidRecord as invalid:
        return record.bad(invalid)
    return LabelledResponse(
        id=digest(NAME, f"{record.part}:{record.row}", context, response),
        source=NAME,
        prompt=user_turn(context),
        response=response,
        safe=LABELS[label],
        prompt_id=prompt_cluster(context),
        batch=f"{NAME}/{record.part}",
        meta={"file": record.part, "row": record.row, "category": category},
    )


def _comparison(good: LabelledResponse, bad: LabelledResponse) -> Comparison:
    key = f"{good.batch}:{good.meta['row']}>{bad.meta['row']}"
    return Comparison(
        id=comparison_id(NAME, good.prompt, good.response, bad.response, key),
        source=NAME,
        prompt=good.prompt,
        chosen=good.response.strip(),
        rejected=bad.response.strip(),
        prompt_id=good.prompt_id,
        batch=good.batch,
        chosen_safe=True,
        rejected_safe=False,
        meta={**good.meta, "rejected_row": bad.meta["row"]},
    )


SOURCE = Source(
    name=NAME,
    title="DiaSafety",
    hub_id=None,
    licence="Apache-2.0",
    url="https://github.com/thu-coai/DiaSafety",
    kind="safety",
    load=load,
    folder="diasafety",
    tried_on="all three splits (11,209 rows)",
    notes=(
        "pairs of a safe and an unsafe reply to one context; social-media chat, not assistant "
        "style; cluster: context; batch: split; offensive and harmful text"
    ),
)
