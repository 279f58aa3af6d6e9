"""Labels that a selection asks for beside random ones, where the truth is known; one JSON line.

    python -m benchmarks.labels [--seeds 5] [--repetitions 6] [--tasks linear helpfulness safety]
                                [--out FOLDER] [--quick]

Needs no data. What is measured: benchmarks/README.md. States of a campaign are made once, and every
arm of every seed is a file of FOLDER as it ends: the next call goes on after it. Progress goes to
stderr.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.labels import figures, unbiased
from benchmarks.labels.pools import Backbone, Pairs, campaign, linear, split
from benchmarks.labels.rounds import AGAIN, ARMS, GAIN, INFORMATION, RANDOM, Plan, play
from palate.records import write_json

FOLDER = Path(__file__).parents[1] / ".work" / "labels"
TASKS = ("linear", "helpfulness", "safety")
"""`linear`: no campaign but a made-up world, whose truth a head can learn whole."""
PAIRS, QUICK_PAIRS = {"linear": 6_000, "helpfulness": 6_000, "safety": 2_000}, 240
# The last rounds go beyond `AT`, so that an arm that needs more labels than random is seen.
PLAN, AT = Plan(rounds=14, pairs_per_round=40), 9
QUICK_PLAN, QUICK_AT = Plan(rounds=2, pairs_per_round=10), 1
HELD_OUT, REPLICATES = 0.2, 2_000


def arm_of(
    name: str, pool: Pairs, asked: Pairs, plan: Plan, seed: int, repetitions: int, path: Path
) -> list[list[dict[str, Any]]]:
    """The rounds of all repetitions of an arm and seed, from its file where they are there."""
    found: list[list[dict[str, Any]]] = (
        json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    )
    if len(found) < repetitions:
        begun = time.process_time()
        for repetition in range(len(found), repetitions):
            found.append(list(play(pool, asked, ARMS[name], plan, seed, repetition)))
        write_json(path, found)
        spent = time.process_time() - begun
        print(f"{path.stem}: {found[0][-1]['accuracy']:.3f}, {spent:.0f} s", file=sys.stderr)
    return found[:repetitions]


def task_of(
    task: Any, seeds: int, repetitions: int, arms: Sequence[str], folder: Path, quick: bool
) -> dict[str, Any]:
    """All arms of all seeds of one campaign's kind."""
    backbone = Backbone(max_tokens=256)
    plan, at = (QUICK_PLAN, QUICK_AT) if quick else (PLAN, AT)
    found: dict[str, dict[int, Any]] = {name: {} for name in arms}
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(seeds):
        size = QUICK_PAIRS if quick else PAIRS[task]
        if task == "linear":
            pairs = linear(size, seed)
        else:
            pairs = backbone.pairs(campaign(task, seed, size), folder / f"states-{seed}")
        pool, asked = split(pairs, HELD_OUT, seed)
        for name in arms:
            path = folder / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}.json"
            found[name][seed] = arm_of(name, pool, asked, plan, seed, repetitions, path)
    return figures.summary(found, at)


def main() -> None:
    """Read what is asked for, make what is missing, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--repetitions", type=int, default=6, help="of labels and draws, a seed")
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=TASKS)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--replicates", type=int, default=REPLICATES, help="of `unbiasedness`")
    parser.add_argument("--quick", action="store_true", help="little, to see that it runs")
    parser.add_argument("--out", type=Path, help="where states and rounds are kept")
    given = parser.parse_args()
    folder = given.out or FOLDER / ("quick" if given.quick else "whole")
    seeds, repetitions = (2, 2) if given.quick else (given.seeds, given.repetitions)
    arms = [RANDOM, *(name for name in given.arms if name != RANDOM)]
    replicates = 100 if given.quick else given.replicates
    made = list(unbiased.simulated(replicates, folder / "unbiased.jsonl"))
    line: dict[str, Any] = {"benchmark": "labels", "quick": given.quick}
    line["unbiasedness"] = unbiased.summary(made)
    for task in given.tasks:
        found = task_of(task, seeds, repetitions, arms, folder / task, given.quick)
        line[task] = found
        line.setdefault("labels_to_reach", {})[task] = {
            name: found[name]["labels_to_reach"]
            for name in (INFORMATION, GAIN, AGAIN) if name in found
        }  # fmt: skip
        line.setdefault("coverage_of_rewards", {})[task] = {
            name: found[name]["covered"] for name in (RANDOM, INFORMATION) if name in found
        }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
