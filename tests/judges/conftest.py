"""Tiny real reward-model checkpoints: a Llama for chat and plain text, a DeBERTa for pairs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast

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
