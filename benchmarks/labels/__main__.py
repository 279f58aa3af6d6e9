"""Labels that a selection asks for beside random ones, where the truth is known; one JSON line.

    python -m benchmarks.labels [--seeds 5] [--repetitions 6] [--worlds NAME ...]
                                [--out FOLDER] [--quick]

Needs no data. What is measured: benchmarks/README.md. States of a campaign are made once, and every
arm of every seed is a file of FOLDER as it ends: the next call goes on after it. What
`benchmarks.labels.flips FOLDER/flips` found is in the line, where it was asked. Progress goes to
stderr.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from benchmarks.labels import figures, flips, unbiased
from benchmarks.labels.pools import Backbone, Pairs, campaign, linear, split, words
from benchmarks.labels.rounds import AGAIN, ARMS, GAIN, INFORMATION, RANDOM, Plan, play
from palate.data.simulation import CampaignTask
from palate.records import write_json

FOLDER = Path(__file__).parents[1] / ".work" / "labels"


@dataclass(frozen=True, slots=True)
class World:
    """A pool: of a campaign's task with states of some backbone, or `linear`, made up.

    `at`: the last round of random labels that are to be reached. The plan goes beyond it, so that
    an arm that needs more labels than random is seen.
    """

    task: CampaignTask | None
    states: Literal["smollm2", "words", "linear"]
    pairs: int
    plan: Plan
    at: int = 9

    def split(self, seed: int, folder: Path, backbone: Backbone) -> tuple[Pairs, Pairs]:
        """The pool of a seed and what is held out of it."""
        if self.task is None:
            pairs = linear(self.pairs, seed)
        elif self.states == "words":
            pairs = words(campaign(self.task, seed, self.pairs))
        else:
            rows = campaign(self.task, seed, self.pairs)
            pairs = backbone.pairs(rows, folder / f"states-{seed}")
        return split(pairs, HELD_OUT, seed, even=self.states != "words")


WORLDS = {
    "linear": World(None, "linear", 6_000, Plan(14, 40)),
    "helpfulness-smollm2": World("helpfulness", "smollm2", 3_000, Plan(12, 24, reserve=0.15)),
    "helpfulness-words": World("helpfulness", "words", 3_000, Plan(12, 24, reserve=0.15)),
    "safety-words": World("safety", "words", 3_000, Plan(12, 40)),
}
QUICK_PAIRS, QUICK_PLAN, QUICK_AT = 480, Plan(2, 10), 1
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


def world_of(
    world: World, seeds: int, repetitions: int, arms: Sequence[str], folder: Path
) -> dict[str, Any]:
    """All arms of all seeds of one world."""
    backbone = Backbone(max_tokens=256)
    found: dict[str, dict[int, Any]] = {name: {} for name in arms}
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(seeds):
        pool, asked = world.split(seed, folder, backbone)
        for name in arms:
            path = folder / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}.json"
            found[name][seed] = arm_of(name, pool, asked, world.plan, seed, repetitions, path)
    return figures.summary(found, world.at)


def main() -> None:
    """Read what is asked for, make what is missing, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--repetitions", type=int, default=6, help="of labels and draws, a seed")
    parser.add_argument("--worlds", nargs="*", choices=list(WORLDS), default=list(WORLDS))
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
    for name in given.worlds:
        world = WORLDS[name]
        if given.quick:
            world = replace(world, pairs=QUICK_PAIRS, plan=QUICK_PLAN, at=QUICK_AT)
        found = world_of(world, seeds, repetitions, arms, folder / name)
        line[name] = found
        line.setdefault("labels_to_reach", {})[name] = {
            arm: found[arm]["labels_to_reach"] for arm in (INFORMATION, GAIN, AGAIN) if arm in found
        }
        line.setdefault("coverage_of_rewards", {})[name] = {
            arm: found[arm]["covered"] for arm in (RANDOM, INFORMATION) if arm in found
        }
    audited = folder / "flips" / "flips.jsonl"  # Of `python -m benchmarks.labels.flips`.
    if audited.is_file():
        rows = [json.loads(one) for one in audited.read_text(encoding="utf-8").splitlines()]
        found = flips.summary(rows)
        line["flip_precision_at_recall_50"] = found["flip_precision_at_recall_50"]
    print(json.dumps(line))


if __name__ == "__main__":
    main()
