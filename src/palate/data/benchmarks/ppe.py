"""PPE, Preference Proxy Evaluations: people's votes in the arena, and best of 32 by correctness.

Source: https://huggingface.co/datasets/lmarena-ai/PPE-Human-Preference-V1 (arXiv 2410.14872):
`prompt`, `response_1`, `response_2`, `winner` (model_a, model_b, tie, tie (bothbad)); and
lmarena-ai/PPE-{MMLU-Pro,MATH,GPQA,MBPP-Plus,IFEval}-Best-of-K: `prompt`, `response_1` to
`response_32`, `scores` (whether each is right), `sampled_conflict_pairs` (numbers from 0, one right
and one wrong).

Rule: its code is not at hand, and this is as the paper says and as others read its columns. Human:
the share of pairs that are no tie in which the winner has the higher score. Correctness: by data
set, the share of sampled pairs in which the right response has the higher score, and *best of K*,
the share of prompts of which the highest score is a right response's; the score is the mean of the
five data sets' pairs. A tie is one half of a pair; no score is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from palate.data.benchmarks.base import (
    Answers,
    NamedBenchmark,
    Part,
    average_of,
    best_of_k,
    chance_of_best,
    mean_of,
    strictly_preferred,
)
from palate.data.messages import shown
from palate.data.sources import base
from palate.data.sources.base import InvalidRecord, Record, first_user_turn, prompt_cluster
from palate.types import BenchmarkItem, Comparison

SETS = ("MMLU-Pro", "MATH", "GPQA", "MBPP-Plus", "IFEval")
WINNERS = {"model_a": (1, 2), "model_b": (2, 1)}


def _pair(record: Record) -> Iterator[Comparison]:
    data = record.data
    winner = base.text(data, "winner")
    if "tie" in winner:
        raise InvalidRecord("a tie, which PPE leaves out", "left out")
    if winner not in WINNERS:
        raise InvalidRecord(f"winner: expected model_a, model_b or tie, got {shown(winner)}")
    chosen, rejected = (_reply(data, f"response_{number}") for number in WINNERS[winner])
    key = base.optional_text(data, "question_id") or f"{record.part}:{record.row}"
    prompt = base.prompt(data).turns
    yield record.comparison(
        "human", prompt, chosen, rejected, key=key, batch="ppe-human",
        meta={"language": base.optional_text(data, "language")},
    )  # fmt: skip


def _reply(data: Mapping[str, Any], column: str) -> str:
    value = base.required(data, column)
    if isinstance(value, list):
        return base.messages(value, column)[-1].content
    return base.as_text(value, column)


def human_parts(answers: Answers) -> list[Part]:
    """The score."""
    everything = np.ones(answers.size, dtype=np.bool_)
    return [mean_of("score", strictly_preferred(answers), everything, 0.5)]


def _item(record: Record) -> Iterator[BenchmarkItem]:
    data = record.data
    right = [bool(one) for one in base.items(data, "scores")]
    columns = sorted(
        (name for name in data if re.fullmatch(r"response_\d+", name)),
        key=lambda name: int(name.partition("_")[2]),
    )
    responses = [base.text(data, name) for name in columns]
    if len(responses) != len(right):
        raise InvalidRecord(f"scores: expected {len(responses)}, one a response, got {len(right)}")
    if all(right) or not any(right):
        raise InvalidRecord("all responses are right, or none is", "left out")
    pairs = set[tuple[int, int]]()
    for drawn in base.items(data, "sampled_conflict_pairs"):
        ends = base.items({"sampled_conflict_pairs": drawn}, "sampled_conflict_pairs", 2)
        first, second = (base.integer({"pair": end}, "pair", range(len(right))) for end in ends)
        if right[first] != right[second]:
            pairs.add((first, second) if right[first] else (second, first))
    place = re.search("|".join(SETS), f"{record.file} {record.part}", re.IGNORECASE)
    names = {name.casefold(): name for name in SETS}
    source = names[place[0].casefold()] if place else record.part.rpartition("/")[2]
    question = base.optional_text(data, "question_id") or str(record.row)
    model = base.optional_text(data, "model_name") or ""
    prompt = base.prompt(data).turns
    yield BenchmarkItem(
        id=f"ppe-correctness/{source}/{question}/{model}",
        source=source,
        prompt=prompt,
        responses=tuple(responses),
        places=tuple(0 if one else 1 for one in right),
        prompt_id=prompt_cluster(first_user_turn(prompt)),
        pairs=tuple(sorted(pairs)),
        meta={"file": record.part, "row": record.row, "model": model},
    )


def parts(answers: Answers) -> list[Part]:
    """The score, the pairs of each data set, and the best of K of each."""
    best, chance = best_of_k(answers), chance_of_best(answers)
    sets = answers.parts()
    right = np.nan_to_num(answers.values, nan=0.0)  # Of an item's pairs, the share in order.
    pairs = [mean_of(name, right, answers.within(name), 0.5) for name in sets]
    tops = [mean_of(f"{name}, best of K", best, answers.within(name), chance) for name in sets]
    return [average_of("score", pairs), *pairs, *tops]


HUMAN = NamedBenchmark(
    name="ppe-human",
    title="PPE human preference",
    licence="prompts CC BY 4.0; responses: each provider's terms",
    url="https://huggingface.co/datasets/lmarena-ai/PPE-Human-Preference-V1",
    rule="share of pairs without a tie in which the winner has the higher score",
    kind="pairs",
    rows=_pair,
    parts=human_parts,
    hub_ids=("lmarena-ai/PPE-Human-Preference-V1",),
    folder="ppe_human",
    tried_on="hand-made rows; its own code was not at hand",
)
CORRECTNESS = NamedBenchmark(
    name="ppe-correctness",
    title="PPE correctness, best of K",
    licence="that of each set of questions",
    url="https://huggingface.co/datasets/lmarena-ai/PPE-MMLU-Pro-Best-of-K",
    rule="mean of five data sets' sampled pairs of a right and a wrong response; best of K beside",
    kind="items",
    rows=_item,
    parts=parts,
    hub_ids=tuple(f"lmarena-ai/PPE-{name}-Best-of-K" for name in SETS),
    splits=("train",),
    folder="ppe_correctness",
    tried_on="hand-made rows; its own code was not at hand",
)
