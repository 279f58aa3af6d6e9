"""Shapes of well-known models, to plan for them where their files cannot be reached.

From the published config.json of each: meta-llama/Llama-2-7b-hf, meta-llama/Llama-2-70b-hf,
meta-llama/Llama-3.2-1B.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from transformers import LlamaConfig

from palate.types import PalateError

SHAPES: Mapping[str, Mapping[str, int | bool]] = MappingProxyType(
    {
        "llama2-70b": {
            "vocab_size": 32_000, "hidden_size": 8_192, "intermediate_size": 28_672,
            "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
        },
        "llama2-7b": {
            "vocab_size": 32_000, "hidden_size": 4_096, "intermediate_size": 11_008,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
        },
        "llama3-1b": {
            "vocab_size": 128_256, "hidden_size": 2_048, "intermediate_size": 8_192,
            "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
            "head_dim": 64,
        },
    }
)  # fmt: skip


def shape_config(name: str) -> Any:
    """The configuration of a built-in shape."""
    if name not in SHAPES:
        raise PalateError(f"no shape {name!r}; built in: {', '.join(SHAPES)}")
    return LlamaConfig(**SHAPES[name])
