"""Published figures of judges made again from published answers, item by item, by Palate's scoring.

    python -m benchmarks.originals --data DIR

DIR holds clones of LLMBar, JudgeBench and RM-Bench as `llmbar`, `judgebench` and `rm_bench`; what
is not there is left out. Prints Markdown, which `benchmarks.audits` puts into `docs/audits.md`.
Nothing is asked of a model, and no data are copied but counts.
"""

import argparse
import hashlib
import importlib.util
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from palate import stats
from palate.data.benchmarks import judgebench, llmbar
from palate.data.benchmarks.base import Answers
from palate.report.render import p_value

TITLE = "## Agreement with the originals"
INTRODUCTION = """\
Three repositories publish what judges answered, item by item. Their figures are made again here
from these answers, by Palate's scoring of the same benchmark; each is equal, or the difference is
explained. Where a figure hides something it is said which line of code it comes from, so that it
can be checked in a minute. None of this is a reproach: only those who publish their answers can be
checked at all, and all three do more than the field asks of them.
"""


def answers_of(sources: Sequence[str], clusters: Sequence[Any], by_order: Any) -> Answers:
    """Choices of a judge on N pairs in both orders, [N, 2]: 1 right, 0 wrong, 0.5 tie, NaN none."""
    asked = np.asarray(by_order, dtype=np.float64).reshape(-1, 2)
    scored = ~np.isnan(asked)
    sums, counts = np.where(scored, asked, 0.0).sum(axis=1), scored.sum(axis=1)
    values = np.divide(sums, counts, out=np.full(len(asked), np.nan), where=counts > 0)
    n = len(asked)
    return Answers(
        ids=np.arange(n).astype(str),
        sources=np.array(sources, dtype=object),
        clusters=stats.cluster_codes(clusters),
        values=values,
        by_order=asked,
        starts=np.arange(0, 2 * n + 1, 2),
        scores=np.full(2 * n, np.nan),
        places=np.tile([0, 1], n),
        votes=np.tile([1.0, 0.0, 0.0], (n, 1)),
    )


def value(answer: object, label: str) -> float:
    """1 for the label, 0 for the other side, NaN for what is neither; a tie is 0.5."""
    if answer == "A=B":
        return 0.5
    if answer not in ("1", "2", "A>B", "B>A"):
        return math.nan
    return float(answer == label)


# LLMBar: result.json and statistics.json of each evaluator on each subset.


@dataclass(frozen=True)
class Evaluator:
    """One evaluator on one subset, as published (`stated`) and as made again."""

    name: str
    n: int
    stated: dict[str, Any]
    made: dict[str, float]
    kappa: float
    ties: int
    right: int

    @property
    def is_equal(self) -> bool:
        """Whether accuracy in each order, their mean, both and agreement are the published ones."""
        return all(abs(self.made[key] - percent_of(self.stated[key])) < 1e-6 for key in self.made)

    @property
    def kappa_is_equal(self) -> bool:
        """Whether kappa in the first order is."""
        return abs(self.kappa - self.stated.get("kappa_False", self.kappa)) < 1e-6


def percent_of(text: str) -> float:
    """`94 / 100 = 94.0%` or `94.5%` as a number."""
    return float(re.findall(r"([\d.]+)%", text)[0])


def evaluator(result: Path, root: Path) -> Evaluator:
    """Score the answers of a result file."""
    rows = json.loads(result.read_text(encoding="utf-8"))
    stated = json.loads(result.with_name("statistics.json").read_text(encoding="utf-8"))
    labels = [str(row["label"]) for row in rows]
    said = [
        [row["results"][-1][f"swap = {swap}"]["winner"] for swap in (False, True)] for row in rows
    ]
    by_order = [
        [value(one, label) for one in both] for both, label in zip(said, labels, strict=True)
    ]
    asked = answers_of(["all"] * len(rows), range(len(rows)), by_order)
    (score, *_) = llmbar.parts(asked)
    right = np.nan_to_num(asked.by_order, nan=0.0) == 1
    same = np.array([one == other for one, other in said])
    ratings = [rating(row["results"][-1]) for row in rows]
    return Evaluator(
        name=str(result.parent.relative_to(root)).replace("/evaluators/", " "),
        n=len(rows),
        stated=stated,
        made={
            "correct_False": 100 * right[:, 0].mean(),
            "correct_True": 100 * right[:, 1].mean(),
            "correct_average": 100 * stats.composite(score.terms, asked.clusters).value,
            "correct_both": 100 * right.all(axis=1).mean(),
            "equal": 100 * same.mean(),
        },
        kappa=stats.cohen_kappa([str(both[0]) for both in said], labels).value,
        ties=sum(one is not None and one[0] == one[1] for one in ratings),
        right=sum(
            one is not None and one[0] != one[1] and (one[0] > one[1]) == (label == "1")
            for one, label in zip(ratings, labels, strict=True)
        ),
    )


def rating(answer: dict[str, Any]) -> tuple[int, int] | None:
    """Both scores of an evaluator that rates each output by itself; None of any other."""
    try:
        return int(answer["score_1"][0]), int(answer["score_2"][0])
    except (KeyError, ValueError):
        return None


def of_llmbar(root: Path) -> Iterator[str]:
    """What is equal, and the two things that its figures hide."""
    data = root / "Dataset"
    made = [evaluator(path, data) for path in sorted(data.rglob("evaluators/**/result.json"))]
    equal, kappas = sum(one.is_equal for one in made), sum(one.kappa_is_equal for one in made)
    yield "### LLMBar"
    yield (
        f"{len(made)} evaluators on a subset are published with their answers (`result.json`) and "
        f"figures (`statistics.json`). Accuracy in each order, their mean, *both right* and "
        f"agreement of the orders: **{equal} of {len(made)} are equal to the digit**."
    )
    rated = [one for one in made if one.name.startswith("LLMBar/") and one.name.endswith("/Rating")]
    yield (
        "**Ties of raters.** An evaluator that rates each output by itself can give both the same "
        "score. `evaluate.py` then answers 2 in the first order and 1 in the second, so that the "
        "mean accuracy counts the tie as half right, and the *positional agreement* counts it as a "
        "contradiction between orders, though such an evaluator never sees an order: of a rater it "
        "is one less the share of ties, and says nothing about position. What was published, and "
        "what the same answers say:"
    )
    lines = [
        "| Subset, evaluator | Pairs | Accuracy | Agreement | Right | Wrong | Tied or unread |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for one in rated:
        tied = round(one.n - one.n * one.made["equal"] / 100)
        lines.append(
            f"| {one.name.removeprefix('LLMBar/')} | {one.n} | "
            f"{one.made['correct_average']:.1f} | {one.made['equal']:.1f} | {one.right} | "
            f"{one.n - one.right - tied} | {tied} |"
        )
    yield "\n".join(lines)
    most = max(rated, key=lambda one: one.ties / one.n)
    shown = next((one for one in made if one.name == "LLMBar/Natural GPT-4/Swap"), made[0])
    yield (
        f"{most.name.removeprefix('LLMBar/')} is the clearest: {most.ties} of {most.n} pairs are "
        f"tied, so that an accuracy of {most.made['correct_average']:.1f} is that of a judge which "
        f"says little; of the {most.n - most.ties} pairs that it decides it has {most.right} right."
    )
    yield (
        f"**Kappa.** {len(made) - kappas} of the {len(made)} files state a Cohen's kappa with the "
        "gold labels that cannot be right. The labels are 1 and 2; `evaluate.py` makes the answer "
        '`int(output) if output in ("0", "1") else 0`, so that an answer of 2 becomes 0 and never '
        f"equals a label. {shown.name} is right on {shown.made['correct_False']:.0f} of {shown.n} "
        f"pairs in the first order and states {shown.stated['kappa_False']:.3f}; the same answers "
        f"give {shown.kappa:.3f}. Accuracy and agreement, which its paper reports, are not touched."
    )


# JudgeBench: one file of answers a judge.


def of_judgebench(root: Path) -> Iterator[str]:
    """Its own rule beside each order by itself; what a coin reaches by either."""
    theirs = own_rule(root / "utils" / "metrics.py")
    yield "### JudgeBench"
    lines = [
        "| Judge, answers of | Pairs | By its code | Palate, its rule | Each order, ties half | "
        "First order alone | Ties or none |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    equal = True
    scored: dict[str, tuple[Answers, list[str]]] = {}
    for path in sorted((root / "outputs").glob("*.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        rows.sort(key=lambda row: row["pair_id"])
        stated, asked = theirs(rows, True), both_orders(rows)
        score = stats.composite(judgebench.parts(asked)[0].terms, asked.clusters)
        each = stats.accuracy(asked.values, asked.clusters)
        equal &= abs(100 * score.value - stated) < 1e-9
        judge, of = named(path)
        scored[judge] = asked, [row["pair_id"] for row in rows]
        lines.append(
            f"| {judge}, {of} | {len(rows)} | {stated:.2f} | {figure(score)} | {figure(each)} | "
            f"{theirs(rows, False):.2f} | {undecided(rows)} |"
        )
    word = "equal to the digit" if equal else "**not** equal in each row"
    yield (
        "The answers of some judges are in its `outputs/`. Its own `compute_final_metrics` beside "
        f"Palate's scoring by the same rule: {word}. (Files above a few megabytes were not in the "
        "snapshot that was read.)"
    )
    yield "\n".join(lines)
    yield (
        "**What a coin reaches.** By its rule a pair is right where more of the two orders are "
        "right than wrong. A judge that answers alike in both orders, as a reward model does, "
        "reaches 50 by guessing. One that throws a coin in each order is right in both one "
        "time in four and reaches 25. So the rule puts reward models and prompted judges on two "
        "scales, and *random guessing*, against which its abstract reads the latter, is 50 for the "
        "former alone. *Each order, ties half* has chance 50 for both."
    )
    if {PROMPTED, SCALAR} <= scored.keys() and scored[PROMPTED][1] == scored[SCALAR][1]:
        yield leads(scored[PROMPTED][0], scored[SCALAR][0])
    yield (
        "**Ties of reward models.** `utils/judges.py` decides `'A>B' if score_A > score_B else "
        "'B>A'`: equal scores, three of Skywork-Reward-Gemma-2-27B and one of "
        "Skywork-Reward-Llama-3.1-8B, both run in bfloat16, are an answer B>A in both orders. All "
        "four have the label A>B and count as wrong. Asked in one order, as `--single_game` offers "
        "for reward models, a tie is right wherever the label is B>A."
    )


PROMPTED, SCALAR = "o1-mini-2024-09-12", "Skywork-Reward-Gemma-2-27B"


def leads(prompted: Answers, scalar: Answers) -> str:
    """How far a prompted judge is ahead of a reward model by either reading, on the same pairs."""
    rng = np.random.default_rng(0)
    one, other = judgebench.parts(prompted)[0].terms, judgebench.parts(scalar)[0].terms
    rule = stats.paired_difference(one[0].values, other[0].values, prompted.clusters, rng)
    each = stats.paired_difference(prompted.values, scalar.values, prompted.clusters, rng)
    return (
        f"On the same {prompted.size} pairs {PROMPTED} is {lead(rule)} points ahead of {SCALAR} by "
        f"the rule, and {lead(each)} where each order counts by itself. Neither reading is wrong; "
        "a table should say which one it is, and what a coin reaches by it."
    )


def lead(difference: stats.PairedDifference) -> str:
    """A difference in points with its interval and p."""
    e = difference.estimate
    ends = f"{100 * e.low:.1f} to {100 * e.high:.1f}"
    return f"{100 * e.value:.1f} ({ends}, {p_value(difference.p_value)})"


def both_orders(rows: Sequence[dict[str, Any]]) -> Answers:
    """What a file of answers says, the prompt as cluster."""
    by_order = []
    for row in rows:
        first, second = ((one or {}).get("decision") for one in row["judgments"])
        by_order.append([value(first, row["label"]), value(turned(second), row["label"])])
    parts = [next(s for s in judgebench.SOURCES if r["source"].startswith(s)) for r in rows]
    return answers_of(parts, [row["question"] for row in rows], by_order)


def undecided(rows: Sequence[dict[str, Any]]) -> int:
    """Pairs with a tie or no answer in an order: of reward models, equal scores."""
    count = 0
    for row in rows:
        said = [(one or {}).get("decision") for one in row["judgments"]]
        told = (row["judgments"][0] or {}).get("judgment")
        scores = told.get("scores", (0, 1)) if isinstance(told, dict) else (0, 1)
        count += scores[0] == scores[1] or any(one not in ("A>B", "B>A") for one in said)
    return count


def own_rule(path: Path) -> Callable[[list[dict[str, Any]], bool], float]:
    """`compute_final_metrics` of the clone itself, which imports nothing but typing."""
    spec = importlib.util.spec_from_file_location("judgebench_metrics", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rule: Callable[[list[dict[str, Any]], bool], float] = module.compute_final_metrics
    return rule


def turned(decision: str | None) -> str | None:
    """The answer in the reversed order, of the sides as they stood."""
    return {"A>B": "B>A", "B>A": "A>B"}.get(decision or "", decision)


def named(path: Path) -> tuple[str, str]:
    """Judge and response model by the name of an output file."""
    facts = dict(part.split("=", 1) for part in path.stem.split(","))
    of = "GPT-4o" if facts["response_model"].startswith("gpt-4o") else "Claude 3.5 Sonnet"
    return facts["judge_model"].split("_", 1)[-1], of


def figure(estimate: stats.Estimate) -> str:
    """Value and interval in percent."""
    return f"{100 * estimate.value:.2f} ± {100 * estimate.half_width:.1f}"


# RM-Bench: a figure in its README beside the rule that stands above it.


def of_rm_bench(root: Path) -> Iterator[str]:
    """The overall figures of DPSK-R1 beside the mean of their four domains."""
    text = (root / "README.md").read_text(encoding="utf-8")
    yield "### RM-Bench"
    lines = [
        "| DPSK-R1 | Chat | Code | Math | Safety | Mean of the four | Stated |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in ("RM-Bench-All", "RM-Bench-Hard"):
        block = text.split(f"#### {name}", 1)[1].split("####", 1)[0]
        found = dict(re.findall(r"\*\*(\w+):\*\* ([\d.]+)", block))
        domains = [float(found[key]) for key in ("Chat", "Code", "Math", "Safety")]
        cells = " | ".join(f"{one:.2f}" for one in domains)
        lines.append(f"| {name} | {cells} | {sum(domains) / 4:.3f} | {found['All']} |")
    yield (
        "Its README states the rule *Overall = (Chat + Code + Math + Safety) / 4*, and that the "
        "averages should then always be equal. Of the figures that it announces for DPSK-R1 one "
        "follows the rule and one does not: the four *Hard* figures have the mean 79.915 (as they "
        "are printed, 79.91 to 79.92), and 80.24 is stated. One of the five must be another; "
        "which one cannot be told without the answers, which are not published."
    )
    yield "\n".join(lines)


OF = {"llmbar": of_llmbar, "judgebench": of_judgebench, "rm_bench": of_rm_bench}
READ = {
    "llmbar": "Dataset/**/*.json",
    "judgebench": "outputs/*.jsonl",
    "rm_bench": "README.md",
}


def section(data: Path) -> str:
    """The section of all that is there; empty where nothing is."""
    there = [name for name in OF if (data / name).is_dir()]
    if not there:
        return ""
    paragraphs = [TITLE, INTRODUCTION.rstrip()]
    for name in there:
        paragraphs += OF[name](data / name)
        count, digest = sums(data / name, READ[name])
        paragraphs.append(
            f"Read: {count} {'file' if count == 1 else 'files'} `{READ[name]}` of its repository, "
            f"sha256 of their `sha256sum` lines `{digest}`."
        )
    paragraphs.append("Made by `python -m benchmarks.originals --data DIR`.")
    return "\n\n".join(paragraphs) + "\n"


def sums(root: Path, pattern: str) -> tuple[int, str]:
    """How many files match, and the sha256 of the lines of `sha256sum` of them in order."""
    files = sorted(path for path in root.glob(pattern) if path.is_file())
    lines = "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(root)}\n"
        for path in files
    )
    return len(files), hashlib.sha256(lines.encode()).hexdigest()


def main() -> None:
    """Print the section."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    print(section(options.data) or f"{options.data}: none of {', '.join(OF)} is there")


if __name__ == "__main__":
    main()
