"""QA-Feedback: four answers to a question from Wikipedia passages, all six pairs judged.

Source: https://github.com/allenai/FineGrainedRLHF (arXiv 2306.01693). `preference` holds six values
for the pairs (1,2) (1,3) (1,4) (2,3) (2,4) (3,4): 0 equal, 1 the first is better, 2 the second.
The passages are part of the prompt: the answers are to be grounded in them. Where the six agree
with one order of the four, the pairs carry their places in it; a circle carries none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

from palate.data.sources import base
from palate.data.sources.base import Record, Request, Row, Source, each
from palate.data.sources.files import records
from palate.types import PREFERRED, Judgement, Ranks, digest

NAME = "qa-feedback"
HUB_ID = None
ANSWERS = 4
PAIRS = tuple(combinations(range(ANSWERS), 2))


def load(request: Request) -> Iterator[Row]:
    """Six comparisons a question."""
    return each(records(request, HUB_ID), _comparisons)


def _comparisons(record: Record) -> Iterator[Row]:
    data = record.data
    question = base.text(data, "question").strip()
    passages = [base.items({"passages": p}, "passages") for p in base.items(data, "passages")]
    context = "\n\n".join(_passage(passage) for passage in passages)
    answers = [base.text(data, f"prediction {i + 1}").strip() for i in range(ANSWERS)]
    values = base.items(data, "preference", len(PAIRS))
    votes = [base.integer({"preference": value}, "preference", (0, 1, 2)) for value in values]
    places, ranking = _places(votes), f"{NAME}:{record.part}:{record.row}"
    for (first, second), vote in zip(PAIRS, votes, strict=True):
        chosen, rejected = (second, first) if vote == 2 else (first, second)
        yield record.comparison(
            NAME,
            f"{context}\n\n{question}",
            answers[chosen],
            answers[rejected],
            key=f"{record.part}:{record.row}:{first}-{second}",
            prompt_id=digest(NAME, question),
            judgement=PREFERRED if vote else Judgement(chosen=0, tie=1),
            ranks=Ranks(ranking, places[chosen], places[rejected]) if places else None,
        )


def _passage(passage: Sequence[Any]) -> str:
    """The title on a line of its own, and the sentences."""
    title, *sentences = (base.as_text(part, "passages").strip() for part in passage)
    return f"{title}\n{' '.join(sentences)}".strip()


def _places(votes: Sequence[int]) -> tuple[int, ...] | None:
    """The place of each answer, 0 the best, or None where the votes fit no order with ties."""
    wins = [0] * ANSWERS
    for (first, second), vote in zip(PAIRS, votes, strict=True):
        wins[first] += 2 if vote == 1 else vote == 0
        wins[second] += vote if vote == 2 else vote == 0
    order = sorted(set(wins), reverse=True)
    places = tuple(order.index(w) for w in wins)
    fits = all(
        vote == (0 if places[a] == places[b] else 1 if places[a] < places[b] else 2)
        for (a, b), vote in zip(PAIRS, votes, strict=True)
    )
    return places if fits else None


SOURCE = Source(
    name=NAME,
    title="QA-Feedback",
    hub_id=HUB_ID,
    url="https://github.com/allenai/FineGrainedRLHF",
    licence="Apache-2.0",
    kind="helpful",
    load=load,
    folder="qa_feedback",
    tried_on="dev_feedback.json, 500 questions",
    notes="the passages are part of the prompt; cluster: question; four answers ranked where the "
    "six judgements fit one order",
)
