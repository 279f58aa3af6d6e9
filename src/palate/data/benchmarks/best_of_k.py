"""Items of your own: a prompt with several responses, and which of them are right or how they rank.

Columns: `prompt` (text or messages), and either `chosen` and `rejected` (texts, one or a list
each, as in RewardBench 2), or `responses` (a list) with `places` (numbers from 0, the best) or
`best` (the number of the best, from 0). `subset` names the part of the benchmark, `id` the item,
`prompt_id` the cluster.

Rule: as RewardBench 2 outside Ties. An item is worth the share of right responses among those with
the highest score; the score is the mean of the items, beside it each subset's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from palate.data.benchmarks.base import (
    Answers,
    NamedBenchmark,
    Part,
    best_of_k,
    chance_of_best,
    mean_of,
)
from palate.data.messages import shown
from palate.data.sources import base
from palate.data.sources.base import InvalidRecord, Record, first_user_turn, prompt_cluster
from palate.data.transcript import Prompt
from palate.types import BenchmarkItem

NAME = "best-of-k"


def _item(record: Record) -> Iterator[BenchmarkItem]:
    data = record.data
    prompt = base.prompt(data)
    if "responses" in data:
        responses = _texts(data["responses"], "responses", prompt)
        places = _places(data, len(responses))
    else:
        right, wrong = (
            _texts(base.required(data, column), column, prompt) for column in ("chosen", "rejected")
        )
        responses, places = [*right, *wrong], [0] * len(right) + [1] * len(wrong)
    cluster = base.optional_text(data, "prompt_id")
    yield BenchmarkItem(
        id=base.optional_text(data, "id") or f"{record.part}:{record.row}",
        source=base.optional_text(data, "subset") or record.part,
        prompt=prompt.turns,
        responses=tuple(responses),
        places=tuple(places),
        prompt_id=cluster or prompt_cluster(first_user_turn(prompt.turns)),
        meta={"file": record.part, "row": record.row},
    )


def _texts(value: Any, column: str, prompt: Prompt) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [base.answer(one, column, prompt) for one in values]


def _places(data: Any, count: int) -> list[int]:
    if "places" in data:
        return [
            base.integer({"places": place}, "places", range(count))
            for place in base.items(data, "places", count)
        ]
    best = data.get("best")
    if isinstance(best, bool) or not isinstance(best, int) or not 0 <= best < count:
        raise InvalidRecord(
            f"best: expected a number of 0 to {count - 1}, or `places`, got {shown(best)}"
        )
    return [int(number != best) for number in range(count)]


def parts(answers: Answers) -> list[Part]:
    """The score, and that of each subset where there are several."""
    credit, chance = best_of_k(answers), chance_of_best(answers)
    everything = np.ones(answers.size, dtype=np.bool_)
    names = answers.parts()
    subsets = [mean_of(name, credit, answers.within(name), chance) for name in names]
    return [mean_of("score", credit, everything, chance), *(subsets if len(names) > 1 else [])]


BENCHMARK = NamedBenchmark(
    name=NAME,
    title="Items of your own",
    licence="yours",
    url="",
    rule="mean over items of the share of right responses among those with the highest score",
    kind="items",
    rows=_item,
    parts=parts,
    tried_on="hand-made files",
)
