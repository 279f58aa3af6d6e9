"""Kappa and alpha against published and hand-made figures."""

import math

import numpy as np
import pytest
from statsmodels.stats.inter_rater import cohens_kappa

from palate.stats import cohen_kappa, krippendorff_alpha

# Krippendorff (2011), section C: four observers, twelve units, some not observed.
OBSERVED = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]


def labels():
    found = [(v, u) for row in OBSERVED for u, v in enumerate(row) if v is not None]
    return [v for v, _ in found], [u for _, u in found]


@pytest.mark.parametrize(("distance", "expected"), [("nominal", 0.743), ("interval", 0.849)])
def test_alpha_of_krippendorffs_example(distance, expected):
    values, units = labels()
    found = krippendorff_alpha(values, units, rng=np.random.default_rng(0), distance=distance)
    assert found.value == pytest.approx(expected, abs=5e-4)
    assert (found.n, found.n_unscored, found.n_clusters) == (40, 1, 11)
    assert found.low < found.value < found.high


def test_alpha_does_not_depend_on_the_order_of_labels_or_their_names():
    values, units = labels()
    rng = np.random.default_rng(0)
    order = rng.permutation(len(values))
    shuffled = krippendorff_alpha(
        [10 - values[i] for i in order], [f"u{units[i]}" for i in order], rng=rng
    )
    assert shuffled.value == pytest.approx(0.743, abs=5e-4)


def test_alpha_is_one_without_disagreement_and_near_zero_by_chance():
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 2, 400)
    same = krippendorff_alpha(np.tile(truth, 2), np.tile(np.arange(400), 2), rng=rng)
    assert same.value == 1.0
    thrown = krippendorff_alpha(rng.integers(0, 2, 800), np.tile(np.arange(400), 2), rng=rng)
    assert thrown.low < 0 < thrown.high


def test_alphas_interval_is_of_clusters_not_of_items():
    rng = np.random.default_rng(2)
    truth = np.repeat(rng.integers(0, 2, 20), 10)
    wrong = np.repeat(rng.random(20) < 0.2, 10)
    both = np.concatenate([truth, np.where(wrong, 1 - truth, truth)])
    items, clusters = np.tile(np.arange(200), 2), np.tile(np.repeat(np.arange(20), 10), 2)
    alone = krippendorff_alpha(both, items, rng=np.random.default_rng(3))
    whole = krippendorff_alpha(both, items, clusters, rng=np.random.default_rng(3))
    assert alone.value == whole.value
    assert whole.error > 2 * alone.error


def test_nothing_to_say_is_nan():
    rng = np.random.default_rng(0)
    for values, items in (([], []), ([1], ["a"]), ([1, 1, 1, 1], "aabb"), ([1, 0], "aa")):
        found = krippendorff_alpha(values, list(items), rng=rng)
        assert math.isnan(found.value), values
    for first, second in (([], []), ([1, 1], [1, 1])):
        assert math.isnan(cohen_kappa(first, second).value)


def test_kappa_of_a_table_by_hand():
    """20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: p = 0.7, e = 0.5, kappa = 0.4."""
    first = [1] * 25 + [0] * 25
    second = [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
    found = cohen_kappa(first, second)
    assert found.value == pytest.approx(0.4)
    assert found.low < 0.4 < found.high
    assert (found.n, cohen_kappa([1, 0], [1, 0]).value) == (50, 1.0)
    with pytest.raises(ValueError, match="expected the same items"):
        cohen_kappa([1], [1, 0])


@pytest.mark.parametrize("labels", [2, 4])
def test_kappa_and_its_interval_are_those_of_statsmodels(labels):
    rng = np.random.default_rng(labels)
    first = rng.integers(0, labels, 300)
    second = np.where(rng.random(300) < 0.3, rng.integers(0, 2, 300), first)
    table = np.zeros((labels, labels))
    np.add.at(table, (first, second), 1)
    theirs, found = cohens_kappa(table), cohen_kappa(first, second)
    assert found.value == pytest.approx(theirs.kappa)
    assert found.error == pytest.approx(theirs.std_kappa)
    assert (found.low, found.high) == pytest.approx((theirs.kappa_low, theirs.kappa_upp))


def test_kappa_of_people_who_never_use_the_same_label_is_zero():
    found = cohen_kappa([0] * 5, [1] * 5)
    assert (found.value, found.error) == (0.0, 0.0)
