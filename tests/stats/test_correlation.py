"""Correlations against SciPy's, and their intervals against known truth."""

import math

import numpy as np
import pytest
from scipy import stats as reference

from palate.stats import correlation


def test_values_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 5, 80).astype(float)
    y = x + rng.normal(size=80)
    assert correlation(x, y).value == pytest.approx(reference.pearsonr(x, y).statistic)
    assert correlation(x, y, ranks=True).value == pytest.approx(reference.spearmanr(x, y).statistic)


def test_what_is_not_known_is_left_out_and_counted() -> None:
    x, y = np.array([1.0, 2, np.nan, 4, 5]), np.array([2.0, 1, 3, np.nan, 9])
    made = correlation(x, y, fingerprint="f")
    assert (made.n, made.n_unscored, made.n_clusters, made.fingerprint) == (3, 2, 3, "f")
    assert made.value == pytest.approx(np.corrcoef([1, 2, 5], [2, 1, 9])[0, 1])


def test_a_column_that_does_not_vary_has_no_correlation() -> None:
    made = correlation([1.0, 1, 1], [1.0, 2, 3])
    assert math.isnan(made.value)
    assert (made.low, made.high) == (-1, 1)
    assert math.isnan(correlation([1.0, 2, 3], [1.0, 2, 4], ["a", "a", "a"]).error), "one cluster"


def test_clusters_widen_the_interval() -> None:
    rng = np.random.default_rng(1)
    cluster = np.repeat(np.arange(40), 5)
    x, y = (rng.normal(size=(2, 40)) @ np.eye(40))[:, cluster]
    wide, narrow = correlation(x, y, cluster), correlation(x, y)
    assert wide.value == narrow.value
    assert wide.half_width > 1.5 * narrow.half_width


@pytest.mark.parametrize("ranks", [False, True])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(ranks: bool) -> None:
    rng, rho, held, draws = np.random.default_rng(2), 0.6, 0, 200
    truth = 6 / math.pi * math.asin(rho / 2) if ranks else rho
    for _ in range(draws):
        x = rng.normal(size=60)
        y = rho * x + math.sqrt(1 - rho**2) * rng.normal(size=60)
        made = correlation(x, y, ranks=ranks)
        held += made.low <= truth <= made.high
    assert held / draws > 0.9
