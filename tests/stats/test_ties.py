"""Tie-aware accuracy, likelihood of votes and chances of ties: arithmetic and simulated truth."""

import math

import numpy as np
import pytest
from scipy.special import expit

from palate.stats.ties import (
    TieModel,
    three_way,
    tie_aware_accuracy,
    tie_calibration,
    tie_model,
    tie_probability,
    tie_threshold,
    vote_likelihood,
)


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


def test_the_chance_of_a_tie_is_rao_and_kuppers():
    model = TieModel(temperature=2.0, threshold=0.7)
    d = np.array([0.0, 3.0, -3.0, math.nan])
    won, lost = expit(d / 2 - 0.7), expit(-d / 2 - 0.7)
    assert tie_probability(d, model)[:3] == pytest.approx((1 - won - lost)[:3])
    assert math.isnan(tie_probability(d, model)[3])
    # At no difference it is the loss's `tie_share`.
    assert tie_probability([0.0], TieModel(1.0, 2 * math.atanh(0.3))) == pytest.approx(0.3)
    assert tie_probability([5.0], TieModel(math.inf, 2 * math.atanh(0.3))) == pytest.approx(0.3)


def rao_kupper(rng, clusters, temperature=2.5, threshold=1.0):
    """Scores in a unit of their own and shares of one vote, of annotators with a tie threshold."""
    codes = np.repeat(np.arange(clusters), 2)
    x = rng.normal(0.4, 1.3, codes.size) + rng.normal(0, 0.5, clusters)[codes]
    heard = x + rng.logistic(size=x.size)
    votes = [heard >= threshold, np.abs(heard) < threshold, heard <= -threshold]
    return temperature * x, np.stack(votes, axis=1).astype(float), codes


def test_threshold_and_temperature_of_ties_are_recovered():
    d, shares, codes = rao_kupper(np.random.default_rng(3), 10_000)
    d[0] = math.nan
    found = tie_model(d, shares)
    assert found.threshold == pytest.approx(1.0, abs=0.05)
    assert found.temperature == pytest.approx(2.5, abs=0.12)

    def likelihood(model):
        at, h = d[1:] / model.temperature, model.threshold
        chances = [expit(at - h), tie_probability(d, model)[1:], expit(-at - h)]
        return np.log(np.stack(chances, axis=1)[shares[1:] == 1]).sum()

    best = likelihood(found)
    for t, h in ((1.05, 1), (0.95, 1), (1, 1.05), (1, 0.95)):
        assert likelihood(TieModel(t * found.temperature, h * found.threshold)) < best
    made = tie_calibration(d, shares, codes, np.random.default_rng(0))
    assert made.model == found
    assert made.calibration.ece.low == 0  # The chances are right.
    assert made.calibration.ece.n_unscored == 1
    # A threshold of less than half: ties come far more often than it says.
    low = TieModel(2.5, 0.4)
    vain = tie_calibration(d, shares, codes, np.random.default_rng(0), model=low).calibration.ece
    truth = np.abs(tie_probability(d, TieModel(2.5, 1.0)) - tie_probability(d, low))
    assert vain.low <= np.nanmean(truth) <= vain.high


def test_scores_that_say_nothing_leave_the_share_of_ties():
    d, shares = np.array([1.0, -1.0] * 20), np.tile([0.35, 0.3, 0.35], (40, 1))
    for scores in (d, 0 * d):
        found = tie_model(scores, shares)
        assert math.isinf(found.temperature) or found.temperature > 1e3
        assert tie_probability(scores, found) == pytest.approx(0.3, abs=1e-4)
    assert tie_model([math.nan], [[1, 0, 0]]) is None
    assert (
        tie_calibration([1.0, 1.0], [[1, 0, 0]] * 2, ["a", "a"], np.random.default_rng(0)) is None
    )
    none = tie_model([3.0, 2.0, -1.0], [[1, 0, 0], [1, 0, 0], [1, 0, 0]])
    assert none.threshold < 1e-3
