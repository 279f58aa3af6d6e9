"""Calibration by hand, on a judge of known sureness, and against statsmodels."""

import math

import numpy as np
import pytest
from scipy.special import expit, logit
from statsmodels.discrete.discrete_model import Logit

from palate import stats


def rng(seed=0):
    return np.random.default_rng(seed)


def sure(items: int, spread: float, temperature: float, seed: int) -> np.ndarray:
    """Differences of a judge that is right with P sigmoid(|d| / temperature)."""
    draw = rng(seed)
    size = np.abs(draw.normal(0, spread, items))
    return np.where(draw.random(items) < expit(size / temperature), size, -size)


def test_ece_and_brier_by_hand():
    # Five answers at 0.8, four right: calibrated. Five at 0.6, one right: 0.4 too sure.
    p = [0.8] * 4 + [0.2] + [0.6] + [0.4] * 4
    found = stats.measure_calibration(logit(p), None, rng(), fingerprint="f")
    assert found.ece.value == pytest.approx(0.5 * 0.4)
    assert found.brier.value == pytest.approx(np.mean((1 - np.array(p)) ** 2))
    low, high = found.bins
    assert (low.confidence, low.accuracy.value) == (pytest.approx(0.6), 0.2)
    assert (high.confidence, high.accuracy.value) == (pytest.approx(0.8), 0.8)
    assert low.low <= 0.6 <= low.high
    figures = (found.ece, found.brier, *(part.accuracy for part in found.bins))
    assert {e.fingerprint for e in figures} == {"f"}
    assert found.ece.low <= found.ece.value <= found.ece.high


def test_a_tie_is_half_right_and_the_unscored_are_counted():
    found = stats.measure_calibration([0.0, 0.0, math.nan], None, rng())
    assert found.ece.value == 0
    assert found.brier.value == 0.25
    assert found.ece.n_unscored == found.brier.n_unscored == 1
    assert found.bins[0].accuracy.value == 0.5


def test_one_cluster_or_none_has_no_calibration():
    assert stats.measure_calibration([1.0, 2.0], ["a", "a"], rng()) is None
    assert stats.measure_calibration([math.nan], None, rng()) is None


def test_an_events_probabilities_by_hand():
    found = stats.event_calibration([0.1, 0.15, 0.9, math.nan], [0, 1, 0.5, 1], None, rng())
    assert [b.accuracy.value for b in found.bins] == [0.5, 0.5]
    assert [(b.low, b.high) for b in found.bins] == [(0.1, 0.2), (0.9, 1.0)]
    assert found.ece.value == pytest.approx((abs(1 - 0.25) + abs(0.5 - 0.9)) / 3)
    assert found.brier.value == pytest.approx((0.1**2 + 0.85**2 + 0.4**2) / 3)
    assert (found.ece.n, found.ece.n_unscored) == (3, 1)
    assert stats.event_calibration([0.5, 0.5], [0, 1], ["a", "a"], rng()) is None


def test_a_calibrated_judge_shows_the_ece_of_luck_and_a_sure_one_more():
    honest = [stats.measure_calibration(sure(2_000, 2, 1, seed), None, rng()) for seed in range(40)]
    luck = np.mean([found.ece_by_luck for found in honest])
    assert np.mean([found.ece.value for found in honest]) == pytest.approx(luck, rel=0.2)
    assert np.mean([found.ece.low == 0 for found in honest]) >= 0.95
    vain = stats.measure_calibration(sure(2_000, 2, 3, 0), None, rng())
    assert vain.ece.low > 2 * vain.ece_by_luck


def test_intervals_of_ece_cover_a_known_ece():
    # All confidences at 0.8 and right with 0.7: the ECE is 0.1.
    hits = 0
    for seed in range(400):
        right = rng(seed).random(500) < 0.7
        found = stats.measure_calibration(np.where(right, 1, -1) * logit(0.8), None, rng())
        hits += found.ece.low <= 0.1 <= found.ece.high
    assert 0.91 <= hits / 400 <= 0.99


def test_copies_of_items_do_not_make_calibration_surer():
    d = sure(500, 2, 2, 1)
    once = stats.measure_calibration(d, None, rng())
    copies = stats.measure_calibration(np.repeat(d, 5), np.repeat(np.arange(500), 5), rng())
    assert copies.ece.error == pytest.approx(once.ece.error, rel=0.1)
    assert copies.brier.error == pytest.approx(once.brier.error, rel=0.01)
    assert copies.ece_by_luck == pytest.approx(once.ece_by_luck, rel=0.01)


def test_temperature_agrees_with_statsmodels():
    d, clusters = sure(3_000, 3, 2, 3), np.repeat(np.arange(1_000), 3)
    found = stats.temperature(d, clusters, fingerprint="f")
    swapped = rng().random(d.size) < 0.5
    labels, signed = (~swapped).astype(float), np.where(swapped, -d, d)
    theirs = Logit(labels, signed).fit(disp=0, cov_type="cluster", cov_kwds={"groups": clusters})
    assert found.value == pytest.approx(1 / theirs.params[0], rel=1e-5)
    assert found.error / found.value == pytest.approx(theirs.bse[0] / theirs.params[0], rel=1e-4)
    assert found.low < 2 < found.high
    assert found.fingerprint == "f"


@pytest.mark.parametrize("d", [[1.0, 2.0], [-1.0, -2.0, 1.0], [0.0, 0.0], [], [math.nan]])
def test_a_judge_never_wrong_or_no_better_than_a_coin_has_no_temperature(d):
    assert stats.temperature(d) is None


def test_a_temperature_of_two_prompts_may_be_any():
    """Student's t of one degree of freedom reaches further than a number holds."""
    found = stats.temperature([1.0, 1.0, -0.9, -0.9], ["a", "a", "b", "b"])
    assert 0 <= found.low < 1e-100
    assert found.high > 1e100
    assert math.isfinite(found.value)


def test_temperature_is_fitted_on_other_prompts_only():
    d, clusters = sure(2_000, 3, 2, 5), np.repeat(np.arange(1_000), 2)
    made = stats.held_out_differences(d, clusters)
    inside = clusters % 5 == 0
    other = d.copy()
    other[inside] *= 7  # What is judged has no part in its own temperature.
    again = stats.held_out_differences(other, clusters)
    assert again[inside] == pytest.approx(7 * made[inside])
    before, after = (stats.measure_calibration(x, clusters, rng()) for x in (d, made))
    assert after.ece.value < before.ece.value / 2
    assert after.brier.value < before.brier.value
    assert stats.held_out_differences([1.0, 2.0, 3.0]) is None
