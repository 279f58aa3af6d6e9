"""A judge's errors taken out of its word, and where they cannot be."""

import numpy as np
import pytest

from palate.stats import favour, judge_corrected


def labelled(right: tuple[int, int, int], wrong: tuple[int, int, int]) -> tuple[list, list]:
    """Answers and labels: of those decided for it and against it, judge for, against, tied."""
    answers, labels = [], []
    for label, counts in ((1.0, right), (0.0, wrong)):
        for answer, count in zip((1.0, 0.0, 0.5), counts, strict=True):
            answers += [answer] * count
            labels += [label] * count
    return answers, labels


def judged(wins: int, losses: int, ties: int = 0) -> list[float]:
    return [1.0] * wins + [0.0] * losses + [0.5] * ties


def test_the_value_is_rogan_and_gladen_s():
    answers, labels = labelled((90, 10, 0), (30, 70, 0))
    found = judge_corrected(judged(600, 400), None, answers, labels, None)
    assert found.sensitivity.value == pytest.approx(0.9)
    assert found.specificity.value == pytest.approx(0.7)
    assert found.informedness.value == pytest.approx(0.6)
    assert found.judged.value == pytest.approx(0.6)
    assert found.people.value == pytest.approx(0.5)
    assert found.estimate.value == pytest.approx((0.6 - 0.3) / 0.6)
    assert found.estimate.low < 0.5 < found.estimate.high
    assert (found.estimate.n, found.estimate.n_unscored) == (1000, 0)


def test_ties_count_one_half_and_undecided_labels_not_at_all():
    answers, labels = labelled((80, 10, 10), (10, 80, 10))
    plain = judge_corrected(judged(50, 30, 20), None, answers, labels, None)
    assert plain.estimate.value == pytest.approx((0.6 - 0.15) / 0.7)
    more = judge_corrected(
        [*judged(50, 30, 20), np.nan], None, [*answers, 1.0, 0.0], [*labels, np.nan, np.nan], None
    )
    assert more.estimate.value == plain.estimate.value
    assert more.estimate.n_unscored == 1
    assert more.informedness.n_unscored == 2


def test_a_perfect_judge_s_interval_still_has_the_error_of_the_labelled():
    answers, labels = labelled((50, 0, 0), (0, 50, 0))
    few = judge_corrected(judged(60, 40), None, answers, labels, None).estimate
    many = judge_corrected(judged(60, 40), None, answers * 20, labels * 20, None).estimate
    assert few.value == many.value == pytest.approx(0.6)
    assert few.high - few.low > many.high - many.low > 0.15, "of 100 comparisons at least"


def test_a_label_more_or_a_cluster_less_widens_the_interval():
    answers, labels = labelled((90, 10, 0), (30, 70, 0))

    def width(clusters, known=None):
        e = judge_corrected(judged(120, 80), clusters, answers, labels, known).estimate
        return e.high - e.low

    assert width(None) < width([n // 10 for n in range(200)])
    assert width(None) < width(None, [n // 10 for n in range(200)])


def test_prompts_that_stand_in_both_samples_are_one_cluster():
    """Where both are the same comparisons, the share is people's own, and its error is theirs."""
    rng = np.random.default_rng(0)
    labels = (rng.random(400) < 0.6).astype(float)
    answers = np.where(rng.random(400) < 0.8, labels, 1 - labels)
    prompts = [f"p{n}" for n in range(400)]
    same = judge_corrected(answers, prompts, answers, labels, prompts)
    apart = judge_corrected(answers, None, answers, labels, None)
    assert same.estimate.value == pytest.approx(labels.mean())
    assert same.estimate.error == pytest.approx(np.sqrt(0.24 / 400), rel=0.05)
    assert apart.estimate.error > 1.3 * same.estimate.error


@pytest.mark.parametrize(
    ("new", "right", "wrong", "reason"),
    [
        (judged(60, 40), (52, 48, 0), (48, 52, 0), "add up to 1.04: not above 1 beyond the error"),
        (judged(60, 40), (30, 70, 0), (70, 30, 0), "add up to 0.60: not above 1"),
        (judged(60, 40), (50, 0, 0), (1, 8, 0), "50 labelled comparisons for it and 9 against"),
        (judged(0, 200), (90, 10, 0), (30, 70, 0), "it errs here in another way"),
        (judged(200, 0), (70, 30, 0), (20, 80, 0), "could give 20.0% to 70.0%"),
        (judged(60, 40, 100), (90, 9, 1), (30, 69, 1), "ties on 50.0%, which its ties"),
        ([np.nan] * 9, (90, 10, 0), (30, 70, 0), "the judge answered no comparison"),
        (judged(60, 40), (0, 0, 0), (0, 0, 0), "0 labelled comparisons for it and 0 against"),
    ],
)
def test_what_cannot_be_corrected_is_refused_with_its_reason(new, right, wrong, reason):
    answers, labels = labelled(right, wrong)
    found = judge_corrected(new, None, answers, labels, None)
    assert found.estimate is None
    assert reason in found.reason


def test_one_calibration_for_two_systems_turns_the_result_round():
    """The judge favours its own kind: errors of this system's comparisons give people's share,
    those of both systems together, alike for either side, give the other's win (2605.06939)."""
    rng = np.random.default_rng(1)

    def asked(size):
        labels = (rng.random(size) < 0.42).astype(float)
        for_own = rng.random(size) < np.where(labels == 1, 0.95, 0.35)
        return for_own.astype(float), labels

    (answers, labels), (new, _) = asked(3000), asked(3000)
    own = judge_corrected(new, None, answers, labels, None).estimate
    assert own.low < 0.42 < own.high < 0.5
    # The same comparisons seen from either side, as where nobody says whose a response is.
    turned = np.append(answers, 1 - answers), np.append(labels, 1 - labels)
    shared = judge_corrected(new, None, *turned, None).estimate
    assert shared.low > 0.5, "the wrong one wins, and surely"


def test_arrays_that_do_not_fit_are_errors():
    with pytest.raises(ValueError, match="2 labelled answers but 1 labels"):
        judge_corrected([1.0], None, [1.0, 0.0], [1.0], None)
    with pytest.raises(ValueError, match="expected 1, 0 or NaN"):
        judge_corrected([1.0], None, [1.0], [0.5], None)
    with pytest.raises(ValueError, match="1 comparisons but 2 cluster labels"):
        judge_corrected([1.0], ["a", "b"], [1.0], [1.0], None)


# Whether a judge favours a side.


def test_favour_is_sensitivity_less_specificity_and_errors_alone_are_none():
    answers, labels = labelled((160, 40, 0), (20, 80, 0))
    even = favour(answers, labels, None)
    assert even.estimate.value == pytest.approx(0.0)
    assert even.p_value == pytest.approx(1.0)
    assert np.mean(answers) < np.mean(labels), "the share of wins alone would say disfavour"
    own = favour(*labelled((95, 5, 0), (40, 60, 0)), None)
    assert own.estimate.value == pytest.approx(0.35)
    assert own.p_value < 1e-6
    assert own.estimate.low > 0.2
    other = favour(*labelled((60, 40, 0), (5, 95, 0)), None)
    assert other.estimate.value == pytest.approx(-0.35)


def test_favour_needs_labels_for_the_side_and_against_it():
    found = favour([1.0, 0.0, np.nan], [1.0, 1.0, 0.0], None)
    assert np.isnan(found.estimate.value)
    assert (found.p_value, found.estimate.low, found.estimate.high) == (1.0, -1.0, 1.0)
    assert (found.estimate.n, found.estimate.n_unscored) == (2, 1)
    perfect = favour(*labelled((5, 0, 0), (0, 5, 0)), None)
    assert perfect.estimate.low < 0 < perfect.estimate.high, "five right ones prove little"


def test_favour_s_false_positives_are_at_its_level():
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(400):
        prompts = np.repeat(np.arange(60), rng.integers(1, 4, 60))
        labels = (rng.random(prompts.size) < 0.6).astype(float)
        agrees = rng.random(prompts.size) < rng.beta(6, 2, 60)[prompts]
        found += favour(np.where(agrees, labels, 1 - labels), labels, prompts).p_value <= 0.05
    assert found / 400 < 0.085
