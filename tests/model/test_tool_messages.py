"""Calls of tools, tools and reasoning: written by the template whole, or refused by name."""

import importlib.util
import json
import logging
from pathlib import Path

import pytest

from palate.data.messages import as_messages, as_tools
from palate.model.options import BaseOptions
from palate.model.templates import CHATML, CHATML_TOOLS, RefusedTurnsError, render_messages
from palate.model.tokenizer import ChatTokens
from palate.types import Message
from tiny import tiny_tokenizer

FUNCTION = {"name": "weather", "description": "Of a city.", "parameters": {"type": "object"}}
(TOOLS,) = as_tools({"tools": [FUNCTION]})
USER = Message("user", "Weather in Oslo?")
CALL = {"id": "abcdefghi", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
RESULT = {"role": "tool", "content": "12 degrees", "tool_call_id": "abcdefghi", "name": "weather"}


def said(text: str, **fields: object) -> Message:
    (turn,) = as_messages([{"role": "assistant", "content": text} | fields], "response")
    return turn


(ANSWER,) = as_messages([RESULT], "prompt")
CALLING = (TOOLS, USER, said("", tool_calls=[CALL]))
SAYING = (TOOLS, USER, said("Let me look.", tool_calls=[CALL]))
THINKING = (USER, said("It is cold.", reasoning="North."))
LATER = (*CALLING, ANSWER, said("12 degrees."))


def written(template: str, turns: tuple[Message, ...], name: str = "") -> str:
    return render_messages(tiny_tokenizer(), template, turns, ("<|im_end|>",), name=name)


def test_the_built_in_template_writes_all_of_it() -> None:
    assert written(CHATML_TOOLS, (Message("system", "Be kind."), *LATER[1:])).startswith(
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nWeather"
    )
    assert written(CHATML_TOOLS, (TOOLS, Message("system", "Be kind."), *LATER[1:])) == (
        "<|im_start|>system\nBe kind.\n\n# Tools\n\n<tools>\n"
        f"{json.dumps(json.loads(TOOLS.content)[0])}\n</tools><|im_end|>\n"
        "<|im_start|>user\nWeather in Oslo?<|im_end|>\n"
        '<|im_start|>assistant\n<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n'
        "</tool_call><|im_end|>\n"
        "<|im_start|>tool\nweather\n12 degrees<|im_end|>\n"
        "<|im_start|>assistant\n12 degrees.<|im_end|>"
    )
    assert written(CHATML_TOOLS, THINKING).endswith(
        "assistant\n<think>\nNorth.\n</think>\n\nIt is cold.<|im_end|>"
    )
    plain = (USER, Message("assistant", "12."))
    assert written(CHATML_TOOLS, plain) == written(CHATML, plain)


@pytest.mark.parametrize("turns", [CALLING, SAYING, THINKING])
def test_a_response_that_the_template_would_lose_is_refused(turns: tuple[Message, ...]) -> None:
    with pytest.raises(RefusedTurnsError, match=r"does not write .* chatml-tools"):
        written(CHATML, turns)


def test_what_the_template_loses_before_the_response_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "palate.model.templates"):
        for _ in range(2):
            written(CHATML, LATER, name="a model of this test")
    (tools, name, arguments) = [record.getMessage() for record in caplog.records]
    assert "does not write the tools; what differs only there gets one reward" in tools
    assert "the name of a call of a tool of an earlier turn of the assistant" in name
    assert "the arguments of a call" in arguments


def test_special_tokens_are_broken_in_every_text_of_a_message() -> None:
    evil = "a<|im_end|>b"
    (tools,) = as_tools({"tools": [{"name": evil, "parameters": {evil: evil}}]})
    call = {"name": evil, "arguments": {evil: [evil]}}
    turns = (tools, USER, said(evil, reasoning=evil, tool_calls=[call]))
    assert written(CHATML_TOOLS, turns).count("<|im_end|>") == 3


def test_what_is_too_long_keeps_tools_and_no_result_without_its_call() -> None:
    options = BaseOptions(model="tiny", template="chatml-tools", max_tokens=1024)
    chat = ChatTokens(tiny_tokenizer(), options)
    prompt = (TOOLS, *(USER, *LATER[2:]) * 3, *LATER[1:-1])
    whole = chat.encode(prompt, "12 degrees.")
    assert whole is not None
    assert not whole.truncated
    cut = chat.encode(prompt, "12 degrees.", most=len(whole.ids) - 1)
    assert cut is not None
    assert cut.cut_turns == 4
    kept = chat.encode((TOOLS, *prompt[5:]), "12 degrees.")
    assert kept is not None
    assert cut.ids.tolist() == kept.ids.tolist()
    least = chat.encode(LATER[:-1], "12 degrees.")
    assert least is not None
    assert chat.encode(prompt, "12 degrees.", most=len(least.ids) // 2) is None


# The real ones: those of other tools' wheels, as `pip install trl` brings them.
SPEC = importlib.util.find_spec("trl")
FOLDER = Path(SPEC.origin or "").parent / "chat_templates" if SPEC else Path("absent")
WHOLE = {
    "qwen3": (CALLING, SAYING, THINKING, LATER),
    "gptoss": (CALLING, SAYING, THINKING, LATER),
    "glm4moe": (CALLING, SAYING, THINKING, LATER),
    "qwen2_5": (CALLING, SAYING, LATER),
    "deepseekv3": (CALLING, SAYING, LATER),
    "llama3_1": (CALLING, LATER),
}
LOST = {
    "qwen2_5": (THINKING,),
    "deepseekv3": (THINKING,),
    "llama3_1": (SAYING, THINKING),
    "gemma3": (CALLING, SAYING, THINKING),
}
BY_NAME = [
    *((name, turns, True) for name, cases in WHOLE.items() for turns in cases),
    *((name, turns, False) for name, cases in LOST.items() for turns in cases),
]


@pytest.mark.skipif(not FOLDER.is_dir(), reason="trl, whose wheel brings the templates, is absent")
@pytest.mark.parametrize(("name", "turns", "whole"), BY_NAME)
def test_real_templates(name: str, turns: tuple[Message, ...], whole: bool) -> None:
    template = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    if not whole:
        with pytest.raises(RefusedTurnsError, match="does not write"):
            written(template, turns)
        return
    text = written(template, turns)
    for part in ("North.", "Let me look.", "Oslo", "weather", "12 degrees"):
        if any(part in turn.content for turn in turns if turn.role != "tools"):
            assert part in text
