"""Bounded requests: in order, complete, and a prompt's responses together."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.client.requests import Item, conversation, halves, options, requests, turns
from palate.types import Message, PalateError

ROWS = st.lists(
    st.tuples(st.sampled_from(["a", "bb", "ccc"]), st.text("xy", max_size=9)), max_size=20
)


def bounded(rows, safety=None, **chosen):
    return list(requests(rows, safety, options("http://h", chosen)))


def flat(asked):
    """The rows again."""
    return [
        (item.prompt[0].content, response)
        for items in asked
        for item in items
        for response in item.responses
    ]


@settings(max_examples=50)
@given(ROWS, st.integers(1, 7), st.integers(1, 40))
def test_every_row_is_asked_once_in_order_within_the_bounds(rows, most, characters):
    asked = bounded(rows, responses_per_request=most, characters_per_request=characters)
    assert flat(asked) == rows
    for items in asked:
        assert sum(len(item.responses) for item in items) <= most
        assert len(items) == 1 or sum(item.characters for item in items) <= characters


@settings(max_examples=50)
@given(ROWS.filter(bool))
def test_halves_are_the_whole(rows):
    (items,) = bounded(rows)
    parts = halves(items)
    if len(rows) == 1:
        assert parts is None
    else:
        assert flat(parts) == rows
        assert all(parts)


def test_neighbours_of_one_prompt_are_one_item_and_stay_together():
    rows = [("a", str(i)) for i in range(4)] + [("b", str(i)) for i in range(4)] + [("a", "x")]
    asked = bounded(rows, responses_per_request=6)
    assert [[len(item.responses) for item in items] for items in asked] == [[4], [4, 1]]


def test_a_prompt_s_safety_is_said_with_it():
    rows = [("a", "1"), ("a", "2"), ("a", "3")]
    ((first, second),) = bounded(rows, [True, True, False])
    assert (first.safety, first.responses) == (True, ("1", "2"))
    assert (second.safety, second.responses) == (False, ("3",))
    with pytest.raises(ValueError, match="shorter"):
        bounded(rows, [True])


def test_turns_may_be_text_messages_mappings_or_blocks():
    said = (Message("user", "Hello"),)
    blocks = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    for prompt in ("Hello", said, [{"role": "user", "content": "Hello"}]):
        assert turns(prompt) == said
    assert turns([{"role": "user", "content": blocks}]) == said
    assert bounded([("Hello", blocks)]) == [(Item(said, ("Hello",)),)]


@pytest.mark.parametrize(
    ("prompt", "match"),
    [
        (["Hello"], "expected turns with role and content, got str 'Hello'"),
        ([{"role": "tool", "content": "3"}], "role str 'tool'; a reward model reads system, user"),
        ([{"role": "user", "content": None}], "expected text, got NoneType"),
        ([{"role": "user", "content": [{"type": "image"}]}], "a part of type .image. is content"),
        (7, "expected text or turns, got int"),
    ],
)
def test_what_is_no_conversation_is_one_line(prompt, match):
    with pytest.raises(PalateError, match=match):
        turns(prompt)


def test_a_prompt_in_text_is_sent_as_its_messages():
    prompt = "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Why?\n\nAssistant:"
    turns, response = conversation(prompt, " No.")
    assert [turn.content for turn in turns] == ["Hi", "Yes?", "Why?"]
    assert response == "No."


def test_content_that_is_not_read_is_refused():
    call = {"role": "assistant", "content": "", "tool_calls": [{"type": "function"}]}
    with pytest.raises(PalateError, match="'tool_calls' is content that Palate does not read"):
        conversation([call], "x")
