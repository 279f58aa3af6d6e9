"""What members of an ensemble say together: intervals, bounds and conformal coverage."""

import math

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import t

from palate import stats


def test_the_interval_of_one_more_member_is_a_prediction_interval() -> None:
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(20_000, 6))
    hits = []
    for row in draws[:4_000]:
        low, high = stats.member_interval(row[:5].mean(), row[:5].std(ddof=1), 5)
        hits.append(low <= row[5] <= high)
    assert np.mean(hits) == pytest.approx(0.9, abs=4 * math.sqrt(0.09 / 4_000))
    low, high = stats.member_interval(1.0, 2.0, 5)
    assert (high - low) / 2 == pytest.approx(t.ppf(0.95, 4) * 2 * math.sqrt(1.2))


def test_what_members_make_of_the_prompt_lowers_no_response_below_another() -> None:
    said = np.array([[1.0, 1.2, 0.8], [2.0, 3.0, 1.0], [0.0, 0.1, -0.1]])
    shifted = said + np.array([5.0, -3.0, -2.0])
    np.testing.assert_allclose(stats.lower_bounds(shifted, 2.0), stats.lower_bounds(said, 2.0))
    np.testing.assert_allclose(stats.lower_bounds(said, 0), said.mean(1))
    # Of two responses both have the same deviation.
    gap = np.diff(stats.lower_bounds(said[:2], 9.0))
    np.testing.assert_allclose(gap, np.diff(said[:2].mean(1)))


def test_the_chance_of_the_other_label_is_the_mean_over_what_the_difference_may_be() -> None:
    rng = np.random.default_rng(1)
    for d, s in ((1.0, 0.5), (-2.0, 1.0), (0.3, 2.0)):
        drawn = expit(-np.sign(d) * (d + s * rng.normal(size=200_000))).mean()
        assert stats.error_probabilities([d], [s])[0] == pytest.approx(drawn, abs=0.01)
    assert stats.error_probabilities([0.0], [1.0])[0] == 0.5


def test_conformal_scales_are_the_order_statistic_of_the_scores() -> None:
    d, s = np.array([1.0, -1.0, -4.0, 2.0, -0.5, 3.0, -9.0, 1.0, 1.0]), np.full(9, 2.0)
    assert stats.conformal_scale(d, s, 0.8) == 2.0, "the eighth of nine: 0 ... 0.25, 0.5, 2, 4.5"
    assert stats.conformal_scale(d, s, 0.9) == 4.5
    assert stats.conformal_scale(d[:5], s[:5], 0.9) == math.inf
    assert stats.conformal_scale(np.ones(30), np.ones(30)) == 0, "none is wrong"
    assert stats.conformal_scale([*np.ones(20), -1, -1, -1], np.zeros(23)) == math.inf


@pytest.mark.parametrize("useful", [True, False])
def test_intervals_cover_what_they_say_whatever_the_model(useful: bool) -> None:
    """Labels by Bradley and Terry; a model with errors whose spread it knows, or does not."""
    rng, rates = np.random.default_rng(2), []
    for _ in range(60):
        truth, error = rng.normal(size=400), rng.gamma(2, 0.5, size=400)
        believed = truth + error * rng.normal(size=400)
        label = np.where(rng.random(400) < expit(truth), 1, -1)
        spread = error if useful else rng.gamma(2, 0.5, size=400)
        found = stats.conformal_coverage(believed * label, spread, np.arange(400) // 2, rng)
        assert found is not None
        share, covered, scale = found
        assert share.value == covered.mean()
        assert 0 < scale < math.inf
        rates.append(share.value)
    error_of_mean = np.std(rates) / math.sqrt(len(rates))
    assert abs(np.mean(rates) - 0.9) < 4 * error_of_mean + 0.005  # At most 1 / 201 above.


def test_few_comparisons_say_nothing_and_the_unscored_are_left_out() -> None:
    rng = np.random.default_rng(3)
    d = rng.normal(0.5, size=100)
    assert stats.conformal_coverage(d[:39], np.ones(39), range(39), rng) is None
    assert stats.conformal_coverage(d, np.ones(100), np.arange(100) // 10, rng) is None
    d[7] = np.nan
    found = stats.conformal_coverage(d, np.ones(100), range(100), rng)
    assert found is not None
    assert (found[0].n, found[0].n_unscored) == (99, 1)
    assert math.isnan(found[1][7])
