"""Learning from ties, votes, annotators and rankings beside leaving them out; one JSON line.

    python -m benchmarks.judgements [--quick] [--backbone small] [--seeds 5] [--out FOLDER]

Needs no peer and no data: truth is simulated. What is compared: benchmarks/README.md. Every
training is appended to FOLDER/trainings.jsonl as it ends, and the next call goes on after it.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.judgements import arms, figures, learn
from palate.train.options import Trainable

FOLDER = Path(__file__).parents[1] / ".work" / "judgements"
TOKENIZER_SEED = 20_000


@dataclass(frozen=True)
class Size:
    """How much of what is learnt, by which model, and on how many pairs it is asked."""

    backbone: str
    cost: int
    steps: int
    epochs: int
    asked: int
    learning_rate: float
    head_learning_rate: float
    last_layers: int | None = None

    def start(self) -> learn.Start:
        """Makes an untrained model of a seed."""
        if self.backbone == "small":
            return learn.small_model(list(arms.texts(TOKENIZER_SEED)))
        return learn.smollm2(layers=3)

    def options(self) -> dict[str, Any]:
        """What the trainer is told besides."""
        rates = {"learning_rate": self.learning_rate, "head_learning_rate": self.head_learning_rate}
        which = Trainable(last_layers=self.last_layers) if self.last_layers else "full"
        return {**rates, "trainable": which}


SIZES = {
    "small": Size("small", 1_800, 100, 2, 800, 1e-3, 1e-3),
    "smollm2": Size("smollm2", 600, 40, 1, 600, 2e-4, 2e-3, 2),
}
QUICK = {
    "small": Size("small", 120, 8, 1, 60, 1e-3, 1e-3),
    "smollm2": Size("smollm2", 48, 3, 1, 30, 2e-4, 2e-3, 2),
}


def trainings(
    size: Size, seeds: int, questions: list[str], done: set[str]
) -> Iterator[figures.Training]:
    """Train every arm that is not `done`, seed by seed, and ask it."""
    start = size.start()
    asked = arms.test_set(size.asked)
    ids = [comparison.id for comparison in asked]
    with TemporaryDirectory(prefix="palate-judgements-") as folder:
        tokens = learn.tokens(start(0), asked, Path(folder), "asked")
        for seed, question in product(range(seeds), questions):
            for arm in arms.arms_of(question, seed, size.cost):
                if figures.key(question, arm.name, seed) in done:
                    continue
                model = start(seed)
                before = time.process_time()
                # Of the same rows as the arm before, they are not tokenised again.
                examples = learn.tokens(model, arm.rows, Path(folder), "trained")
                rows, tie_share = learn.learn(
                    model, arm, examples, size.steps, size.epochs, seed, **size.options()
                )
                gaps = learn.differences(model, tokens, ids)
                yield figures.Training(
                    question=question,
                    arm=arm.name,
                    seed=seed,
                    loss=arm.loss,
                    cost=arm.cost,
                    rows=rows,
                    tie_share=tie_share,
                    processor_seconds=round(time.process_time() - before, 1),
                    differences=[round(gap, 5) for gap in gaps],
                )


def main() -> None:
    """Read the size from the command line, train what is missing, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that it runs")
    parser.add_argument("--backbone", choices=list(SIZES), default="small")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--questions", nargs="+", choices=list(arms.QUESTIONS), default=list(arms.QUESTIONS)
    )
    parser.add_argument("--out", type=Path, help="where trainings are kept")
    given = parser.parse_args()
    size = (QUICK if given.quick else SIZES)[given.backbone]
    folder = given.out or FOLDER / (f"{given.backbone}-quick" if given.quick else given.backbone)
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "trainings.jsonl"
    done = figures.read(kept)
    for made in trainings(size, given.seeds, given.questions, {t.key for t in done}):
        with kept.open("a", encoding="utf-8") as file:
            file.write(json.dumps(made.__dict__) + "\n")
        done.append(made)
        print(f"{made.key}: {made.processor_seconds} s of processor", file=sys.stderr)
    asked = arms.test_set(size.asked)
    line = {"benchmark": "judgements", "backbone": given.backbone, "quick": given.quick}
    print(json.dumps({**line, **size.__dict__, **figures.summary(done, asked)}))


if __name__ == "__main__":
    main()
