"""Whether the estimate on held-out pairs holds the true accuracy through ten rounds of selection.

A made-up world in which all is known: prompts of one to three pairs, states of eight numbers, a
true difference that no linear head can learn whole. Each replicate has a pool of its own, asks for
ten rounds of labels by `palate.labels.selection.select`, and learns a head after each. Four ways to
say how accurate the head is stand beside its accuracy on 50,000 other pairs:

    held-out          the held-out labels of all rounds so far, weighted by 1 / probability
    all labels        every label so far, those that it learnt from among them
    fresh, plain      the training labels of a round, of the head before it learnt from them
    fresh, weighted   the same, weighted by 1 / probability
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from benchmarks.labels.heads import Floats, fit, posterior
from palate import stats
from palate.labels.selection import Reason, SelectionOptions, information, select
from palate.types import PalateError

PROMPTS, WIDTH, ROUNDS, MEMBERS, CHUNK = 800, 8, 10, 8, 50
OPTIONS = SelectionOptions(budget=30, test_set=6, reserve=0.15, random=0.2, power=2)
WAYS = ("held-out", "all labels", "fresh, plain", "fresh, weighted")


def world(prompts: int, rng: np.random.Generator) -> tuple[Floats, Floats, Any]:
    """States [P, D], true differences [P] and the prompt of each pair."""
    of = np.repeat(np.arange(prompts), rng.integers(1, 4, prompts))
    x = 0.7 * rng.normal(size=(prompts, WIDTH))[of] + 0.7 * rng.normal(size=(of.size, WIDTH))
    # Odd in x, as a difference must be; the sine is what no head learns.
    return x, 1.2 * x[:, 0] - 0.8 * x[:, 1] + 1.2 * np.sin(2 * x[:, 2]), of


def replicate(number: int, others: tuple[Floats, Floats]) -> list[dict[str, Any]]:
    """Of every round, what each way says: estimate, ends of its interval, the truth."""
    rng = np.random.default_rng([7, number])
    x, truth, of = world(PROMPTS, rng)
    x = x * np.where(rng.random(truth.size) < expit(truth), 1.0, -1.0)[:, None]
    ranks = rng.integers(0, 2**64, PROMPTS, dtype=np.uint64)
    closed, worth, w = np.zeros(PROMPTS, np.bool_), np.ones(truth.size), np.zeros(WIDTH)
    pairs, chances, held = np.empty(0, np.int64), np.empty(0), np.empty(0, np.bool_)
    rounds = []
    for turn in range(ROUNDS):
        chosen = select(worth, of, OPTIONS, rng, ranks=ranks, asked=closed)
        closed[of[chosen.pairs]] = True
        new = (chosen.reason != Reason.HELD_OUT).astype(np.bool_)
        said: dict[str, list[float]] = {}
        if turn:  # The head of the round before has not seen any of these.
            goal = _true(w, others)
            fresh, weights = chosen.pairs[new], chosen.probability[new]
            said["fresh, plain"] = _said(x, w, of, fresh, None, goal)
            said["fresh, weighted"] = _said(x, w, of, fresh, weights, goal)
        pairs, chances, held = (
            np.concatenate(both)
            for both in ((pairs, chosen.pairs), (chances, chosen.probability), (held, ~new))
        )
        taught = pairs[~held]
        head = fit(x[taught], np.ones(taught.size), 1.0, w)
        w = head.weights
        worth = information(x @ posterior(head, MEMBERS, rng).weights.T)
        goal = _true(w, others)
        said["held-out"] = _said(x, w, of, pairs[held], chances[held], goal)
        said["all labels"] = _said(x, w, of, pairs, None, goal)
        rounds.append(said)
    return rounds


def _true(w: Floats, others: tuple[Floats, Floats]) -> float:
    x, truth = others
    return float(expit(np.sign(x @ w) * truth).mean())


def _said(x: Floats, w: Floats, of: Any, pairs: Any, chances: Any, goal: float) -> list[float]:
    right = (x[pairs] @ w > 0).astype(float)
    found = stats.accuracy(right, of[pairs].tolist(), probabilities=chances)
    return [round(float(one), 5) for one in (found.value, found.low, found.high, goal)]


def simulated(replicates: int, file: Path) -> Iterator[list[dict[str, Any]]]:
    """All replicates, those in the file as they are; appended by chunks."""
    file.parent.mkdir(parents=True, exist_ok=True)
    done = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    yield from (json.loads(line) for line in done[:replicates])
    x, truth, _ = world(25_000, np.random.default_rng(6))
    for start in range(len(done), replicates, CHUNK):
        numbers = range(start, min(start + CHUNK, replicates))
        made = [replicate(number, (x, truth)) for number in numbers]
        with file.open("a", encoding="utf-8") as out:
            out.writelines(f"{json.dumps(one)}\n" for one in made)
        print(f"unbiased: {numbers.stop:,} of {replicates:,} replicates", file=sys.stderr)
        yield from made


def summary(replicates: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """Of each way: share of 95 % intervals that hold the truth, and estimate less truth, in %."""
    made: dict[str, Any] = {"replicates": len(replicates), "rounds": ROUNDS}
    for way in WAYS:
        rows = [[one[way] for one in rounds if way in one] for rounds in replicates]
        table = np.array(rows)  # [replicates, rounds, 4]
        value, low, high, goal = table.transpose(2, 0, 1)
        holds = ((low <= goal) & (goal <= high)).astype(float)
        made[way] = {
            "coverage": _mean(holds.mean(1)),
            "coverage_by_round": _percent(holds.mean(0)),
            "bias": _mean((value - goal).mean(1)),
            "bias_by_round": _percent((value - goal).mean(0)),
        }
    return made


def _mean(by_replicate: Floats) -> list[float]:
    found = stats.clustered_mean(by_replicate)
    if not np.isfinite(found.low):
        raise PalateError("unbiased: expected two replicates or more; ask for more")
    return [round(100 * float(one), 2) for one in (found.value, found.low, found.high)]


def _percent(values: Floats) -> list[float]:
    return [round(100 * float(one), 1) for one in values]
