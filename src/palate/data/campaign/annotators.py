"""Simulated annotators: Bradley-Terry choices, four-level ratings, and their exact Bayes limit.

An annotator perceives `d = x + e` with `x = (u_A - u_B) / temperature` and `e` standard logistic,
prefers A if d >= 0 (so P(A) = sigmoid(x), Bradley-Terry), and rates by the size of d:
`|d|` in [c_k, c_k+1) gives level k. The judge that knows x chooses its sign; how often it agrees
with the annotator follows from the logistic distribution function alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from palate.types import Rating

# On |d|, in logits. Assumed: about 26 / 31 / 25 / 18 % of the first weeks' helpfulness pairs from
# negligibly to significantly better; the paper gives levels but no shares in section 3.2.
RATING_CUTS: tuple[float, float, float] = (1.0, 2.2, 3.7)
_EDGES: tuple[float, ...] = (0.0, *RATING_CUTS, math.inf)
_FARTHEST = 500.0  # Logits; beyond it the posterior no longer moves and exp would underflow.


@dataclass(frozen=True, slots=True)
class Judgement:
    """One annotator's answer about responses A and B."""

    first_preferred: bool
    rating: Rating


def sigmoid(x: float) -> float:
    """The logistic distribution function; keeps its relative precision in the lower tail."""
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-x))
    grown = math.exp(x)
    return grown / (1.0 + grown)


def judge(difference: float, rng: Random) -> Judgement:
    """Draw one judgement of a utility difference u_A - u_B given in units of the temperature."""
    # The open interval keeps the logit finite.
    p = min(max(rng.random(), 1e-15), 1.0 - 1e-15)
    perceived = difference + math.log(p / (1.0 - p))
    return Judgement(perceived >= 0, rating_of(abs(perceived)))


def rating_of(strength: float, cuts: Sequence[float] = RATING_CUTS) -> Rating:
    """The level of a perceived strength |d|: NEGLIGIBLY below the first cut, and so on."""
    return Rating(1 + sum(strength >= cut for cut in cuts))


def bayes_accuracy(difference: float) -> float:
    """Probability that the truly better response is the preferred one: sigmoid(|x|)."""
    return sigmoid(abs(difference))


def rating_probabilities(difference: float, rating: Rating) -> tuple[float, float]:
    """(P(right and this level), P(wrong and this level)) of a difference x.

    With F the logistic distribution function, x = |difference| and the level's strengths [a, b):
    P(right, level) = F(b - x) - F(a - x), P(wrong, level) = F(-a - x) - F(-b - x).
    """
    x = min(abs(difference), _FARTHEST)
    low, high = _EDGES[rating - 1], _EDGES[rating]
    return _mass(low - x, high - x), _mass(-high - x, -low - x)


def bayes_accuracy_given_rating(difference: float, rating: Rating) -> float:
    """Probability that the truly better response is the preferred one, given the level.

    Bayes' rule on `rating_probabilities`: right / (right + wrong).
    """
    right, wrong = rating_probabilities(difference, rating)
    return right / (right + wrong)


def _mass(low: float, high: float) -> float:
    """F(high) - F(low), taken in the lower tail where it is exact."""
    return sigmoid(-low) - sigmoid(-high) if low > 0 else sigmoid(high) - sigmoid(low)
