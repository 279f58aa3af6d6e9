"""What a recipe leaves unsaid of training follows from the number of rows and the base's size.

The paper's 512 comparisons a step and 1e-5 suit millions of comparisons and billions of weights.
Of 300 rows they make one step, all of it warm-up, which teaches nothing. What a recipe states
always wins, and the recipes that come with Palate state everything.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate.model.options import BaseOptions
from palate.records import has_values, read_batches, read_header
from palate.train.options import Trainable, TrainOptions
from palate.types import Judgement

FOLLOWING = (
    "pairs_per_step", "epochs", "warmup_steps_min", "learning_rate", "head_learning_rate",
    "trainable",
)  # fmt: skip
"""The keys of `train` that follow where they are not stated; of `backbone`, `layers` does."""
STEPS_WANTED = 36
STEPS_OF_A_HEAD = 100  # They cost a third, and over-fit less.
MOST_EPOCHS = 3  # The paper trains one, for longer over-fits; few rows need to be seen again.
FEWEST_PAIRS, MOST_PAIRS = 8, 512
LEAST_TAUGHT = 10
"""Steps at the full rate below which the report says that nothing can have been learnt."""
# Peak rate by the number of parameters below. Measured: the first, on the first layers of
# SmolLM2-135M (LOG.md). The paper's: the last two. Between them assumed.
RATES = ((1e8, 2e-4), (1e9, 5e-5), (7e9, 2e-5), (5e10, 1e-5), (math.inf, 5e-6))
RATE_OF_ADAPTERS = 1e-4  # Low-rank adapters take a higher rate than the weights; assumed.
HEAD_RATE = 10  # The head is fresh where the backbone is trained (LOG.md, the demo).
# Of the embedded base, measured (LOG.md, the sweep of 2026-11-28). Up to so many rows, a head on
# two thirds of its layers as they are learns more than layers do, and is surer of less. Between
# them and 10,000 rows the first layers learn more than all 30.
HEAD_ROWS, HEAD_LAYERS, HEAD_ALONE_RATE = 2_000, 20, 5e-3
FEW_ROWS, FEW_LAYERS = 10_000, 6


@dataclass(frozen=True, slots=True)
class Course:
    """How many steps a training takes, of how many comparisons, and how many only warm up."""

    rows: int
    pairs_per_step: int
    epochs: int
    steps: int
    warmup: int

    @classmethod
    def of(cls, options: TrainOptions, rows: int) -> Course:
        """The course of `options` over `rows` comparisons."""
        steps = math.ceil(rows / options.pairs_per_step) * options.epochs
        warmup = options.warmup_steps(steps)
        return cls(rows, options.pairs_per_step, options.epochs, steps, warmup)

    def __str__(self) -> str:
        """`300 rows: 38 steps of 8 pairs (1 epoch), 4 of them warm-up`."""
        pairs = min(self.pairs_per_step, self.rows)
        return (
            f"{self.rows:,} rows: {_several(self.steps, 'step')} of {_several(pairs, 'pair')} "
            f"({_several(self.epochs, 'epoch')}), {self.warmup:,} of them warm-up"
        )

    @property
    def trouble(self) -> str:
        """Why these steps cannot teach, with the cure; empty where they can."""
        return trouble(self.steps, self.steps - self.warmup)


def trouble(steps: int, taught: int) -> str:
    """Why a training of `steps`, `taught` of them after warm-up, cannot teach; empty if it can."""
    if taught >= LEAST_TAUGHT:
        return ""
    after = "none" if taught < 1 else f"only {taught}"
    return (
        f"{after} of {_several(steps, 'step')} after warm-up, too few to teach a model; "
        "collect more comparisons, or set a smaller train.pairs_per_step or more train.epochs"
    )


def learnable(mixture: Path, loss: str) -> tuple[int, int]:
    """Comparisons of a mixture file that a loss learns from, and those of its longest ranking.

    The ranking loss leaves ties out. A file without ties and rankings is not read.
    """
    rows = read_header(mixture, "comparisons").rows
    if not (has_values(mixture, "judgement") or has_values(mixture, "ranks")):
        return rows, 0
    ties, rankings = 0, Counter[tuple[str, str]]()
    columns = ["prompt_id", "judgement", "ranks"]
    for batch in read_batches(mixture, columns, "comparisons"):
        for row in batch.to_pylist():
            judgement, ranks = row["judgement"], row["ranks"]
            if loss == "ranking" and judgement and Judgement(**judgement).decides == "tie":
                ties += 1
            elif ranks:
                rankings[row["prompt_id"], ranks["ranking"]] += 1
    return rows - ties, max(rankings.values(), default=0)


def follow(
    train: TrainOptions,
    base: BaseOptions,
    rows: int,
    size: Callable[[BaseOptions], int] | None,
    *,
    together: int = 0,
) -> tuple[TrainOptions, BaseOptions]:
    """The options with what they do not state filled in; what they state stays as it is.

    - `pairs_per_step`: the power of two nearest to sqrt(rows) / 2, between 8 and 512. So 8 of up
      to 500 rows, 16 of 1,000, 64 of 16,000, and the paper's 512 from half a million on. At least
      `together`.
    - `epochs`: as many as make 36 steps, 100 where the head alone learns; at most 3.
    - `warmup_steps_min`: the paper's 5, or a tenth of the steps where that is less.
    - `learning_rate`: by the number of parameters (`RATES`); the head's is ten times that.
    - `backbone.layers`, `trainable`: of the embedded base, up to 2,000 rows the first 20 layers,
      which stay as they are under a head that learns at 5e-3; then up to 10,000 rows the first 6,
      which learn. Where `trainable` or `learning_rate` is stated, 6 from the start.
      A base that is stated keeps all layers, and all learn.

    Pure: the same arguments give the same options. Where `learning_rate` is stated, the head's
    is what it says of itself (`TrainOptions`).

    Args:
        rows: comparisons to train on.
        size: gives the number of parameters of a base; None leaves the rates as they are. Called
            only where a rate follows.
        together: comparisons of the longest ranking, which are learnt in one step.
    """
    stated = train.model_fields_set
    derived: dict[str, Any] = {}
    head_alone = False
    if not {"model", "layers"} & base.model_fields_set:
        head_alone = rows <= HEAD_ROWS and not {"trainable", "learning_rate"} & stated
        few = HEAD_LAYERS if head_alone else FEW_LAYERS
        base = base.model_copy(update={"layers": few if rows <= FEW_ROWS else None})
    if "pairs_per_step" not in stated:
        power = round(math.log2(max(1.0, math.sqrt(rows) / 2)))
        derived["pairs_per_step"] = max(min(max(FEWEST_PAIRS, 2**power), MOST_PAIRS), together)
    pairs = derived.get("pairs_per_step", train.pairs_per_step)
    if "epochs" not in stated:
        wanted = STEPS_OF_A_HEAD if head_alone else STEPS_WANTED
        derived["epochs"] = min(MOST_EPOCHS, math.ceil(wanted / math.ceil(rows / pairs)))
    if "warmup_steps_min" not in stated:
        steps = math.ceil(rows / pairs) * derived.get("epochs", train.epochs)
        derived["warmup_steps_min"] = min(train.warmup_steps_min, math.ceil(steps / 10))
    if head_alone:
        derived["trainable"] = Trainable(last_layers=0)
        derived["learning_rate"] = HEAD_ALONE_RATE / HEAD_RATE  # Of the final norm.
    elif size is not None and "learning_rate" not in stated:
        parameters = size(base)
        derived["learning_rate"] = next(rate for below, rate in RATES if parameters < below)
        if train.trainable != "full" and train.trainable.lora is not None:
            derived["learning_rate"] = RATE_OF_ADAPTERS
    if "learning_rate" in derived and "head_learning_rate" not in stated:
        derived["head_learning_rate"] = HEAD_RATE * derived["learning_rate"]
    return train.model_copy(update=derived), base


def follows(train: TrainOptions, base: BaseOptions) -> bool:
    """Whether anything is left to follow."""
    unsaid = set(FOLLOWING) - {"head_learning_rate", "trainable"} - train.model_fields_set
    return bool(unsaid) or not {"model", "layers"} & base.model_fields_set


def _several(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
