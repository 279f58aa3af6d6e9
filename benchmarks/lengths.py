"""Heads on frozen layers, taught against length, beside other data, and averaged over seeds.

    python -m benchmarks.lengths RUN FOLDER [--layers 16] [--seeds 5] [--without NAME ...]
                                [--most NAME=N ...]

RUN is the folder of `palate mix llama2-frozen --data DIR --out RUN` (with `--set
data.sources.qa-feedback.source=qa-feedback` for that set too): its pools, what is held out of them,
its benchmarks. Each pair is run once through the first layers of SmolLM2-135M; states are kept in
FOLDER, 240 pairs a file. A training is then that of `palate train` with `trainable: {last_layers:
0}` (three epochs at 2e-3), on a head alone: there the final norm learns too. Arms:

- `ranking`: the ranking loss, 64 pairs a step; with `16 a step` as in the recipe;
- `penalty P`: and P times the squared correlation, over a step, of reward and length differences;
- `covariate`: the length difference has a weight of its own in the logit, which begins with what
  length alone is worth and is dropped afterwards;
- `balanced, drawn`: an epoch has as many pairs whose longer response wins as others, within fifths
  of the pairs by how far their lengths are apart; `balanced, weighted`: all pairs, such weights;
- `with NAME`: the ranking loss on that pool's pairs too.

A length difference is the logarithm of the ratio of characters, chosen over rejected. A seed has a
head and an order of its own. Heads are linear in states that stay as they are: the mean of the
seeds' rewards is the reward of the mean of their weights, so that both averages are one arm.

Arms are chosen by the loss of the mean of seeds on held-out comparisons of the same batches (of
harmless-base: a quarter of its training half, by prompt). The benchmarks are asked afterwards, of
the first arm, the chosen one, and the best of those against length and of those with other data.
Ends with one JSON line; tables go to stderr.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import softplus

from benchmarks.labels.pools import LAYERS, Backbone
from benchmarks.small_data import descend, new_head
from palate.data.prompts import hash64
from palate.records import read_comparisons
from palate.stats import (
    accuracy,
    length_controlled,
    paired_difference,
    replicated_accuracy,
    replicated_difference,
)
from palate.train.batching import epoch_order
from palate.types import Comparison

TOKENS, EPOCHS, RATE, STEP = 1_024, 3, 2e-3, 64
BINS = 5
SIZES, DRAWS = (400, 800, 1_600), 5
Floats = NDArray[np.float64]
Codes = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """N decided pairs: chosen less rejected of states [N, D], of log lengths [N]; prompts [N]."""

    states: Tensor
    lengths: Tensor
    prompts: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.prompts)

    def __add__(self, other: Rows) -> Rows:
        return Rows(
            torch.cat([self.states, other.states]),
            torch.cat([self.lengths, other.lengths]),
            np.concatenate([self.prompts, other.prompts]),
        )

    def where(self, some: NDArray[np.bool_]) -> Rows:
        """Some of the pairs."""
        keep = torch.from_numpy(some)
        return Rows(self.states[keep], self.lengths[keep], self.prompts[some])

    def drawn(self, pairs: int, seed: int) -> Rows:
        """About so many pairs: whole prompts in a seeded order."""
        _, prompt = np.unique(self.prompts, return_inverse=True)
        place = np.random.default_rng([23, seed]).permutation(prompt.max() + 1)
        before = np.cumsum(np.bincount(place[prompt]))
        return self.where(before[place[prompt]] <= pairs)


@dataclass(frozen=True, slots=True)
class Arm:
    """How heads are taught: see the module. `beside` names a pool of other data."""

    step: int = STEP
    penalty: float = 0.0
    covariate: bool = False
    balanced: Literal["", "drawn", "weighted"] = ""
    beside: str = ""

    @property
    def against_length(self) -> bool:
        """Whether it is one of those that take length away."""
        return bool(self.penalty or self.covariate or self.balanced)


RANKING = "ranking"
ARMS = {
    RANKING: Arm(),
    "ranking, 16 a step": Arm(step=16),
    **{f"penalty {weight:g}": Arm(penalty=weight) for weight in (0.03, 0.1, 0.3, 1)},
    "covariate": Arm(covariate=True),
    "balanced, drawn": Arm(balanced="drawn"),
    "balanced, weighted": Arm(balanced="weighted"),
    "balanced, weighted, 16 a step": Arm(step=16, balanced="weighted"),
}


@dataclass(frozen=True, slots=True)
class Task:
    """A reward model: its pools, what is held out of them (None: a quarter), and other pools."""

    name: str
    own: tuple[str, ...]
    held_out: str | None
    beside: tuple[str, ...]
    benchmarks: tuple[str, ...]

    @property
    def arms(self) -> dict[str, Arm]:
        """Those of all tasks, and one for each other pool."""
        return ARMS | {f"with {name}": Arm(beside=name) for name in self.beside}


TASKS = (
    Task(
        "helpfulness",
        own=("helpful-online", "helpful-rejection-sampled"),
        held_out="held-out helpfulness",
        beside=("harmless-base", "webgpt", "qa-feedback", "pku"),
        benchmarks=("anthropic-helpful", "mtbench-human", "pandalm"),
    ),
    Task(
        "safety",
        own=("harmless-base",),
        held_out=None,
        beside=("helpful-online", "pku"),
        benchmarks=("anthropic-harmless",),
    ),
)


# A head.


def train(rows: Rows, arm: Arm, seed: int) -> Tensor:
    """The head, [D]."""
    weights = new_head(rows.states.shape[1] + 1, seed)  # The last is of the length difference.
    with torch.no_grad():
        weights[-1] = alone(rows.lengths)
    each = balance(rows) if arm.balanced == "weighted" else torch.ones(len(rows))

    def loss(step: Tensor) -> Tensor:
        margins, lengths = rows.states[step] @ weights[:-1], rows.lengths[step]
        logits = margins + lengths * weights[-1] if arm.covariate else margins
        ranking = (each[step] * softplus(-logits)).mean()
        return ranking + arm.penalty * correlation(margins, lengths) ** 2

    epochs = [torch.from_numpy(order(rows, arm, seed, epoch)) for epoch in range(EPOCHS)]
    descend(weights, epochs, arm.step, RATE, loss)
    return weights.detach()[:-1]


def alone(lengths: Tensor) -> float:
    """The most likely weight of a length difference in the logit, by Newton's method."""
    weight = 0.0
    for _ in range(20):
        wrong = torch.sigmoid(-weight * lengths)
        slope, curvature = (wrong * lengths).sum(), (wrong * (1 - wrong) * lengths**2).sum()
        weight += float(slope / curvature.clamp_min(1e-12))
    return weight


def correlation(margins: Tensor, lengths: Tensor) -> Tensor:
    """Of reward and length differences about 0, for either response may be called the first."""
    return margins @ lengths / (margins.norm() * lengths.norm()).clamp_min(1e-12)


def order(rows: Rows, arm: Arm, seed: int, epoch: int) -> Codes:
    """The rows of an epoch in their order."""
    kept = np.arange(len(rows))
    if arm.balanced == "drawn":
        rng, lengths, chosen = np.random.default_rng([29, seed, epoch]), rows.lengths.numpy(), []
        for inside in bins(lengths):
            longer, shorter = inside[lengths[inside] > 0], inside[lengths[inside] < 0]
            fewer = min(len(longer), len(shorter))
            chosen += [rng.permutation(side)[:fewer] for side in (longer, shorter)]
        kept = np.sort(np.concatenate([*chosen, np.flatnonzero(lengths == 0)]))
    return kept[epoch_order(rows.prompts[kept], seed, epoch)]


def balance(rows: Rows) -> Tensor:
    """Weights, 1 in the mean, by which longer and shorter responses win as often, within bins."""
    lengths = rows.lengths.numpy()
    weights = np.ones(len(lengths), np.float32)
    for inside in bins(lengths):
        longer = lengths[inside] > 0
        if longer.any() and not longer.all():
            weights[inside] = 0.5 / np.where(longer, longer.mean(), 1 - longer.mean())
    return torch.from_numpy(weights)


def bins(lengths: NDArray[np.float32]) -> Iterable[Codes]:
    """The pairs of unequal lengths in `BINS` parts of as many, by how far they are apart."""
    apart = np.abs(lengths)
    by_distance = np.argsort(apart, kind="stable")
    return np.array_split(by_distance[apart[by_distance] > 0], BINS)


# What is said of heads.


def right(margins: Floats) -> Floats:
    """1 where the chosen response has the larger reward, 0.5 in a tie."""
    return (np.sign(margins) + 1) / 2


def said_of(heads: Tensor, first: Tensor, asked: Rows) -> dict[str, Any]:
    """Seeds' heads [S, D] on held-out pairs, alone and their mean, less those of `first`."""
    margins, before = ((asked.states @ some.T).T.double().numpy() for some in (heads, first))
    mean, mean_before = margins.mean(0), before.mean(0)
    alone = replicated_accuracy(right(margins), asked.prompts)
    more, _ = replicated_difference(right(margins), right(before), asked.prompts)
    rng = np.random.default_rng(0)
    of_mean = paired_difference(right(mean), right(mean_before), asked.prompts, rng)
    averaging, _ = replicated_difference(
        np.broadcast_to(right(mean), margins.shape), right(margins), asked.prompts
    )
    even = length_controlled(right(mean), asked.lengths.numpy(), asked.prompts)
    apart = torch.from_numpy(mean).float()
    return {
        "alone": figures(alone.estimate),
        "spread": round(100 * alone.spread, 1),
        "mean": figures(accuracy(right(mean), asked.prompts)),
        "alone_less_first": figures(more.estimate),
        "mean_less_first": figures(of_mean.estimate),
        "mean_less_alone": figures(averaging.estimate),
        "loss_alone": round(float(np.logaddexp(0, -margins).mean()), 4),
        "loss": round(float(np.logaddexp(0, -mean).mean()), 4),
        "at_equal_lengths": None if even is None else figures(even),
        "correlation": round(float(correlation(apart, asked.lengths)), 3),
    }


def judged(heads: Mapping[str, Tensor], asked: Rows) -> dict[str, Any]:
    """The mean of seeds of each arm on a benchmark, beside "longer wins" and the first arm."""
    longer = right(asked.lengths.double().numpy())
    found: dict[str, Any] = {"longer": figures(accuracy(longer, asked.prompts))}
    by_arm = {
        name: right((asked.states @ some.mean(0)).double().numpy()) for name, some in heads.items()
    }
    first = next(iter(by_arm.values()))
    for name, values in by_arm.items():
        beside = {"less_longer": longer} | ({} if values is first else {"less_first": first})
        found[name] = {"accuracy": figures(accuracy(values, asked.prompts))}
        for label, other in beside.items():
            rng = np.random.default_rng(0)
            less = paired_difference(values, other, asked.prompts, rng)
            found[name][label] = {**figures(less.estimate), "p": round(less.p_value, 4)}
    return found


def figures(estimate: Any) -> dict[str, float]:
    """In %, with the 95 % interval and n."""
    ends = (estimate.value, estimate.low, estimate.high)
    value, low, high = (round(100 * end, 1) for end in ends)
    return {"value": value, "low": low, "high": high, "n": estimate.n}


def best(found: Mapping[str, Mapping[str, Any]], among: Iterable[str]) -> str:
    """The arm with the smallest held-out loss; the earlier of equal ones."""
    return min(among, key=lambda name: found[name]["loss"])


# A task.


def sweep(task: Task, rows: Mapping[str, Rows], seeds: int) -> dict[str, Any]:
    """All arms on held-out pairs, then the benchmarks, then the learning curve.

    `rows` by the names of pools and benchmarks; arms whose pool is not there are left out.
    """
    own, *more = (rows[name] for name in task.own if name in rows)
    for other in more:
        own = own + other
    if task.held_out is None:
        held = np.array([hash64("quarter", f"{key:x}") % 4 == 0 for key in own.prompts.tolist()])
        pool, asked = own.where(~held), own.where(held)
    else:
        pool, asked = own, rows[task.held_out]
    arms = {n: arm for n, arm in task.arms.items() if not arm.beside or arm.beside in rows}

    def heads(arm: Arm, of: Rows) -> Tensor:
        if arm.beside:
            other = rows[arm.beside]
            of = of + other.where(~np.isin(other.prompts, asked.prompts))
        return torch.stack([train(of, arm, seed) for seed in range(seeds)])

    taught = {name: heads(arm, pool) for name, arm in arms.items()}
    found = {name: said_of(some, taught[RANKING], asked) for name, some in taught.items()}
    for name, said in found.items():
        print(f"{task.name:12} {name:26} {said['loss']:.4f} {said['mean']}", file=sys.stderr)
    chosen = best(found, arms)
    families = ([n for n in arms if arms[n].against_length], [n for n in arms if arms[n].beside])
    asking = [RANKING, chosen, *(best(found, names) for names in families if names)]
    final = {name: taught[name] for name in dict.fromkeys(asking)}
    if len(own) > len(pool):
        final = {name: heads(arms[name], own) for name in final}
    return {
        "pairs": len(pool),
        "held_out": len(asked),
        "longer": figures(accuracy(right(asked.lengths.double().numpy()), asked.prompts)),
        "arms": found,
        "chosen": chosen,
        "benchmarks": {name: judged(final, rows[name]) for name in task.benchmarks if name in rows},
        "curve": {
            name: curve(pool, asked, arms[name], seeds)
            for name in dict.fromkeys([RANKING, chosen])
            if not arms[name].beside
        },
    }


def curve(pool: Rows, asked: Rows, arm: Arm, seeds: int) -> list[dict[str, Any]]:
    """Held-out accuracy and loss by the number of the pool's own pairs, over draws of them."""
    points = []
    for size in [*(size for size in SIZES if size < len(pool)), len(pool)]:
        parts = [pool] * seeds if size == len(pool) else [pool.drawn(size, s) for s in range(DRAWS)]
        margins = np.stack(
            [
                (asked.states @ train(part, arm, seed)).double().numpy()
                for seed, part in enumerate(parts)
            ]
        )
        said = replicated_accuracy(right(margins), asked.prompts)
        loss = round(float(np.logaddexp(0, -margins).mean()), 4)
        points.append({"pairs": size, **figures(said.estimate), "loss": loss})
    return points


# Pairs and their states.


def rows_of(pairs: Sequence[Comparison], states: NDArray[np.float64]) -> Rows:
    """Decided pairs and their states."""
    lengths = [np.log1p(len(c.chosen)) - np.log1p(len(c.rejected)) for c in pairs]
    return Rows(
        torch.from_numpy(states).float(),
        torch.tensor(lengths, dtype=torch.float32),
        np.array([hash64(c.prompt_id) for c in pairs], np.uint64),
    )


def few(pairs: Sequence[Comparison], most: int) -> list[Comparison]:
    """The first pairs by a hash of their prompts: fewer of them are the beginning of more."""
    return sorted(pairs, key=lambda c: hash64("few", c.prompt_id))[:most]


def read(
    name: str, path: Path, most: int | None, without: Sequence[str], backbone: Backbone, out: Path
) -> Rows:
    """The decided pairs of a file but for those of some sources, their states from `out`."""
    pairs = [c for c in read_comparisons(path) if c.judgement.decides == "chosen"]
    kept, parts = list[Comparison](), list[NDArray[np.float64]]()
    for source in sorted({c.source for c in pairs} - set(without)):
        of = [c for c in pairs if c.source == source]
        of = of if most is None else few(of, most)
        scored, states = backbone.states(of, out / f"{name}-{source}-{backbone.layers}")
        if len(scored) < len(of):
            print(f"{name}: {len(of) - len(scored)} of {len(of)} left out", file=sys.stderr)
        kept += scored
        parts.append(states)
    return rows_of(kept, np.concatenate(parts))


def files(run: Path, without: Sequence[str]) -> dict[str, Path]:
    """The pools and benchmarks that tasks name, by name."""
    named = {
        name: run / "benchmarks" / f"{name}.parquet"
        for task in TASKS
        for name in (*task.benchmarks, *([task.held_out] if task.held_out else []))
    }
    named |= {
        name: run / "data" / "pools" / f"{name}.parquet"
        for task in TASKS
        for name in (*task.own, *task.beside)
    }
    return {n: path for n, path in named.items() if n not in without and path.is_file()}


def main() -> None:
    """Make the states that are missing, train, choose, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=LAYERS, help="of SmolLM2's 30")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--without", nargs="+", default=[], help="pools, benchmarks to leave out")
    parser.add_argument("--most", nargs="+", default=[], metavar="NAME=N", help="pairs of a file")
    given = parser.parse_args()
    most = {name: int(pairs) for name, _, pairs in (text.partition("=") for text in given.most)}
    backbone = Backbone(TOKENS, given.layers)
    rows = {
        name: read(name, path, most.get(name), given.without, backbone, given.folder)
        for name, path in files(given.run, given.without).items()
    }
    line = {
        "benchmark": "lengths",
        "layers": given.layers,
        "seeds": given.seeds,
        "rows": {name: len(some) for name, some in rows.items()},
        **{
            task.name: sweep(task, rows, given.seeds)
            for task in TASKS
            if any(name in rows for name in task.own)
        },
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
