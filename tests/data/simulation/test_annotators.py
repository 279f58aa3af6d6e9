"""The annotators' noise is Bradley-Terry, and their Bayes limit is the closed form."""

import math
from random import Random

import pytest

from palate.data.simulation.annotators import (
    RATING_CUTS,
    bayes_accuracy,
    bayes_accuracy_given_rating,
    judge,
    rating_of,
    rating_probabilities,
    sigmoid,
)
from palate.types import Rating


def test_choice_is_bradley_terry() -> None:
    rng, draws = Random(0), 20_000
    for difference in (-2.0, 0.0, 0.7, 3.0):
        share = sum(judge(difference, rng).first_preferred for _ in range(draws)) / draws
        assert share == pytest.approx(sigmoid(difference), abs=4 * 0.5 / draws**0.5)


def test_ratings_follow_the_cuts() -> None:
    low, middle, high = RATING_CUTS
    assert rating_of(0.0) is Rating.NEGLIGIBLY
    assert rating_of(low) is Rating.SLIGHTLY
    assert rating_of(middle) is Rating.BETTER
    assert rating_of(high) is Rating.SIGNIFICANTLY


@pytest.mark.parametrize("difference", [0.0, 0.4, 1.7, 5.0])
def test_probabilities_of_levels_sum_to_those_of_the_choice(difference: float) -> None:
    parts = [rating_probabilities(difference, rating) for rating in Rating]
    assert math.fsum(right for right, _ in parts) == pytest.approx(bayes_accuracy(difference))
    assert math.fsum(wrong for _, wrong in parts) == pytest.approx(sigmoid(-difference))


@pytest.mark.parametrize("difference", [-1.2, 0.5, 2.5])
def test_accuracy_given_the_rating_equals_monte_carlo(difference: float) -> None:
    rng = Random(1)
    seen: dict[Rating, list[bool]] = {rating: [] for rating in Rating}
    for _ in range(40_000):
        drawn = judge(difference, rng)
        seen[drawn.rating].append(drawn.first_preferred == (difference > 0))
    for rating, right in seen.items():
        expected = bayes_accuracy_given_rating(difference, rating)
        error = (expected * (1 - expected) / len(right)) ** 0.5
        assert sum(right) / len(right) == pytest.approx(expected, abs=4 * error + 1e-9)


def test_equal_responses_are_a_coin_toss_at_every_level() -> None:
    assert bayes_accuracy(0.0) == 0.5
    for rating in Rating:
        assert bayes_accuracy_given_rating(0.0, rating) == pytest.approx(0.5)


def test_accuracy_grows_with_the_rating() -> None:
    for difference in (0.3, 1.0, 3.0):
        by_level = [bayes_accuracy_given_rating(difference, rating) for rating in Rating]
        assert by_level == sorted(by_level)
        assert len(set(by_level)) == len(by_level)


@pytest.mark.parametrize("difference", [1e4, -1e4, 1e-9])
def test_extreme_differences_stay_finite(difference: float) -> None:
    for rating in Rating:
        assert 0.5 <= bayes_accuracy_given_rating(difference, rating) <= 1.0
    assert judge(difference, Random(0)).rating in Rating
