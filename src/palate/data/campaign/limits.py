"""What can be known of a campaign without a model: its Bayes limit and its cheap baselines."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, sparse

from palate.types import Bin, Comparison

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
