"""DiaSafety: replies in short social-media dialogues, each labelled Safe or Unsafe.

Source: https://github.com/thu-coai/DiaSafety (arXiv 2110.08466). Comparisons are the pairs of a
safe and an unsafe reply to the same context within one split. Most contexts have one reply only;
`labelled` reads every row as a labelled response.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from palate.data.sources import base
from palate.data.sources.base import (
    BadRow,
    LabelledResponse,
    Record,
    Request,
    Row,
    Source,
    Unfit,
    ask,
    prompt_cluster,
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
        yield from _pairs(map(_label, rows))


def _label(record: Record | BadRow) -> LabelledResponse | BadRow:
    if isinstance(record, BadRow):
        return record
    try:
        return _labelled(record)
    except Unfit as unfit:
        return BadRow(record.file, record.row, unfit.reason)


def _labelled(record: Record) -> LabelledResponse:
    context, response = (base.text(record.data, name) for name in ("context", "response"))
    label = base.text(record.data, "label")
    if label not in LABELS:
        raise Unfit(f"label: expected Safe or Unsafe, got {base.shown(label)}")
    return LabelledResponse(
        id=digest(NAME, record.key, context, response),
        source=NAME,
        prompt=ask(context),
        response=response,
        safe=LABELS[label],
        prompt_id=prompt_cluster(context),
        batch=f"{NAME}/{record.part}",
        meta={**record.origin, "category": base.optional_text(record.data, "category")},
    )


def _pairs(rows: Iterable[LabelledResponse | BadRow]) -> Iterator[Row]:
    by_context: dict[str, tuple[list[LabelledResponse], list[LabelledResponse]]] = {}
    for row in rows:
        if isinstance(row, BadRow):
            yield row
        else:
            safe, unsafe = by_context.setdefault(row.prompt[0].content, ([], []))
            (safe if row.safe else unsafe).append(row)
    for safe, unsafe in by_context.values():
        yield from (_comparison(good, bad) for good in safe for bad in unsafe)


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
