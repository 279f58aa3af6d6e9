"""The quality recipe: which flaws and virtues a response has, and what each is worth in logits.

helpfulness = clip(core + defect + manner + addition, -4, 2); all effects are stated below. Flaws
grow rarer week by week, as the assistant learns.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

import numpy as np
from scipy import optimize, sparse

from palate.data.simulation.texts import texts
from palate.types import Bin, Comparison, Rating

# Effects on helpfulness, in logits. Assumed; wrong facts weigh little because a small model
# cannot check them, so that most of the signal is in what can be read off the text.
HELPFULNESS: Mapping[str, float] = {
    "right": 1.0,
    "wrong": -0.5,
    "off_topic": -2.3,
    "evasive": -1.8,
    "over_refusal": -2.0,
    "comply": 1.0,
    "decline": 0.0,
    "offer": 0.8,
    "other_offer": -0.8,
    "unasked": -1.0,
    "truncated": -1.4,
    "scrambled": -2.2,
    "repeated": -1.3,
    "contradicted": -1.6,
    "rude": -1.6,
    "warm": 0.5,
    "detail": 0.7,
    "ramble": -0.8,
}
LOWEST, HIGHEST = -4.0, 2.0

Weights = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Core:
    """What a response says before defects and manner.

    `wrong` is what would contradict it. `remark` is a sentence that carries truth of its own (an
    offer, a caveat) and that no defect hides: it goes in front of a text that is cut.
    """

    kind: str
    text: str
    extra: str = ""
    remark: str = ""
    wrong: str = ""
    effects: tuple[str, ...] = ()
    safety: float = 0.0
    rudeness: tuple[str, ...] = field(default_factory=lambda: texts().phrases.rude)


@dataclass(frozen=True, slots=True)
class Response:
    """One response with its latent truth; `recipe` names the ingredients that made it."""

    text: str
    helpfulness: float
    safety: float
    recipe: str


def flaw_scale(week: int) -> float:
    """How common flaws are in week 0, 1, ... relative to week 0: 0.55 + 0.45 exp(-week / 8)."""
    return 0.55 + 0.45 * math.exp(-week / 8.0)


# Probabilities in week 0; the first entry takes what the others leave. Tuned so that length
# carries no label: what lengthens is as often good (detail, warm) as bad (ramble, rude, repeated).
DEFECTS: Weights = {
    "whole": 0.0,
    "truncated": 0.09,
    "scrambled": 0.11,
    "repeated": 0.04,
    "contradicted": 0.06,
}
MANNERS: Weights = {"plain": 0.0, "warm": 0.24, "rude": 0.16}
ADDITIONS: Weights = {"nothing": 0.0, "detail": 0.40, "ramble": 0.11}
VIRTUES = frozenset({"warm", "detail"})


def pick(weights: Weights, scale: float, rng: Random) -> str:
    """Draw a key; flaws are scaled by `scale`, and the first key takes what is left."""
    roll = rng.random()
    names = iter(weights)
    rest = next(names)
    for name in names:
        roll -= weights[name] * (1.0 if name in VIRTUES else scale)
        if roll < 0:
            return name
    return rest


def respond(core: Core, scale: float, rng: Random) -> Response:
    """Give a core its defect, addition and manner, and add up what they are worth."""
    defect = pick(DEFECTS, scale, rng)
    if defect == "contradicted" and not core.wrong:
        defect = "scrambled"
    addition = pick(ADDITIONS, scale, rng)
    if defect == "truncated" or (addition == "detail" and not core.extra):
        addition = "nothing"
    manner = pick(MANNERS, scale, rng)
    text = _DEFECT[defect](core, rng)
    if core.remark:
        order = (core.remark, text) if defect == "truncated" else (text, core.remark)
        text = " ".join(order)
    if addition == "detail":
        text = f"{text} {core.extra}"
    elif addition == "ramble":
        text = f"{text} {rng.choice(texts().phrases.rambles)}"
    leads = defect == "truncated" or rng.random() < 0.5  # Nothing follows a cut.
    text = _with_manner(text, manner, core, leads, rng)
    # What is cut, shuffled or taken back no longer shows whether it was right, so it must not
    # matter: the latent truth is a function of the text.
    shows = core.kind != "wrong" or defect in ("whole", "repeated")
    parts = (core.kind if shows else "right", *core.effects, defect, addition, manner)
    worth = sum(HELPFULNESS.get(part, 0.0) for part in parts)
    named = "+".join(part for part in parts if part in HELPFULNESS)
    return Response(text, round(min(max(worth, LOWEST), HIGHEST), 6), core.safety, named)


def _with_manner(text: str, manner: str, core: Core, leads: bool, rng: Random) -> str:
    if manner == "plain":
        return f"{rng.choice(texts().phrases.neutral)} {text}" if rng.random() < 0.3 else text
    phrase = rng.choice(texts().phrases.warm if manner == "warm" else core.rudeness)
    return f"{phrase} {text}" if leads else f"{text} {phrase}"


def _whole(core: Core, _rng: Random) -> str:
    return core.text


def _truncated(core: Core, rng: Random) -> str:
    # Cut in the second half, so that a cut answer is not much shorter than a whole one.
    words = core.text.rstrip(".!?").split()
    keep = max(1, round(len(words) * rng.uniform(0.45, 0.85)))
    return " ".join(words[: min(keep, len(words) - 1)]).rstrip(",;:")


def _scrambled(core: Core, rng: Random) -> str:
    words = [word.strip(".,:;!?") for word in core.text.split()]
    shuffled = words.copy()
    rng.shuffle(shuffled)
    if shuffled == words:
        shuffled.reverse()
    salad = " ".join(shuffled)
    return f"{salad[0].upper()}{salad[1:]}."


def _repeated(core: Core, rng: Random) -> str:
    if rng.random() < 0.5:
        return f"{core.text} {core.text}"
    words = core.text.split()
    start = rng.randrange(max(1, len(words) - 3))
    loop = words[start : start + rng.randint(2, 4)]
    return " ".join([*words[:start], *loop, *loop, *words[start:]])


def _contradicted(core: Core, rng: Random) -> str:
    first, second = (core.text, core.wrong) if rng.random() < 0.5 else (core.wrong, core.text)
    return f"{first} {rng.choice(texts().phrases.reversals)} {second}"


_DEFECT: Mapping[str, Callable[[Core, Random], str]] = {
    "whole": _whole,
    "truncated": _truncated,
    "scrambled": _scrambled,
    "repeated": _repeated,
    "contradicted": _contradicted,
}


# Simulated annotators: Bradley-Terry choices, four-level ratings, and their exact Bayes limit.
#
# An annotator perceives `d = x + e` with `x = (u_A - u_B) / temperature` and `e` standard
# logistic,
# prefers A if d >= 0 (so P(A) = sigmoid(x), Bradley-Terry), and rates by the size of d:
# `|d|` in [c_k, c_k+1) gives level k. The judge that knows x chooses its sign; how often it
# agrees
# with the annotator follows from the logistic distribution function alone.

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


# What can be known of a campaign without a model: its Bayes limit and its cheap baselines.

_WORD = re.compile(r"[\w']+")


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
    An item adds its `item_limit`: with the rating for ratings, without it for the rest.
    """
    values: defaultdict[str, list[float]] = defaultdict(list)
    for comparison in comparisons:
        plain, given = item_limit(comparison, chosen_unsafe_excluded=chosen_unsafe_excluded)
        values["all"].append(plain)
        if comparison.bin is not None:
            values[comparison.bin.value].append(plain)
        if comparison.rating is not None:
            values[comparison.rating.label].append(given)
    return {label: (float(np.mean(found)), len(found)) for label, found in values.items()}


def length_baseline(comparisons: Iterable[Comparison]) -> float:
    """Share of comparisons whose chosen response has more characters; equal lengths count half."""
    shares = [_half(len(c.chosen) - len(c.rejected)) for c in comparisons]
    return float(np.mean(shares))


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
    shares = [
        _half(sign * ((word in _words(c.chosen)) - (word in _words(c.rejected)))) for c in test
    ]
    return WordRule(word, vote > 0, float(np.mean(shares)))


def bag_of_words_baseline(
    train: Sequence[Comparison], test: Sequence[Comparison], penalty: float = 1.0
) -> float:
    """Accuracy on `test` of logistic regression on word presence differences, fitted on `train`.

    Minimises sum log(1 + exp(-X w)) + penalty/2 |w|^2 with rows chosen minus rejected; ties (no
    known word differs) count half.
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
    margins = _differences(test, vocabulary, grow=False) @ fitted.x
    return float(np.mean([_half(margin) for margin in margins]))


def _differences(
    comparisons: Sequence[Comparison], vocabulary: dict[str, int], *, grow: bool
) -> sparse.csr_matrix:
    data, rows, columns = [], [], []
    for row, comparison in enumerate(comparisons):
        chosen, rejected = _words(comparison.chosen), _words(comparison.rejected)
        for value, found in ((1.0, chosen - rejected), (-1.0, rejected - chosen)):
            for word in sorted(found):
                if grow:
                    vocabulary.setdefault(word, len(vocabulary))
                if word in vocabulary:
                    data.append(value)
                    rows.append(row)
                    columns.append(vocabulary[word])
    shape = (len(comparisons), len(vocabulary))
    return sparse.csr_matrix((data, (rows, columns)), shape=shape)


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))


def _half(difference: float) -> float:
    return 0.5 if difference == 0 else float(difference > 0)
