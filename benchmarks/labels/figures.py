"""What the rounds of all seeds say: labels to reach what random labels reach, and where it helps.

A curve is a seed's mean over its repetitions. It is smoothed by a quadratic in log labels, for a
first crossing of noise comes too early. Shape letters: S seeds, R rounds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.labels.heads import Floats
from benchmarks.labels.rounds import RANDOM
from palate import stats

Rounds = Sequence[Mapping[str, Any]]
"""One repetition: what `rounds.play` gives."""


def over_seeds(values: Sequence[float] | Floats, scale: float = 1.0) -> dict[str, Any]:
    """The mean of a value a seed with its 95 % interval, Student's t, and the values."""
    array = scale * np.asarray(values, dtype=np.float64)
    found = stats.clustered_mean(array)
    ends = {name: getattr(found, name) for name in ("value", "low", "high")}
    rounded = {name: _rounded(end) for name, end in ends.items()}
    return {**rounded, "by_seed": [_rounded(one) for one in array]}


def _rounded(value: float) -> float | None:
    return round(float(value), 3) if math.isfinite(value) else None


def smooth(labels: Floats, accuracy: Floats) -> Floats:
    """Coefficients of accuracy = a l^2 + b l + c in l = log labels, the highest power first."""
    return np.polyfit(np.log(labels), accuracy, min(2, len(labels) - 1))


def labels_to_reach(labels: Floats, random: Floats, other: Floats, at: int) -> float:
    """The labels that `other` needs for what `random` has after round `at`, over the labels there.

    The first crossing of the smoothed curves between the first round and the last; beyond the
    last it is what the last has, which is a lower bound.
    """
    goal = np.polyval(smooth(labels, random), math.log(labels[at]))
    fine = np.linspace(math.log(labels[0]), math.log(labels[-1]), 2_001)
    reached = np.flatnonzero(np.polyval(smooth(labels, other), fine) >= goal)
    return math.exp(fine[reached[0]] if reached.size else fine[-1]) / labels[at]


def curves(by_seed: Mapping[int, Sequence[Rounds]], key: str) -> Floats:
    """A value of every round, mean over repetitions, [S, R]; `key` of a part is `parts/NAME`."""

    def value(one: Mapping[str, Any]) -> float:
        found = one["parts"].get(key[6:]) if key.startswith("parts/") else one[key]
        return math.nan if found is None else float(found)

    return np.array(
        [np.mean([[value(one) for one in rounds] for rounds in repetitions], axis=0)
         for _, repetitions in sorted(by_seed.items())]
    )  # fmt: skip


def summary(found: Mapping[str, Mapping[int, Sequence[Rounds]]], at: int) -> dict[str, Any]:
    """Every arm beside `random`, on the seeds that all have; `at` is the last round of random."""
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in found.values())))
    arms = {name: {s: by_seed[s] for s in seeds} for name, by_seed in found.items()}
    random = arms[RANDOM]
    labels = np.array([one["labels"] for one in random[seeds[0]][0]], np.float64)
    base = curves(random, "accuracy")
    made: dict[str, Any] = {
        "seeds": len(seeds), "repetitions": len(random[seeds[0]]), "labels": labels.tolist(),
        "all_labels": labels[at], "reached_by_random": over_seeds(base[:, at], 100),
    }  # fmt: skip
    for name, arm in arms.items():
        mine = curves(arm, "accuracy")
        row: dict[str, Any] = {"curve": [round(100 * float(v), 2) for v in mine.mean(0)]}
        if arm[seeds[0]][0][0]["worth"] is not None:
            row["pairs_apart"] = [round(float(v), 2) for v in curves(arm, "apart").mean(0)]
            row["clear_labels"] = [round(100 * float(v), 1) for v in curves(arm, "clear").mean(0)]
            worth = [[one[at]["worth"] for one in arm[s]] for s in seeds]
            row["worth_by_truth"] = [round(float(v), 3) for v in np.mean(worth, axis=(0, 1))]
        row["covered"] = over_seeds(curves(arm, "covered")[:, at], 100)
        row["temperature"] = round(float(curves(arm, "temperature")[:, at].mean()), 2)
        if name != RANDOM:
            ratios = [
                labels_to_reach(labels, r, m, at) for r, m in zip(base, mine, strict=True)
            ]  # fmt: skip
            most = labels[-1] / labels[at]
            row["labels_to_reach"] = {
                **over_seeds(ratios),
                "of_mean_curve": round(
                    labels_to_reach(labels, base.mean(0), mine.mean(0), at), 3
                ),
                "not_reached": int(sum(ratio > most - 1e-6 for ratio in ratios)), "at_most": most,
            }  # fmt: skip
            row["less_random"] = {
                f"{labels[n]:.0f} labels": over_seeds((mine - base)[:, n], 100)
                for n in sorted({2, at // 2, at, len(labels) - 1} & set(range(len(labels))))
            }
            first = arm[seeds[0]][0][0]
            row["parts_less_random"] = {
                part: over_seeds(
                    (curves(arm, f"parts/{part}") - curves(random, f"parts/{part}"))[:, at], 100
                )
                for part in first["parts"]
            }
        made[name] = row
    return made
