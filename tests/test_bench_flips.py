"""The benchmark of flipped labels: what is turned, the best list there can be, and its figures."""

import numpy as np
import pytest
from benchmarks.labels.flips import at_recall, calibration, campaign, posterior, turned

from palate.data.simulation import CampaignOptions, simulate


def test_a_turned_label_has_the_latent_truth_the_other_way_round() -> None:
    (first,) = simulate(CampaignOptions(weeks=1, comparisons_per_week=1), 0)
    other = turned(first)
    assert (other.chosen, other.rejected) == (first.rejected, first.chosen)
    assert other.meta["utility_difference"] == -first.meta["utility_difference"]
    assert other.rating == first.rating
    assert turned(other).meta["latent"] == first.meta["latent"]
    # Who knows the truth takes the two for what they are.
    one, two = (posterior(c, 0.1, rated=True) for c in (first, other))
    odds = [p / (1 - p) for p in (one, two)]
    assert odds[0] * odds[1] == pytest.approx((0.1 / 0.9) ** 2)


def test_so_many_are_flipped_and_who_knows_the_truth_is_calibrated() -> None:
    rows, flipped = campaign(0, 4_000, 0.1)
    assert flipped.sum() == 400
    for rated in (False, True):
        said = np.array([posterior(c, 0.1, rated=rated) for c in rows])
        assert said.sum() == pytest.approx(400, rel=0.1)
        top = said > 0.5
        assert flipped[top].mean() == pytest.approx(said[top].mean(), abs=0.08)


def test_precision_at_a_recall_is_that_of_the_shortest_list() -> None:
    flipped = np.array([True, False, True, False, False, True])
    scores = np.array([6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    assert [at_recall(scores, flipped, r) for r in (0.3, 0.6, 1.0)] == [1.0, 2 / 3, 0.5]
    (rows, said, came), *_, last = calibration(np.array([0.01, 0.02, 1.0]), flipped[:3])
    assert (rows, said, came) == (2, pytest.approx(0.03), 1)
    assert last == [1, 1, 1]
