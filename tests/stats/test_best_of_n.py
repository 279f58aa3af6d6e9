"""Best of n: every subset counted, laws, ties."""

import math
from itertools import combinations

import numpy as np
import pytest

from palate import stats


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_curve_is_the_mean_over_all_subsets(n):
    rng = np.random.default_rng(0)
    scores, quality = rng.normal(size=(6, 5)), rng.normal(size=(6, 5))
    found = stats.best_of_n_curve(scores, quality, [n], fingerprint="f")[n]
    brute = [
        quality[p, max(subset, key=lambda m: scores[p, m])]
        for p in range(6)
        for subset in combinations(range(5), n)
    ]
    assert found.value == pytest.approx(np.mean(brute))
    assert (found.n, found.fingerprint) == (6, "f")
    assert found.low < found.value < found.high


def test_equal_scores_are_the_plain_mean_and_a_perfect_judge_reaches_the_best():
    quality = np.random.default_rng(1).normal(size=(50, 8))
    blind = stats.best_of_n_curve(np.zeros((50, 8)), quality, [1, 4, 8])
    assert [e.value for e in blind.values()] == pytest.approx([quality.mean()] * 3)
    perfect = stats.best_of_n_curve(quality, quality, [1, 4, 8])
    assert perfect[8].value == pytest.approx(quality.max(axis=1).mean())
    assert perfect[1].value < perfect[4].value < perfect[8].value


def test_a_better_score_has_the_better_curve():
    rng = np.random.default_rng(2)
    quality = rng.normal(size=(400, 16))
    good, poor = (quality + rng.normal(0, noise, quality.shape) for noise in (0.5, 3))
    curves = [stats.best_of_n_curve(s, quality, [16])[16] for s in (good, poor)]
    assert curves[0].low > curves[1].high


def test_divergence_grows_from_zero():
    assert stats.divergence(1) == 0
    assert stats.divergence(16) == pytest.approx(math.log(16) - 15 / 16)


@pytest.mark.parametrize(
    ("scores", "sizes", "message"),
    [
        (np.zeros((2, 3)), [4], "n = 4: expected 1 to 3"),
        (np.full((2, 3), np.nan), [1], "finite"),
        (np.zeros(3), [1], "expected equal"),
    ],
)
def test_what_cannot_be_ranked_is_an_error(scores, sizes, message):
    with pytest.raises(ValueError, match=message):
        stats.best_of_n_curve(scores, np.zeros((2, 3)), sizes)
