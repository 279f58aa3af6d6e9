"""Architectures that compute otherwise than Llama: each response has the reward that it has alone.

Compared with stock transformers, which reads one conversation at a time and whole.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel

from palate.model.export import Card, export
from palate.model.loading import load_reward_model, start_model
from palate.model.options import BaseOptions
from palate.model.packing import Tokens, group
from palate.train.cost import model_stats
from palate.train.options import TrainOptions
from palate.types import Message, PalateError
from tiny import CHATML, tiny_tokenizer

SHAPE = {
    "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 1024, "vocab_size": 400,
    "pad_token_id": 3, "eos_token_id": 2, "use_cache": False,
}  # fmt: skip
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 64,
    "short_factor": [1.0] * 6, "long_factor": [4.0] * 6, "partial_rotary_factor": 1.0,
}  # fmt: skip
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
MAMBA = {"mamba_n_heads": 6, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_chunk_size": 16}
SHARES: dict[str, tuple[str, bool, dict[str, Any]]] = {
    # The MLP reads the norm before the attention, of every token.
    "cohere": ("cohere", True, {}),
    # The layers hand their attention no more than they know.
    "nemotron": ("nemotron", False, {}),
    "bidirectional": ("llama", False, {"is_causal": False}),
    # Soft-capped logits, sinks and ALiBi, which transformers computes eagerly only.
    "gemma2": ("gemma2", True, {"head_dim": 12}),
    "gpt_oss": ("gpt_oss", True, {"head_dim": 12, "num_local_experts": 4}),
    "mpt": ("mpt", False, {"d_model": 48, "n_heads": 4, "n_layers": 2}),
    "mamba": ("mamba", False, {}),
    # Layers with a state, which go on from a prompt's, and which start from nothing.
    "bamba": ("bamba", True, MAMBA | {"attn_layer_indices": [1]}),
    "jamba": ("jamba", False, {"attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 1}),
    # Angles that follow the length of what is read.
    "longrope": (
        "phi3",
        True,
        {"rope_parameters": LONGROPE, "original_max_position_embeddings": 64},
    ),
    "dynamic": ("llama", True, {"max_position_embeddings": 64, "rope_parameters": DYNAMIC}),
    # The last projection makes the state narrower than the model.
    "opt": ("opt", True, {"word_embed_proj_dim": 32, "ffn_dim": 64}),
}
PROMPTS = ("How do I bake bread? " * 3, "What is", "why? " * 40)
RESPONSES = (("Mix flour.", "I cannot help you"), ("Paris", "", "the sea " * 20), ("a", "b b"))


def made(folder: Path, family: str, changes: dict[str, Any]) -> Path:
    """A checkpoint of `family` whose weights are wide enough for every part to matter."""
    config = AutoConfig.for_model(family, **SHAPE | changes)
    torch.manual_seed(0)
    model = AutoModel.from_config(config)
    for weight in (p for p in model.parameters() if p.dim() > 1):
        torch.nn.init.normal_(weight.data, std=0.15)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def conversations(model: Any) -> list[list[Tokens]]:
    return [
        [model.chat.encode((Message("user", prompt),), response).ids for response in responses]
        for prompt, responses in zip(PROMPTS, RESPONSES, strict=True)
    ]


@pytest.mark.parametrize("name", SHARES)
@torch.no_grad()
def test_a_response_has_the_reward_that_it_has_alone(name: str, tmp_path: Path) -> None:
    family, shares, changes = SHARES[name]
    folder = made(tmp_path / name, family, changes)
    model, _ = start_model(BaseOptions(model=str(folder)))
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(1))
    together = conversations(model.eval())

    def alone(ids: Tokens) -> float:
        stock = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        state = stock(input_ids=torch.from_numpy(ids.astype(np.int64))[None]).last_hidden_state
        return float(model.head(state[0, -1]))

    expected = [alone(ids) for one in together for ids in one]
    tolerance = 1e-4 * max(1.0, float(np.std(expected)))
    assert model.shared == shares
    assert (model.steady == 64) == (name in ("longrope", "dynamic"))
    packed = model([group(one) for one in together]).reward
    # From the longest to the shortest: nothing stays of the one before.
    single = [float(model([group([ids])]).reward) for one in together[::-1] for ids in one[::-1]]
    assert packed.tolist() == pytest.approx(expected, abs=tolerance)
    assert single[::-1] == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("name", SHARES)
def test_its_memory_is_estimated(name: str) -> None:
    family, _, changes = SHARES[name]
    config = AutoConfig.for_model(family, **SHAPE | changes)
    found = model_stats(config, TrainOptions())
    assert found.parameters >= sum(p.numel() for p in AutoModel.from_config(config).parameters())


@pytest.mark.parametrize("name", ["gemma2", "mamba", "opt", "longrope", "bidirectional"])
@torch.no_grad()
def test_it_is_exported_and_opened_again(name: str, tmp_path: Path) -> None:
    family, _, changes = SHARES[name]
    model, _ = start_model(BaseOptions(model=str(made(tmp_path / name, family, changes))))
    folder = export(model.eval(), tmp_path / "exported", card=Card("a", "b", "c"))
    again = load_reward_model(folder)
    groups = [group(one) for one in conversations(model)]
    assert ("read one row at a time" in (folder / "README.md").read_text()) == (name == "longrope")
    assert torch.allclose(again(groups).reward, model(groups).reward, atol=1e-6)


def test_of_several_templates_the_default_is_taken(tmp_path: Path) -> None:
    folder = made(tmp_path / "m", "llama", {})
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = {"tool_use": "tools", "default": CHATML}
    tokenizer.save_pretrained(folder)
    model, _ = start_model(BaseOptions(model=str(folder)))
    assert model.chat.template == CHATML
    tokenizer.chat_template = {"tool_use": "tools", "rag": CHATML}
    folder = made(tmp_path / "none", "llama", {})
    (folder / "chat_template.jinja").unlink()
    tokenizer.save_pretrained(folder)
    with pytest.raises(PalateError, match=r"chat templates tool_use, rag and none named default"):
        start_model(BaseOptions(model=str(folder)))
