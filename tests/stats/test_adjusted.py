"""Best of n: every subset counted, laws, ties."""

import math
from itertools import combinations

import numpy as np
import pytest
from scipy.special import expit
from statsmodels.discrete.discrete_model import Logit

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


# A planted bias of length is found, and a judge without one shows none.


def test_length_control_agrees_with_statsmodels_and_finds_the_planted_accuracy():
    rng, items = np.random.default_rng(2), 6_000
    lengths = np.round(rng.normal(60, 200, items))
    x = np.tanh(lengths / np.sqrt((lengths**2).mean()))
    values = (rng.random(items) < expit(0.4 + 1.5 * x)).astype(float)
    clusters = np.repeat(np.arange(items // 2), 2)
    found = stats.length_controlled(values, lengths, clusters, fingerprint="f")
    theirs = Logit(values, np.column_stack([np.ones(items), x])).fit(
        disp=0, cov_type="cluster", cov_kwds={"groups": clusters}
    )
    assert found.value == pytest.approx(expit(theirs.params[0]), rel=1e-6)
    scale = found.value * (1 - found.value)
    assert found.error == pytest.approx(theirs.bse[0] * scale, rel=1e-3)
    assert found.low <= expit(0.4) <= found.high
    assert stats.accuracy(values).low > found.high, "the plain figure is flattered by length"
    assert (found.n, found.n_clusters, found.fingerprint) == (items, items // 2, "f")


def test_length_control_of_a_judge_that_ignores_length_is_its_accuracy():
    rng = np.random.default_rng(3)
    values = (rng.random(3_000) < 0.65).astype(float)
    found = stats.length_controlled(values, rng.normal(100, 300, 3_000))
    assert found.value == pytest.approx(values.mean(), abs=0.015)


@pytest.mark.parametrize(
    ("values", "lengths"),
    [
        ([1, 1, 0, 0.5], [5, 9, -3, 0]),  # The longer wins: nothing is known of equal lengths.
        ([0, 0, 1, 0.5], [5, 9, -3, 0]),
        ([1, 1, 1], [1, -2, 3]),
        ([1, 0, 1], [4, 4, 4]),
        ([math.nan], [1]),
        ([], []),
    ],
)
def test_what_length_decides_alone_is_not_controlled_for(values, lengths):
    assert stats.length_controlled(values, lengths) is None


def test_ties_and_unscored_items_are_half_and_left_out():
    values = np.array([1, 0, 0.5, math.nan, 1, 0, 1, 1])
    lengths = np.array([3, 5, -4, 2, -6, -1, math.nan, 1])
    found = stats.length_controlled(values, lengths)
    assert (found.n, found.n_unscored) == (6, 2)
    assert 0 < found.low < found.value < found.high < 1
