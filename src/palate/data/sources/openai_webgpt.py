"""OpenAI WebGPT: labelers' choices between two long-form answers that quote web pages.

Source: https://huggingface.co/datasets/openai/webgpt_comparisons (arXiv 2112.09332). Scores are
in [-1, 1] and sum to 0; 0 is a tie.
"""

from __future__ import annotations

from collections.abc import Iterator

from palate.data.sources import base
from palate.data.sources.base import Cuts, InvalidRecord, Record, Request, Row, Source, each
from palate.data.sources.files import records

NAME = "openai-webgpt"
HUB_ID = "openai/webgpt_comparisons"
CUTS = Cuts("|score_0|", 0.5, 0.75, 1.0)


def load(request: Request) -> Iterator[Row]:
    """Every row is one comparison or a tie; a tie is a `BadRow` of kind "tie"."""
    return each(records(request, HUB_ID), _comparison)


def _comparison(record: Record) -> Iterator[Row]:
    data = record.data
    scores = [base.number(data, f"score_{i}") for i in (0, 1)]
    if abs(sum(scores)) > 1e-6 or abs(scores[0]) > 1:
        raise InvalidRecord(f"score_0, score_1: expected s and -s within -1..1, got {scores}")
    if scores[0] == 0:
        raise InvalidRecord("score_0 is 0: neither answer was preferred", "tie")
    better = 0 if scores[0] > 0 else 1
    chosen, rejected = (base.text(data, f"answer_{i}").strip() for i in (better, 1 - better))
    question = base.mapping(base.required(data, "question"), "question")
    prompt, strength = base.text(question, "full_text").strip(), abs(scores[0])
    meta = {"strength": strength, "dataset": base.optional_text(question, "dataset")}
    yield record.comparison(NAME, prompt, chosen, rejected, rating=CUTS.rate(strength), meta=meta)


SOURCE = Source(
    name=NAME,
    title="OpenAI WebGPT",
    hub_id=HUB_ID,
    licence="none stated on its card",
    kind="helpful",
    load=load,
    cuts=(CUTS,),
    tried_on="hand-made rows only",
    notes="one split; ties (score 0) are counted and skipped; cluster: question",
)
