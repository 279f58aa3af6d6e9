"""Only A or B is an answer; logprobs come first; nothing else is guessed at."""

import math

import pytest

from palate.judges.llm.answer import (
    Answer,
    Letter,
    Refused,
    first_token,
    letter_of,
    parse,
    preference,
    rating_of,
    rubric_of,
)
from palate.judges.options import Criterion


@pytest.mark.parametrize(
    "text", ["A", " A\n", "A.", "(A)", "A)", "[A]", '"A"', "**A**", "`A`", "Answer: A", "answer A"]
)
def test_these_forms_are_tolerated(text):
    assert parse(text) == "A"
    assert parse(text.replace("A", "B").replace("Bn", "An")) == "B"


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "a", "b", "C", "AB", "A B", "A or B", "A and B", "Both", "A\nB", "A, because B",
        "The best answer is A", "I choose A.", "A is better than B", "Answer: neither", "Ä", "Α",
        "As an AI I cannot choose", "B" * 5, "A" + " " * 60, "Not A", "-A", "A/B", "answers: A",
    ],
)  # fmt: skip
def test_everything_else_is_unparsed(text):
    assert parse(text) is None


def answer(text: str, top: dict[str, float] | None = None, finish: str = "stop") -> Answer:
    return Answer(text, finish, tuple((top or {}).items()), 0.5)


def test_words_give_a_choice_without_scores_and_are_kept():
    found = preference("p", answer("B."))
    assert (found.choice, found.first_score, found.answer, found.seconds) == (
        "second", None, "B.", 0.5,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (answer("Both are fine."), "unparsed"),
        (answer(""), "unparsed: empty"),
        (answer("", finish="content_filter"), "unparsed: content filter"),
        (
            answer("", finish="length"),
            "unparsed: no token was left for the answer; raise reasoning_tokens",
        ),
        (Refused("too long", 0.1), "too long"),
    ],
)
def test_what_is_no_answer_is_unscored_with_its_reason(given, reason):
    found = preference("p", given)
    assert (found.choice, found.reason, found.first_score) == (None, reason, None)
    assert found.answer == getattr(given, "text", "")


def test_logprobs_come_before_words_and_are_restricted_to_the_letters():
    top = {"The": math.log(0.7), "A": math.log(0.1), "B": math.log(0.15), " A": math.log(0.1)}
    found = preference("p", answer("The", top))
    assert found.choice == "first", "both tokens of A count"
    assert found.first_score == pytest.approx(0.2 / 0.35)
    assert found.second_score == pytest.approx(0.15 / 0.35)


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("<think>A is short. B it is.</think>\n\nB", "second"),
        ("A looks fine, but ...\n</think>\n\nB", "second"),  # The template wrote the beginning.
        ("<thinking>\nB?\n</thinking>A", "first"),
        ("<think>A, since", None),
        ("<think>B</think>\nBoth are fine.", None),
        ("<think>no</think> <think>yes</think> A", None),
    ],
)
def test_reasoning_before_the_answer_is_not_the_answer(text, choice):
    """The first token is one of the reasoning: what stood beside it says nothing."""
    found = preference("p", answer(text, {"<think>": -0.01, "A": -9.0, "B": -9.5}))
    assert (found.choice, found.first_score, found.answer) == (choice, None, text)


def test_a_letter_that_is_not_listed_is_no_likelier_than_the_least_listed():
    read = first_token((("B", math.log(0.6)), ("x", math.log(0.01))))
    assert read.known
    assert read.values == pytest.approx((0.01 / 0.61, 0.6 / 0.61))
    assert first_token((("A", -1.0),)).values == (1, 0), "even where it is the only one listed"


def test_equal_logprobs_tie_and_none_at_all_leave_it_to_the_words():
    assert preference("p", answer("A", {"A": -1.0, "B": -1.0})).choice == "tie"
    assert first_token((("C", -0.1), ("Sure", -2.0))) is None
    assert preference("p", answer("B", {"C": -0.1})).choice == "second"


def test_openai_s_mark_of_the_impossible_is_a_probability_of_zero():
    assert first_token((("A", -0.1), ("B", -9999.0))) == Letter((1.0, 0.0), known=True)


@pytest.mark.parametrize(
    ("text", "first"), [("**B**", "**"), ("Answer: B", "Answer"), ("(B)", "("), ("`B`", "`")]
)
def test_what_stood_beside_a_mark_before_the_letter_does_not_outvote_it(text, first):
    """The tail of a first token that is no letter made A of nearly every such answer."""
    found = preference("p", answer(text, {first: -0.001, "A": -7.0, "B": -9.0}))
    assert (found.choice, found.first_score, found.answer) == ("second", None, text)


@pytest.mark.parametrize(
    "text",
    [
        "[THINK]A?[/THINK]B",
        "<|channel|>analysis<|message|>A?<|end|><|start|>assistant<|channel|>final<|message|>B",
    ],
)
def test_reasoning_of_mistral_and_gpt_oss_is_not_the_answer(text):
    found = preference("p", answer(text, {text[:7]: -0.01, "A": -9.0, "B": -9.5}))
    assert (found.choice, found.first_score) == ("second", None)
    assert preference("p", answer(text[:-1], {"A": -9.0})).reason == "unparsed: empty"


def test_one_listed_token_has_a_share_only_where_it_leaves_less_than_it_has():
    """At one half in both orders every item was a tie, however sure the judge."""
    left = 1 - math.exp(-0.1)
    assert first_token((("B", -0.1),)).values == pytest.approx((left, 1 - left))
    assert first_token((("A", 0.0),)) == Letter((1.0, 0.0))
    assert first_token((("A", -1.0),)) == Letter((1.0, 0.0))


# The letter of one of K.


def test_of_k_letters_those_not_listed_have_the_bound_and_only_asked_ones_count():
    top = (("C", math.log(0.5)), ("A", math.log(0.2)), ("E", math.log(0.1)))
    read = first_token(top, "ABCD")
    assert read.known
    assert read.values == pytest.approx([0.2 / 0.9, 0.1 / 0.9, 0.5 / 0.9, 0.1 / 0.9])
    assert letter_of(answer("C"), "ABCD") == Letter((0.0, 0.0, 1.0, 0.0))
    assert letter_of(answer("E"), "ABCD").reason == "unparsed"
    assert letter_of(answer("[[D]]"), "ABCD").values == (0, 0, 0, 1)


def test_of_an_explanation_only_the_last_line_is_read():
    text = "A is short and [[A]] is tempting.\nC is wrong.\n\n**B**\n"
    said = answer(text, {"A": -0.1, "B": -3.0})
    assert letter_of(said, "ABCD", last_line=True).values == (0, 1, 0, 0)
    assert preference("p", said, last_line=True).choice == "second"
    assert preference("p", said, last_line=True).first_score is None, "no letter is the first token"
    cut = answer("Both are fine.\nA", finish="length")
    assert (
        letter_of(cut, "AB", last_line=True).reason
        == "unparsed: the answer is cut; raise max_tokens"
    )
    assert letter_of(answer("I prefer A"), "AB", last_line=True).reason == "unparsed"


# Ratings.


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7), (" 10\n", 10), ("**7**", 7), ("7/10", 7), ("Rating: 7.", 7), ("[[7]]", 7),
        ("score 1", 1), ("<think>Maybe 3.</think>\n7", 7),
        ("0", None), ("11", None), ("7.5", None), ("7 or 8", None), ("seven", None), ("-7", None),
        ("7/20", None), ("7, since it is right", None), ("", None), ("100", None), ("A", None),
    ],
)  # fmt: skip
def test_a_rating_is_one_whole_number_on_the_scale_and_nothing_else(text, value):
    found = rating_of(answer(text), (1, 10))
    assert found.value == value
    assert (found.reason == "") == (value is not None)


def test_a_number_that_was_cut_is_no_number():
    """`1` may be the beginning of `10`."""
    found = rating_of(answer("1", finish="length"), (1, 10))
    assert (found.value, found.reason) == (None, "unparsed: the answer is cut; raise max_tokens")
    said = answer("It is right in 9 of 10 parts.\n\n8")
    assert rating_of(said, (1, 10), last_line=True).value == 8
    assert rating_of(said, (1, 10)).value is None
    assert rating_of(Refused("too long", 0.1), (1, 10)).reason == "too long"
    declined = answer("I cannot rate this.", finish="refusal")
    assert rating_of(declined, (1, 10)).reason == "refused: the model declines to answer"


RUBRIC = {
    "truth": Criterion(text="It is true.", weight=0.2),
    "Tone": Criterion(text="It is kind.", weight=0.1),
}


@pytest.mark.parametrize(
    "text",
    [
        "truth: 4\ntone: 1", "Tone: 1\n\n- **Truth**: 4\n",
        "| truth | 4 |\n|---|---|\n| tone | 1 |",
        "```\ntruth: 4/5\ntone: 1\n```", "**truth: 4**\n**tone: 1**",
    ],
)  # fmt: skip
def test_a_rubric_is_a_line_a_criterion_and_its_score_their_weighted_mean(text):
    found = rubric_of(answer(text), (1, 5), RUBRIC)
    assert found.value == 3.0, "exactly: (0.2 x 4 + 0.1 x 1) / 0.3 is not in floating point"
    assert found.attributes == {"truth": 4.0, "Tone": 1.0}


@pytest.mark.parametrize(
    "text",
    [
        "truth: 4", "truth: 4\ntone: 1\ntruth: 4", "truth: 4\ntone: 6", "truth: 4\ntone: kind",
        "truth: 4\ntone: 1\nOverall it is good.", "4\n1", "truth: 4, tone: 1", "",
        "tone: 1\nstyle: 4",
    ],
)  # fmt: skip
def test_a_rubric_with_a_part_that_is_none_is_unparsed_as_a_whole(text):
    found = rubric_of(answer(text), (1, 5), RUBRIC)
    assert found.value is None
    assert found.reason.startswith("unparsed")


def test_equal_ratings_by_weights_are_equal_scores():
    one = rubric_of(answer("truth: 1\ntone: 5"), (1, 5), RUBRIC)
    two = rubric_of(answer("truth: 2\ntone: 3"), (1, 5), RUBRIC)
    assert one.value == two.value
