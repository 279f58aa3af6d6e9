import math

import pytest

from palate.judges.scorer import ScorerJudge
from palate.types import Message, Pair, PalateError, Score

PROMPT = (Message("user", "Why?"),)


class Fixed:
    """Answers with given scores, and keeps what it was shown."""

    name = "fixed"

    def __init__(self, *answers):
        self.answers, self.seen = answers, []
        self.protocol = {"judge": "fixed"}

    def score(self, candidates):
        for shown, answer in zip(candidates, self.answers, strict=False):
            self.seen.append(shown)
            yield answer


def judge(*answers):
    pairs = [Pair(str(i), PROMPT, f"first {i}", f"second {i}") for i in range(len(answers))]
    return list(ScorerJudge(Fixed(*answers)).judge(pairs))


def test_the_higher_score_is_preferred():
    answers = judge((Score(1.0), Score(-1.0)), (Score(0.25), Score(0.5)))
    assert [a.choice for a in answers] == ["first", "second"]
    assert (answers[1].first_score, answers[1].second_score) == (0.25, 0.5)


def test_pitfall_25_only_equal_scores_tie():
    almost = math.nextafter(1.0, 2.0)
    answers = judge((Score(1.0), Score(1.0)), (Score(almost), Score(1.0)))
    assert [a.choice for a in answers] == ["tie", "first"]


def test_pitfall_25_a_missing_score_is_unscored_with_its_reason():
    left, right = judge(
        (Score(None, "too long", tokens=9), Score(1.0)), (Score(1.0), Score(None, "refused"))
    )
    assert (left.choice, left.reason) == (None, "too long")
    assert (right.choice, right.reason) == (None, "refused")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_unscored(value):
    (answer,) = judge((Score(1.0), Score(value)))
    assert (answer.choice, answer.reason) == (None, "non-finite")
    assert answer.first_score is None


def test_truncation_of_either_side_marks_the_answer():
    (answer,) = judge((Score(1.0), Score(0.0, truncated=True)))
    assert answer.truncated


def test_the_scorer_sees_the_prompt_and_both_responses_in_order():
    scorer = Fixed((Score(1.0), Score(0.0)))
    list(ScorerJudge(scorer).judge([Pair("x", PROMPT, "left", "right")]))
    assert (scorer.seen[0].prompt, scorer.seen[0].responses) == (PROMPT, ("left", "right"))


def test_a_scorer_that_stops_early_is_an_error():
    pairs = [Pair(str(i), PROMPT, "a", "b") for i in range(2)]
    with pytest.raises(PalateError, match="expected 2 scores for pair 1, got no answer"):
        list(ScorerJudge(Fixed((Score(1.0), Score(0.0)))).judge(pairs))
