"""LLMBar: pairs of outputs, one of which follows the instruction; one natural subset, four
adversarial ones.

Source: https://github.com/princeton-nlp/LLMBar, `Dataset/` (arXiv 2310.07641): a folder a subset
with `dataset.json`, of `input`, `output_1`, `output_2`, `label` (1 or 2, the better one).

Rule, as in its `LLMEvaluator/evaluate.py`: in each order an answer is right where it equals the
label; a subset's figure is the mean over pairs of the mean over both orders ("correct_average"). A
judge that answers alike in either order has the same figure in one; a tie is not right. Its tables
give the subsets and the mean of the four adversarial ones; the score here is the mean of the five
subsets.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from palate.data.benchmarks.base import (
    Answers,
    NamedBenchmark,
    Part,
    average_of,
    mean_of,
)
from palate.data.sources import base
from palate.data.sources.base import Record
from palate.types import Comparison

NAME = "llmbar"
SIZES = {"Natural": 100, "Neighbor": 134, "GPTInst": 92, "GPTOut": 47, "Manual": 46}
ADVERSARIAL = tuple(SIZES)[1:]


def _pair(record: Record) -> Iterator[Comparison]:
    data = record.data
    label = base.integer(data, "label", (1, 2))
    outputs = [base.text(data, f"output_{n}") for n in (1, 2)]
    # Dataset/LLMBar/Adversarial/GPTInst/dataset.json; on the hub a split a subset.
    file = Path(record.file)
    name = file.parent.name if file.stem == "dataset" else record.part.rpartition("/")[2]
    yield record.comparison(
        name, base.text(data, "input"), outputs[label - 1], outputs[2 - label], batch=NAME
    )


def parts(answers: Answers) -> list[Part]:
    """The score, its subsets, and the mean of the adversarial ones."""
    # Each order by itself: right is 1, a tie and no answer 0.
    asked = answers.by_order if answers.both else answers.by_order[:, :1]
    right = (np.nan_to_num(asked, nan=0.0) > 0.5).mean(axis=1)
    subsets = {n: mean_of(n, right, answers.within(n), 0.5) for n in answers.parts()}
    hard = [subsets[name] for name in ADVERSARIAL if name in subsets]
    return [
        average_of("score", list(subsets.values())),
        *([average_of("adversarial", hard)] if hard else []),
        *subsets.values(),
    ]


BENCHMARK = NamedBenchmark(
    name=NAME,
    title="LLMBar",
    licence="MIT",
    url="https://github.com/princeton-nlp/LLMBar",
    rule="mean of five subsets; share of right answers over both orders; a tie is not right",
    kind="pairs",
    rows=_pair,
    parts=parts,
    hub_ids=("princeton-nlp/LLMBar",),
    splits=tuple(SIZES),
    subsets=("LLMBar",),
    patterns=("Dataset/LLMBar/*dataset.json", "LLMBar/*dataset.json", "*dataset.json", "*"),
    folder="llmbar",
    sizes=SIZES,
    tried_on="its five subsets, and its case studies, as in its repository",
)
