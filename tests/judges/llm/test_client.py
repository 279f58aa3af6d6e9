"""Only A or B is an answer; logprobs come first; nothing else is guessed at."""

import math

import pytest

from palate.judges.llm.answer import Answer, Refused, first_token, parse, preference


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
    choice, share = first_token((("B", math.log(0.6)), ("x", math.log(0.01))))
    assert choice == "second"
    assert share == pytest.approx(0.01 / 0.61)
    assert first_token((("A", -1.0),))[0] == "first", "even where it is the only one listed"


def test_equal_logprobs_tie_and_none_at_all_leave_it_to_the_words():
    assert preference("p", answer("A", {"A": -1.0, "B": -1.0})).choice == "tie"
    assert first_token((("C", -0.1), ("Sure", -2.0))) is None
    assert preference("p", answer("B", {"C": -0.1})).choice == "second"


def test_openai_s_mark_of_the_impossible_is_a_probability_of_zero():
    assert first_token((("A", -0.1), ("B", -9999.0))) == ("first", 1.0)


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
    assert first_token((("B", -0.1),)) == ("second", pytest.approx(1 - math.exp(-0.1)))
    assert first_token((("A", 0.0),)) == ("first", None)
    assert first_token((("A", -1.0),)) == ("first", None)
