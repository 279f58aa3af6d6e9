"""PandaLM's test set: pairs of answers to one instruction, each judged by three people.

Source: https://github.com/WeOpenML/PandaLM, `data/testset-v1.json` (arXiv 2306.05087):
`instruction`, `input`, `response1`, `response2`, and `annotator1` to `annotator3`: 1 or 2, the
better response, or 0, a tie.

Rule, as in its `data/compute_metrics.py`: the label is the vote that most annotators gave, and
where all three differ annotator1's; a judge's answer is 1, 2 or 0, a tie, and accuracy is the share
of pairs in which it equals the label. An unreadable answer is a tie there; here an item without a
score is wrong. Scores hardly ever tie, so that a scorer is wrong on every pair whose label is a
tie: *without ties* is over the other pairs. Its macro-averaged F1 is no sum of means and is not
made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from palate.data.benchmarks.base import Answers, NamedBenchmark, Part, mean_of
from palate.data.sources import base
from palate.data.sources.base import Record, first_user_turn, prompt_cluster, user_turn
from palate.types import BenchmarkItem, Judgement

NAME = "pandalm"
ANNOTATORS = ("annotator1", "annotator2", "annotator3")
TIE = 0


def _item(record: Record) -> Iterator[BenchmarkItem]:
    data = record.data
    given = [base.text(data, "instruction").strip(), base.text(data, "input").strip()]
    prompt = user_turn("\n\n".join(part for part in given if part))
    responses = [_response(data, f"response{n}").strip() for n in (1, 2)]
    votes = Counter(base.integer(data, annotator, (0, 1, 2)) for annotator in ANNOTATORS)
    label = votes.most_common(1)[0][0]  # Of equal counts the first that was met: annotator1's.
    chosen = 2 if label == 2 or (label == TIE and votes[2] > votes[1]) else 1
    order = (chosen, 3 - chosen)
    models = base.text(data, "cmp_key").split("_") if "cmp_key" in data else []
    yield BenchmarkItem(
        id=f"{NAME}/{base.optional_text(data, 'idx') or record.row}",
        source=NAME,
        prompt=prompt,
        responses=tuple(responses[number - 1] for number in order),
        places=(0, 0) if label == TIE else (0, 1),
        prompt_id=prompt_cluster(first_user_turn(prompt)),
        labels=tuple(models[number - 1] for number in order) if len(models) == 2 else (),
        judgement=Judgement(chosen=votes[chosen], rejected=votes[3 - chosen], tie=votes[TIE]),
        meta={"file": record.part, "row": record.row},
    )


def _response(data: Mapping[str, Any], column: str) -> str:
    """A response; one of them is `true` in the file, which PandaLM's prompt has as "True"."""
    value = base.required(data, column)
    return str(value) if isinstance(value, bool) else base.as_text(value, column)


def parts(answers: Answers) -> list[Part]:
    """Accuracy in three classes, and on the pairs that were not a tie."""
    tied = answers.per_item(answers.places) == 0
    equal = np.where(tied, answers.values == 0.5, answers.values > 0.5).astype(np.float64)
    everything = np.ones(answers.size, dtype=np.bool_)
    return [
        mean_of("score", equal, everything, np.where(tied, 0.0, 0.5)),
        mean_of("without ties", equal, ~tied, 0.5),
    ]


BENCHMARK = NamedBenchmark(
    name=NAME,
    title="PandaLM's test set",
    licence="Apache-2.0",
    url="https://github.com/WeOpenML/PandaLM",
    rule="share of pairs in which the judge's answer equals the vote of most annotators; a tie is "
    "an answer of its own",
    kind="items",
    rows=_item,
    parts=parts,
    patterns=("*testset-v1.json", "*"),
    folder="pandalm",
    sizes={NAME: 999},
    tried_on="testset-v1.json, 999 pairs",
    notes="never train on it",
)
