"""What a message says beyond its role and text is never dropped."""

import json
from typing import Any

import pytest

from palate.data.messages import as_chat, as_messages, as_tools, unread, unread_beside
from palate.types import Message, PalateError, content_of, in_words, parts_of

SAID = {"role": "assistant", "content": "Sure"}
CALL = {"type": "function", "function": {"name": "rm", "arguments": {"path": "x"}}}


@pytest.mark.parametrize(
    "extra",
    [
        {"role": "user", "tool_calls": [CALL]},
        {"role": "user", "reasoning": "Add."},
        {"role": "tool", "reasoning": "Add."},
        {"images": ["a.png"]},
        {"name": "bob"},
        {"tool_call_id": "call-1"},
        {"anything_new": "text"},
        {"content": [{"type": "image_url", "image_url": {"url": "a.png"}}]},
        {"content": [{"type": "text", "text": "Sure"}, {"type": "input_audio", "data": "x"}]},
        {"content": [{"type": "text", "text": "Sure", "image": "a.png"}]},
    ],
)
def test_content_that_is_not_read_is_refused_by_name(extra: dict[str, Any]) -> None:
    with pytest.raises(PalateError, match=r"^prompt\[0\]: .*content that Palate does not read"):
        as_messages([SAID | extra], "prompt")


@pytest.mark.parametrize(
    "extra",
    [
        {"tool_calls": []},
        {"tool_calls": None, "reasoning_content": "", "refusal": None},
        {"function_call": {"name": None, "arguments": None}},  # A null struct of Arrow.
        {"weight": 0, "prefix": True, "timestamp": "2026-01-01", "message_id": "m1"},
    ],
)
def test_empty_keys_and_facts_about_a_message_change_nothing(extra: dict[str, Any]) -> None:
    assert unread(SAID | extra) == ""
    assert as_messages([SAID | extra], "prompt") == (Message("assistant", "Sure"),)


def test_text_parts_are_one_text() -> None:
    parts = [{"type": "text", "text": "a "}, {"type": "input_text", "text": "b"}]
    assert as_messages([{"role": "developer", "content": parts}], "prompt") == (
        Message("system", "a b"),
    )


def test_what_stands_beside_the_messages_is_content_too() -> None:
    assert "'images'" in unread_beside({"prompt": [], "images": ["a.png"]})
    assert unread_beside({"prompt": [], "tools": [CALL], "images": None, "margin": 1}) == ""


CALLED = {"type": "function", "function": {"name": "rm", "arguments": {"path": "x", "a": 1}}}


@pytest.mark.parametrize(
    "extra",
    [
        {"tool_calls": [CALLED]},
        {"tool_calls": [{"index": 0, **CALLED}], "content": None},
        {"tool_calls": [{"name": "rm", "arguments": {"path": "x", "a": 1}}]},
        {"tool_calls": CALLED},
        {"function_call": {"name": "rm", "arguments": '{"path": "x", "a": 1}'}},
    ],
)
def test_a_call_is_one_in_every_form_and_keeps_the_order_of_its_arguments(
    extra: dict[str, Any],
) -> None:
    (turn,) = as_messages([{"role": "assistant", "content": ""} | extra], "prompt")
    assert (turn.text, turn.fields) == ("", {"tool_calls": [CALLED]})
    assert list(turn.fields["tool_calls"][0]["function"]["arguments"]) == ["path", "a"]
    assert as_messages(as_chat([turn])["messages"], "prompt") == (turn,)


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content", "thinking"])
def test_reasoning_is_one_under_every_name(name: str) -> None:
    (turn,) = as_messages([SAID | {name: "Add."}], "prompt")
    assert turn == Message("assistant", content_of("Sure", {"reasoning": "Add."}))


def test_a_result_of_a_tool_says_which_call_it_answers() -> None:
    for role in ("tool", "function"):
        result = {"role": role, "content": "12", "name": "weather", "tool_call_id": "c1"}
        (turn,) = as_messages([result], "prompt")
        assert (turn.role, turn.text) == ("tool", "12")
        assert turn.fields == {"name": "weather", "tool_call_id": "c1"}


def test_tools_are_a_turn_of_their_own_in_every_form() -> None:
    function = {"name": "rm", "parameters": {"type": "object", "properties": {}}}
    whole = [{"type": "function", "function": function}]
    (turn,) = as_tools({"tools": whole})
    assert turn.role == "tools"
    assert json.loads(turn.content) == whole
    assert as_tools({"tools": json.dumps(whole)}) == as_tools({"functions": [function]}) == (turn,)
    assert as_chat([turn]) == {"messages": [], "tools": whole}
    for wrong in ("rm", [1], [{"type": "function"}], {"a": 1}):
        with pytest.raises(PalateError, match=r"row 2: tools.*expected"):
            as_tools({"tools": wrong}, "row 2: ")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (SAID | {"reasoning": "a", "thinking": "b"}, "differ; leave one of them"),
        (SAID | {"tool_calls": [CALLED], "function_call": CALLED["function"]}, "both tool_calls"),
        (SAID | {"tool_calls": ["rm"]}, r"tool_calls\[0\]: expected a function"),
        (SAID | {"tool_calls": [{"name": "rm", "arguments": 3}]}, "arguments: expected an object"),
        (SAID | {"tool_calls": [{**CALLED, "note": "x"}]}, "'note' is content"),
        ({"role": "assistant"}, "missing 'content'"),
        (SAID | {"content": content_of("a", {"reasoning": "b"})}, "expected text"),
    ],
)
def test_what_is_no_message_says_why(message: dict[str, Any], reason: str) -> None:
    with pytest.raises(PalateError, match=reason):
        as_messages([message], "prompt")


def test_a_plain_turn_is_its_text_and_no_field_is_lost_in_words() -> None:
    assert content_of("Sure", {}) == "Sure"
    assert parts_of('\x1e{"no": "message"}') == ('\x1e{"no": "message"}', {})
    words = in_words(content_of("Sure", {"reasoning": "Add.", "tool_calls": [CALLED]}))
    assert words == 'Reasoning: Add.\n\nSure\n\nCall of rm: {"path": "x", "a": 1}'
