"""Simulated annotators: Bradley-Terry choices, four-level ratings, and what can be known of them.

An annotator perceives `d = x + e` with `x = (u_A - u_B) / temperature` and `e` standard logistic,
prefers A if d >= 0 (so P(A) = sigmoid(x), Bradley-Terry), and rates by the size of d: `|d|` in
[c_k, c_k+1) gives level k. The judge that knows x chooses its sign; how often it agrees with the
annotator, the Bayes limit, follows from the logistic distribution function alone.

With a tie threshold h, |d| < h is a tie, which is Rao and Kupper's model. An annotator of care c
reads the responses with that probability, and otherwise judges them as if they were equal, x = 0.
One who ranks several perceives each with a Gumbel error of its own: the ranking is Plackett and
Luce's, and each of its pairs is Bradley and Terry's.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from scipy import optimize, sparse

from palate.types import Bin, Comparison, Rating

# On |d|, in logits. Assumed: about 26 / 31 / 25 / 18 % of the first weeks' helpfulness pairs from
# negligibly to significantly better; the paper gives levels but no shares in section 3.2.
RATING_CUTS: tuple[float, float, float] = (1.0, 2.2, 3.7)
_EDGES: tuple[float, ...] = (0.0, *RATING_CUTS, math.inf)
_FARTHEST = 500.0  # Logits; beyond it the posterior no longer moves and exp would underflow.


@dataclass(frozen=True, slots=True)
class Judgement:
    """One annotator's answer about responses A and B."""

    first_preferred: bool
    rating: Rating | None
    """None in a tie."""


def sigmoid(x: float) -> float:
    """The logistic distribution function; keeps its relative precision in the lower tail."""
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-x))
    grown = math.exp(x)
    return grown / (1.0 + grown)


def judge(difference: float, rng: Random) -> Judgement:
    """Draw one judgement of a utility difference u_A - u_B given in units of the temperature."""
    return judged(difference + logistic(rng))


def logistic(rng: Random) -> float:
    """A standard logistic error, e."""
    p = _open(rng.random())
    return math.log(p / (1.0 - p))


def judged(perceived: float, tie_threshold: float = 0.0) -> Judgement:
    """What an annotator says who perceives the difference d."""
    tied = abs(perceived) < tie_threshold
    return Judgement(perceived >= 0, None if tied else rating_of(abs(perceived)))


def perceive(utilities: Sequence[float], rng: Random) -> list[float]:
    """Each utility, in units of the temperature, with a standard Gumbel error of its own."""
    return [utility - math.log(-math.log(_open(rng.random()))) for utility in utilities]


def _open(p: float) -> float:
    """A probability in the open interval, where logarithms are finite."""
    return min(max(p, 1e-15), 1.0 - 1e-15)


def care_of(annotator: int, annotators: int, least: float) -> float:
    """The care of annotator 0, 1, ...: evenly from the first's, `least`, to the last's, 1."""
    return least + (1.0 - least) * annotator / max(1, annotators - 1)


def rating_of(strength: float) -> Rating:
    """The level of a perceived strength |d|: NEGLIGIBLY below the first cut, and so on."""
    return Rating(1 + sum(strength >= cut for cut in RATING_CUTS))


def bayes_accuracy(difference: float, *, tie_threshold: float = 0.0, care: float = 1.0) -> float:
    """Probability that the truly better response is the preferred one, if one is.

    With x = |difference|, h the tie threshold and c the care:
    right = c F(x - h) + (1 - c) F(-h), wrong = c F(-x - h) + (1 - c) F(-h), and of those right.
    Without ties and with care 1 it is sigmoid(x).
    """
    x = abs(difference)
    if tie_threshold == 0 and care == 1:
        return sigmoid(x)
    careless = (1 - care) * sigmoid(-tie_threshold)
    right = care * sigmoid(x - tie_threshold) + careless
    return right / (right + care * sigmoid(-x - tie_threshold) + careless)


def rating_probabilities(
    difference: float, rating: Rating, tie_threshold: float = 0.0
) -> tuple[float, float]:
    """(P(right and this level), P(wrong and this level)) of a difference x.

    With F the logistic distribution function, x = |difference| and the level's strengths [a, b),
    of which those below the tie threshold are missing:
    P(right, level) = F(b - x) - F(a - x), P(wrong, level) = F(-a - x) - F(-b - x).
    """
    x = min(abs(difference), _FARTHEST)
    low, high = max(_EDGES[rating - 1], tie_threshold), _EDGES[rating]
    return _mass(low - x, high - x), _mass(-high - x, -low - x)


def bayes_accuracy_given_rating(
    difference: float, rating: Rating, *, tie_threshold: float = 0.0, care: float = 1.0
) -> float:
    """Probability that the truly better response is the preferred one, given the level.

    Bayes' rule on `rating_probabilities`: right / (right + wrong), each with probability `care`
    that of the difference and otherwise that of none.
    """
    right, wrong = rating_probabilities(difference, rating, tie_threshold)
    if care < 1:
        careless = (1 - care) * rating_probabilities(0.0, rating, tie_threshold)[0]
        right, wrong = care * right + careless, care * wrong + careless
    return right / (right + wrong)


def _mass(low: float, high: float) -> float:
    """F(high) - F(low), taken in the lower tail where it is exact."""
    return sigmoid(-low) - sigmoid(-high) if low > 0 else sigmoid(high) - sigmoid(low)


# What can be known of a campaign without a model: its Bayes limit and its cheap baselines.


@dataclass(frozen=True, slots=True)
class WordRule:
    """The best single-word rule: prefer (or avoid) the response that has `word`."""

    word: str
    prefer: bool
    accuracy: float


def item_limit(
    comparison: Comparison, *, chosen_unsafe_excluded: bool = True
) -> tuple[float, float]:
    """P(the truly better response was preferred | what is recorded): without and with the rating.

    Where pairs with an unsafe choice against a safe response are excluded (lint does, and the
    default here says so), a pair that is kept has its safe response chosen for certain.
    """
    if chosen_unsafe_excluded and comparison.bin is Bin.SAFE_UNSAFE:
        return 1.0, 1.0
    plain = float(comparison.meta["bayes"])
    return plain, float(comparison.meta.get("bayes_given_rating", plain))


def bayes_limit(
    comparisons: Iterable[Comparison], *, chosen_unsafe_excluded: bool = True
) -> dict[str, tuple[float, int]]:
    """The accuracy of the judge that knows the latent truth: label -> (value, n).

    Labels are "all", the rating labels ("negligibly" ... "significantly") and the safety bins.
    An item adds its `item_limit`: with the rating for ratings, without it for the rest. Ties are
    left out.
    """
    values: defaultdict[str, list[float]] = defaultdict(list)
    for comparison in comparisons:
        if comparison.judgement.decides == "tie":
            continue
        plain, given = item_limit(comparison, chosen_unsafe_excluded=chosen_unsafe_excluded)
        values["all"].append(plain)
        if comparison.bin is not None:
            values[comparison.bin.value].append(plain)
        if comparison.rating is not None:
            values[comparison.rating.label].append(given)
    return {label: (float(np.mean(limits)), len(limits)) for label, limits in values.items()}


def length_baseline(comparisons: Iterable[Comparison]) -> float:
    """Share of comparisons whose chosen response has more characters; equal lengths count half."""
    return _accuracy([len(c.chosen) - len(c.rejected) for c in comparisons])


def single_word_baseline(train: Iterable[Comparison], test: Iterable[Comparison]) -> WordRule:
    """The word whose presence in one response only best tells the label, fitted on `train`.

    Its accuracy is measured on `test`; a comparison in which both or neither response has the
    word counts half.
    """
    votes: Counter[str] = Counter()
    for comparison in train:
        chosen, rejected = _words(comparison.chosen), _words(comparison.rejected)
        votes.update(chosen - rejected)
        votes.subtract(rejected - chosen)
    word, vote = max(votes.items(), key=lambda item: (abs(item[1]), item[0]))
    sign = 1 if vote > 0 else -1
    margins = [sign * ((word in _words(c.chosen)) - (word in _words(c.rejected))) for c in test]
    return WordRule(word, vote > 0, _accuracy(margins))


def bag_of_words_baseline(
    train: Sequence[Comparison], test: Sequence[Comparison], penalty: float = 1.0
) -> float:
    """Accuracy of `bag_of_words_margins`; ties (no known word differs) count half."""
    return _accuracy(bag_of_words_margins(train, test, penalty))


def bag_of_words_margins(
    train: Sequence[Comparison], test: Sequence[Comparison], penalty: float = 1.0
) -> np.ndarray:
    """Logits of `test`, [N], by logistic regression on word presence differences of `train`.

    Minimises sum log(1 + exp(-X w)) + penalty/2 |w|^2 with rows chosen minus rejected.
    """
    vocabulary: dict[str, int] = {}
    rows = _differences(train, vocabulary, grow=True)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margins = rows @ weights
        value = np.logaddexp(0.0, -margins).sum() + 0.5 * penalty * weights @ weights
        gradient = penalty * weights - rows.T @ (1.0 / (1.0 + np.exp(margins)))
        return float(value), gradient

    start = np.zeros(rows.shape[1])
    fitted = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return np.asarray(_differences(test, vocabulary, grow=False) @ fitted.x)


def _differences(
    comparisons: Sequence[Comparison], vocabulary: dict[str, int], *, grow: bool
) -> sparse.csr_matrix:
    data, rows, columns = [], [], []
    for row, comparison in enumerate(comparisons):
        chosen, rejected = _words(comparison.chosen), _words(comparison.rejected)
        for value, only in ((1.0, chosen - rejected), (-1.0, rejected - chosen)):
            for word in sorted(only):
                if grow:
                    vocabulary.setdefault(word, len(vocabulary))
                if word in vocabulary:
                    data.append(value)
                    rows.append(row)
                    columns.append(vocabulary[word])
    shape = (len(comparisons), len(vocabulary))
    return sparse.csr_matrix((data, (rows, columns)), shape=shape)


def _words(text: str) -> set[str]:
    return set(re.findall(r"[\w']+", text.lower()))


def _accuracy(margins: Sequence[float] | np.ndarray) -> float:
    """Share of margins above 0; those of 0 count half."""
    return float(np.mean((1 + np.sign(margins)) / 2))
