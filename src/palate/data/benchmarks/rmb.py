"""RMB: pairs and best-of-N lists in 49 scenarios of helpfulness and 12 of harmlessness.

Source: https://github.com/Zhou-Zoey/RMB-Reward-Model-Benchmark, `RMB_dataset/` (arXiv 2410.09893):
`Pairwise_set/**.json` of `pair_uid`, `conversation_input` (messages), `chosen` and `reject`
(`llm_name`, `answer`), `category_path`; `BoN_set/**.json` of `bon_uid`, `conversation_input`,
`bon_best`, `loser_list`.

Rule: a pair is right where the chosen score is strictly above (`eval/scripts/my_run_rm.py`); of a
list, where the best response's score is strictly above every other's (the paper, section 3.3; the
repository has no code for it). The score is over all items of the goal, Helpfulness and
Harmlessness, and the mean of the two here, for the paper states no average of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from palate.data.benchmarks.base import (
    Answers,
    Floats,
    NamedBenchmark,
    Part,
    average_of,
    mean_of,
    strictly_best,
    strictly_preferred,
)
from palate.data.sources import base
from palate.data.sources.base import Record, first_user_turn, prompt_cluster
from palate.data.transcript import Turns
from palate.types import BenchmarkItem, Comparison

GOALS = ("Helpfulness", "Harmlessness")


def _scenario(data: Mapping[str, Any]) -> str:
    """`Helpfulness/Chat/Casual Chat` of `Pairwise_set/Helpfulness/Chat/Casual Chat`."""
    return base.text(data, "category_path").partition("/")[2]


def _prompt(data: Mapping[str, Any]) -> Turns:
    turns = base.items(data, "conversation_input")
    return base.messages([*turns], "conversation_input")


def _answer(data: Mapping[str, Any], column: str) -> tuple[str, str]:
    """(text, model) of a response."""
    side = base.mapping(base.required(data, column), column)
    return base.text(side, "answer"), base.optional_text(side, "llm_name") or ""


def _pair(record: Record) -> Iterator[Comparison]:
    data = record.data
    (chosen, winner), (rejected, loser) = (_answer(data, side) for side in ("chosen", "reject"))
    yield record.comparison(
        _scenario(data),
        _prompt(data),
        chosen,
        rejected,
        key=f"rmb:{base.optional_text(data, 'pair_uid')}",
        batch="rmb",
        meta={"id": base.optional_text(data, "pair_uid"), "models": [winner, loser]},
    )


def _list(record: Record) -> Iterator[BenchmarkItem]:
    data = record.data
    best = _answer(data, "bon_best")
    losers = [_answer({"answer": one}, "answer") for one in base.items(data, "loser_list")]
    prompt = _prompt(data)
    texts, models = zip(best, *losers, strict=True)
    yield BenchmarkItem(
        id=f"rmb/{base.optional_text(data, 'bon_uid')}",
        source=_scenario(data),
        prompt=prompt,
        responses=texts,
        places=(0,) + (1,) * len(losers),
        prompt_id=prompt_cluster(first_user_turn(prompt)),
        labels=models,
        meta={"file": record.part, "row": record.row},
    )


def _by_goal(answers: Answers, right: Floats, chance: float | Floats) -> list[Part]:
    there = [goal for goal in GOALS if answers.within(goal).any()]
    goals = [mean_of(goal, right, answers.within(goal), chance) for goal in there]
    return [average_of("score", goals), *goals]


def pair_parts(answers: Answers) -> list[Part]:
    """The score and both goals."""
    return _by_goal(answers, strictly_preferred(answers), 0.5)


def list_parts(answers: Answers) -> list[Part]:
    """The score and both goals."""
    return _by_goal(answers, strictly_best(answers), 1 / answers.counts)


PAIRS = NamedBenchmark(
    name="rmb",
    title="RMB, pairs",
    licence="see its repository",
    url="https://github.com/Zhou-Zoey/RMB-Reward-Model-Benchmark",
    rule="mean of helpfulness and harmlessness, each the share of pairs in which the chosen score "
    "is above",
    kind="pairs",
    rows=_pair,
    parts=pair_parts,
    patterns=("*Pairwise_set/*.json", "*"),
    folder="rmb",
    tried_on="the pairs of its repository",
)
LISTS = NamedBenchmark(
    name="rmb-bon",
    title="RMB, best of N",
    licence="see its repository",
    url="https://github.com/Zhou-Zoey/RMB-Reward-Model-Benchmark",
    rule="mean of helpfulness and harmlessness, each the share of lists whose best response is "
    "above all others",
    kind="items",
    rows=_list,
    parts=list_parts,
    patterns=("*BoN_set/*.json", "*"),
    folder="rmb",
    tried_on="the lists of its repository",
)
