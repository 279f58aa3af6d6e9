"""Rounds of asking for labels, learning from all of them, and being asked, one arm at a time.

All arms of a repetition share the labels of every pair, the prompts that are kept for testing, the
first round, which is drawn at random (nothing is known yet), and the held-out pairs that they are
asked. They differ in what the later rounds ask for, and in nothing else but where the name says so.

Shape letters: P pairs of the pool, H held-out pairs, M members.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import expit

from benchmarks.labels.heads import Floats, Head, Members, bootstrap, fit_best, posterior, unseen
from benchmarks.labels.pools import Codes, Flags, Pairs
from palate import stats
from palate.labels.selection import (
    Reason,
    SelectionOptions,
    expected_gain,
    information,
    select,
)

TARGETS, MANY = 128, 32


@dataclass(frozen=True, slots=True)
class Arm:
    """What the rounds after the first ask for.

    `worth`: `none` draws at random, `unsure` by the entropy of what the mean of the members says,
    coin tosses among it; `distance` by the squared length of the difference of states, which needs
    no labels; `doubt known` by the members' variance times that of the label, as it is in truth:
    what no one has, to see what a better guess of it would give. `weighted`: learns with each label
    weighted by 1 / probability. `calibrated`: members' differences are divided by the temperature
    of those they did not learn from. `stream`: of the draws; only another draw of the same arm has
    another.
    """

    worth: Literal["none", "information", "gain", "unsure", "distance", "doubt known"]
    random: float = 0.2
    power: float = 1.0
    members: int = 5
    of: Literal["bootstrap", "posterior"] = "bootstrap"
    weighted: bool = False
    calibrated: bool = False
    stream: int = 0


RANDOM, AGAIN, INFORMATION, GAIN = "random", "random again", "information", "expected gain"
ARMS = {
    RANDOM: Arm("none", random=1.0),
    AGAIN: Arm("none", random=1.0, stream=1),
    INFORMATION: Arm("information"),
    GAIN: Arm("gain"),
    "information, calibrated": Arm("information", calibrated=True),
    "information, 32 of the posterior": Arm("information", members=MANY, of="posterior"),
    "expected gain, 32 of the posterior": Arm("gain", members=MANY, of="posterior"),
    "information, power 4": Arm("information", power=4),
    "information, greedy": Arm("information", members=MANY, of="posterior", random=0, power=4),
    "information, labels weighted": Arm("information", weighted=True),
    "unsure": Arm("unsure", members=MANY, of="posterior"),
    "distance": Arm("distance"),
    "doubt known": Arm("doubt known", members=MANY, of="posterior"),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """Rounds, and pairs asked for in each, a share of them held-out ones."""

    rounds: int
    pairs_per_round: int
    test_set: float = 0.1
    reserve: float = 0.1

    def options(self, arm: Arm, first: bool) -> SelectionOptions:
        """What one round of an arm asks for."""
        return SelectionOptions(
            budget=self.pairs_per_round, test_set=self.test_set, reserve=self.reserve,
            random=1.0 if first else arm.random, power=arm.power,
        )  # fmt: skip


@dataclass(slots=True)
class Labelled:
    """What was asked so far, in order: pairs, their probabilities, which are held-out ones."""

    pairs: Codes
    probability: Floats
    held_out: Flags


def drawn_labels(pool: Pairs, seed: int, repetition: int) -> Floats:
    """1 where a pair's label is its first response, else -1: Bradley and Terry's of its truth.

    Where the truth is not known, the file's label: the first.
    """
    chance = np.random.default_rng([seed, repetition, 1]).random(len(pool))
    return np.where(np.isnan(pool.truth) | (chance < expit(pool.truth)), 1.0, -1.0)


def play(
    pool: Pairs, asked: Pairs, arm: Arm, plan: Plan, seed: int, repetition: int
) -> Iterator[dict[str, Any]]:
    """Give what every round comes to."""
    signs = drawn_labels(pool, seed, repetition)
    x = pool.states * signs[:, None]
    prompts = int(pool.prompts.max()) + 1
    ranks = np.random.default_rng([seed, repetition, 2]).integers(
        0, 2**64, prompts, dtype=np.uint64
    )
    closed = np.zeros(prompts, np.bool_)
    labelled = Labelled(np.empty(0, np.int64), np.empty(0), np.empty(0, np.bool_))
    worth, precision = np.ones(len(pool)), None
    for number in range(plan.rounds):
        rng = np.random.default_rng([seed, repetition, 3, number, arm.stream])
        chosen = select(
            worth, pool.prompts, plan.options(arm, number == 0), rng, ranks=ranks, asked=closed
        )
        closed[pool.prompts[chosen.pairs]] = True
        fresh = Labelled(
            chosen.pairs, chosen.probability, (chosen.reason == Reason.HELD_OUT).astype(np.bool_)
        )
        labelled = Labelled(
            *(np.concatenate([getattr(one, name) for one in (labelled, fresh)])
              for name in ("pairs", "probability", "held_out"))
        )  # fmt: skip
        taught = labelled.pairs[~labelled.held_out]
        counts = np.ones(taught.size)
        if arm.weighted:
            counts = 1 / labelled.probability[~labelled.held_out]
            counts *= counts.size / counts.sum()
        head = fit_best(x[taught], counts, precision)
        precision = head.precision
        members = _members(arm, x[taught], counts, pool.prompts[taught], head, rng)
        said = members.weights.mean(0) if arm.of == "bootstrap" else head.weights
        tests = labelled.pairs[labelled.held_out]
        heat = _temperature(x[taught], x[tests], members)
        worth = _worth(arm, pool, members, heat if arm.calibrated else 1.0, seed)
        new = fresh.pairs[~fresh.held_out]
        yield {
            "labels": int(labelled.pairs.size),
            **_asked(asked, head, members, said, seed, repetition),
            **_drawn(pool.truth[new], worth, pool.truth),
            "precision": round(head.precision, 3),
            "temperature": round(heat, 3),
            "estimate": _estimate(x, labelled, pool, head),
        }


def _members(
    arm: Arm, x: Floats, counts: Floats, prompts: Codes, head: Head, rng: np.random.Generator
) -> Members:
    if arm.of == "posterior":
        return posterior(head, arm.members, rng)
    return bootstrap(x, counts, prompts, head, arm.members, rng)


def _temperature(taught: Floats, tests: Floats, members: Members) -> float:
    """Of the members' mean on labels that they have not learnt from; 1 where none is best."""
    said = np.concatenate([unseen(taught, members), (tests @ members.weights.T).mean(1)])
    found = stats.temperature(said)
    return 1.0 if found is None else float(np.clip(found.value, 0.25, 4.0))


def _worth(arm: Arm, pool: Pairs, members: Members, heat: float, seed: int) -> Floats:
    if arm.worth == "none":
        return np.ones(len(pool))
    if arm.worth == "distance":
        return np.asarray((pool.states**2).sum(1))
    said = pool.states @ members.weights.T / heat  # [P, M]
    if arm.worth == "information":
        return information(said)
    if arm.worth == "doubt known":
        true = expit(pool.truth)
        return np.asarray(said.var(1) * true * (1 - true))
    if arm.worth == "gain":
        # Pairs such as the pool has, whose labels nobody needs to know.
        some = np.random.default_rng([seed, 4]).permutation(len(pool))[:TARGETS]
        return expected_gain(said, said[some])
    p = expit(said).mean(1)
    return np.asarray(-p * np.log(p) - (1 - p) * np.log1p(-p))


def _asked(
    asked: Pairs, head: Head, members: Members, said: Floats, seed: int, repetition: int
) -> dict[str, Any]:
    """Of the held-out pairs: how often a fresh annotator agrees with the head, and with its parts.

    The expected share where the truth is known, so that the annotators' luck is not in it.
    """
    gaps = asked.states @ head.weights
    first = np.where(np.isnan(asked.truth), 1.0, expit(asked.truth))
    agrees = np.where(gaps > 0, first, np.where(gaps < 0, 1 - first, 0.5))
    better = (gaps > 0) == (asked.truth > 0)
    parts = {f"rating {level}": asked.rating == level for level in range(1, 5)}
    parts |= {str(name): asked.bins == name for name in np.unique(asked.bins) if name}
    # Conformal intervals of the ensemble, on labels of this repetition's own.
    luck = np.random.default_rng([seed, repetition, 5])
    signs = np.where(luck.random(len(asked)) < first, 1.0, -1.0)
    apart = (asked.states * signs[:, None]) @ members.weights.T
    covered = stats.conformal_coverage(
        apart.mean(1), apart.std(1, ddof=1), asked.prompts.tolist(), luck
    )
    return {
        "accuracy": float(agrees.mean()),
        "ensemble": float(
            np.where(asked.states @ said > 0, first, 1 - first).mean()
        ),
        "better": float(better[asked.truth != 0].mean()),
        "parts": {
            # Of a rating the label counts, which the rating was given with.
            name: float((gaps[some] > 0).mean() if name.startswith("rating") else
                        agrees[some].mean())
            for name, some in parts.items() if some.sum() >= 20
        },
        "covered": None if covered is None else float(covered[0].value),
    }  # fmt: skip


def _drawn(drawn: Floats, worth: Floats, truth: Floats) -> dict[str, Any]:
    """How far apart the pairs of a round are, how often their labels are right, and the share of
    all worth in the pairs of each true difference: under 1, 2, 4 logits, above."""
    if np.isnan(truth).any():
        return {"apart": None, "clear": None, "worth": None}
    level = np.digitize(np.abs(truth), (1.0, 2.0, 4.0))
    share = np.bincount(level, weights=worth, minlength=4) / worth.sum()
    return {
        "apart": round(float(np.abs(drawn).mean()), 3),
        "clear": round(float(expit(np.abs(drawn)).mean()), 4),
        "worth": [round(float(one), 4) for one in share],
    }


def _estimate(x: Floats, labelled: Labelled, pool: Pairs, head: Head) -> list[float] | None:
    """What the round's own held-out labels say of the head: accuracy and its interval."""
    tests = labelled.pairs[labelled.held_out]
    if not tests.size:
        return None
    found = stats.accuracy(
        (x[tests] @ head.weights > 0).astype(float), pool.prompts[tests].tolist(),
        probabilities=labelled.probability[labelled.held_out],
    )  # fmt: skip
    return [round(float(one), 4) for one in (found.value, found.low, found.high)]
