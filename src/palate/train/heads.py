"""Heads on states that stay as they are: many of them, in seconds, and each row by heads that never
saw it.

What a frozen backbone makes of every response is computed once (`end_states`). A comparison is then
a row z = state of chosen - state of rejected, and a head without a constant is a logistic
regression on these (Bradley-Terry): no steps, no rate, one minimum. `held_out_margins` leaves out
one fold after another and asks the heads of the other folds.

Shape letters: N comparisons, D width, F folds, M members.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import cho_factor, solve_triangular
from scipy.optimize import minimize
from scipy.special import expit
from torch import Tensor, nn

from palate.model.reward_model import RewardModel
from palate.train.batching import split_step
from palate.train.dataset import Examples
from palate.train.options import TrainOptions
from palate.train.states import Visited, keep_states
from palate.types import PalateError

Floats = NDArray[np.float64]
States = NDArray[np.float32]
Codes = NDArray[np.int64]

ROWS_AT_ONCE = 256
RIDGES = tuple(float(10 ** (power / 2)) for power in range(1, -9, -1))
"""Penalties that are tried, from 3 to 1e-4 times the mean square of a column."""
OWN_HEAD = 30.0  # The model's own margin is penalised 30^2 times less than any other column.
MEMBERS = 8
ITERATIONS = 200


# What a frozen backbone makes of every comparison.


@dataclass(frozen=True, slots=True, eq=False)
class EndStates:
    """Chosen minus rejected at the ends of the responses, after the final norm, [N, D] float32.

    `own` [N] is what the model's own head makes of it. Rows are those of the examples, in order.
    """

    differences: States
    own: Floats


def end_states(
    model: RewardModel,
    examples: Examples,
    folder: Path,
    *,
    budget: int,
    made_of: str,
    log: Callable[[str], None],
    show: Callable[[int, int], None],
) -> EndStates:
    """Run every conversation of the examples once through a backbone of which nothing learns.

    States go to a file in `folder` as they are made (`train.states`), and a run that was killed
    goes on there; a backbone that takes padded rows starts again.

    Args:
        budget: tokens of a micro-batch.
        made_of: a digest of the weights and the examples.
        show: is told how many rows of how many are done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.eval()
    model.backbone.requires_grad_(False)
    count = len(examples)
    visited = [Visited(examples, count, 2)]  # Once for the file, once to be read.

    def percent(line: str) -> None:
        done = line.rpartition(" ")[2].removesuffix("%")
        show(count * int(done) // 100, count)

    keep_states(
        model, visited, budget, folder, made_of=made_of, asked=False, stop=lambda: False,
        log=lambda line: log(line.removesuffix(" until the training ends")), show=percent,
    )  # fmt: skip
    differences = np.empty((count, model.head.in_features), np.float32)
    own = np.empty(count)
    seen: list[Tensor] = []

    def see(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen.append(inputs[0].detach())

    hook = model.head.register_forward_pre_hook(see)
    try:
        for start in range(0, count, ROWS_AT_ONCE):
            rows = [examples[row] for row in range(start, min(start + ROWS_AT_ONCE, count))]
            for part in split_step(rows, TrainOptions().margins(), budget).parts:
                seen.clear()
                with torch.no_grad():
                    reward = model(part.groups).reward.double().cpu()
                ends = seen[-1].float().cpu()
                places = start + part.places.numpy()
                differences[places] = (ends[part.chosen] - ends[part.rejected]).numpy()
                own[places] = (reward[part.chosen] - reward[part.rejected]).numpy()
            show(min(start + ROWS_AT_ONCE, count), count)
    finally:
        hook.remove()
        model.kept = None
    if not np.isfinite(differences).all():
        row = int(np.flatnonzero(~np.isfinite(differences).all(1))[0])
        raise PalateError(
            f"comparison {examples[row].id}: the backbone gives states that are not finite; "
            "take another model or dtype"
        )
    return EndStates(differences, own)


# Heads on them.


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Margins of every row by M heads that saw neither it nor its fold, [N, M], and the penalty
    of each fold's heads, [F]."""

    margins: Floats
    ridges: Floats


def held_out_margins(
    differences: States,
    folds: Codes,
    clusters: Codes,
    *,
    own: Floats | None = None,
    scales: Floats | None = None,
    flip_rate: float = 0.0,
    members: int = MEMBERS,
    seed: int = 0,
    show: Callable[[int, int], None] = lambda *_: None,
) -> HeldOut:
    """Ask of each fold the heads that learnt from the others.

    Members differ by the clusters that they learnt from, drawn with replacement. The penalty of a
    fold's heads is the one by which heads of the other folds but one did best on that one.

    Args:
        differences: z, [N, D].
        folds: [N], from 0; no cluster is in two.
        clusters: [N], from 0.
        own: [N], the margins of a head that the backbone was trained with, and that it may go on
            from: a column of its own, hardly penalised.
        scales: [N], by how much a row's label is surer or less sure than another's.
        flip_rate: the share of labels that are taken to be flipped, in [0, 0.5).
        show: is told how many folds of how many are done.

    Raises:
        ValueError: fewer than three folds.
    """
    count = int(folds.max()) + 1
    if count < 3:
        raise ValueError(f"{count} folds: expected three or more, for one chooses the penalty")
    z = _columns(differences, own)
    scales = np.ones(len(z)) if scales is None else scales
    margins, ridges = np.full((len(z), members), np.nan), np.empty(count)
    for fold in range(count):
        inside = folds == fold
        tried = folds == (fold + 1) % count
        learnt = ~inside & ~tried
        ridges[fold] = _best_ridge(z, scales, learnt, tried, flip_rate)
        others = np.flatnonzero(~inside)
        rng = np.random.default_rng([seed, fold])
        _, codes = np.unique(clusters[others], return_inverse=True)
        groups = int(codes.max()) + 1
        drawn = rng.multinomial(groups, np.full(groups, 1 / groups), size=members)
        heads = fit_heads(
            z[others], drawn[:, codes].T.astype(np.float64), float(ridges[fold]),
            scales=scales[others], flip_rate=flip_rate,
        )  # fmt: skip
        margins[inside] = z[inside] @ heads
        show(fold + 1, count)
    return HeldOut(margins, ridges)


def _columns(differences: States, own: Floats | None) -> States:
    """Columns of mean square 1, whatever the label says of a row's sign: [N, D] or [N, D + 1]."""
    spread = np.sqrt(np.mean(np.square(differences, dtype=np.float64), axis=0))
    z = differences / np.maximum(spread, 1e-6 * max(float(spread.max()), 1e-30)).astype(np.float32)
    if own is None:
        return z
    size = np.sqrt(np.mean(own**2)) or 1.0
    return np.column_stack((z, (OWN_HEAD * own / size).astype(np.float32)))


def _best_ridge(
    z: States, scales: Floats, learnt: NDArray[np.bool_], tried: NDArray[np.bool_], flip: float
) -> float:
    """The penalty whose head gives the labels of `tried` rows the highest likelihood."""
    best, least, heads = RIDGES[0], np.inf, None
    ones = np.ones((int(learnt.sum()), 1))
    for ridge in RIDGES:
        heads = fit_heads(
            z[learnt], ones, ridge, scales=scales[learnt], flip_rate=flip, start=heads
        )
        agree = expit(scales[tried] * (z[tried] @ heads)[:, 0])
        loss = -float(np.log(np.maximum(flip + (1 - 2 * flip) * agree, 1e-300)).mean())
        if loss > least:  # The loss has one valley.
            break
        best, least = ridge, loss
    return best


def fit_heads(
    z: States, weights: Floats, ridge: float, *, scales: Floats, flip_rate: float = 0.0,
    start: Floats | None = None,
) -> Floats:  # fmt: skip
    """Heads v, [D, M], that minimise a penalised log-loss of labels, each by weights of its own.

    sum_i w_im -log(e + (1 - 2e) sigmoid(s_i z_i . v_m)) + N ridge / 2 |v_m|^2

    By L-BFGS in coordinates in which the curvature is at most 1 (Bohning's bound), for all heads at
    once; with e = 0 it is convex.

    Args:
        z: [N, D]. weights: w, [N, M]. scales: s, [N].
        flip_rate: e.
        start: v to begin with; default 0.

    Source: Bohning and Lindsay, Annals of the Institute of Statistical Mathematics 40 (1988) 641.
    """
    size, width = z.shape
    penalty = ridge * size
    scaled = z * scales[:, None].astype(np.float32)
    bound = (scaled * weights.mean(1)[:, None].astype(np.float32)).T @ scaled / 4
    upper, _ = cho_factor(bound.astype(np.float64) + penalty * np.eye(width))  # R'R
    keep = 1 - 2 * flip_rate

    def loss(flat: Floats) -> tuple[float, Floats]:
        v = solve_triangular(upper, flat.reshape(width, -1))
        margins = (scaled @ v.astype(np.float32)).astype(np.float64)
        agree = expit(margins)
        label = np.maximum(flip_rate + keep * agree, 1e-300)
        slope = -weights * keep * agree * (1 - agree) / label
        value = -float((weights * np.log(label)).sum()) + penalty / 2 * float((v * v).sum())
        gradient = (scaled.T @ slope.astype(np.float32)).astype(np.float64) + penalty * v
        return value, solve_triangular(upper, gradient, trans="T").reshape(-1)

    first = np.zeros((width, weights.shape[1])) if start is None else upper_times(upper, start)
    found = minimize(
        loss, first.reshape(-1), jac=True, method="L-BFGS-B",
        options={"maxiter": ITERATIONS, "ftol": 1e-7, "gtol": 1e-4},
    )  # fmt: skip
    return np.asarray(solve_triangular(upper, found.x.reshape(width, -1)), dtype=np.float64)


def upper_times(factor: Floats, values: Floats) -> Floats:
    """R v of the upper triangle of a factor, whose lower one holds anything."""
    return np.asarray(np.triu(factor) @ values, dtype=np.float64)
