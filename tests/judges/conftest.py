"""Tiny real checkpoints: a Llama for chat and plain text, a DeBERTa for pairs, a T5 that names one.

What needs sentencepiece is imported where it is used.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    DebertaV2Tokenizer,
    PreTrainedTokenizerFast,
)

from tiny import TEXT, tiny_config, tiny_tokenizer


def pair_tokenizer() -> Any:
    """[CLS] question [SEP] answer [SEP], as DeBERTa's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(
        TEXT.splitlines(),
        trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=["[PAD]", "[CLS]", "[SEP]"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )


def deberta_config(vocabulary: int, **changes: Any) -> Any:
    values = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 128,
        "relative_attention": True,
        "pos_att_type": "p2c|c2p",
        "position_biased_input": False,
        "type_vocab_size": 2,
        "pad_token_id": 0,
        "initializer_range": 0.1,
        "num_labels": 1,
    }
    return AutoConfig.for_model("deberta-v2", **values | changes)


Save = Callable[..., Path]


@pytest.fixture
def save_classifier(tmp_path: Path) -> Save:
    """`save_classifier(kind, tokenizer=None, seed=0, **config changes)` gives a folder."""

    def save(kind: str = "llama", *, tokenizer: Any = None, seed: int = 0, **changes: Any) -> Path:
        tokenizer = tokenizer or (pair_tokenizer() if kind == "deberta" else tiny_tokenizer())
        if kind == "deberta":
            config = deberta_config(len(tokenizer), **changes)
        else:
            wide = {"num_labels": 1, "initializer_range": 0.1}
            config = tiny_config(kind, len(tokenizer), **wide | changes)
        folder = tmp_path / f"{kind}-{len(list(tmp_path.iterdir()))}"
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return save


@pytest.fixture
def deberta_pieces_tokenizer(tmp_path: Path) -> Any:
    """What transformers makes of a DeBERTa-v3 folder that holds nothing but `spm.model`."""
    from pieces import deberta_pieces

    folder = tmp_path / "spm"
    folder.mkdir()
    (folder / "spm.model").write_bytes(deberta_pieces())
    return DebertaV2Tokenizer.from_pretrained(folder)


@pytest.fixture
def save_t5(tmp_path: Path) -> Save:
    """`save_t5(sure=True, seed=0, **config changes)` gives a folder laid out as SteamSHP's hub's.

    Where `sure`, the likeliest first token is A or B in every question; else it is any.
    """
    from pieces import T5_LETTERS, t5_pieces

    def save(*, sure: bool = True, seed: int = 0, **changes: Any) -> Path:
        folder = tmp_path / f"t5-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = AutoModelForSeq2SeqLM.from_config(t5_config(**changes))
            head = torch.randn_like(model.lm_head.weight)  # [V, D]
        if sure:
            a, b = T5_LETTERS.values()
            letter = 0.3 * head[a]
            head *= 0.003
            head[a], head[b] = letter, -letter
        model.save_pretrained(folder)
        # As Flan-T5's: an output head of its own, which transformers unties only on loading.
        path = folder / "model.safetensors"
        save_file(load_file(path) | {"lm_head.weight": head}, path, {"format": "pt"})
        (folder / "spiece.model").write_bytes(t5_pieces())
        (folder / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "T5Tokenizer", "model_max_length": 512})
        )
        return folder

    return save


def t5_config(**changes: Any) -> Any:
    values = {
        "vocab_size": 544,
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 64,
        "num_layers": 2,
        "num_heads": 4,
        "feed_forward_proj": "gated-gelu",
        "initializer_factor": 3.0,  # Wide enough that questions differ in their answers.
        "tie_word_embeddings": False,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 1,
    }
    return AutoConfig.for_model("t5", **values | changes)
