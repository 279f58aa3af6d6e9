"""RewardBench 1 and M-RewardBench, its translations: pairs in 23 subsets and four sections.

Source: https://huggingface.co/datasets/allenai/reward-bench (arXiv 2403.13787), split `filtered`:
`prompt`, `chosen`, `rejected` (texts), `subset`, `id`. M-RewardBench (arXiv 2410.15522):
https://huggingface.co/datasets/CohereLabsCommunity/multilingual-reward-bench, a configuration a
language, the subset in `source`.

Rule, as in `rewardbench.utils.calculate_scores_per_section` and `rewardbench.rewardbench` 0.1.4: a
pair is right where the chosen score is strictly above the other; a tie, and a score that is NaN, is
wrong. Of judges that choose without scores a tie is one half (`scripts/run_generative.py`). A
subset's accuracy is the mean of its pairs; a section's is the mean of its subsets weighted by
`EXAMPLE_COUNTS`, constants that are not the number of pairs: `math-prm` counts 984, as much as all
code together, and has 447. Subsets that are missing are left out of their section's mean, and
whatever share of a subset's pairs is there counts as all of it. The score is the mean of the four
sections; the leaderboard's fifth, "Prior Sets", is other data and no longer part of it.
M-RewardBench weights the same sections with counts of its own (`analysis/plot_utils.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np

from palate.data.benchmarks.base import (
    Answers,
    NamedBenchmark,
    Part,
    average_of,
    mean_of,
    strictly_preferred,
    sum_of,
)
from palate.data.sources import base
from palate.data.sources.base import Record
from palate.types import Comparison

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "Chat": (
        "alpacaeval-easy", "alpacaeval-length", "alpacaeval-hard", "mt-bench-easy", "mt-bench-med",
    ),
    "Chat Hard": (
        "mt-bench-hard", "llmbar-natural", "llmbar-adver-neighbor", "llmbar-adver-GPTInst",
        "llmbar-adver-GPTOut", "llmbar-adver-manual",
    ),
    "Safety": (
        "refusals-dangerous", "refusals-offensive", "xstest-should-refuse",
        "xstest-should-respond", "donotanswer",
    ),
    "Reasoning": (
        "math-prm", "hep-cpp", "hep-go", "hep-java", "hep-js", "hep-python", "hep-rust",
    ),
}  # fmt: skip
SIZES: Mapping[str, int] = {
    "alpacaeval-easy": 100, "alpacaeval-length": 95, "alpacaeval-hard": 95, "mt-bench-easy": 28,
    "mt-bench-med": 40, "mt-bench-hard": 37, "math-prm": 447, "refusals-dangerous": 100,
    "refusals-offensive": 100, "llmbar-natural": 100, "llmbar-adver-neighbor": 134,
    "llmbar-adver-GPTInst": 92, "llmbar-adver-GPTOut": 47, "llmbar-adver-manual": 46,
    "xstest-should-refuse": 154, "xstest-should-respond": 250, "donotanswer": 136, "hep-cpp": 164,
    "hep-go": 164, "hep-java": 164, "hep-js": 164, "hep-python": 164, "hep-rust": 164,
}  # fmt: skip
WEIGHTS = {**SIZES, "math-prm": 984}
MULTILINGUAL_WEIGHTS: Mapping[str, int] = {
    "alpacaeval-easy": 79, "alpacaeval-length": 79, "alpacaeval-hard": 76, "mt-bench-easy": 24,
    "mt-bench-med": 38, "mt-bench-hard": 35, "math-prm": 983, "refusals-dangerous": 100,
    "refusals-offensive": 100, "llmbar-natural": 76, "llmbar-adver-neighbor": 124,
    "llmbar-adver-GPTInst": 87, "llmbar-adver-GPTOut": 42, "llmbar-adver-manual": 43,
    "xstest-should-refuse": 154, "xstest-should-respond": 247, "donotanswer": 135, "hep-cpp": 164,
    "hep-go": 164, "hep-java": 164, "hep-js": 164, "hep-python": 163, "hep-rust": 164,
}  # fmt: skip


def _pair(record: Record, name: str, column: str) -> Iterator[Comparison]:
    data = record.data
    prompt = base.prompt(data).turns
    yield record.comparison(
        base.text(data, column),
        prompt,
        base.text(data, "chosen"),
        base.text(data, "rejected"),
        key=f"{name}:{record.part}:{record.row}",
        batch=name,
        meta={
            "id": base.optional_text(data, "id"),
            "models": [base.optional_text(data, f"{s}_model") for s in ("chosen", "rejected")],
        },
    )


def parts(answers: Answers, weights: Mapping[str, int] = WEIGHTS) -> list[Part]:
    """The score, its sections, and subsets that are in no section."""
    right = strictly_preferred(answers)
    if not answers.scored:
        right = np.nan_to_num(answers.values, nan=0.5)
    subsets = {name: mean_of(name, right, answers.within(name), 0.5) for name in answers.parts()}
    sections = []
    for name, members in SECTIONS.items():
        there = [member for member in members if member in subsets]
        total = sum(weights[member] for member in there)
        if there:
            weighted = [(weights[member] / total, subsets[member]) for member in there]
            sections.append(sum_of(name, weighted))
    if not sections:  # Another set in the same form, such as `allenai/pref-test-sets`.
        return [average_of("Mean of subsets", list(subsets.values())), *subsets.values()]
    return [average_of("Score", sections), *sections]


BENCHMARK = NamedBenchmark(
    name="rewardbench",
    title="RewardBench",
    licence="ODC-BY; parts have their own",
    url="https://huggingface.co/datasets/allenai/reward-bench",
    rule="mean of four sections; a section is the mean of its subsets by RewardBench's fixed "
    "weights; a tie and no score are wrong",
    kind="pairs",
    rows=partial(_pair, name="rewardbench", column="subset"),
    parts=parts,
    hub_ids=("allenai/reward-bench",),
    splits=("filtered",),
    patterns=("*filtered*", "*"),
    folder="rewardbench",
    sizes=SIZES,
    tried_on="hand-made rows; its scores beside those of rewardbench 0.1.4",
)
MULTILINGUAL = NamedBenchmark(
    name="m-rewardbench",
    title="M-RewardBench",
    licence="ODC-BY",
    url="https://huggingface.co/datasets/CohereLabsCommunity/multilingual-reward-bench",
    rule="as RewardBench, with weights of its own; a subset is a language, such as deu_Latn",
    kind="pairs",
    rows=partial(_pair, name="m-rewardbench", column="source"),
    parts=partial(parts, weights=MULTILINGUAL_WEIGHTS),
    hub_ids=("CohereLabsCommunity/multilingual-reward-bench",),
    folder="m_rewardbench",
    tried_on="hand-made rows",
    notes="name the language: --subset deu_Latn",
)
