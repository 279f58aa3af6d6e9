"""JudgeBench: pairs of one model's answers to hard questions, one of them objectively right.

Source: https://github.com/ScalerLab/JudgeBench, `data/` (arXiv 2410.12784), on the hub as
ScalerLab/JudgeBench with a split for each model that answered, `gpt` and `claude`: `pair_id`,
`source`, `question`, `response_A`, `response_B`, `label` ("A>B" or "B>A").

Rule, as in its `utils/metrics.py`, `compute_final_metrics`: asked in both orders, an answer that is
right counts +1, one for the other side -1, a tie and no answer 0, and a pair is right where the sum
is above 0. Asked in one order (`--single_game`, its way for reward models), a pair is right where
the decision equals the label. Its reward models decide `'A>B' if score_A > score_B else 'B>A'`
(`utils/judges.py`), so that there a tie, and NaN, is right wherever the label is B>A; here neither
is ever right. The score is over all pairs; its four parts are the sources by their beginnings.
"""

from __future__ import annotations

from collections.abc import Iterator

from palate.data.benchmarks.base import (
    Answers,
    NamedBenchmark,
    Part,
    mean_of,
    strictly_preferred,
)
from palate.data.messages import shown
from palate.data.sources import base
from palate.data.sources.base import InvalidRecord, Record
from palate.types import Comparison

NAME = "judgebench"
SOURCES = ("mmlu-pro", "livebench-reasoning", "livebench-math", "livecodebench")
LABELS = {"A>B": ("response_A", "response_B"), "B>A": ("response_B", "response_A")}


def _pair(record: Record) -> Iterator[Comparison]:
    data = record.data
    label = base.text(data, "label")
    if label not in LABELS:
        raise InvalidRecord(f"label: expected A>B or B>A, got {shown(label)}")
    chosen, rejected = LABELS[label]
    source = base.text(data, "source")
    part = next((name for name in SOURCES if source.startswith(name)), "")
    if not part:
        raise InvalidRecord(f"source: expected {', '.join(SOURCES)}, got {shown(source)}")
    yield record.comparison(
        part,
        base.text(data, "question"),
        base.text(data, chosen),
        base.text(data, rejected),
        key=base.text(data, "pair_id"),
        batch=base.optional_text(data, "response_model") or NAME,
        meta={"id": base.text(data, "pair_id"), "source": source},
    )


def parts(answers: Answers) -> list[Part]:
    """The score and its four parts."""
    right = strictly_preferred(answers)
    names = [name for name in SOURCES if name in answers.parts()]
    return [
        mean_of("score", right, answers.within(*names), 0.5),
        *(mean_of(name, right, answers.within(name), 0.5) for name in names),
    ]


BENCHMARK = NamedBenchmark(
    name=NAME,
    title="JudgeBench",
    licence="MIT; questions have their own",
    url="https://github.com/ScalerLab/JudgeBench",
    rule="share of pairs decided rightly; asked in both orders, right in more of them than wrong; "
    "a tie is not right",
    kind="pairs",
    rows=_pair,
    parts=parts,
    hub_ids=("ScalerLab/JudgeBench",),
    splits=("gpt",),
    # Of a clone the answers in `outputs/` have the pairs once more.
    patterns=(
        "data/*response_model=gpt-4o*.jsonl",
        "*response_model=gpt-4o*.jsonl",
        "*response_model=*.jsonl",
        "*",
    ),
    folder="judgebench",
    tried_on="both files of its repository, 350 and 270 pairs",
    notes="the pairs of GPT-4o, which its tables are of; those of Claude: --split claude, or the "
    "file itself",
)
