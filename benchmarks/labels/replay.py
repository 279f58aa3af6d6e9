"""The same rounds replayed on comparisons that people labelled before: Anthropic's, one JSON line.

    python -m benchmarks.labels.replay [--data DIR] [--pools helpful-online ...] [--tests N]
                                       [--states smollm2|words] [--layers 16] [--orders 20]
                                       [--out FOLDER]

A pool is a batch of Anthropic HH, whose labels are shown when they are asked for; every head is
asked all of helpful-base, or N of it, of whose prompts none is in a pool. What differs between
orders is the draws; people's labels are what they are. Everything is kept in FOLDER, as by
`python -m benchmarks.labels`.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from benchmarks.labels import figures
from benchmarks.labels.__main__ import FOLDER, arm_of
from benchmarks.labels.pools import LAYERS, Backbone, reduced, words
from benchmarks.labels.rounds import ARMS, RANDOM, Plan
from palate.data.sources import open_source
from palate.data.sources.base import PROMPTS_DIFFER, Request
from palate.types import Comparison

TEST, POOLS = "helpful-base", ("helpful-online", "helpful-rejection-sampled")
TOKENS, ROUNDS, SHARE = 1_024, 12, 0.05
"""A round asks for this share of the pool's prompts."""
AT = 9
KNOWN = [name for name, arm in ARMS.items() if arm.worth != "doubt known"]  # Nobody knows it here.


def batch(name: str, data: Path) -> list[Comparison]:
    """The rows of a batch that are comparisons, each once; the same texts twice are dropped."""
    rows = open_source("anthropic-hh", Request(location=data / "anthropic_hh", subset=name))
    kept = [row for row in rows if isinstance(row, Comparison) and row.chosen != row.rejected]
    same = [row for row in kept if PROMPTS_DIFFER not in row.meta]
    return list({row.id: row for row in same}.values())


def longer(rows: list[Comparison]) -> float:
    """How often the longer response is the better one, in %."""
    return round(100 * float(np.mean([len(r.chosen) > len(r.rejected) for r in rows])), 1)


def main() -> None:
    """Read what is asked for, make what is missing, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=os.environ.get("PALATE_DATA"))
    parser.add_argument("--pools", nargs="+", choices=POOLS, default=POOLS[:1])
    parser.add_argument("--arms", nargs="+", choices=KNOWN, default=KNOWN)
    parser.add_argument("--tests", type=int, help="pairs of helpful-base, at random; default all")
    parser.add_argument("--states", choices=("smollm2", "words"), default="smollm2")
    parser.add_argument("--layers", type=int, default=LAYERS, help="of SmolLM2's 30")
    parser.add_argument("--orders", type=int, default=20)
    parser.add_argument("--out", type=Path, default=FOLDER / "replay")
    given = parser.parse_args()
    if given.data is None:
        parser.error("name the data's folder with --data or PALATE_DATA")
    tests = batch(TEST, given.data)
    prompts = {row.prompt_id for row in tests}
    if given.tests:
        tests = Random(0).sample(tests, given.tests)
    rows = [row for name in given.pools for row in batch(name, given.data)]
    rows = [row for row in rows if row.prompt_id not in prompts]
    if given.states == "words":
        both = words([*rows, *tests])
        inside = np.arange(len(both)) < len(rows)
        pool, asked = reduced(both.where(inside), both.where(~inside), even=False)
    else:
        backbone = Backbone(TOKENS, given.layers)
        of_tests = backbone.pairs(tests, given.out / f"{TEST}-{given.layers}")
        of_pool = backbone.pairs(rows, given.out / f"{'-'.join(given.pools)}-{given.layers}")
        pool, asked = reduced(of_pool, of_tests)
    said = f"{given.states}-{given.layers}" if given.states == "smollm2" else "words"
    plan = Plan(ROUNDS, round(SHARE * (int(pool.prompts.max()) + 1)))
    found: dict[str, Any] = {}
    for name in [RANDOM, *(name for name in given.arms if name != RANDOM)]:
        kind = f"{said}-{'-'.join(given.pools)}-{name.replace(', ', '-').replace(' ', '-')}"
        found[name] = {
            order: arm_of(name, pool, asked, plan, order, 1, given.out / f"{kind}-{order}.json")
            for order in range(given.orders)
        }
    line = {
        "benchmark": "labels.replay", "pools": given.pools, "states": said, "pairs": len(pool),
        "prompts": int(pool.prompts.max()) + 1, "asked": len(asked),
        "longer_wins": {"pool": longer(rows), "asked": longer(tests)},
        **figures.summary(found, AT),
    }  # fmt: skip
    print(json.dumps(line))


if __name__ == "__main__":
    main()
