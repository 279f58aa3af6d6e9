"""Does judging cost more model time than scoring every pair once? Counted, and timed in turns.

    python -m benchmarks.judge_once COMPARISONS [--layers N] [--repeats N]

COMPARISONS is what `palate data import` wrote. The same pairs go through `evaluate`, each asked
once and in both orders, and through `RewardScorer.score`, a prompt with its two responses at a
time. Tokens and seconds are those inside the model's forward. Ends with one JSON line of ratios to
scoring.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.peers.prepare import prepared
from palate.evaluate.benchmark import Benchmark, Order
from palate.evaluate.run import evaluate
from palate.judges.reward_model import RewardScorer
from palate.judges.scorer import ScorerJudge
from palate.records import read_comparisons
from palate.types import Candidates


class Meter:
    """What goes through a scorer's model, and how long it takes there."""

    def __init__(self, scorer: RewardScorer) -> None:
        self.tokens, self.seconds, self._start = 0, 0.0, 0.0
        scorer.model.register_forward_pre_hook(self._enter)
        scorer.model.register_forward_hook(self._leave)

    def of(self, work: Callable[[], object]) -> dict[str, float]:
        """Tokens, model seconds and all seconds of `work`."""
        self.tokens, self.seconds = 0, 0.0
        start = time.perf_counter()
        work()
        whole = time.perf_counter() - start
        return {"tokens": self.tokens, "model_seconds": self.seconds, "seconds": whole}

    def _enter(self, _model: object, given: tuple[Any, ...]) -> None:
        self.tokens += sum(group.tokens for group in given[0])
        self._start = time.perf_counter()

    def _leave(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._start


def main() -> None:
    """Read the size from the command line, take turns, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("comparisons", type=Path)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    scorer = RewardScorer(prepared(given.layers)[0])
    judge, meter = ScorerJudge(scorer), Meter(scorer)
    benchmark = Benchmark("pairs", given.comparisons)
    asked = [Candidates(c.prompt, (c.chosen, c.rejected)) for c in read_comparisons(benchmark.path)]

    def judged(order: Order) -> None:
        with TemporaryDirectory() as folder:
            evaluate(judge, benchmark, Path(folder), order=order)

    works: dict[str, Callable[[], object]] = {
        "score": lambda: list(scorer.score(asked)),
        "judge": lambda: judged("seeded"),
        "judge_both_orders": lambda: judged("both"),
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in works}
    for repeat in range(given.repeats):
        for name, work in works.items():
            found[name].append(meter.of(work))
            print(f"{repeat + 1}/{given.repeats} {name}: {found[name][-1]}", file=sys.stderr)
    base = found.pop("score")
    line = {
        f"{name}_{key}": round(median(o[key] / s[key] for o, s in zip(own, base, strict=True)), 4)
        for name, own in found.items()
        for key in ("tokens", "model_seconds", "seconds")
    }
    size = {"pairs": len(asked), "layers": given.layers, "repeats": given.repeats}
    print(json.dumps({"benchmark": "judge_once", **line, **size}))


if __name__ == "__main__":
    main()
