"""Skywork Reward Preference: pairs of conversations, gathered from several sets and filtered.

Source: https://huggingface.co/datasets/Skywork/Skywork-Reward-Preference-80K-v0.2 (arXiv
2410.18451). `chosen` and `rejected` are whole conversations; `source` names the set of origin and
becomes the annotation batch. Many of its labels are models', not people's.
"""

from __future__ import annotations

from collections.abc import Iterator

from palate.data.sources import base
from palate.data.sources.base import (
    Record,
    Request,
    Row,
    Source,
    each,
    prompts_differ,
    split_messages,
)
from palate.data.sources.files import records

NAME = "skywork"
HUB_ID = "Skywork/Skywork-Reward-Preference-80K-v0.2"


def load(request: Request) -> Iterator[Row]:
    """Every row is one comparison."""
    return each(records(request, HUB_ID), _comparison)


def _comparison(record: Record) -> Iterator[Row]:
    (prompt, chosen), (other, rejected) = (
        split_messages(base.messages(base.required(record.data, column), column), column)
        for column in ("chosen", "rejected")
    )
    yield record.comparison(
        NAME,
        prompt,
        chosen,
        rejected,
        batch=base.optional_text(record.data, "source") or NAME,
        meta=prompts_differ(prompt, other),
    )


SOURCE = Source(
    name=NAME,
    title="Skywork Reward Preference",
    hub_id=HUB_ID,
    licence="that of each set of origin; see its card",
    kind="both",
    load=load,
    tried_on="hand-made rows only",
    notes="many labels are models'; batch: the set of origin; cluster: first user turn",
)
