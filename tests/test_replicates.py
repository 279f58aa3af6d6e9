"""Several trainings of one recipe: what items and seeds each add to the error."""

import math

import numpy as np
import pytest

from palate.stats import (
    accuracy,
    clustered_mean,
    p_of_zero,
    replicated_accuracy,
    replicated_difference,
    replicated_mean,
)

RNG = np.random.default_rng(0)


def test_one_training_is_the_accuracy_of_one_judge():
    values = (RNG.random(300) < 0.7).astype(float)
    values[:10], values[10:20] = np.nan, 0.5
    for clusters in (None, np.arange(300) // 3):
        one = replicated_accuracy(values[None], clusters, fingerprint="f")
        other = accuracy(values, clusters, fingerprint="f")
        for name in ("value", "error", "low", "high", "n", "n_unscored", "n_clusters"):
            ours, theirs = getattr(one.estimate, name), getattr(other, name)
            assert ours == pytest.approx(theirs, rel=1e-12), name
        assert math.isnan(one.of_seeds)
        assert math.isnan(one.spread)


def test_equal_trainings_add_nothing():
    values = (RNG.random(200) < 0.6).astype(float)
    thrice = replicated_mean(np.stack([values] * 3), np.arange(200) // 2)
    once = clustered_mean(values, np.arange(200) // 2)
    assert (thrice.of_seeds, thrice.spread) == pytest.approx((0, 0), abs=1e-12)
    assert thrice.of_items == pytest.approx(once.error)
    assert (thrice.estimate.low, thrice.estimate.high) == pytest.approx((once.low, once.high))


def test_the_two_parts_by_hand():
    table = np.array([[1.0, 1, 0, 1], [1, 0, 0, 0]])
    found = replicated_mean(table)
    means = table.mean(axis=1)
    assert found.spread == pytest.approx(means.std(ddof=1))
    assert found.of_seeds == pytest.approx(found.spread / math.sqrt(2))
    assert found.of_items == pytest.approx(table.mean(axis=0).std(ddof=1) / 2)
    one, two = found.of_items**2, found.of_seeds**2
    assert found.estimate.error == pytest.approx(math.sqrt(one + two))
    assert found.freedom == pytest.approx((one + two) ** 2 / (one**2 / 3 + two**2))


def test_a_seed_or_an_item_without_any_score_is_left_out():
    table = (RNG.random((3, 50)) < 0.6).astype(float)
    more = np.full((4, 52), np.nan)
    more[:3, :50] = table
    clusters = np.arange(52) // 2
    found, whole = replicated_mean(more, clusters), replicated_mean(table, clusters[:50])
    assert found.estimate.value == whole.estimate.value
    assert found.estimate.error == pytest.approx(whole.estimate.error)
    assert (found.seeds, found.estimate.n, found.estimate.n_unscored) == (3, 50, 2)


@pytest.mark.parametrize("shape", [(0, 5), (2, 0), (2, 5)])
def test_nothing_scored_has_no_value_and_all_of_the_interval(shape):
    found = replicated_accuracy(np.full(shape, np.nan)).estimate
    assert math.isnan(found.value)
    assert (found.n, found.low, found.high) == (0, 0, 1)


def test_edges_have_an_error():
    right = replicated_accuracy(np.ones((3, 20))).estimate
    assert right.high == 1
    assert 0.7 < right.low < 0.9
    same, _ = replicated_difference(np.ones((3, 20)), np.ones((3, 20)))
    assert (same.estimate.value, same.p_value) == (0, 1)
    assert same.estimate.low < -0.1 < 0.1 < same.estimate.high
    single = replicated_accuracy(np.ones((2, 3)), [1, 1, 1]).estimate
    assert single.n_clusters == 1
    assert single.low < 0.3


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="expected equal"):
        replicated_difference(np.ones((2, 3)), np.ones((3, 3)))
    with pytest.raises(ValueError, match="2 items but 3"):
        replicated_mean(np.ones((2, 2)), [1, 2, 3])
    with pytest.raises(ValueError, match="expected \\[S, N\\]"):
        replicated_mean(np.ones(3))


def study(rng, seeds, of_seed, shift=0.0, items=300):
    """Values [S, N] of two variants: an item's own difficulty, a training's luck, and noise."""
    hard = rng.logistic(0.7, 1, items)

    def variant(more):
        luck, noise = rng.normal(0, of_seed, (seeds, 1)), rng.normal(0, 0.7, (seeds, items))
        return (hard + more + luck + noise > 0).astype(float)

    return variant(shift), variant(0.0)


def rates(draws, seeds, of_seed, shift=0.0):
    """(share of studies that find a difference, the same where seeds are taken for items)."""
    rng, found = np.random.default_rng(seeds), np.zeros(2)
    for _ in range(draws):
        one, two = study(rng, seeds, of_seed, shift)
        found[0] += replicated_difference(one, two)[0].p_value < 0.05
        found[1] += p_of_zero(replicated_mean((one - two).mean(axis=0)[None])) < 0.05
    return found / draws


@pytest.mark.parametrize("of_seed", [0.0, 0.1, 0.5])
def test_equal_variants_are_found_equal_whatever_the_luck_of_seeds(of_seed):
    ours, careless = rates(400, 3, of_seed)
    assert ours < 0.1
    if of_seed == 0.5:
        assert careless > 0.4, "what happens where seeds are not counted"


def test_a_true_difference_is_found():
    assert rates(100, 3, 0.0, shift=0.5)[0] > 0.95


def test_the_interval_covers_the_recipe_s_accuracy():
    rng = np.random.default_rng(1)
    hard, luck = rng.logistic(0.7, 1, 2_000_000), rng.normal(0, math.hypot(0.3, 0.7), 2_000_000)
    truth = (hard + luck > 0).mean()
    found = (replicated_accuracy(study(rng, 3, 0.3)[0]).estimate for _ in range(400))
    assert 0.9 < np.mean([e.low <= truth <= e.high for e in found]) <= 1
