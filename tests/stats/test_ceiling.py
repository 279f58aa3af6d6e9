"""The limit set by annotators: by hand and against annotators who were drawn."""

import numpy as np
import pytest

from palate import stats


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
