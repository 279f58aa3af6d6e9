"""Reward heads on states that stay as they are, fitted in milliseconds, and ensembles of them.

A head w gives a pair whose states differ by x the reward difference x . w. It is the most likely
one under Bradley and Terry's model with a normal prior,

    sum_i c_i log(1 + exp(-x_i . w)) + a |w|^2 / 2,

x of the preferred response less the other, c how often a label counts. The loss is convex, and
Newton's method ends in a few steps. The prior's precision a is the one under which the labels are
most likely (MacKay's evidence by Laplace's approximation), sought afresh each round, so that a
model of 40 labels and one of 400 are both as strong as they should be.

Shape letters: N labelled pairs, D width of the states, M members.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.special import expit

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

PRECISIONS = tuple(10.0 ** (k / 2) for k in range(-4, 8))  # Of the prior: 0.01 to 3,162.
STEPS, ENOUGH = 30, 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """The most likely weights [D], the prior's precision, and L [D, D] with L L' the Hessian.

    `evidence` is the log probability of the labels under this prior, by Laplace.
    """

    weights: Floats
    precision: float
    factor: Floats
    evidence: float


def fit(x: Floats, counts: Floats, precision: float, start: Floats | None = None) -> Head:
    """The head of one prior, by Newton's method from `start`.

    Args:
        x: preferred less other, [N, D].
        counts: how often each label counts, 0 or more, [N].
    """
    w = np.zeros(x.shape[1]) if start is None else start
    loss = _loss(x, counts, precision, w)
    for _ in range(STEPS):
        p = expit(-(x @ w))
        slope = precision * w - x.T @ (counts * p)
        factor = _factor(x, counts * p * (1 - p), precision)
        step = cho_solve((factor, True), slope)
        size = 1.0
        while (after := _loss(x, counts, precision, w - size * step)) > loss and size > 1e-4:
            size /= 2
        w, gained, loss = w - size * step, loss - after, after
        if gained < ENOUGH * (1 + abs(loss)):
            break
    p = expit(-(x @ w))
    factor = _factor(x, counts * p * (1 - p), precision)
    volume = 0.5 * w.size * math.log(precision) - float(np.log(np.diag(factor)).sum())
    return Head(w, precision, factor, volume - loss)


def _loss(x: Floats, counts: Floats, precision: float, w: Floats) -> float:
    return float(counts @ np.logaddexp(0, -(x @ w)) + 0.5 * precision * (w @ w))


def _factor(x: Floats, curvature: Floats, precision: float) -> Floats:
    hessian = (x.T * curvature) @ x
    hessian[np.diag_indices_from(hessian)] += precision
    return np.asarray(cholesky(hessian, lower=True, check_finite=False))


def fit_best(x: Floats, counts: Floats, near: float | None = None) -> Head:
    """The head under the prior with the most evidence, sought from the precision `near` on."""
    found: dict[int, Head] = {}

    def at(place: int) -> Head:
        if place not in found:
            start = min(found, key=lambda other: abs(other - place), default=None)
            w = None if start is None else found[start].weights
            found[place] = fit(x, counts, PRECISIONS[place], w)
        return found[place]

    place = len(PRECISIONS) // 2 if near is None else PRECISIONS.index(near)
    while True:
        around = range(max(0, place - 1), min(len(PRECISIONS), place + 2))
        best = max(around, key=lambda one: at(one).evidence)
        if best == place:
            return found[place]
        place = best


# Ensembles.


@dataclass(frozen=True, slots=True, eq=False)
class Members:
    """Weights [M, D], and how often each has each label in its sample, [M, N] or None: all once."""

    weights: Floats
    drawn: Codes | None = None


def posterior(head: Head, members: int, rng: np.random.Generator) -> Members:
    """Draws from the normal approximation of what the weights may be, given the labels."""
    noise = rng.normal(size=(head.weights.size, members))
    apart = solve_triangular(head.factor, noise, lower=True, trans="T", check_finite=False)
    return Members(head.weights + np.asarray(apart).T)


def bootstrap(
    x: Floats, counts: Floats, prompts: Codes, head: Head, members: int, rng: np.random.Generator
) -> Members:
    """Heads of bootstrap samples of the prompts, as `train.ensemble` of heads draws them."""
    of = np.unique(prompts, return_inverse=True)[1]
    drawn = rng.poisson(1.0, size=(members, int(of.max()) + 1))[:, of]
    weights = [fit(x, counts * d, head.precision, head.weights).weights for d in drawn]
    return Members(np.stack(weights), drawn)


def unseen(x: Floats, members: Members) -> Floats:
    """Of each labelled pair the mean difference by those members that have not learnt from it.

    NaN where all have; without samples of their own, all have. [N]
    """
    if members.drawn is None:
        return np.full(len(x), np.nan)
    said, away = x @ members.weights.T, (members.drawn == 0).T
    with np.errstate(invalid="ignore"):
        return np.asarray((said * away).sum(1) / away.sum(1))
