"""Synthetic GPT-J: instructions with a reply of a stronger and one of a weaker model.

Source: https://huggingface.co/datasets/Dahoas/synthetic-instruct-gptj-pairwise
"""

from __future__ import annotations

from collections.abc import Iterator

from palate.data.sources import base
from palate.data.sources.base import Record, Request, Row, Source, each
from palate.data.sources.files import records

NAME = "gptj-synthetic"
HUB_ID = "Dahoas/synthetic-instruct-gptj-pairwise"


def load(request: Request) -> Iterator[Row]:
    """Every row is one comparison."""
    return each(records(request, HUB_ID), _comparison)


def _comparison(record: Record) -> Iterator[Row]:
    columns = ("prompt", "chosen", "rejected")
    prompt, chosen, rejected = (base.text(record.data, name).strip() for name in columns)
    yield record.comparison(NAME, prompt, chosen, rejected)


SOURCE = Source(
    name=NAME,
    title="Synthetic GPT-J",
    hub_id=HUB_ID,
    licence="see its card",
    kind="helpful",
    load=load,
    tried_on="hand-made rows only",
    notes="no human labels: the chosen reply is the stronger model's; cluster: prompt",
)
