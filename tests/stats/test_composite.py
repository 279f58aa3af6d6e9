import numpy as np
import pytest

from palate.stats import (
    Term,
    accuracy,
    composite,
    composite_difference,
    paired_difference,
)


def drawn(size=300, seed=0):
    rng = np.random.default_rng(seed)
    values = (rng.random(size) < 0.7).astype(float)
    return values, rng.integers(0, size // 3, size), rng


def strata(values, count=3):
    return [
        np.where(np.arange(values.size) % count == part, values, np.nan) for part in range(count)
    ]


def test_one_mean_is_accuracy():
    values, clusters, _ = drawn()
    assert composite([Term(1.0, values)], clusters, fingerprint="f") == accuracy(
        values, clusters, fingerprint="f"
    )
    part = strata(values)[0]
    own = ~np.isnan(part)
    assert composite([Term(1.0, part)], clusters) == accuracy(values[own], clusters[own])


def test_the_value_is_the_weighted_sum_of_means():
    values, clusters, _ = drawn()
    parts = strata(values)
    weights = (0.5, 0.3, 0.2)
    terms = [Term(w, part) for w, part in zip(weights, parts, strict=True)]
    made = composite(terms, clusters)
    assert made.value == pytest.approx(
        sum(w * np.nanmean(p) for w, p in zip(weights, parts, strict=True))
    )
    assert made.n == 300
    assert made.low < made.value < made.high


def test_the_variance_is_that_of_strata_where_items_are_independent():
    values, _, _ = drawn()
    parts = strata(values)
    terms = [Term(1 / 3, part) for part in parts]
    expected = sum((1 / 3) ** 2 * np.nanvar(p, ddof=1) / np.sum(~np.isnan(p)) for p in parts)
    assert composite(terms).error == pytest.approx(np.sqrt(expected))


def test_two_measures_of_the_same_items_are_not_independent():
    values, _, _ = drawn()
    twice = composite([Term(0.5, values), Term(0.5, values)])
    once = composite([Term(1.0, values)])
    assert twice.error == pytest.approx(np.sqrt(300 / 299) * once.error, rel=1e-2)


def test_amounts_weigh_the_items_of_a_mean():
    values, amounts = np.array([1.0, 0.0, 1.0, 0.0]), np.array([3.0, 1.0, 0.0, 2.0])
    made = composite([Term(1.0, values, amounts=amounts)])
    assert made.value == pytest.approx(0.5)


def test_a_mean_of_one_cluster_has_no_known_variance():
    values = np.array([1.0, 0.0, 1.0])
    terms = [Term(0.5, np.array([1.0, np.nan, np.nan])), Term(0.5, values)]
    made = composite(terms)
    assert made.low < 0.2
    assert made.high > 0.95


def test_a_score_above_one_is_within_its_interval():
    made = composite([Term(1.0, np.ones(20)), Term(0.01, np.ones(20))])
    assert made.value == pytest.approx(1.01)
    assert made.low < made.value <= made.high


def test_the_difference_of_one_mean_is_the_paired_one():
    first, clusters, _ = drawn()
    second, _, _ = drawn(seed=1)
    ours = composite_difference(
        [Term(1.0, first)], [Term(1.0, second)], clusters, np.random.default_rng(5)
    )
    theirs = paired_difference(first, second, clusters, np.random.default_rng(5))
    assert ours == theirs


def test_the_difference_of_weighted_scores():
    first, clusters, rng = drawn()
    second, _, _ = drawn(seed=1)
    weights = (0.6, 0.3, 0.1)
    terms = [
        [Term(w, part) for w, part in zip(weights, strata(v), strict=True)] for v in (first, second)
    ]
    gap = composite_difference(*terms, clusters, rng)
    values = [composite(one, clusters).value for one in terms]
    assert gap.estimate.value == pytest.approx(values[0] - values[1])
    assert (gap.p_value < 0.05) == (gap.estimate.low > 0 or gap.estimate.high < 0)
    same = composite_difference(terms[0], terms[0], clusters, rng)
    assert same.p_value == 1
    assert same.estimate.value == 0
    assert same.estimate.low < 0 < same.estimate.high
