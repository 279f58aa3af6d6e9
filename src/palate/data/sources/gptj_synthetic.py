"""Synthetic GPT-J: instructions with a reply of a stronger and one of a weaker model.

Source: https://huggingface.co/datasets/Dahoas/synthetic-instruct-gptj-pairwise
"""

from __future__ import annotations

from collections.abc import Iterator

from palate.data.sources import base
from palate.data.sources.base import Record, Request, Row, Source, ask, each, prompt_cluster
from palate.data.sources.files import records
from palate.types import Comparison, comparison_id

NAME = "gptj-synthetic"
HUB_ID = "Dahoas/synthetic-instruct-gptj-pairwise"


def load(request: Request) -> Iterator[Row]:
    """Every row is one comparison."""
    return each(records(request, HUB_ID), _comparison)


def _comparison(record: Record) -> Iterator[Row]:
    asked = base.text(record.data, "prompt").strip()
    chosen = base.text(record.data, "chosen").strip()
    rejected = base.text(record.data, "rejected").strip()
    prompt = ask(asked)
    yield Comparison(
        id=comparison_id(NAME, prompt, chosen, rejected, record.key),
        source=NAME,
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        prompt_id=prompt_cluster(asked),
        batch=NAME,
        meta=record.origin,
    )


SOURCE = Source(
    name=NAME,
    title="Synthetic GPT-J",
    hub_id=HUB_ID,
    licence="see its card",
    url=f"https://huggingface.co/datasets/{HUB_ID}",
    kind="helpful",
    load=load,
    tried_on="hand-made rows only",
    notes="no human labels: the chosen reply is the stronger model's; cluster: prompt",
)
