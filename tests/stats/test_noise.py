"""How many labels are wrong and which: the mixture, its interval, and honest probabilities."""

import numpy as np
import pytest
from scipy.special import expit

from palate import stats
from palate.stats.noise import NoiseModel

SLOPES = np.array([0.5, 1.0, 2.0])


def judged(
    rows: int, rate: float, strength: float, seed: int, per_cluster: int = 2
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Margins, levels, clusters and which labels are flipped; `strength` is that of the judge."""
    rng = np.random.default_rng(seed)
    levels = rng.integers(0, 3, rows)
    x = strength * rng.normal(size=rows)
    meant = rng.random(rows) < expit(SLOPES[levels] * x)
    flipped = rng.random(rows) < rate
    margins = np.where(meant != flipped, x, -x)
    return margins, levels, np.arange(rows) // per_cluster, flipped


def fitted(margins: np.ndarray, levels: np.ndarray, clusters: np.ndarray) -> NoiseModel:
    found = stats.fit_noise(
        margins, clusters, np.random.default_rng(0), levels=levels, resamples=40
    )
    assert found is not None
    return found


def test_a_strong_judge_finds_the_rate_and_what_margins_are_worth() -> None:
    margins, levels, clusters, flipped = judged(4_000, 0.1, 4.0, seed=1)
    found = fitted(margins, levels, clusters)
    rate = found.flip_rate
    assert rate.low < 0.1 < rate.high < 0.13
    assert rate.low > 0.07
    assert found.identified
    assert (rate.n, rate.n_clusters) == (4_000, 2_000)
    np.testing.assert_allclose(found.slopes.mean(0), SLOPES, rtol=0.2)
    wrong = found.wrong(margins, levels)
    assert wrong.sum() == pytest.approx(flipped.sum(), rel=0.15)


@pytest.mark.parametrize("strength", [4.0, 1.0])
def test_stated_probabilities_come_true_whether_the_judge_is_strong_or_weak(
    strength: float,
) -> None:
    """Over many data sets, of all labels said to be wrong with about 0.9, about 90 % are."""
    rng = np.random.default_rng(7)
    said, seen = [], []
    for seed in range(14):
        rate = rng.beta(*stats.FLIP_PRIOR)  # As the prior says, so that it may be believed.
        margins, levels, clusters, flipped = judged(500, rate, strength, 100 + seed)
        found = stats.fit_noise(margins, clusters, rng, levels=levels, resamples=20)
        assert found is not None
        said.append(found.wrong(margins, levels))
        seen.append(flipped)
    p, y = np.concatenate(said), np.concatenate(seen)
    compared = 0
    for low, high in ((0.0, 0.05), (0.05, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.01)):
        inside = (p >= low) & (p < high)
        if inside.sum() >= 50:
            # Rows of one data set share its rate, so the error is larger than a binomial's.
            error = 2 * np.sqrt(p[inside].mean() / inside.sum()) + 0.06
            assert y[inside].mean() == pytest.approx(p[inside].mean(), abs=error)
            compared += 1
    assert compared >= 3


def test_a_weak_judge_says_that_the_rate_is_not_identified_and_is_sure_of_nothing() -> None:
    margins, levels, clusters, _ = judged(300, 0.0, 0.7, seed=3)
    found = fitted(margins, levels, clusters)
    assert not found.identified
    assert found.flip_rate.low == 0
    assert found.flip_rate.high > 0.1
    assert found.wrong(margins, levels).max() < 0.7


def test_without_flips_a_strong_judge_finds_none() -> None:
    margins, levels, clusters, _ = judged(3_000, 0.0, 4.0, seed=4)
    found = fitted(margins, levels, clusters)
    assert found.flip_rate.high < 0.03
    assert not found.identified


def test_rows_that_hang_together_widen_the_interval() -> None:
    margins, levels, _, _ = judged(600, 0.1, 3.0, seed=5)
    alone = fitted(margins, levels, np.arange(600))
    # Ten copies of each row are as much as one.
    copied = fitted(np.repeat(margins, 10), np.repeat(levels, 10), np.repeat(np.arange(600), 10))
    width, wide = (one.flip_rate.high - one.flip_rate.low for one in (alone, copied))
    assert 0.5 * width < wide


def test_the_chance_falls_with_the_margin_and_steeper_where_a_rating_makes_it_worth_more() -> None:
    margins, levels, clusters, _ = judged(4_000, 0.1, 4.0, seed=1)
    found = fitted(margins, levels, clusters)
    at = np.linspace(-6, 6, 25)
    flat, steep = (found.wrong(at, np.full(25, level)) for level in (0, 2))
    assert (np.diff(flat) < 0).all()
    assert (np.diff(steep) < 0).all()
    assert steep[0] > flat[0]
    assert found.wrong([0.0])[0] == pytest.approx(found.flip_rate.value, abs=0.005)
    assert np.isnan(found.wrong([np.nan])[0])


def test_one_draw_is_bayes_rule() -> None:
    rate = stats.Estimate(0.1, 0, 0.1, 0.1, 1)
    model = NoiseModel(rate, np.array([0.1]), np.array([[1.0, 2.0]]))
    right = expit(2.0 * -1.5)
    expected = 0.1 * (1 - right) / (0.1 * (1 - right) + 0.9 * right)
    assert model.wrong([-1.5], [1])[0] == pytest.approx(expected, abs=1e-12)


def test_numbers_of_wrong_labels_at_cuts_lie_about_their_expectation() -> None:
    margins, levels, clusters, flipped = judged(2_000, 0.1, 4.0, seed=3)
    found = fitted(margins, levels, clusters)
    wrong = found.wrong(margins, levels)
    order = np.argsort(-wrong)
    cuts = [0, 10, 120, 1_900]
    counts = found.counts(margins[order], levels[order], cuts, np.random.default_rng(1))
    assert counts.shape == (len(found.rates), 4)
    assert not counts[:, 0].any()
    for column, cut in enumerate(cuts[1:], 1):
        assert counts[:, column].mean() == pytest.approx(wrong[order][:cut].sum(), rel=0.05)
        low, high = np.quantile(counts[:, column], (0.01, 0.99))
        assert low <= flipped[order][:cut].sum() <= high


def test_what_is_not_scored_is_counted_and_one_cluster_says_nothing() -> None:
    margins, _levels, clusters, _ = judged(200, 0.1, 3.0, seed=8)
    margins[:7] = np.nan
    found = stats.fit_noise(margins, clusters, np.random.default_rng(0), resamples=10)
    assert found is not None
    assert found.flip_rate.n_unscored == 7
    assert stats.fit_noise([1.0, -1.0], [0, 0], np.random.default_rng(0)) is None
    with pytest.raises(ValueError, match=r"\[N\] each"):
        stats.fit_noise([1.0, -1.0], None, np.random.default_rng(0), levels=[0])


def test_the_same_generator_gives_the_same_model() -> None:
    margins, levels, clusters, _ = judged(300, 0.1, 2.0, seed=9)
    first, second = (fitted(margins, levels, clusters) for _ in range(2))
    np.testing.assert_array_equal(first.wrong(margins, levels), second.wrong(margins, levels))
