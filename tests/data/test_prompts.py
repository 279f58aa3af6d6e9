import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.data.prompts import normalise, opening, prompt_key, words
from palate.types import Message


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How do I  bake?", "how do i bake"),
        ("“Bake”, he said…", '"bake" he said'),
        ("Don’t", "don't"),
        ("ﬁne ＡＢＣ", "fine abc"),
        ("zero\u200bwidth\ufeff space", "zero width space"),
    ],
)
def test_equal_but_for_case_marks_and_space(one, other):
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize(
    ("one", "other"), [("2+2?", "2-2?"), ("C++", "C"), ("?", "!"), ("कि", "की")]
)
def test_different_prompts_stay_different(one, other):
    assert normalise(one) != normalise(other)


@given(st.text())
def test_normalising_twice_changes_nothing_for_the_key(text):
    once = normalise(text)
    assert normalise(once) in {once, normalise(normalise(once))}
    assert once == once.strip()


def test_a_character_is_a_word_where_scripts_have_no_spaces():
    assert words("何をしますか ok") == ["何", "を", "し", "ま", "す", "か", "ok"]


def test_the_opening_is_the_first_user_turn_at_any_depth():
    first = Message("user", "How do I bake bread?")
    deeper = (first, Message("assistant", "Slowly."), Message("user", "How slowly?"))
    assert prompt_key((first,)) == prompt_key(deeper)
    assert prompt_key((Message("system", "Be kind."), first)) == prompt_key((first,))


def test_a_greeting_does_not_identify_a_conversation():
    hello, reply = Message("user", "Hi!"), Message("assistant", "Hello, how can I help you?")
    one = (hello, reply, Message("user", "Bake."))
    assert opening((hello,)) == "hi"
    assert prompt_key((hello,)) != prompt_key(one)


def test_a_prompt_without_user_turn_has_an_empty_opening():
    assert opening((Message("assistant", "Hello"),)) == "" == opening(())
