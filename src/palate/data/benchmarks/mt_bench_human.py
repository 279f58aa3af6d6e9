"""MT-Bench human: experts' votes on pairs of answers, to a question and to the one that follows it.

Source: https://huggingface.co/datasets/lmsys/mt_bench_human_judgments (arXiv 2306.05685), split
`human`: `question_id`, `model_a`, `model_b`, `winner` (model_a, model_b, tie), `judge`, `turn`,
`conversation_a`, `conversation_b`. An item is a question, two models and a turn, with all votes on
it. On turn 2 each side has its own first answer, so that the two responses do not answer the same
conversation: scorers are given each its own; a judge that is shown two responses to one prompt has
no answer there.

Rule, as in `fastchat/llm_judge/compute_agreement.py` of lm-sys/FastChat: the judge's vote on an
item is compared with every expert's vote, and agreement is equal votes over all votes, by turn,
with ties ("tie" is a third vote) and without (items on which the judge ties, and experts' ties, are
left out). Votes of the authors (`judge` begins with "author") are none of a human there. An item
that has no score agrees with nobody. The score is turn 1 without ties; experts among themselves
agree on 81 % there (their table 5). Chance without ties is one half; with ties that of a judge
which never ties.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from palate.data.benchmarks.base import Answers, NamedBenchmark, Part, Row, mean_of
from palate.data.messages import shown
from palate.data.sources import base
from palate.data.sources.base import BadRow, InvalidRecord, Record, Records
from palate.types import BenchmarkItem, Judgement

NAME = "mt-bench-human"
WINNERS = ("model_a", "model_b", "tie")
TURNS = ("turn 1", "turn 2")
Key = tuple[str, str, str, int]


def _items(records: Records) -> Iterator[Row]:
    """One item a question, pair of models and turn; all votes are held in memory."""
    votes: dict[Key, Counter[str]] = {}
    firsts: dict[Key, Record] = {}
    for record in records:
        if isinstance(record, BadRow):
            yield record
            continue
        try:
            key, vote = _vote(record)
        except InvalidRecord as invalid:
            yield record.bad(invalid)
            continue
        firsts.setdefault(key, record)
        votes.setdefault(key, Counter())[vote] += 1
    for key, counted in votes.items():
        try:
            yield _item(key, counted, firsts[key])
        except InvalidRecord as invalid:
            yield firsts[key].bad(invalid)


def _vote(record: Record) -> tuple[Key, str]:
    """What an expert's vote is on, the two models by name, and which of them it is for."""
    data = record.data
    winner = base.text(data, "winner")
    if winner not in WINNERS and "tie" not in winner:
        raise InvalidRecord(f"winner: expected {', '.join(WINNERS)}, got {shown(winner)}")
    turn = base.integer(data, "turn", (1, 2))
    if not base.text(data, "judge").startswith("expert"):
        raise InvalidRecord("a vote of the authors, which is none of a human's there", "left out")
    models = sorted(base.text(data, f"model_{side}") for side in "ab")
    question = base.optional_text(data, "question_id") or ""
    vote = "tie" if "tie" in winner else base.text(data, winner)
    return (question, models[0], models[1], turn), vote


def _item(key: Key, votes: Counter[str], record: Record) -> BenchmarkItem:
    question, *models, turn = key
    sides = {}
    for side in "ab":
        column = f"conversation_{side}"
        sides[base.text(record.data, f"model_{side}")] = base.messages(
            base.required(record.data, column), column
        )
    if any(len(turns) < 2 * int(turn) for turns in sides.values()):
        raise InvalidRecord(f"conversation_a, conversation_b: expected {turn} questions answered")
    # The one that most votes are for comes first, so that it is the chosen one.
    first, second = sorted(map(str, models), key=lambda model: -votes[model])
    tied = votes["tie"] >= votes[first] or votes[first] == votes[second]
    last = 2 * int(turn) - 1
    before = tuple(sides[model][1:last] for model in (first, second)) if turn == 2 else ()
    return BenchmarkItem(
        id=f"{NAME}/{turn}/{question}/{first}/{second}",
        source=f"turn {turn}",
        prompt=sides[first][:1],
        responses=(sides[first][last].content, sides[second][last].content),
        places=(0, 0) if tied else (0, 1),
        prompt_id=f"{NAME}/{question}",
        turns=before,
        labels=(first, second),
        judgement=Judgement(chosen=votes[first], rejected=votes[second], tie=votes["tie"]),
        meta={"file": record.part, "row": record.row},
    )


def parts(answers: Answers) -> list[Part]:
    """Agreement by turn, without ties and with them."""
    made = []
    first, tie, second = answers.votes.T
    values = answers.values
    for turn in (name for name in TURNS if name in answers.parts()):
        rows = answers.within(turn)
        decided = first + second
        # Unscored items agree with nobody; those on which the judge ties are left out.
        for_first = np.select([values > 0.5, values < 0.5], [first, second], 0.0)
        asked = rows & (decided > 0) & ~(values == 0.5)
        share = np.divide(for_first, decided, out=np.zeros_like(decided), where=decided > 0)
        made.append(mean_of(turn, share, asked, 0.5, decided))
        every = decided + tie
        equal = np.where(values == 0.5, tie, for_first) / every
        chance = decided / every / 2
        made.append(mean_of(f"{turn} with ties", equal, rows, chance, every))
    return made


BENCHMARK = NamedBenchmark(
    name=NAME,
    title="MT-Bench human votes",
    licence="CC BY 4.0",
    url="https://huggingface.co/datasets/lmsys/mt_bench_human_judgments",
    rule="share of experts' votes that the judge's equals, turn 1 without ties; with ties and "
    "turn 2 beside it",
    kind="items",
    together=_items,
    parts=parts,
    hub_ids=("lmsys/mt_bench_human_judgments",),
    splits=("human",),
    patterns=("*human_votes*", "*human*", "*"),
    folder="mtbench_human",
    tried_on="1,751 of the 3,355 votes, as published",
    notes="never train on it; the votes of the authors are left out",
)
