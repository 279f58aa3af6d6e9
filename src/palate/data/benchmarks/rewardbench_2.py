"""RewardBench 2: best of four, and a Ties subset of up to 38 responses with many right ones.

Source: https://huggingface.co/datasets/allenai/reward-bench-2 (arXiv 2506.01937), split `test`:
`id`, `prompt`, `chosen` and `rejected` (lists of texts), `num_correct`, `subset`, `models`.

Rule, as in `rewardbench.utils` 0.1.4 (`reroll_and_score_dataset`, `process_single_model`): outside
Ties an item is worth 1/m where m responses share the highest score and the right one is among them,
else 0; a subset is the mean of its items. Ties has pairs of prompts, `ref:N` with one right answer
and `tied:N` with several, and one score over all of them:

    0.3 A_tied + 0.3 A_ref + 0.2 P + 0.2 H + 0.01 T

A is the share of prompts whose every right answer is above every wrong one. Of a tied prompt, with
m the least right score less the highest wrong one and d the highest right score less the least: P
is the share with m > d, H the share with min(m, m of its ref) > d, and T the mean of tanh(min(m, m
of its ref) / d - 1), in 0.1.4 over prompts with d > 0. The code at the repository's head has d = 0
in the mean as well, as tanh of infinity, 1 or -1, and 0 where m is 0 too: pass `head=True`. With
the score of one response NaN theirs depends on where in the list it stands, for Python's max keeps
the first of two that it cannot order; here such a prompt is accurate in nothing and T leaves it
out. A model that speaks is asked for the best of four outside Ties, and in Ties for a rating of
each response (`scripts/run_generative_v2.py`). The score is the mean of the six subsets, as on the
leaderboard. Chance is 1/4 outside Ties, there simulated.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from palate.data.benchmarks.base import (
    Answers,
    Codes,
    Flags,
    Floats,
    NamedBenchmark,
    Part,
    average_of,
    best_of_k,
    chance_of_best,
    mean_of,
)
from palate.data.messages import shown
from palate.data.sources import base
from palate.data.sources.base import InvalidRecord, Record, first_user_turn, prompt_cluster
from palate.stats import Term
from palate.types import BenchmarkItem

NAME = "rewardbench-2"
TIES = "Ties"
SIZES = {
    "Factuality": 475, "Precise IF": 160, "Math": 183, "Safety": 450, "Focus": 495, "Ties": 102,
}  # fmt: skip
MEASURES = {"tied": 0.3, "ref": 0.3, "preferred": 0.2, "hard": 0.2, "margin": 0.01}
DRAWS = 2_000  # Of random scores, for the chance of Ties: an error of 0.001 at most.


def _item(record: Record) -> Iterator[BenchmarkItem]:
    data = record.data
    subset = base.text(data, "subset")
    name = base.optional_text(data, "id") or str(record.row)
    sides = [
        [base.as_text(text, column) for text in base.items(data, column)]
        for column in ("chosen", "rejected")
    ]
    right, wrong = sides
    if "num_correct" in data and base.number(data, "num_correct") != len(right):
        raise InvalidRecord(
            f"num_correct: expected {len(right)}, the number of chosen, "
            f"got {shown(data['num_correct'])}"
        )
    prompt = base.prompt(data).turns
    cluster = prompt_cluster(first_user_turn(prompt))
    if subset == TIES:
        sort, _, number = name.partition(":")
        if sort not in ("ref", "tied") or not number:
            raise InvalidRecord(
                f"id: expected ref:NUMBER or tied:NUMBER in Ties, got {shown(name)}"
            )
        cluster = f"{NAME}:ties:{number}"  # The two prompts of a number share one score.
    models = data.get("models")
    labels = tuple(map(str, models)) if isinstance(models, list) else ()
    yield BenchmarkItem(
        id=f"{NAME}/{subset}/{name}",
        source=subset,
        prompt=prompt,
        responses=(*right, *wrong),
        places=(0,) * len(right) + (1,) * len(wrong),
        prompt_id=cluster,
        labels=labels if len(labels) == len(right) + len(wrong) else (),
        meta={"file": record.part, "row": record.row},
    )


def parts(answers: Answers, *, head: bool = False) -> list[Part]:
    """The score and its subsets; `head` scores Ties as the repository's head does."""
    credit, chance = best_of_k(answers), chance_of_best(answers)
    subsets = [
        ties(answers, answers.within(name), head=head)
        if name == TIES
        else mean_of(name, credit, answers.within(name), chance)
        for name in answers.parts()
    ]
    return [average_of("Score", subsets), *subsets]


def ties(answers: Answers, rows: Flags, *, head: bool = False) -> Part:
    """The Ties subset's score over some items."""
    ids = [str(one).rpartition("/")[2].partition(":") for one in answers.ids[rows].tolist()]
    refs = {number: at for at, (sort, _, number) in enumerate(ids) if sort == "ref"}
    own = np.array([sort == "tied" for sort, _, _ in ids], dtype=np.bool_)
    ref_of = np.array([refs.get(number, -1) for _, _, number in ids], dtype=np.int64)
    at = rows.nonzero()[0]
    starts = answers.starts
    responses = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in at])
    counts = answers.counts[at]
    bounds = np.concatenate([[0], np.cumsum(counts)])
    right = answers.places[responses] == 0
    found = _measures(answers.scores[responses], right, bounds, own, ref_of, head=head)
    rng = np.random.default_rng(0)
    draws = [
        _measures(rng.random(responses.size), right, bounds, own, ref_of, head=head)
        for _ in range(DRAWS)
    ]
    terms = []
    for name, weight in MEASURES.items():
        chance = float(np.mean([_mean(draw[name]) for draw in draws]))
        values = np.full(answers.size, np.nan)
        values[at] = found[name]
        if name == "margin" and np.isnan(values).all():
            # Of no prompt: nothing is added, and judges still have the same means to be compared.
            values[at] = np.where(np.isnan(found["hard"]), np.nan, 0.0)
        if not np.isnan(values).all():
            terms.append(Term(weight, values, chance))
    return Part(TIES, tuple(terms))


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else 0.0


def _measures(
    scores: Floats, right: Flags, bounds: Codes, tied: Flags, ref_of: Codes, *, head: bool
) -> dict[str, Floats]:
    """Each measure of each prompt, [N]; NaN where a prompt has no part in its mean."""
    starts = bounds[:-1]
    least = np.minimum.reduceat(np.where(right, scores, np.inf), starts)
    most = np.maximum.reduceat(np.where(right, scores, -np.inf), starts)
    wrong = np.maximum.reduceat(np.where(right, -np.inf, scores), starts)
    with np.errstate(invalid="ignore", divide="ignore"):
        margin, spread = least - wrong, most - least
        paired = tied & (ref_of >= 0)
        several = np.add.reduceat(right.astype(np.int64), starts) > 1
        both = np.where(paired, np.minimum(margin, margin[ref_of]), np.nan)
        ratio = both / spread
        score = np.tanh(ratio - 1)
    # A comparison with NaN is false, and no part of T.
    counted = paired & several
    in_margin = counted & ~np.isnan(both)
    if head:
        score = np.nan_to_num(score, nan=0.0)
        in_margin = counted
    else:
        in_margin &= spread > 0
    accurate = (margin > 0).astype(np.float64)
    return {
        "tied": np.where(tied, accurate, np.nan),
        "ref": np.where(~tied, accurate, np.nan),
        "preferred": np.where(counted, (margin > spread).astype(np.float64), np.nan),
        "hard": np.where(counted, (both > spread).astype(np.float64), np.nan),
        "margin": np.where(in_margin, score, np.nan),
    }


BENCHMARK = NamedBenchmark(
    name=NAME,
    title="RewardBench 2",
    licence="ODC-BY; parts have their own",
    url="https://huggingface.co/datasets/allenai/reward-bench-2",
    rule="mean of six subsets; best of four, where a tie at the top is worth its share; Ties by "
    "its own formula of accuracy and margins",
    kind="items",
    rows=_item,
    parts=parts,
    hub_ids=("allenai/reward-bench-2",),
    patterns=("*test*", "*"),
    folder="rewardbench_2",
    rated=(TIES,),
    sizes=SIZES,
    tried_on="hand-made rows of its size; its scores beside those of rewardbench 0.1.4",
)
