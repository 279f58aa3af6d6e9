"""MT-Bench human votes: two models' answers to 80 questions, judged by people; many pairs twice.

Source: https://huggingface.co/datasets/lmsys/mt_bench_human_judgments (arXiv 2306.05685). A row is
one judge's vote on turn 1 or 2 of two conversations. On turn 2 each side has its own first answer
in its prompt, so the two responses answer different prompts: those votes are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from palate.data.messages import shown
from palate.data.sources import base
from palate.data.sources.base import InvalidRecord, Record, Request, Row, Source, each
from palate.data.sources.files import records
from palate.types import PREFERRED, Judgement, digest

NAME = "mtbench-human"
HUB_ID = "lmsys/mt_bench_human_judgments"
VOTES_FILE = "human_votes.jsonl.gz"
WINNERS = ("model_a", "model_b", "tie")


def load(request: Request) -> Iterator[Row]:
    """One comparison a vote on turn 1, the judge as its annotator."""
    if isinstance(request.location, Path) and (votes := request.location / VOTES_FILE).exists():
        request = replace(request, location=votes)  # Its neighbour holds the questions.
    return each(records(request, HUB_ID, splits=("human",)), _comparison)


def _comparison(record: Record) -> Iterator[Row]:
    data = record.data
    if base.integer(data, "turn", (1, 2)) == 2:
        raise InvalidRecord("turn 2: the two sides have different prompts", "left out")
    winner = base.text(data, "winner")
    if winner not in WINNERS:
        raise InvalidRecord(f"winner: expected {', '.join(WINNERS)}, got {shown(winner)}")
    sides = [base.messages(base.required(data, f"conversation_{s}"), "conversation") for s in "ab"]
    if any(len(turns) < 2 for turns in sides) or sides[0][0] != sides[1][0]:
        raise InvalidRecord("conversation_a, conversation_b: expected one question and its answers")
    models = [base.text(data, "model_a"), base.text(data, "model_b")]
    chosen = 1 if winner == "model_b" else 0
    question, judge = base.optional_text(data, "question_id"), base.text(data, "judge")
    yield record.comparison(
        NAME,
        sides[0][:1],
        sides[chosen][1].content,
        sides[1 - chosen][1].content,
        key=f"{question}:{judge}",
        prompt_id=digest(NAME, question),
        annotator=judge,
        judgement=Judgement(chosen=0, tie=1) if winner == "tie" else PREFERRED,
        meta={
            "category": base.optional_text(data, "category"),
            "models": [models[chosen], models[1 - chosen]],
        },
    )


SOURCE = Source(
    name=NAME,
    title="MT-Bench human votes",
    hub_id=HUB_ID,
    licence="CC BY 4.0",
    kind="helpful",
    load=load,
    folder="mtbench_human",
    tried_on="1,751 of the 3,355 votes, as published",
    notes="a benchmark: never train on it; cluster: question; annotator: judge; votes on turn 2 "
    "are left out",
)
