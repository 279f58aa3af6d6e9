from pathlib import Path

import pytest
from transformers import AutoTokenizer

from palate.judges.options import HH_PREFIXES
from palate.judges.prompting import PROMPT, Encoded, PairPrompt, Refused
from palate.types import Message

POST = (Message("user", "How do I bake bread?\nI have flour, water and salt."),)
TALK = (
    Message("user", "What is the capital of France?"),
    Message("assistant", "Paris."),
    Message("user", "How do I bake bread and wait for the dough to rise?"),
)
CARD = (
    "POST: Which is better? Ceviche? \n\n RESPONSE A: Lime juice, and zest.\n\n RESPONSE B: "
    "Lime marmalade lol\n\n Which response is better? RESPONSE"
)


@pytest.fixture
def tokenizer(save_t5):
    return AutoTokenizer.from_pretrained(save_t5())


def prompt_of(tokenizer, max_tokens=512, prefixes=HH_PREFIXES):
    return PairPrompt(tokenizer, max_tokens, prefixes)


def test_the_question_is_the_cards_word_for_word(tokenizer):
    asked = prompt_of(tokenizer).text(
        (Message("user", "Which is better? Ceviche?"),),
        "Lime juice, and zest.",
        "Lime marmalade lol",
    )
    assert asked == CARD


def test_the_docs_hold_the_question_word_for_word():
    page = Path(__file__).parents[2] / "docs" / "judges.md"
    assert PROMPT.replace("\n", "\\n") in page.read_text()


def test_the_tokens_are_the_tokenizers_own_with_one_end_token(tokenizer):
    prompt = prompt_of(tokenizer)
    encoded = prompt.encode(POST, "Mix flour.", "No.")
    assert list(encoded.ids) == tokenizer(prompt.text(POST, "Mix flour.", "No."))["input_ids"]
    assert encoded.ids.count(tokenizer.eos_token_id) == 1
    assert encoded.ids[-1] == tokenizer.eos_token_id
    assert not encoded.truncated


def test_line_breaks_become_spaces_and_cost_no_token(tokenizer):
    prompt = prompt_of(tokenizer)
    asked = prompt.text(POST, "Mix\n\nflour.", "No.\r\nNever.")
    assert asked.startswith(
        "POST: How do I bake bread? I have flour, water and salt. \n\n RESPONSE"
    )
    assert "RESPONSE A: Mix flour.\n\n RESPONSE B: No. Never.\n\n Which" in asked
    raw = asked.replace("bread? I", "bread?\nI").replace("Mix flour", "Mix\n\nflour")
    assert tokenizer(raw)["input_ids"] == tokenizer(asked)["input_ids"]


def test_several_turns_stand_under_their_prefixes(tokenizer):
    asked = prompt_of(tokenizer).text(TALK, "a", "b")
    assert asked.startswith(
        "POST: Human: What is the capital of France? Assistant: Paris. Human: How do I bake bread "
        "and wait for the dough to rise? \n\n RESPONSE A: a\n\n"
    )


def test_pitfall_01_whole_oldest_turns_go_first(tokenizer):
    whole = prompt_of(tokenizer).encode(TALK, "Mix flour.", "No.")
    cut = prompt_of(tokenizer, len(whole.ids) - 1).encode(TALK, "Mix flour.", "No.")
    assert cut.truncated
    assert cut.ids == prompt_of(tokenizer).encode(TALK[2:], "Mix flour.", "No.").ids


@pytest.mark.parametrize("less", [1, 5, 15])
def test_pitfall_01_then_the_contexts_last_words_and_never_the_tail(tokenizer, less):
    """As many words as fit: one more would be over the limit."""
    question = TALK[2:]
    whole = prompt_of(tokenizer).encode(question, "Mix flour.", "No.")
    limit = len(whole.ids) - less
    cut = prompt_of(tokenizer, limit).encode(question, "Mix flour.", "No.")
    assert cut.truncated
    assert len(cut.ids) <= limit
    (text,) = cut.texts
    context, _, tail = text.partition(" \n\n ")
    assert tail == (
        "RESPONSE A: Mix flour.\n\n RESPONSE B: No.\n\n Which response is better? RESPONSE"
    )
    kept, words = context.removeprefix("POST: ").split(), question[0].content.split()
    assert 1 <= len(kept) < len(words)
    assert kept == words[: len(kept)]
    more = (Message("user", " ".join(words[: len(kept) + 1])),)
    assert len(prompt_of(tokenizer).encode(more, "Mix flour.", "No.").ids) > limit


def test_pitfall_01_what_cannot_fit_is_refused_with_its_length(tokenizer):
    long = "No " * 80
    asked = prompt_of(tokenizer).encode(POST, "Mix flour.", long)
    assert isinstance(asked, Encoded)
    refused = prompt_of(tokenizer, 64).encode(POST, "Mix flour.", long)
    assert refused == Refused("too long", len(asked.ids))


def test_a_question_of_exactly_the_limit_is_whole(tokenizer):
    whole = prompt_of(tokenizer).encode(POST, "Yes", "No")
    assert prompt_of(tokenizer, len(whole.ids)).encode(POST, "Yes", "No") == whole


@pytest.mark.parametrize("forged", ["</s>", "<pad>", "<extra_id_0>", "<unk>"])
def test_special_tokens_in_data_are_read_as_text(tokenizer, forged):
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    encoded = prompt_of(tokenizer).encode(POST, f"ok{forged} ok", "No")
    assert [i for i in encoded.ids if i in special] == [tokenizer.eos_token_id]


def test_braces_in_data_are_only_text(tokenizer):
    assert "RESPONSE A: {second}\n\n" in prompt_of(tokenizer).text(POST, "{second}", "No")


def test_the_protocol_moves_with_what_decides_the_tokens(tokenizer):
    base = prompt_of(tokenizer).protocol
    assert prompt_of(tokenizer).protocol == base
    assert prompt_of(tokenizer, 500).protocol != base
    assert prompt_of(tokenizer, prefixes={"user": "Q: "}).protocol != base
