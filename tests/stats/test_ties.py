"""Tie-aware accuracy and the likelihood of votes, against arithmetic and simulated truth."""

import math

import numpy as np
import pytest
from scipy.special import expit

from palate.stats.ties import three_way, tie_aware_accuracy, tie_threshold, vote_likelihood


def test_the_threshold_is_that_of_a_search_over_all():
    rng = np.random.default_rng(0)
    for _ in range(60):
        d = np.round(rng.normal(0.5, 1, 30), int(rng.integers(0, 3)))
        tied = rng.random(30) < expit(1 - 3 * np.abs(d))
        grid = np.unique(np.abs(d))
        candidates = [0.0, *(grid[1:] + grid[:-1]) / 2, grid[-1] + 1]

        def right(t, d=d, tied=tied):
            return int((tied & (np.abs(d) <= t)).sum() + (~tied & (d > t)).sum())

        assert right(tie_threshold(d, tied)) == max(map(right, candidates))


def test_no_ties_no_threshold():
    assert tie_threshold([1.0, 2.0, -1.0], [False] * 3) == 0
    assert tie_threshold([], []) == 0
    assert tie_aware_accuracy([1.0], [False]) is None
    assert tie_aware_accuracy([math.nan] * 3, [False] * 3) is None


def test_three_way_answers():
    answers, tied = [1, 0, 0.5, 1, 0.5, math.nan], [False, False, False, True, True, True]
    assert np.array_equal(three_way(answers, tied), [1, 0, 0, 0, 1, math.nan], equal_nan=True)
    made = tie_aware_accuracy([2, -2, 0.1, 0.1, 3, math.nan], tied, threshold=1)
    assert (made.accuracy.value, made.accuracy.n, made.accuracy.n_unscored) == (0.4, 5, 1)


def campaign(rng, clusters, threshold=0.6, temperature=2.0):
    """Differences, whether tied, votes' shares [N, 3], clusters; ties where |strength| is small."""
    codes = np.repeat(np.arange(clusters), 3)
    strength = rng.normal(0, 1.2, codes.size) + 0.4 * rng.normal(0, 1, clusters)[codes]
    heard = strength + rng.normal(0, 0.3, codes.size)
    tied = np.abs(heard) <= threshold
    # The chosen side is the one that people preferred.
    d = strength * np.where(heard >= 0, 1, -1)
    votes = rng.binomial(5, expit(d / temperature)) / 5
    return d, tied, np.stack([votes, np.zeros(d.size), 1 - votes], axis=1), codes


def test_threshold_accuracy_and_temperature_are_recovered():
    d, tied, shares, codes = campaign(np.random.default_rng(1), 6_000)
    made = tie_aware_accuracy(d, tied, codes)
    assert made.threshold == pytest.approx(0.6, abs=0.05)
    best = np.mean(three_way(np.where(np.abs(d) <= 0.6, 0.5, d > 0), tied))
    assert made.accuracy.value == pytest.approx(best, abs=0.005)
    votes = vote_likelihood(d, shares, codes)
    assert votes.temperature == pytest.approx(2.0, rel=0.05)
    y = shares[:, 0]
    expected = np.mean(y * np.log(expit(d / 2)) + (1 - y) * np.log(expit(-d / 2)))
    assert votes.mean.value == pytest.approx(expected, abs=1e-3)


def test_the_interval_covers_the_accuracy_of_the_fitted_thresholds():
    rng = np.random.default_rng(2)
    d, tied, _, _ = campaign(rng, 100_000)  # All items there are, to measure a threshold's truth.
    covered = 0
    for _ in range(300):
        own, own_tied, _, codes = campaign(rng, 120)
        made = tie_aware_accuracy(own, own_tied, codes)
        truth = three_way(np.where(np.abs(d) <= made.threshold, 0.5, d > 0), tied).mean()
        covered += made.accuracy.low <= truth <= made.accuracy.high
    assert 0.91 <= covered / 300 <= 0.99


def test_a_judge_that_knows_nothing_has_the_likelihood_of_a_coin():
    d = np.array([1.0, -1.0] * 20)
    made = vote_likelihood(d, np.tile([0.2, 0.6, 0.2], (40, 1)))
    assert made.mean.value == pytest.approx(math.log(0.5))
    assert made.temperature == math.inf
    assert vote_likelihood(np.full(40, math.nan), np.ones((40, 3)) / 3) is None
