"""Planted biases of length and of position are found; judges without them show none."""

import math

import numpy as np
import pytest
from scipy.special import expit
from statsmodels.discrete.discrete_model import Logit

from palate import stats


def test_position_by_hand():
    one, other = [1, 1, 0, 0.5, math.nan], [1, 0, 0, 1, 1]
    same = stats.consistent(one, other)
    assert list(same[:4]) == [1, 0, 1, 0]
    assert math.isnan(same[4])
    first = stats.chose_first(one, other, [True, True, True, True, True])
    assert list(first[:4]) == [0.5, 1.0, 0.5, 0.25]
    assert math.isnan(first[4])
    assert stats.chose_first([1], [0], [False]) == [0.0]


@pytest.mark.parametrize("accuracy", [0.5, 0.8])
@pytest.mark.parametrize("bias", [0.0, 0.3])
def test_a_planted_position_bias_is_found_whatever_the_accuracy(accuracy, bias):
    rng, items = np.random.default_rng(1), 4_000
    chosen_first = rng.random(items) < 0.5

    def answers(stands_first):
        fair = rng.random(items) < accuracy
        return np.where(rng.random(items) < bias, stands_first, fair).astype(float)

    one, other = answers(chosen_first), answers(~chosen_first)
    found = stats.accuracy(stats.chose_first(one, other, chosen_first))
    assert found.low <= 0.5 + bias / 2 <= found.high
    assert (found.low > 0.5) == (bias > 0)


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
