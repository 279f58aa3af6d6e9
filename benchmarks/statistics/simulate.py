"""Test sets of known truth, and how often intervals hold it and tests find what is not there."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from palate import stats
from palate.stats import Estimate

Array = NDArray[np.float64]
Cells = dict[str, float]
WILSON = ((30, 0.95), (100, 0.64), (1_000, 0.64))
CLUSTERED = ((25, 0.65), (300, 0.63), (60, 0.95))
PAIRED = ((30, 0.6), (120, 0.6), (300, 0.8))
SURE = ((300, 1.0), (300, 2.0), (2_000, 1.0), (2_000, 2.0))
LEVEL = 0.05


def test_set(rng: np.random.Generator, prompts: int, mean: float) -> tuple[Array, Array]:
    """Beta-binomial truth: prompts of 1 to 6 items whose rates vary; rates and prompts, [N]."""
    rates = rng.beta(mean * 3, (1 - mean) * 3, prompts)
    codes = np.repeat(np.arange(prompts), rng.integers(1, 7, prompts))
    return rates[codes], codes


def answers(rng: np.random.Generator, rates: Array) -> Array:
    """1 right, 0 wrong, each with its rate."""
    return (rng.random(rates.size) < rates).astype(float)


def holds(found: Estimate, truth: float) -> bool:
    """Whether the interval contains the truth."""
    return found.low <= truth <= found.high


def coverage_wilson(rng: np.random.Generator, draws: int) -> Cells:
    """How often Wilson's 95 % interval holds the accuracy, by size and accuracy."""
    made = {}
    for n, truth in WILSON:
        right, times = np.unique(rng.binomial(n, truth, draws), return_counts=True)
        held = [holds(stats.wilson(int(k), n), truth) for k in right]
        made[f"n {n}, {truth}"] = float(times @ held / draws)
    return made


def coverage_clustered(rng: np.random.Generator, draws: int) -> Cells:
    """The same of the clustered interval, by prompts and accuracy."""
    made = {}
    for prompts, truth in CLUSTERED:
        held = 0
        for _ in range(draws):
            rates, codes = test_set(rng, prompts, truth)
            held += holds(stats.accuracy(answers(rng, rates), codes), truth)
        made[f"{prompts} prompts, {truth}"] = held / draws
    return made


def false_positive_paired(rng: np.random.Generator, draws: int) -> Cells:
    """How often two equally good judges differ at the 5 % level, by the test and prompts."""
    made = {}
    for prompts, mean in PAIRED:
        for clustered in (True, False):
            found = 0
            for _ in range(draws):
                rates, codes = test_set(rng, prompts, mean)
                one, two = answers(rng, rates), answers(rng, rates)
                tested = stats.paired_difference(one, two, codes if clustered else None, rng)
                found += tested.p_value <= LEVEL
            name = "sign-flip" if clustered else "mid-p McNemar"
            made[f"{name}, {prompts} prompts"] = found / draws
    return made


# Items of four responses in subsets of unlike size and difficulty, of which the score is the mean.
BEST_OF_K = ((20, 40), (60, 120))  # Prompts of the first and of the other two subsets.
LEADS = (0.3, 1.0, 2.0)  # Of the right response, in standard deviations of a response's score.
PER_PROMPT = 3  # Items of a prompt at most; they share its difficulty.


def four_scores(rng: np.random.Generator, leads: Array) -> Array:
    """Scores of four responses an item, the right one first, in halves so that some tie, [N, 4]."""
    scores = rng.normal(size=(leads.size, 4))
    scores[:, 0] += leads
    return np.round(2 * scores) / 2


def best_of_four(scores: Array) -> Array:
    """What each item is worth: the right response's share of the top, [N]."""
    at_top = scores == scores.max(axis=1, keepdims=True)
    return np.asarray(at_top[:, 0] / at_top.sum(axis=1))


def items_of_four(
    rng: np.random.Generator, sizes: Sequence[int]
) -> tuple[Array, NDArray[np.int64], NDArray[np.int64]]:
    """Leads, subsets and prompts of items whose prompts differ in difficulty, [N] each."""
    subsets = np.repeat(np.arange(len(sizes)), sizes)
    leads = np.array(LEADS)[subsets] + rng.normal(size=subsets.size)
    items = np.repeat(np.arange(subsets.size), rng.integers(1, PER_PROMPT + 1, subsets.size))
    return leads[items], subsets[items], items


def score_of(values: Array, subsets: NDArray[np.int64]) -> list[stats.Term]:
    """The mean of the subsets' means."""
    return [
        stats.Term(1 / len(LEADS), np.where(subsets == subset, values, np.nan))
        for subset in range(len(LEADS))
    ]


def truth_of_four(rng: np.random.Generator, size: int = 2_000_000) -> float:
    """What the score is over prompts without end: an error of 0.0002."""
    means = [best_of_four(four_scores(rng, lead + rng.normal(size=size))).mean() for lead in LEADS]
    return float(np.mean(means))


def coverage_best_of_k(rng: np.random.Generator, draws: int) -> Cells:
    """How often the 95 % interval of a mean of subsets, best of four, holds it."""
    made, truth = {}, truth_of_four(rng)
    for first, other in BEST_OF_K:
        held = 0
        for _ in range(draws):
            leads, subsets, prompts = items_of_four(rng, (first, other, other))
            values = best_of_four(four_scores(rng, leads))
            held += holds(stats.composite(score_of(values, subsets), prompts), truth)
        made[f"{first} and {other} prompts"] = held / draws
    return made


def false_positive_best_of_k(rng: np.random.Generator, draws: int) -> Cells:
    """How often the scores of two equally good judges differ at the 5 % level."""
    made = {}
    for first, other in BEST_OF_K:
        found = 0
        for _ in range(draws):
            leads, subsets, prompts = items_of_four(rng, (first, other, other))
            both = [score_of(best_of_four(four_scores(rng, leads)), subsets) for _ in range(2)]
            found += stats.composite_difference(*both, prompts, rng).p_value <= LEVEL
        made[f"{first} and {other} prompts"] = found / draws
    return made


def position_found(rng: np.random.Generator, draws: int, bias: float, items: int = 400) -> float:
    """How often a judge that answers "first" unseen with chance `bias` is found to lean."""
    found = 0
    for _ in range(draws):
        stands = rng.random(items) < 0.5
        one, other = (
            np.where(rng.random(items) < bias, first, rng.random(items) < 0.65).astype(float)
            for first in (stands, ~stands)
        )
        found += not holds(stats.accuracy(stats.chose_first(one, other, stands)), 0.5)
    return found / draws


def length_held(
    rng: np.random.Generator, draws: int, bias: float, items: int = 400
) -> tuple[float, float]:
    """How often the accuracy at equal lengths is held: length-controlled, and by the plain one."""
    controlled = plain = 0
    truth = float(expit(0.4))
    for _ in range(draws):
        lengths = rng.normal(100, 200, items)
        lean = bias * np.tanh(lengths / np.sqrt((lengths**2).mean()))
        values = answers(rng, expit(0.4 + lean))
        found = stats.length_controlled(values, lengths)
        controlled += found is not None and holds(found, truth)
        plain += holds(stats.accuracy(values), truth)
    return controlled / draws, plain / draws


def coverage_ece(rng: np.random.Generator, draws: int) -> Cells:
    """How often the interval of the ECE holds it, by items and by how many times too sure.

    A judge that is too sure everywhere has the ECE E[sigmoid(|d|) - sigmoid(|d| / T)], in whatever
    bins: no gap has another sign than the next.
    """
    made = {}
    for items, too_sure in SURE:
        sizes = np.abs(rng.normal(0, 1.5, 1_000_000))
        truth = float((expit(sizes) - expit(sizes / too_sure)).mean())
        held = 0
        for _ in range(draws):
            size = np.abs(rng.normal(0, 1.5, items))
            right = rng.random(items) < expit(size / too_sure)
            found = stats.measure_calibration(np.where(right, size, -size), None, rng)
            held += found is not None and holds(found.ece, truth)
        made[f"{items} items, {too_sure:g} times too sure"] = held / draws
    return made


# A judge in the place of people: prompts that it alone has seen, labelled ones, people's share for
# a side, how often the judge agrees with them for it and against it, and how often it ties.
JUDGED = (
    (300, 100, 0.6, 0.85, 0.75, 0.15),
    (1_000, 200, 0.5, 0.9, 0.6, 0.1),
    (600, 300, 0.7, 0.7, 0.6, 0.2),
    (300, 60, 0.5, 0.95, 0.95, 0.0),
)


def judged_set(
    rng: np.random.Generator, prompts: int, share: float, agrees: tuple[float, float], ties: float
) -> tuple[Array, Array, NDArray[np.int64]]:
    """A judge's answers, people's labels and prompts, [N] each; prompts of 1 to 3 comparisons."""
    rates = rng.beta(share * 6, (1 - share) * 6, prompts)
    codes = np.repeat(np.arange(prompts), rng.integers(1, 4, prompts))
    labels = answers(rng, rates[codes])
    agreed = rng.random(codes.size) < np.where(labels == 1, *agrees)
    judged = np.where(agreed, labels, 1 - labels)
    return np.where(rng.random(codes.size) < ties, 0.5, judged), labels, codes


def coverage_judge_corrected(rng: np.random.Generator, draws: int) -> tuple[Cells, Cells]:
    """How often the corrected interval holds people's share, of the draws that are not refused.

    Beside it how often the judge's own interval does, and how many draws are refused.
    """
    made, beside = {}, {}
    for new, labelled, share, for_it, against, ties in JUDGED:
        held = own = refused = 0
        for _ in range(draws):
            agrees = (for_it, against)
            judged, _, codes = judged_set(rng, new, share, agrees, ties)
            theirs, labels, known = judged_set(rng, labelled, share, agrees, ties)
            found = stats.judge_corrected(judged, codes, theirs, labels, known + new)
            refused += found.estimate is None
            held += found.estimate is not None and holds(found.estimate, share)
            own += holds(found.judged, share)
        name = f"{new} and {labelled} prompts, {share}, J {for_it + against - 1:.2f}"
        made[name] = held / max(1, draws - refused)
        beside |= {f"{name}: uncorrected": own / draws, f"{name}: refused": refused / draws}
    return made, beside


def mean(cells: Cells) -> float:
    """Over all cells alike."""
    return float(np.mean(list(cells.values())))


def farthest(cells: Cells, nominal: float) -> float:
    """The cell that is farthest from what the interval or test promises."""
    values: Sequence[float] = list(cells.values())
    return max(values, key=lambda value: abs(value - nominal))
