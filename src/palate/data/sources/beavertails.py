"""BeaverTails: single responses with a safety label, several to a prompt, each labelled by people.

Source: https://huggingface.co/datasets/PKU-Alignment/BeaverTails (arXiv 2307.04657). It holds no
comparison: a pair is a safe and an unsafe response to one prompt, and what has no counterpart is
left out of the pairs; `safety_rows` reads every row as a labelled response.
"""

from __future__ import annotations

from collections.abc import Iterator

from palate.data.sources import base
from palate.data.sources.base import (
    BadRow,
    InvalidRecord,
    LabelledResponse,
    Record,
    Records,
    Request,
    Row,
    Source,
    prompt_cluster,
    user_turn,
)
from palate.data.sources.files import records
from palate.data.sources.layouts import thumb_pairs
from palate.types import digest

NAME = "beavertails"
HUB_ID = "PKU-Alignment/BeaverTails"


def _records(request: Request) -> Records:
    return records(request, HUB_ID, splits=("330k_train",))


def load(request: Request) -> Iterator[Row]:
    """Every safe response against every unsafe one to the same prompt; all rows are held."""
    for row in thumb_pairs(_records(request)):
        if isinstance(row, BadRow):
            yield row
            continue
        record, reading = row
        try:
            prompt, chosen, rejected = (
                base.text(reading.data, column).strip()
                for column in ("prompt", "chosen", "rejected")
            )
        except InvalidRecord as invalid:
            yield record.bad(invalid)
            continue
        yield record.comparison(NAME, prompt, chosen, rejected, key=reading.key, safe=(True, False))


def labelled(request: Request) -> Iterator[LabelledResponse | BadRow]:
    """Every row as one labelled response, for the auxiliary safety loss."""
    return map(_label, _records(request))


def _label(record: Record | BadRow) -> LabelledResponse | BadRow:
    if isinstance(record, BadRow):
        return record
    try:
        prompt, response = (base.text(record.data, name).strip() for name in ("prompt", "response"))
        safe = base.boolean(record.data, "is_safe")
        if safe is None:
            raise InvalidRecord("is_safe: expected true or false, got nothing")
    except InvalidRecord as invalid:
        return record.bad(invalid)
    return LabelledResponse(
        id=digest(NAME, f"{record.part}:{record.row}", prompt, response),
        source=NAME,
        prompt=user_turn(prompt),
        response=response,
        safe=safe,
        prompt_id=prompt_cluster(prompt),
        batch=NAME,
        meta={"file": record.part, "row": record.row},
    )


SOURCE = Source(
    name=NAME,
    title="BeaverTails",
    hub_id=HUB_ID,
    licence="CC BY-NC 4.0",
    kind="safety",
    load=load,
    tried_on="hand-made rows only",
    notes="splits 330k_train, 330k_test, 30k_train, 30k_test; pairs of a safe and an unsafe reply "
    "to one prompt, a response in several rows by their majority; cluster: prompt; offensive and "
    "harmful text",
)
