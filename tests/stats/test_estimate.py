"""Estimates against arithmetic, against scipy and statsmodels, and against simulated truth."""

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, ttest_1samp
from statsmodels.stats.proportion import proportion_confint

from palate import stats


@pytest.mark.parametrize(("right", "n"), [(0, 5), (5, 5), (1, 3), (632, 1000), (1, 2348)])
def test_wilson_agrees_with_statsmodels_and_scipy(right: int, n: int) -> None:
    found = stats.wilson(right, n)
    assert (found.low, found.high) == pytest.approx(proportion_confint(right, n, method="wilson"))
    theirs = binomtest(right, n).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))
    assert found.low <= found.value <= found.high
    assert found.error > 0


def test_wilson_rejects_more_successes_than_items() -> None:
    with pytest.raises(ValueError, match="4 successes of 3"):
        stats.wilson(4, 3)


def test_nothing_scored_is_everything_possible() -> None:
    found = stats.accuracy(np.array([np.nan, np.nan]), fingerprint="f")
    assert math.isnan(found.value)
    assert math.isnan(found.error)
    assert (found.low, found.high, found.n, found.n_unscored) == (0.0, 1.0, 0, 2)
    assert found.fingerprint == "f"


def test_an_estimate_says_the_level_that_it_was_asked_for() -> None:
    values = np.array([1.0, 0.0, 1.0, 1.0])
    for clusters in (None, ["a", "a", "b", "c"], ["a"] * 4):
        for rows in (values, values * math.nan):
            assert stats.accuracy(rows, clusters, confidence=0.8).confidence == 0.8
            assert stats.clustered_mean(rows, clusters, confidence=0.8).confidence == 0.8
    parts = [stats.wilson(5, 10, confidence=0.8), stats.wilson(0, 0, confidence=0.8)]
    assert {part.confidence for part in parts} == {0.8}
    assert stats.macro_average(parts[:1] * 2).confidence == 0.8


def test_independent_items_get_plain_wilson() -> None:
    values = np.array([1.0] * 7 + [0.0] * 3)
    found = stats.accuracy(values)
    plain = stats.wilson(7, 10)
    assert (found.low, found.high, found.n_clusters) == (plain.low, plain.high, 10)


def test_copies_of_an_item_add_nothing() -> None:
    rng = np.random.default_rng(0)
    values = (rng.random(400) < 0.7).astype(float)
    once = stats.accuracy(values)
    tenfold = stats.accuracy(np.repeat(values, 10), np.repeat(np.arange(400), 10))
    assert tenfold.half_width == pytest.approx(once.half_width, rel=0.02)
    assert tenfold.error == pytest.approx(once.error, rel=0.01)
    assert (tenfold.n, tenfold.n_clusters) == (4000, 400)


def test_edges_of_clustered_accuracy() -> None:
    all_right = stats.accuracy(np.ones(50), np.repeat(np.arange(10), 5))
    assert all_right.low == pytest.approx(stats.wilson(10, 10).low)
    assert all_right.error > 0
    one_cluster = stats.accuracy(np.array([1, 1, 0, 1.0]), ["p"] * 4)
    assert one_cluster.low == pytest.approx(stats.wilson(0.75, 1).low)
    single = stats.accuracy(np.array([1.0]))
    assert single.low == pytest.approx(stats.wilson(1, 1).low)


def test_pitfall_25_ties_are_half_and_unscored_are_left_out_and_bounded() -> None:
    values = np.array([1, 1, 0, 0.5, np.nan])
    found = stats.accuracy(values)
    assert (found.value, found.n, found.n_unscored) == (2.5 / 4, 4, 1)
    assert stats.bounds(values) == stats.Bounds(worst=2 / 5, best=4 / 5)
    assert stats.bounds([]) == stats.Bounds(0.0, 1.0)


def test_clustered_mean_of_singletons_is_the_t_interval() -> None:
    values = np.random.default_rng(1).normal(0.2, 1, 40)
    found = stats.clustered_mean(values)
    theirs = ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))


def test_clustered_variance_against_arithmetic() -> None:
    # mean 1/2; cluster sums of residuals: +1, -1, 0; G/(G-1) * 2 / 6^2.
    values, codes = np.array([1, 1, 0, 0, 1, 0.0]), np.array([7, 7, 3, 3, 9, 9])
    assert stats.clustered_variance(values, codes) == (pytest.approx(1.5 * 2 / 36), 3)


def test_shapes_that_do_not_fit_are_errors() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 2\)"):
        stats.accuracy(np.ones((2, 2)))
    with pytest.raises(ValueError, match="3 values but 2 cluster"):
        stats.accuracy(np.ones(3), ["a", "b"])


def clustered_draw(rng: np.random.Generator, clusters: int, mean: float) -> tuple:
    """Beta-binomial truth: clusters of 1 to 6 items whose rate varies around `mean`."""
    rates = rng.beta(mean * 3, (1 - mean) * 3, clusters)
    codes = np.repeat(np.arange(clusters), rng.integers(1, 7, clusters))
    return (rng.random(codes.size) < rates[codes]).astype(float), codes


@pytest.mark.parametrize(("clusters", "mean"), [(25, 0.65), (300, 0.63), (60, 0.95)])
def test_clustered_intervals_cover_the_simulated_truth(clusters: int, mean: float) -> None:
    rng, draws = np.random.default_rng(clusters), 1500
    hits = naive = 0
    for _ in range(draws):
        values, codes = clustered_draw(rng, clusters, mean)
        found, plain = stats.accuracy(values, codes), stats.accuracy(values)
        hits += found.low <= mean <= found.high
        naive += plain.low <= mean <= plain.high
    # 1,500 draws have a standard error of 0.6 points; ratio bias of unequal clusters is allowed 1.
    assert 0.93 <= hits / draws <= 0.985
    assert naive / draws < 0.92


def test_wilson_covers_the_simulated_truth() -> None:
    rng = np.random.default_rng(5)
    right = rng.binomial(100, 0.8, 4000)
    intervals = {k: stats.wilson(int(k), 100) for k in np.unique(right)}
    covered = np.mean([intervals[k].low <= 0.8 <= intervals[k].high for k in right])
    assert 0.935 <= covered <= 0.965


def test_averages_are_named_and_exact() -> None:
    parts = [stats.wilson(60, 100, fingerprint="a"), stats.wilson(720, 900, fingerprint="b")]
    macro, micro = stats.macro_average(parts), stats.micro_average(parts)
    assert macro.value == pytest.approx(0.7)
    assert micro.value == pytest.approx(780 / 1000)
    assert macro.error == pytest.approx(math.hypot(parts[0].error, parts[1].error) / 2)
    assert (macro.n, micro.n_clusters) == (1000, 1000)
    assert "macro" in macro.method
    assert "micro" in micro.method
    assert macro.fingerprint == micro.fingerprint != ""
    assert stats.macro_average([parts[0], stats.wilson(1, 2)]).fingerprint == ""
    with pytest.raises(ValueError, match="cannot combine"):
        stats.macro_average([])


def test_micro_average_of_like_parts_is_nearly_the_pooled_interval() -> None:
    micro = stats.micro_average([stats.wilson(300, 500), stats.wilson(900, 1500)])
    pooled = stats.wilson(1200, 2000)
    assert (micro.low, micro.high) == pytest.approx((pooled.low, pooled.high), abs=1e-3)


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0, math.nan]), st.integers(0, 5)), max_size=40)
)
def test_an_interval_is_ordered_and_holds_its_value(rows: list[tuple[float, int]]) -> None:
    found = stats.accuracy(np.array([v for v, _ in rows]), [c for _, c in rows])
    assert 0 <= found.low <= found.high <= 1
    assert found.n + found.n_unscored == len(rows)
    if found.n:
        assert found.low <= found.value <= found.high
        assert found.error > 0
        assert found.half_width >= (found.high - found.low) / 2


def test_a_hundred_thousand_items_take_no_time() -> None:
    rng = np.random.default_rng(0)
    labels = [f"prompt-{i}" for i in rng.integers(0, 60_000, 100_000)]
    one, two = (rng.random(100_000) < 0.7).astype(float), (rng.random(100_000) < 0.6).astype(float)
    start = time.perf_counter()
    stats.accuracy(one, labels)
    stats.paired_difference(one, two, labels, rng)
    assert time.perf_counter() - start < 2.0


def test_equal_probabilities_change_nothing() -> None:
    rng = np.random.default_rng(20)
    values, clusters = rng.random(60) < 0.7, np.arange(60) // 3
    plain = stats.accuracy(values, clusters)
    assert stats.accuracy(values, clusters, probabilities=np.full(60, 0.1)) == plain
    # An estimate of all that each item stands for: those at 0.5 for two, the others for eight.
    chances = np.where(np.arange(60) < 30, 0.5, 0.125)
    weighted = stats.accuracy(values, clusters, probabilities=chances)
    stands_for = np.repeat(values, np.where(np.arange(60) < 30, 2, 8))
    assert weighted.value == pytest.approx(stands_for.mean())
    assert weighted.low < weighted.value < weighted.high
    assert weighted.half_width > plain.half_width


def test_weighted_intervals_cover_what_the_items_were_chosen_from() -> None:
    rng = np.random.default_rng(21)
    difficulty = rng.normal(size=4_000)
    right = rng.random(4_000) < 1 / (1 + np.exp(difficulty - 1))
    chances = 0.08 / (1 + np.exp(-2 * difficulty)) + 0.01
    inside = []
    for _ in range(400):
        chosen = rng.random(4_000) < chances
        one = stats.accuracy(right[chosen], probabilities=chances[chosen])
        inside.append(one.low <= right.mean() <= one.high)
    assert 0.95 - 3 * 0.011 < np.mean(inside) < 0.99


def test_probabilities_are_one_an_item_and_unscored_items_are_left_out() -> None:
    with pytest.raises(ValueError, match="a probability above 0"):
        stats.accuracy([1, 0], probabilities=[0.5, 0])
    with pytest.raises(ValueError, match="a probability above 0"):
        stats.accuracy([1, 0], probabilities=[0.5])
    one = stats.accuracy([1, np.nan, 0], probabilities=[0.2, 0.9, 0.4])
    assert (one.value, one.n, one.n_unscored) == (pytest.approx(5 / 7.5), 2, 1)
    alike = stats.accuracy([1, 1, 1], probabilities=[0.2, 0.9, 0.4])
    assert alike.low < alike.value == alike.high == 1
