"""Models that also see, small enough to train in a test; their text part is a decoder like any."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from tiny import tiny_tokenizer

TEXT: dict[str, Any] = {
    "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "initializer_range": 0.1,
    "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
EYE = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
QWEN = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "depth": 1,
    "num_heads": 2,
    "out_hidden_size": 48,
}
LINEAR = {f"linear_{name}": size for name, size in (
    ("num_key_heads", 2), ("num_value_heads", 2), ("key_head_dim", 16), ("value_head_dim", 16)
)}  # fmt: skip
SIGHTED: dict[str, dict[str, Any]] = {
    "gemma3": {
        "text_config": TEXT | {"sliding_window": 16},
        "vision_config": EYE | {"num_hidden_layers": 1, "image_size": 28, "patch_size": 14},
        "mm_tokens_per_image": 4,
        "image_token_index": 1, "boi_token_index": 1, "eoi_token_index": 2,
    },
    "gemma4": {
        "text_config": TEXT | {
            "vocab_size_per_layer_input": 400, "hidden_size_per_layer_input": 8,
            "pad_token_id": 0, "global_head_dim": 16, "num_global_key_value_heads": 2,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        "vision_config": EYE | {"num_hidden_layers": 1, "num_key_value_heads": 2, "head_dim": 16},
        "audio_config": None,
    },
    "qwen3_5": {
        "text_config": TEXT | LINEAR | {"layer_types": ["linear_attention", "full_attention"]},
        "vision_config": QWEN,
    },
    "qwen2_5_vl": {
        "text_config": TEXT | {
            "head_dim": 12,
            "rope_parameters": {
                "rope_type": "default", "mrope_section": [2, 2, 2], "rope_theta": 10_000.0
            },
        },
        "vision_config": QWEN,
    },
}  # fmt: skip


def save_sighted(folder: Path, family: str) -> Any:
    """A whole checkpoint of `family` in `folder`; the model that was saved."""
    tokenizer = tiny_tokenizer()
    values = SIGHTED[family]
    text = values["text_config"] | {"vocab_size": len(tokenizer)}
    config = AutoConfig.for_model(family, **values | {"text_config": text})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForImageTextToText.from_config(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model
