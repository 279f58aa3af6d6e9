"""Comparisons against arithmetic, against scipy and statsmodels, and against simulated truth."""

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from palate import stats
from stats.test_estimate import clustered_draw


@pytest.mark.parametrize(("wins", "losses"), [(3, 9), (9, 3), (5, 5), (0, 6), (40, 61), (0, 0)])
def test_mid_p_mcnemar_is_the_exact_test_less_half_an_atom(wins: int, losses: int) -> None:
    total, least = wins + losses, min(wins, losses)
    exact = mcnemar([[10, wins], [losses, 10]], exact=True).pvalue
    atom = math.comb(total, least) / 2**total
    twice = min(1.0, exact) if wins != losses else 1 + atom
    assert stats.mcnemar_mid_p(wins, losses) == pytest.approx(max(0.0, twice - atom), abs=1e-12)


def test_sign_flip_enumerates_few_clusters_exactly() -> None:
    rng = np.random.default_rng(0)
    differences = np.array([1, 1, 1, 1, 1.0])
    assert stats.sign_flip_p(differences, np.arange(5), rng) == 2 / 2**5
    assert stats.sign_flip_p(differences, np.zeros(5, dtype=int), rng) == 1.0
    assert stats.sign_flip_p(np.zeros(3), np.arange(3), rng) == 1.0
    assert stats.sign_flip_p(np.array([]), np.array([], dtype=int), rng) == 1.0


def test_sign_flip_drawn_agrees_with_the_binomial() -> None:
    differences = np.array([1.0] * 40 + [-1.0] * 20 + [0.0] * 100)
    drawn = stats.sign_flip_p(differences, np.arange(160), np.random.default_rng(2))
    assert drawn == pytest.approx(binomtest(20, 60).pvalue, abs=0.004)


def test_paired_difference_picks_its_test() -> None:
    rng = np.random.default_rng(0)
    one, two = np.array([1, 1, 1, 0, np.nan]), np.array([0, 1, 0, 0, 1.0])
    free = stats.paired_difference(one, two, None, rng, fingerprint="f")
    assert (free.estimate.value, free.estimate.n, free.estimate.n_unscored) == (0.5, 4, 1)
    assert (free.test, free.p_value) == ("mid-p McNemar", stats.mcnemar_mid_p(2, 0))
    tied = stats.paired_difference(one, two, ["a", "a", "b", "b", "c"], rng)
    assert tied.test == "cluster sign-flip"
    assert tied.estimate.n_clusters == 2
    with pytest.raises(ValueError, match="expected equal"):
        stats.paired_difference(one, two[:3], None, rng)


def test_equal_judges_differ_by_zero_but_not_for_certain() -> None:
    same = np.ones(100)
    found = stats.paired_difference(same, same, None, np.random.default_rng(0))
    assert (found.estimate.value, found.p_value) == (0.0, 1.0)
    assert found.estimate.high == -found.estimate.low == pytest.approx(stats.wilson(0, 100).high)


def test_paired_test_rejects_equal_judges_as_often_as_it_says() -> None:
    rng, draws = np.random.default_rng(11), 600
    rejected = covered = 0
    for _ in range(draws):
        one, codes = clustered_draw(rng, 80, 0.65)
        two = np.where(rng.random(codes.size) < 0.3, rng.permutation(one), one)
        if rng.random() < 0.5:  # The draw is symmetric: neither judge is the better.
            one, two = two, one
        found = stats.paired_difference(one, two, codes, rng)
        rejected += found.p_value <= 0.05
        covered += found.estimate.low <= 0 <= found.estimate.high
    assert rejected / draws <= 0.075
    assert covered / draws >= 0.925


def test_an_interval_of_a_difference_leaves_out_zero_exactly_where_its_test_does() -> None:
    rng = np.random.default_rng(5)
    disagreed = 0
    for _ in range(400):
        size = int(rng.choice([3, 8, 20, 60]))
        one, two = (rng.choice([0.0, 1.0, 0.5], size, p=[0.3, 0.6, 0.1]) for _ in range(2))
        one[rng.random(size) < 0.3] = 1
        whole = bool(rng.random() < 0.5)
        codes = np.arange(size) if whole else rng.integers(0, max(2, size // 2), size)
        if whole:  # Without ties: McNemar.
            one, two = np.round(one - 0.1), np.round(two - 0.1)
        found = stats.paired_difference(one, two, codes, rng)
        for level in (0.2, 0.05, 0.01, 0.05 / 17):
            low, high = found.ends(level)
            assert (found.p_value < level) == (low > 0 or high < 0)
            assert low <= found.estimate.value <= high
        e = stats.clustered_mean(one - two, codes)
        disagreed += (found.p_value < 0.05) != (e.low > 0 or e.high < 0)
        low, high = found.turned().ends(0.05)
        assert (low, high) == (-found.estimate.high, -found.estimate.low)
    assert disagreed, "the Student-t interval alone would do"


def test_a_family_has_one_adjusted_p_and_intervals_that_agree_with_it() -> None:
    rng = np.random.default_rng(8)
    codes = np.repeat(np.arange(60), 2)
    truth = (rng.random(120) < 0.6).astype(float)
    alone = []
    for lead in (0.0, 0.0, 0.1, 0.12, 0.14, 0.16, 0.18, 0.25, 0.4):
        better = np.where(rng.random(120) < lead, 1.0, truth)
        worse = np.where(rng.random(120) < 0.15, rng.random(120).round(), truth)
        alone.append(stats.paired_difference(better, worse, codes, rng))
    family = stats.holm_family(alone)
    p_values = [one.p_value for one in alone]
    assert [one.p_value for one in family] == stats.holm(p_values)
    levels = stats.holm_levels(p_values)
    shown = 0
    for one, before, level in zip(family, alone, levels, strict=True):
        e = one.estimate
        assert (one.p_value < 0.05) == (before.p_value < level) == (e.low > 0 or e.high < 0)
        assert e.confidence == 1 - level
        assert e.low <= before.estimate.low
        assert e.high >= before.estimate.high
        shown += one.p_value < 0.05
    assert 0 < shown < len(family)
    assert any(
        one.p_value >= 0.05 and before.estimate.low > 0
        for one, before in zip(family, alone, strict=True)
    ), "a 95 % interval would have contradicted the adjusted p"
    assert stats.holm_family(alone[:1]) == alone[:1]
    assert stats.holm_family([]) == []


def test_holms_levels_are_where_his_adjusted_p_is_below_five_percent() -> None:
    assert stats.holm_levels([0.001, 0.2, 0.02, 0.03]) == [0.05 / 4, 0.05 / 3, 0.05 / 3, 0.05 / 3]
    assert stats.holm_levels([0.01, 0.02]) == [0.025, 0.05]
    rng = np.random.default_rng(1)
    for _ in range(200):
        p = rng.random(int(rng.integers(1, 9))) ** 4
        below = [one < level for one, level in zip(p, stats.holm_levels(p), strict=True)]
        assert below == [one < 0.05 for one in stats.holm(p)]


def test_detectable_is_of_the_level_of_the_test() -> None:
    rng = np.random.default_rng(0)
    one, two = (rng.random((2, 300)) < 0.6).astype(float)
    alone = stats.paired_difference(one, two, None, rng).estimate
    one_of_ten = replace(alone, confidence=1 - 0.05 / 10)
    assert stats.detectable(alone) == stats.minimum_detectable_difference(1, alone.error**2)
    assert stats.detectable(one_of_ten) > 1.2 * stats.detectable(alone)


def test_cochran_armitage_against_a_published_example() -> None:
    # R's prop.trend.test on its `smokers` data: X-squared = 8.2249, p = 0.004132.
    right, totals = [83, 90, 129, 70], [86, 93, 136, 82]
    values = np.concatenate(
        [[1.0] * r + [0.0] * (n - r) for r, n in zip(right, totals, strict=True)]
    )
    trend = stats.cochran_armitage(values, np.repeat([1, 2, 3, 4], totals))
    assert trend is not None
    assert trend.z**2 == pytest.approx(8.2249, abs=1e-4)
    assert trend.z < 0
    assert trend.p_value == pytest.approx(0.004132, abs=1e-6)
    assert trend.n == sum(totals)


def test_trend_with_copied_items_is_not_stronger() -> None:
    rng = np.random.default_rng(3)
    levels = rng.integers(1, 5, 600)
    values = (rng.random(600) < 0.5 + 0.04 * levels).astype(float)
    once = stats.cochran_armitage(values, levels)
    copied = stats.cochran_armitage(
        np.repeat(values, 4), np.repeat(levels, 4), np.repeat(np.arange(600), 4)
    )
    assert once is not None
    assert copied is not None
    assert copied.z == pytest.approx(once.z, rel=0.05)


def test_no_trend_where_there_is_nothing_to_test() -> None:
    assert stats.cochran_armitage([1, 0, 1], [2, 2, 2]) is None
    assert stats.cochran_armitage([1, 1, 1], [1, 2, 3]) is None
    assert stats.cochran_armitage([np.nan], [1]) is None


def test_corrections_are_those_of_statsmodels() -> None:
    raw = [0.01, 0.04, 0.03, 0.2]
    assert stats.holm(raw) == pytest.approx(list(multipletests(raw, method="holm")[1]))
    assert stats.holm(raw) == pytest.approx([0.04, 0.09, 0.09, 0.2])
    assert stats.benjamini_hochberg(raw) == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.2])
    assert stats.holm([]) == []


def test_power_against_the_design() -> None:
    # statistics.md: 1,000 pairs at 64 % have an interval of +- 3.0 points.
    assert stats.half_width(1000, 0.64) == pytest.approx(0.030, abs=5e-4)
    least = stats.minimum_detectable_difference(1000, 0.64 * 0.36)
    assert least == pytest.approx(2.8016 * math.sqrt(0.64 * 0.36 / 1000), rel=1e-4)
    assert stats.items_needed(least, 0.64 * 0.36) in (1000, 1001)
    assert stats.half_width(1000, 0.64, design_effect=4) == pytest.approx(0.0595, abs=5e-4)
    with pytest.raises(ValueError, match="n >= 1"):
        stats.half_width(0, 0.5)


# Letters: two judges share one exactly if they were not told apart.


def test_letters_by_hand():
    apart = {("a", "c"): 0.01, ("a", "b"): 0.4, ("b", "c"): 0.06}
    assert stats.letters(["a", "b", "c"], apart) == {"a": "a", "b": "ab", "c": "b"}
    all_apart = dict.fromkeys(apart, 0.0)
    assert stats.letters(["a", "b", "c"], all_apart) == {"a": "a", "b": "b", "c": "c"}
    assert stats.letters(["a", "b"], {}) == {"a": "a", "b": "a"}
    assert stats.letters([], {}) == {}


def test_the_order_of_a_pair_does_not_matter():
    assert stats.letters(["x", "y"], {("y", "x"): 0.001}) == {"x": "a", "y": "b"}


@given(st.lists(st.booleans(), min_size=21, max_size=21))
def test_letters_are_shared_exactly_by_judges_that_do_not_differ(apart):
    names = list("tuvwxyz")
    pairs = stats.pairs(names)
    assert pairs == list(combinations(names, 2))
    differ = dict(zip(pairs, apart, strict=True))
    found = stats.letters(names, {pair: 0.0 if d else 1.0 for pair, d in differ.items()})
    for one, two in pairs:
        assert bool(set(found[one]) & set(found[two])) != differ[one, two]


def test_equal_differences_that_are_no_whole_numbers_leave_doubt_too() -> None:
    """Values of items of K are shares: 1 - 4/9 in every cluster has no variance but rounding."""
    one = np.tile([1.0, 1.0], 8)
    two = np.tile([1 / 6, 4 / 9], 8)
    found = stats.paired_difference(one, two, np.repeat(np.arange(8), 2), np.random.default_rng(0))
    assert found.estimate.value == pytest.approx(25 / 36)
    assert found.estimate.method == "wilson on discordance"
    assert found.estimate.low < 0.6 < 0.9 < found.estimate.high
