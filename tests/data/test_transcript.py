"""One conversation is one prompt in whatever form it comes, and no other text is taken for one."""

import json
from itertools import islice
from pathlib import Path
from typing import Any, TypeGuard

import pytest

from palate.data.contamination import BenchmarkIndex, OverlapReport, exclude_overlap
from palate.data.prompts import prompt_key
from palate.data.sources import BadRow, Request, open_source
from palate.data.transcript import as_turns, marks_in, read_conversation, read_prompt
from palate.types import Comparison, Message, PalateError

TURNS = (
    Message("system", "Be brief."),
    Message("user", "How do I bake\n\nbread?"),
    Message("assistant", "Mix flour."),
    Message("user", "And then?"),
)
FORMS = {
    "transcript": (
        "Be brief.\n\nHuman: How do I bake\n\nbread?\n\nAssistant: Mix flour.\n\nHuman: And then?"
        "\n\nAssistant:"
    ),
    "ChatML": (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nHow do I bake\n\nbread?<|im_end|>\n"
        "<|im_start|>assistant\nMix flour.<|im_end|>\n<|im_start|>user\nAnd then?<|im_end|>\n"
        "<|im_start|>assistant\n"
    ),
    "Llama 3": (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHow do I bake\n\nbread?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nMix flour.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nAnd then?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "Gemma": (
        "<bos><start_of_turn>system\nBe brief.<end_of_turn>\n<start_of_turn>user\nHow do I bake"
        "\n\nbread?<end_of_turn>\n<start_of_turn>model\nMix flour.<end_of_turn>\n"
        "<start_of_turn>user\nAnd then?<end_of_turn>\n<start_of_turn>model\n"
    ),
    "Phi": (
        "<|system|>\nBe brief.<|end|>\n<|user|>\nHow do I bake\n\nbread?<|end|>\n"
        "<|assistant|>\nMix flour.<|end|>\n<|user|>\nAnd then?<|end|>\n<|assistant|>\n"
    ),
    "DeepSeek": (
        "<｜begin▁of▁sentence｜>Be brief.<｜User｜>How do I bake\n\nbread?<｜Assistant｜>Mix flour."
        "<｜end▁of▁sentence｜><｜User｜>And then?<｜Assistant｜>"
    ),
    "Llama 2": (
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHow do I bake\n\nbread? [/INST] Mix flour. </s>"
        "<s>[INST] And then? [/INST]"
    ),
    "Mistral": (
        "<s>[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST]How do I bake\n\nbread?[/INST]Mix flour."
        "</s>[INST]And then?[/INST]"
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_prompt_in_text_is_the_prompt_in_messages(name: str) -> None:
    assert read_prompt(FORMS[name]).turns == TURNS
    assert prompt_key((Message("user", FORMS[name]),)) == prompt_key(TURNS)
    assert marks_in(FORMS[name])


@pytest.mark.parametrize("name", FORMS)
def test_a_conversation_in_text_is_split_before_its_reply(name: str) -> None:
    assert read_conversation(FORMS[name] + "Wait.") == (TURNS, "Wait.")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\n\nHuman: Why?\n\nAssistant:", ["Why?"]),
        ("Human: Why?\n\nAssistant:", ["Why?"]),
        ("\n\nHuman: Why?", ["Why?"]),
        ("\r\n\r\nHuman: Why?\r\n\r\nAssistant: ", ["Why?"]),
        ("Human: Why?\n\nAssistant: No.\n\nHuman: Oh?", ["Why?", "No.", "Oh?"]),
        ("<|im_start|>user\nWhy?<|im_end|>", ["Why?"]),
        (
            "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
            ["Why?"],
        ),
        ("<|user|>\nWhy?</s>\n<|assistant|>\n", ["Why?"]),  # Zephyr
        ("<|user|>\nWhy?\n<|assistant|>\n", ["Why?"]),  # Tulu
    ],
)
def test_shorter_ways_to_write_one(text: str, said: list[str]) -> None:
    assert [turn.content for turn in read_prompt(text).turns] == said


@pytest.mark.parametrize(
    "text",
    [
        "Why?",
        "",
        "Human: Why?",
        "Human: Why?\n\nAssistant: No.",
        "What does this mean:\n\nHuman: a\n\nAssistant: b",
        "What is <|im_start|> for?",
        "<|im_start|>user\nWhy?",
        "Explain <|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>assistant\n",
        "Why is it [INST] and [/INST]?",
    ],
)
def test_any_other_text_is_one_users_turn(text: str) -> None:
    assert read_prompt(text).turns == (Message("user", text),)
    assert as_turns((Message("user", text),)) == (Message("user", text),)


def test_a_reply_loses_what_its_form_puts_around_it_and_no_more() -> None:
    assert read_prompt(FORMS["transcript"]).reply(" Wait.") == "Wait."
    assert read_prompt(FORMS["ChatML"]).reply(" Wait.<|im_end|>\n") == " Wait."
    assert read_prompt(FORMS["ChatML"]).reply(" Wait.</s>") == " Wait.</s>"
    assert read_prompt("Why?").reply(" Wait.<|im_end|>") == " Wait.<|im_end|>"


def test_a_turn_of_a_tool_is_refused_by_name() -> None:
    text = (
        "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>tool\n3<|im_end|>\n<|im_start|>assistant\n"
    )
    with pytest.raises(PalateError, match="a turn of 'tool' in ChatML is content that"):
        read_prompt(text)


def _message(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def _written(form: str, c: Comparison) -> dict[str, Any]:
    """A comparison as a row of the user's own file, as tools of that form write it."""
    human = {"user": "Human", "assistant": "Assistant"}
    said = "".join(f"\n\n{human[t.role]}: {t.content}" for t in c.prompt) + "\n\nAssistant:"
    chatml = "".join(f"<|im_start|>{t.role}\n{t.content}<|im_end|>\n" for t in c.prompt)
    turns = [_message(t.role, t.content) for t in c.prompt]
    chosen, rejected = c.chosen, c.rejected
    whole = {
        name: [*turns, _message("assistant", text)]
        for name, text in (("chosen", chosen), ("rejected", rejected))
    }
    rows: dict[str, dict[str, Any]] = {
        "messages": {"prompt": turns, "chosen": chosen, "rejected": rejected},
        "transcript": {"prompt": said, "chosen": f" {chosen}", "rejected": f" {rejected}"},
        "ChatML": {
            "prompt": f"{chatml}<|im_start|>assistant\n",
            "chosen": f"{chosen}<|im_end|>",
            "rejected": f"{rejected}<|im_end|>",
        },
        "stripped": {
            "chosen": f"{said} {chosen}".strip(),
            "rejected": f"{said} {rejected}".strip(),
        },
        "prompt inside": {"prompt": said, "chosen": said + chosen, "rejected": said + rejected},
        "implicit": whole,
        "UltraFeedback": {"prompt": c.prompt[0].content, **whole},
        "first turn": {
            "prompt": c.prompt[0].content,
            "chosen": said + chosen,
            "rejected": said + rejected,
        },
    }
    return rows[form]


@pytest.mark.parametrize(
    "form",
    [
        "messages", "transcript", "ChatML", "stripped", "prompt inside", "implicit",
        "UltraFeedback", "first turn",
    ],
)  # fmt: skip
def test_pitfall_42_a_test_prompt_is_excluded_in_every_form(
    form: str, data_root: Path, tmp_path: Path
) -> None:
    """Rows of the helpful-base test file, offered as training data as each tool writes them."""
    request = Request(data_root / "anthropic_hh", "test", "helpful-base")
    rows = (c for c in open_source("anthropic-hh", request) if isinstance(c, Comparison))
    test = list(islice((c for c in rows if not c.meta.get("rejected_prompt_differs")), 60))
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps(_written(form, c)) + "\n" for c in test))
    found = list(open_source("own", Request(path)))
    assert [(c.prompt, c.chosen, c.rejected, c.prompt_id) for c in found if _good(c)] == [
        (c.prompt, c.chosen, c.rejected, c.prompt_id) for c in test
    ]
    report = OverlapReport()
    index = BenchmarkIndex.build({"helpful": test})
    assert list(exclude_overlap(filter(_good, found), index, report)) == []
    assert report.excluded.total() == 60


def _good(row: Comparison | BadRow) -> TypeGuard[Comparison]:
    return isinstance(row, Comparison)
