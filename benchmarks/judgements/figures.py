"""What the trainings say: accuracy against the truth, paired differences, strengths, ties."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.judgements.arms import QUESTIONS
from palate import stats
from palate.stats import Estimate
from palate.types import Comparison

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Training:
    """An arm learnt with a seed, and its reward differences on the pairs that all are asked."""

    question: str
    arm: str
    seed: int
    loss: str
    cost: int
    rows: int
    tie_share: float | None
    processor_seconds: float
    differences: list[float]

    @property
    def key(self) -> str:
        """Names it among all trainings."""
        return key(self.question, self.arm, self.seed)


def key(question: str, arm: str, seed: int) -> str:
    """Names a training."""
    return f"{question}, {arm}, seed {seed}"


def read(path: Path) -> list[Training]:
    """The trainings in a file; none where it is not there."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Training(**json.loads(line)) for line in lines]


def right(differences: Array, truth: Array) -> Array:
    """1 where a reward difference has the sign of the truth, 0 where not, 1/2 where it is 0.

    NaN where there is no truth: both responses are worth the same.
    """
    same = (differences > 0) == (truth > 0)
    values = np.where(differences == 0, 0.5, same.astype(np.float64))
    return np.where(truth == 0, math.nan, values)


def over_seeds(values: Sequence[float] | Array) -> dict[str, float | None]:
    """The mean of a figure over seeds with its 95 % interval, Student's t."""
    return interval(stats.clustered_mean(values))


def interval(found: Estimate) -> dict[str, float | None]:
    """Value and interval, rounded for the line; None where one seed has no interval."""
    ends = {name: getattr(found, name) for name in ("value", "low", "high")}
    return {name: round(end, 4) if math.isfinite(end) else None for name, end in ends.items()}


def summary(trainings: Sequence[Training], asked: Sequence[Comparison]) -> dict[str, Any]:
    """Every arm's figures, and every comparison of two, on the seeds that a question has whole."""
    truth = np.array([c.meta["utility_difference"] for c in asked])
    prompts = [c.prompt_id for c in asked]
    shares = np.array([c.judgement.shares for c in asked])
    best = stats.tie_model(truth, shares)
    made: dict[str, Any] = {
        "pairs": int((truth != 0).sum()),
        "prompts": len(set(prompts)),
        "share_of_ties": round(float(shares[:, 1].mean()), 4),
        "threshold_by_truth": round(best.threshold, 4) if best else None,
    }
    for name, question in QUESTIONS.items():
        by_arm: dict[str, dict[int, Training]] = {}
        for training in trainings:
            if training.question == name:
                by_arm.setdefault(training.arm, {})[training.seed] = training
        if not by_arm:
            continue
        seeds = sorted(set.intersection(*(set(of_seed) for of_seed in by_arm.values())))
        tables = {
            arm: np.array([of_seed[seed].differences for seed in seeds])
            for arm, of_seed in by_arm.items()
        }
        values = {arm: right(table, truth) for arm, table in tables.items()}
        arms = {
            arm: {
                **of_arm(by_arm[arm][seeds[0]]),
                **accuracy(values[arm], prompts),
                **strengths(tables[arm], truth),
                **ties(tables[arm], shares, prompts, [by_arm[arm][seed] for seed in seeds]),
            }
            for arm in tables
        }
        compared = {
            f"{first} - {second}": {
                **difference(values[first], values[second], prompts),
                "correlation": over_seeds(
                    correlations(tables[first], truth) - correlations(tables[second], truth)
                ),
            }
            for first, second in question.compared
            if first in values and second in values
        }
        made[name] = {"seeds": len(seeds), "cost": question.cost, "arms": arms, "paired": compared}
    return made


def of_arm(training: Training) -> dict[str, Any]:
    """What was learnt from, of one seed."""
    return {"loss": training.loss, "cost": training.cost, "rows": training.rows}


def accuracy(values: Array, prompts: Sequence[str]) -> dict[str, Any]:
    """Accuracy against the truth over prompts and seeds, of `right` [S, N]."""
    return {"accuracy": interval(stats.replicated_accuracy(values, prompts).estimate)}


def difference(first: Array, second: Array, prompts: Sequence[str]) -> dict[str, Any]:
    """First less second, paired by pair and seed: over prompts and seeds, and over seeds alone."""
    paired, _ = stats.replicated_difference(first, second, prompts)
    by_seed = np.nanmean(first - second, axis=1)
    return {
        **interval(paired.estimate),
        "p_value": round(paired.p_value, 4),
        "by_seed": [round(float(value), 4) for value in by_seed],
        "of_seeds": over_seeds(by_seed),
    }


def correlations(table: Array, truth: Array) -> Array:
    """Of reward differences [S, N] with the true ones [N], by seed [S]."""
    known = ~np.isnan(table)
    rows = zip(table, known, strict=True)
    return np.array([np.corrcoef(row[some], truth[some])[0, 1] for row, some in rows])


def strengths(table: Array, truth: Array) -> dict[str, Any]:
    """How far reward differences [S, N] follow the true ones: correlation, and their slope.

    A slope of 1 says that rewards are in the annotators' own logits.
    """
    rows = [(row[~np.isnan(row)], truth[~np.isnan(row)]) for row in table]
    slopes = [float(np.polyfit(u, d, 1)[0]) for d, u in rows]
    return {
        "correlation": over_seeds(correlations(table, truth)),
        "slope": over_seeds(slopes),
    }


def ties(
    table: Array, shares: Array, prompts: Sequence[str], trainings: Sequence[Training]
) -> dict[str, Any]:
    """The threshold recovered, and whether ties come as often as is said, of [S, N].

    As fitted on the other prompts, and as the loss itself has them, where it has ties.
    """
    models = [stats.tie_model(row, shares) for row in table]
    made = {
        "threshold": over_seeds([model.threshold for model in models if model]),
        "tie_ece_fitted": calibration(table, shares, prompts, None),
    }
    if trainings[0].loss == "rao-kupper":
        own = [stats.TieModel(1.0, 2 * math.atanh(t.tie_share or 0.5)) for t in trainings]
        made["tie_ece_of_loss"] = calibration(table, shares, prompts, own)
        made["threshold_of_loss"] = over_seeds([model.threshold for model in own])
    return made


def calibration(
    table: Array,
    shares: Array,
    prompts: Sequence[str],
    models: Sequence[stats.TieModel] | None,
) -> dict[str, Any]:
    """Expected calibration error of the chances of a tie over all seeds, clustered by prompt."""
    seeds, every = table.shape[0], np.random.default_rng(0)
    chances = [
        stats.tie_probability(row, models[seed])
        if models
        else stats.held_out_tie_probability(row, shares, prompts)
        for seed, row in enumerate(table)
    ]
    observed, clusters = np.tile(shares[:, 1], seeds), list(prompts) * seeds
    found = stats.event_calibration(np.concatenate(chances), observed, clusters, every)
    if found is None:
        return {}
    bins = [[round(b.confidence, 3), round(b.accuracy.value, 3), b.accuracy.n] for b in found.bins]
    return {**interval(found.ece), "by_luck": round(found.ece_by_luck, 4), "bins": bins}
