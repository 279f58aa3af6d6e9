"""What a message says beyond its role and text is never dropped."""

from typing import Any

import pytest

from palate.data.messages import as_messages, unread, unread_beside
from palate.types import Message, PalateError

SAID = {"role": "assistant", "content": "Sure"}
CALL = {"type": "function", "function": {"name": "rm", "arguments": {"path": "x"}}}


@pytest.mark.parametrize(
    "extra",
    [
        {"tool_calls": [CALL]},
        {"function_call": {"name": "rm", "arguments": "{}"}},
        {"reasoning_content": "Add."},
        {"thinking": "Add."},
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
    assert "'tools'" in unread_beside({"prompt": [], "tools": [CALL]})
    assert unread_beside({"prompt": [], "tools": [], "images": None, "margin": 1}) == ""
