"""Kappa and alpha against published and hand-made figures."""

import math

import numpy as np
import pytest
from statsmodels.stats.inter_rater import cohens_kappa

from palate import stats
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


# The limit set by annotators: by hand and against annotators who were drawn.


def test_agreement_by_hand():
    # Item a: 2 of 3 agree: 1 of 3 pairs. Item b: both agree. Item c: one label, no pair.
    found = stats.noise_ceiling([1, 1, 0, 0, 0, 1], list("aaabbc"), fingerprint="f")
    assert found.agreement.value == pytest.approx((1 / 3 + 1) / 2)
    assert found.ceiling.value == pytest.approx((1 + (1 / 3) ** 0.5) / 2)
    assert (found.agreement.n, found.agreement.n_unscored) == (2, 1)
    assert found.ceiling.fingerprint == "f"
    assert stats.noise_ceiling([1, 0], ["a", "b"]) is None


@pytest.mark.parametrize("alike", [True, False])
def test_the_best_judge_lies_between_agreement_and_ceiling(alike):
    rng, items, annotators = np.random.default_rng(0), 4_000, 3
    q = np.full(items, 0.8) if alike else rng.beta(2, 2, items)
    labels = rng.random((items, annotators)) < q[:, None]
    found = stats.noise_ceiling(labels.ravel(), np.repeat(np.arange(items), annotators))
    best = np.maximum(q, 1 - q).mean()
    assert found.agreement.value < best < found.ceiling.high
    if alike:
        assert found.ceiling.low <= best <= found.ceiling.high
    assert found.ceiling.low < found.ceiling.value < found.ceiling.high
    assert found.ceiling.error > 0


def test_annotators_who_toss_coins_leave_a_judge_nothing_to_know():
    rng = np.random.default_rng(1)
    labels = rng.random(6_000) < 0.5
    found = stats.noise_ceiling(labels, np.repeat(np.arange(2_000), 3))
    assert found.ceiling.low == 0.5
    assert found.ceiling.value < 0.6


def test_items_of_a_prompt_are_one_cluster():
    labels, items = [1, 1, 0, 0, 1, 0, 1, 1], np.repeat(np.arange(4), 2)
    found = stats.noise_ceiling(labels, items, np.repeat(["p", "q"], 4))
    assert (found.agreement.n, found.agreement.n_clusters) == (4, 2)


# A planted bias of position is found; judges without one show none.


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
