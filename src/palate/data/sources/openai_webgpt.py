"""OpenAI WebGPT: labelers' choices between two long-form answers that quote web pages.

Source: https://huggingface.co/datasets/openai/webgpt_comparisons (arXiv 2112.09332). Scores are
in [-1, 1] and sum to 0; 0 is a tie. Two public copies of a part are read too: DSP's
`webgpt.test.json` (a question and an answer in one text, scores raised by 1; one comparison a
question, citations kept) and Themis' lines (`pos_answer`, `neg_answer`, citations removed).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from palate.data.sources import base
from palate.data.sources.base import Cuts, InvalidRecord, Record, Request, Row, Source, each
from palate.data.sources.files import records
from palate.types import PREFERRED, Judgement

NAME = "openai-webgpt"
HUB_ID = "openai/webgpt_comparisons"
CUTS = Cuts("|score_0|", 0.5, 0.75, 1.0)
_MARKED = re.compile(r"## Human:\n(.*?)\n\n## Assistant:\n(.*)", re.DOTALL)


def load(request: Request) -> Iterator[Row]:
    """Every row is one comparison or a tie."""
    return each(records(request, HUB_ID), _comparison)


def _comparison(record: Record) -> Iterator[Row]:
    question, answers, scores, meta = _fields(record)
    if abs(sum(scores)) > 1e-6 or abs(scores[0]) > 1:
        raise InvalidRecord(f"score_0, score_1: expected s and -s within -1..1, got {scores}")
    better = 0 if scores[0] >= 0 else 1
    strength = abs(scores[0])
    yield record.comparison(
        NAME,
        question,
        answers[better],
        answers[1 - better],
        rating=CUTS.rate(strength) if strength else None,
        judgement=PREFERRED if strength else Judgement(chosen=0, tie=1),
        meta={"strength": strength, **meta},
    )


def _fields(record: Record) -> tuple[str, list[str], list[float], dict[str, Any]]:
    """Question, both answers, both scores in -1..1, and what `meta` keeps; of any of the forms."""
    data = record.data
    if "text" in data:
        pairs = [_MARKED.fullmatch(base.as_text(t, "text")) for t in base.items(data, "text", 2)]
        if pairs[0] is None or pairs[1] is None or pairs[0][1] != pairs[1][1]:
            raise InvalidRecord("text: expected one question, marked ## Human:, with two answers")
        scores = [s - 1 for s in map(float, base.items(data, "score", 2))]
        return pairs[0][1].strip(), [pair[2].strip() for pair in pairs if pair], scores, {}
    if "pos_answer" in data:
        sides = [base.mapping(base.required(data, c), c) for c in ("pos_answer", "neg_answer")]
        answers = [base.text(side, "answer").strip() for side in sides]
        scores = [base.number(side, "score") for side in sides]
        return base.text(data, "question").strip(), answers, scores, {}
    question = base.mapping(base.required(data, "question"), "question")
    answers = [base.text(data, f"answer_{i}").strip() for i in (0, 1)]
    scores = [base.number(data, f"score_{i}") for i in (0, 1)]
    meta = {"dataset": base.optional_text(question, "dataset")}
    return base.text(question, "full_text").strip(), answers, scores, meta


SOURCE = Source(
    name=NAME,
    title="OpenAI WebGPT",
    hub_id=HUB_ID,
    licence="none stated on its card; the copies at hand CC BY-NC 4.0 and MIT",
    kind="helpful",
    load=load,
    cuts=(CUTS,),
    folder="openai_webgpt",
    tried_on="DSP's test part (901 rows) and Themis' 134; hand-made rows of the hub form",
    notes="one split; score 0 is a tie; cluster: question",
)
