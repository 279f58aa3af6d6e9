"""Which pairs to have labelled next: chosen at random, with probabilities that follow their worth.

Two responses to one prompt are a pair. What its label would teach is what the members of an
ensemble disagree on (`information`), or what that says of other pairs (`expected_gain`).

The best pairs are not simply taken. Every choice is a draw with a known probability, so that each
label can be weighted by 1 / probability and what is labelled still speaks for the whole pool:

1. Prompts are kept for testing by a random number that a prompt has for ever: those below `reserve`
   are never chosen for training, in no round with this seed. The held-out questions of a round are
   the next of them in that order, one pair each: a simple random sample of the prompts. What is
   near to one of these questions is not chosen for training beside it.
2. The others have probabilities that are a mixture: `random` uniform over prompts, the rest
   proportional to worth ** `power`; those of safety prompts are raised where they would make up
   less than the share `safety`. So no pair has much less than the random share gives it, and no
   weight explodes.
3. A systematic sample (Madow) of fixed size is drawn with exactly these probabilities, along a
   line on which similar prompts are neighbours, so that it takes few of each kind; of prompts that
   are near-duplicates of one, at most `pairs_per_prompt` together.

Proportional draws instead of the best ones cost little: they select batches as well as methods that
look at whole batches (Kirsch et al., arXiv 2106.12059, whose power acquisition this is).

Shape letters: P pairs, G prompts, M members, T target pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator
from scipy.special import entr, expit

from palate.types import PalateError

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Flags = NDArray[np.bool_]
Keys = NDArray[np.uint64]

RANDOM = 1.0
"""Share at random where none is stated: all. That the members' disagreement needs fewer labels has
not been shown (`make bench-labels`: 0.96 of them, 0.84 to 1.09, where heads can learn the truth);
until it is, it has to be asked for."""
MOST_PAIRS = 10**9
"""Of a round: more than a pool in memory has, and 64 bits hold the product of two such numbers."""
TARGETS_AT_ONCE = 256  # Of an expected gain; bounds memory at 4 MB a thousand pairs.


class Reason(StrEnum):
    """Why a pair was chosen."""

    HELD_OUT = "held-out"
    RANDOM = "random"
    INFORMATION = "information"
    SAFETY = "safety"


DRAWN = (Reason.RANDOM, Reason.INFORMATION)
"""The parts of the mixture that pairs for training are drawn from."""


class SelectionOptions(BaseModel):
    """How many pairs are asked for, and what shares of them are chosen how."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    budget: int = Field(
        ge=1, le=MOST_PAIRS, description="Pairs to ask for, held-out ones among them."
    )
    test_set: float = Field(
        0.1,
        ge=0,
        le=MOST_PAIRS,
        description="Held-out pairs: below 1 a share of the budget, else their number.",
    )
    reserve: float = Field(
        0.1, ge=0, lt=1, description="Share of all prompts that is kept for testing, for ever."
    )
    random: float = Field(RANDOM, ge=0, le=1, description="Share at random of the others.")
    safety: float = Field(0.0, ge=0, le=1, description="Least share of safety prompts in them.")
    pairs_per_prompt: int = Field(
        1, ge=1, le=MOST_PAIRS, description="Most pairs of one prompt in a round."
    )
    power: float = Field(
        1.0, ge=0, description="Pairs are drawn by worth to this power: the higher, the greedier."
    )
    seed: int = Field(
        0, ge=0, description="Of the test prompts for ever, and of this round's draws."
    )

    @field_validator("test_set")
    @classmethod
    def _whole(cls, value: float) -> float:
        if value >= 1 and not value.is_integer():
            raise ValueError("expected a share below 1 or a whole number")
        return value

    @property
    def held_out(self) -> int:
        """How many held-out pairs are asked for."""
        return round(self.test_set * self.budget) if self.test_set < 1 else int(self.test_set)

    def keeps(self, ranks: Keys) -> Flags:
        """Whether each prompt is kept for testing, by its permanent random number, [G]."""
        return np.asarray(ranks < np.uint64(self.reserve * 2.0**64), dtype=np.bool_)


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """The pairs that are asked for, in the order in which they are asked: a random one.

    Whoever stops early has answered a random part of each kind. `probability` is that of the pair
    being chosen, `reason` one of `Reason`. All [n].
    """

    pairs: Codes
    probability: Floats
    reason: NDArray[Any]


# What a label would teach.


def information(differences: ArrayLike) -> Floats:
    """What the label of each pair would tell of the members, in nats, [P].

    H(mean_m p_m) - mean_m H(p_m), p_m = sigmoid(d_m), H(p) = -p log p - (1 - p) log (1 - p): the
    mutual information of the label and the member that is right. It is 0 where members agree,
    also where they agree that it is a coin toss, and at most log 2.

    Args:
        differences: d, each member's reward of one response less that of the other, [P, M].

    Source: Houlsby et al., arXiv 1112.5745 (BALD).
    """
    p = expit(np.asarray(differences, dtype=np.float64))
    return np.maximum(_entropy(p.mean(1)) - _entropy(p).mean(1), 0.0)


def _entropy(p: Floats) -> Floats:
    return np.asarray(entr(p) + entr(1 - p))


def expected_gain(differences: ArrayLike, targets: ArrayLike) -> Floats:
    """What the label of each pair would tell of the labels of target pairs, in nats, [P].

    The mean over targets t of the mutual information of both labels, their joint distribution
    being mean_m p_m(y) q_tm(y'). A pair on which members disagree, but not as they do on the
    targets, is worth little. Of M members the mean of what they have in common by chance is about
    that of unrelated pairs, so that the order of pairs means more than the size.

    Args:
        differences: of the pairs, as in `information`, [P, M].
        targets: of the pairs of a benchmark, by the same members, [T, M].

    Source: Bickford Smith et al., arXiv 2304.08151 (expected predictive information gain).
    """
    p = expit(np.asarray(differences, dtype=np.float64))
    q = expit(np.asarray(targets, dtype=np.float64))
    if not q.size:
        raise ValueError("expected target pairs, got none")
    mean, total = p.mean(1)[:, None], np.zeros(len(p))
    for start in range(0, len(q), TARGETS_AT_ONCE):
        part = q[start : start + TARGETS_AT_ONCE]
        other = part.mean(1)[None, :]
        both = p @ part.T / p.shape[1]  # [P, T] P(both first)
        cells = (both, mean - both, other - both, 1 - mean - other + both)
        joint = sum(entr(np.maximum(cell, 0.0)) for cell in cells)
        total += (_entropy(mean) + _entropy(other) - joint).sum(1)
    return np.maximum(total / len(q), 0.0)


# The draw.


def select(
    worth: ArrayLike,
    prompts: ArrayLike,
    options: SelectionOptions,
    rng: np.random.Generator,
    *,
    ranks: Keys | None = None,
    asked: Flags | None = None,
    apart: Flags | None = None,
    near: ArrayLike | None = None,
    safety: Flags | None = None,
    along: ArrayLike | None = None,
) -> Selection:
    """Draw the pairs to ask for; see the head of this file for the design.

    Args:
        worth: of each pair, 0 or more, [P].
        prompts: the prompt of each pair, numbered from 0, [P].
        rng: of this round.
        ranks: the permanent random number of each prompt, uniform over 64 bits, [G]; default: drawn
            from `rng`, which suits one round alone.
        asked: prompts that were asked before, of which nothing is asked again, [G].
        apart: prompts that are not to be trained on, though they may be held out, [G].
        near: which prompts are near-duplicates of which, [E, 2].
        safety: prompts about safety, [G].
        along: numbers that are near for prompts that are similar, [G].

    Raises:
        PalateError: the budget is more than there is to ask, or a share cannot be had.
        ValueError: a worth is below 0 or not finite.
    """
    w, of = np.asarray(worth, dtype=np.float64), np.asarray(prompts, dtype=np.int64)
    if not (np.isfinite(w) & (w >= 0)).all():
        raise ValueError("expected worths of 0 or more, finite")
    if ranks is None:
        ranks = rng.integers(0, 2**64, int(of.max(initial=-1)) + 1, dtype=np.uint64)
    count = ranks.size
    edges = np.empty((0, 2), np.int64) if near is None else np.asarray(near, np.int64)
    none = np.zeros(count, dtype=np.bool_)
    shut = np.bincount(of, minlength=count) == 0  # Nothing to ask of such a prompt.
    shut |= none if asked is None else asked
    kept = options.keeps(ranks)
    tests = _held_out(of, ranks, kept & ~shut, options, rng)
    closed = kept | shut | (none if apart is None else apart)
    closed |= _beside(of[tests.pairs], edges, count)
    training = _drawn(
        w, of, np.flatnonzero(~closed[of]), options, rng,
        families=_families(edges, count),
        safety=none if safety is None else safety,
        along=np.zeros(count) if along is None else np.asarray(along, dtype=np.float64),
    )  # fmt: skip
    order = rng.permutation(len(tests.pairs) + len(training.pairs))
    return Selection(
        np.concatenate([tests.pairs, training.pairs])[order],
        np.concatenate([tests.probability, training.probability])[order],
        np.concatenate([tests.reason, training.reason])[order],
    )


def _beside(prompts: Codes, near: Codes, count: int) -> Flags:
    """Which prompts are near to one of these, [G]."""
    marked = np.zeros(count, dtype=np.bool_)
    of_these = marked.copy()
    of_these[prompts] = True
    marked[near[of_these[near[:, 1]], 0]] = True
    marked[near[of_these[near[:, 0]], 1]] = True
    return marked


def _families(near: Codes, count: int) -> Codes:
    """The family of each prompt, [G]: the first prompt that it is near to and that leads one, else
    itself. All of a family are near to its leader; whole chains of near prompts are not one."""
    leader = np.arange(count)
    high, low = near.max(axis=1, initial=0), near.min(axis=1, initial=count)
    for place in np.lexsort((low, high)).tolist():
        follower, one = high[place], low[place]
        if leader[follower] == follower != one and leader[one] == one:
            leader[follower] = one
    return leader


def _held_out(
    prompts: Codes,
    ranks: Keys,
    eligible: Flags,
    options: SelectionOptions,
    rng: np.random.Generator,
) -> Selection:
    """The next of the test prompts in their permanent order, one pair of each at random.

    A prompt is among those that are kept with probability `reserve`, and of these R the first n
    are asked. So each pair has probability reserve n / R, over the pairs of its prompt.
    """
    wanted, (of,) = options.held_out, np.nonzero(eligible)
    if wanted > options.budget:
        raise PalateError(
            f"test set {wanted:,}: more than the budget of {options.budget:,} pairs; ask for less"
        )
    if wanted > of.size:
        raise PalateError(
            f"test set: {wanted:,} pairs are asked for, and {of.size:,} prompts of this pool are "
            f"kept for testing (reserve {options.reserve:g}) and were not asked before; ask for a "
            "smaller test set, give more prompts, or keep more of them from the first round on"
        )
    taken = of[np.argsort(ranks[of], kind="stable")[:wanted]]
    drawn = np.lexsort((rng.random(prompts.size), prompts))  # Each prompt's pairs in random order.
    first = drawn[np.searchsorted(prompts[drawn], taken)]
    sizes = np.bincount(prompts, minlength=ranks.size)[taken]
    chance = options.reserve * wanted / max(of.size, 1)
    return Selection(first, chance / sizes, np.full(wanted, Reason.HELD_OUT.value, dtype=object))


def _drawn(
    worth: Floats,
    prompts: Codes,
    pairs: Codes,
    options: SelectionOptions,
    rng: np.random.Generator,
    *,
    families: Codes,
    safety: Flags,
    along: Floats,
) -> Selection:
    """The pairs for training, of those at `pairs` [Q]."""
    size, of = options.budget - options.held_out, prompts[pairs]
    seats, seat_families = _seats(families[of], options.pairs_per_prompt, rng)
    if size > len(seat_families):
        more = "" if options.pairs_per_prompt > 1 else ", one of each prompt (--pairs-per-prompt)"
        raise PalateError(
            f"budget {options.budget:,}: besides {options.held_out:,} held-out pairs there are "
            f"{len(seat_families):,} to ask for{more}; lower the budget to "
            f"{options.held_out + len(seat_families):,}, or give more prompts"
        )
    if not size:
        nothing = np.empty(0, dtype=np.int64)
        return Selection(nothing, np.empty(0), np.empty(0, dtype=object))
    parts = _mixture(worth[pairs], of, options)  # [2, Q]
    mass = parts.sum(0)
    seat_mass = np.asarray(np.bincount(seats, weights=mass), dtype=np.float64)
    about = np.bincount(seats, weights=safety[of]) > 0
    usual = inclusion_probabilities(seat_mass, size)
    chances = _with_safety(usual, seat_mass, about, options.safety * size)
    line = np.lexsort((rng.random(chances.size), along[seat_families], about))
    taken = np.zeros(chances.size, dtype=np.bool_)
    taken[line[systematic_sample(chances[line], rng)]] = True
    # Of each seat that was drawn one pair, by the mass of those in it: the largest of log mass
    # with a Gumbel error each. Where none has mass, each is as likely as the other.
    inside = np.flatnonzero(taken[seats])
    seat = seats[inside]
    within = np.where(
        seat_mass[seat] > 0, mass[inside] / np.maximum(seat_mass[seat], 1e-300),
        1 / np.bincount(seats)[seat],
    )  # fmt: skip
    with np.errstate(divide="ignore"):
        keys = np.log(within) + rng.gumbel(size=inside.size)
    ranked = np.lexsort((-keys, seat))
    best = ranked[np.flatnonzero(np.diff(seat[ranked], prepend=-1))]
    chosen = inside[best]
    raised = 1 - usual[seat[best]] / chances[seat[best]]
    reason = np.where(
        rng.random(best.size) < raised, Reason.SAFETY.value, _reasons(parts[:, chosen], rng)
    )
    return Selection(pairs[chosen], chances[seat[best]] * within[best], reason.astype(object))


def _seats(families: Codes, most: int, rng: np.random.Generator) -> tuple[Codes, Codes]:
    """Pairs dealt out to at most `most` seats a family: the seat of each [Q], the family of each.

    Of a seat at most one pair is drawn, which bounds how many a family gives.
    """
    dealt = np.lexsort((rng.random(families.size), families))
    starts = np.searchsorted(families[dealt], families[dealt])
    place = np.empty(families.size, dtype=np.int64)
    place[dealt] = (np.arange(families.size) - starts) % most
    names, seats = np.unique(families * most + place, return_inverse=True)
    return seats.astype(np.int64), names // most


def _mixture(worth: Floats, prompts: Codes, options: SelectionOptions) -> Floats:
    """What each part of the mixture, in the order of `DRAWN`, gives to each pair: [2, Q]; 1 in all.

    At random, prompts are as likely as one another, and so are the pairs of a prompt.
    """
    uniform = 1 / np.bincount(prompts)[prompts]
    uniform /= uniform.sum()
    most = worth.max(initial=0.0)
    useful = (worth / most) ** options.power if most > 0 else uniform  # No power underflows.
    useful = useful / useful.sum()
    return np.stack([options.random * uniform, (1 - options.random) * useful])


def _with_safety(usual: Floats, mass: Floats, about: Flags, wanted: float) -> Floats:
    """The probabilities of seats, those about safety raised to `wanted` in all where that is more.

    Each of the two parts then has probabilities proportional to mass for itself.
    """
    if not wanted or usual[about].sum() >= wanted:
        return usual
    if about.sum() < wanted:
        raise PalateError(
            f"safety: {wanted:,.0f} pairs are to be about it, and {int(about.sum()):,} of the "
            "pool's prompts that may be asked are; say which are, or ask for a smaller share"
        )
    chances = np.empty_like(usual)
    chances[about] = inclusion_probabilities(mass[about], wanted)
    chances[~about] = inclusion_probabilities(mass[~about], float(usual.sum()) - wanted)
    return chances


def _reasons(parts: Floats, rng: np.random.Generator) -> NDArray[Any]:
    """Which part of the mixture each pair came from, drawn by what each gave to it: [n]."""
    totals = parts.sum(0)
    ends = np.cumsum(parts, axis=0) / np.where(totals > 0, totals, 1.0)
    drawn = (rng.random(parts.shape[1]) >= ends).sum(0) % len(DRAWN)  # No mass: at random.
    return np.array([reason.value for reason in DRAWN], dtype=object)[drawn]


def inclusion_probabilities(mass: ArrayLike, size: float) -> Floats:
    """min(1, c mass), with c so that they add up to `size`: probabilities of a sample of that size.

    Where everything that has mass is certain, the rest is shared evenly by what has none.

    Args:
        mass: 0 or more, [U] with U >= size.
    """
    masses = np.asarray(mass, dtype=np.float64)
    chances, free = np.zeros(masses.size), np.ones(masses.size, dtype=np.bool_)
    while free.any():
        left, total = size - int((~free).sum()), float(masses[free].sum())
        if total <= 0:
            chances[free] = left / int(free.sum())
            break
        chances[free] = left * masses[free] / total
        certain = free & (chances >= 1)
        if not certain.any():
            break
        chances[certain] = 1.0
        free &= ~certain
    return chances


def systematic_sample(chances: ArrayLike, rng: np.random.Generator) -> Codes:
    """Units drawn with exactly these probabilities, which add up to a whole number n: [n], rising.

    One random start u, and every unit in whose stretch of the line one of u, u + 1, ... lies.

    Source: Madow, Annals of Mathematical Statistics 20 (1949) 333-354.
    """
    ends = np.cumsum(np.asarray(chances, dtype=np.float64))
    size = round(float(ends[-1])) if ends.size else 0
    if not size:
        return np.empty(0, dtype=np.int64)
    ends *= size / ends[-1]
    return np.searchsorted(ends, rng.random() + np.arange(size), side="right").astype(np.int64)
