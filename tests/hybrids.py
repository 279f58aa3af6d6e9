"""Configurations of families with layers that carry a state, small enough to train in a test."""

from typing import Any

from transformers import AutoConfig

_SHAPE = {
    "vocab_size": 400, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024,
    "pad_token_id": 3, "bos_token_id": None, "eos_token_id": 2, "use_cache": False,
}  # fmt: skip
_DELTA = {
    "num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"], "head_dim": 16,
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 32,
    "linear_value_head_dim": 12,
}  # fmt: skip
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_MAMBA = {
    "mamba_n_heads": 6, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 2,
    "mamba_chunk_size": 16, "mamba_proj_bias": True,
}  # fmt: skip
_CONV = {"layer_types": ["conv", "full_attention", "conv"], "conv_bias": True}
HYBRIDS: dict[str, dict[str, Any]] = {
    # Gated delta nets.
    "qwen3_5_text": _DELTA,
    "qwen3_next": _DELTA | _EXPERTS | {"shared_expert_intermediate_size": 32},
    "olmo_hybrid": _DELTA,
    # Mamba 2.
    "bamba": _MAMBA | {"attn_layer_indices": [1]},
    "granitemoehybrid": _MAMBA
    | {
        "layer_types": ["mamba", "attention", "mamba"],
        "num_local_experts": 0,
        "shared_intermediate_size": 64,
    },
    "falcon_h1": _MAMBA | {"mamba_d_ssm": 96, "projectors_bias": True},
    "nemotron_h": {
        "num_hidden_layers": None, "hybrid_override_pattern": "M-*M", "head_dim": 12,
        "mamba_num_heads": 6, "mamba_head_dim": 16, "ssm_state_size": 8, "n_groups": 2,
        "chunk_size": 16, "use_bias": True,
    },
    "zamba2": {
        "num_key_value_heads": 4, "mamba_d_state": 8, "mamba_ngroups": 2, "n_mamba_heads": 6,
        "mamba_headdim": 16, "chunk_size": 16, "num_mem_blocks": 1, "add_bias_linear": True,
        "layers_block_type": ["mamba", "hybrid", "mamba"],
    },
    # Short convolutions.
    "lfm2": _CONV,
    "lfm2_moe": _CONV | _EXPERTS | {"num_dense_layers": 1},
}  # fmt: skip


def hybrid_config(family: str, **changes: Any) -> Any:
    """The configuration of a model of `family` with about 100 k parameters."""
    values = _SHAPE | HYBRIDS[family] | changes
    return AutoConfig.for_model(family, **{k: v for k, v in values.items() if v is not None})
