"""Sliding windows, attention sinks and soft-capped logits: packed rows equal stock padded ones.

Tiny random models of each family, with windows shorter than a prompt, than a response, and of 1.
"""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel

from packed import ROUNDED, conversations, dialogues, gradients, largest_change, rewards
from palate.model.options import BaseOptions
from palate.model.packing import group, pack
from palate.model.reward_model import RewardModel
from palate.model.tokenizer import ChatTokens
from tiny import tiny_tokenizer

CHAT = ChatTokens(tiny_tokenizer(), BaseOptions())
SHAPE: dict[str, Any] = {
    "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 12, "max_position_embeddings": 1024, "vocab_size": 400,
    "pad_token_id": 3, "eos_token_id": 2, "bos_token_id": 1, "use_cache": False,
    "initializer_range": 0.1,
}  # fmt: skip
MIXED = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
ALTERNATE = {"layer_types": ["full_attention", "sliding_attention", "full_attention"]}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "mistral": ("mistral", {}),
    "phi3": ("phi3", {}),
    "qwen2": ("qwen2", {"use_sliding_window": True} | MIXED),
    "qwen3": ("qwen3", {"use_sliding_window": True} | ALTERNATE),
    "cohere2": ("cohere2", MIXED),
    "olmo3": ("olmo3", MIXED),
    # Queries, keys and logits of each are scaled, and the two kinds of layers turn at two rates.
    "gemma3": ("gemma3_text", {"query_pre_attn_scalar": 16} | MIXED),
    # Full layers have wider heads; of the small ones the last layers read the keys of earlier ones.
    "gemma4": (
        "gemma4_text",
        {"hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0, "global_head_dim": 16}
        | ALTERNATE,
    ),
    "gemma4, shared keys": (
        "gemma4_text",
        {
            "num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2,
            "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 400,
            "num_kv_shared_layers": 2, "global_head_dim": 16,
        },
    ),
    # Logits are capped low, so that the cap matters.
    "gemma2": ("gemma2", {"attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 4} | MIXED),
    # A learnt logit beside those of the keys, and experts.
    "gpt_oss": ("gpt_oss", {"num_local_experts": 4, "num_experts_per_tok": 2} | MIXED),
    "gpt_oss, full last": (
        "gpt_oss", {"num_local_experts": 4, "num_experts_per_tok": 2} | ALTERNATE,
    ),
}  # fmt: skip


def windowed(name: str, window: int, **options: Any) -> RewardModel:
    """A reward model of the family whose attention, sinks and head are wide enough to matter."""
    kind, changes = FAMILIES[name]
    config = AutoConfig.for_model(kind, **SHAPE | {"sliding_window": window} | changes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = AutoModel.from_config(config).eval()
        for key, weight in backbone.named_parameters():
            if "sinks" in key:
                torch.nn.init.normal_(weight, std=2.0)
    model = RewardModel(backbone, CHAT, **options)
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(1))
    return model


def assert_equal(model: RewardModel, made: Sequence[Any], path: str = "shared") -> None:
    reference, ours = rewards(model, "padded", made), rewards(model, path, made)
    torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-5)
    reference, ours = gradients(model, "padded", made), gradients(model, path, made)
    assert (ours - reference).norm() <= 1e-5 * reference.norm()


# Prompts of 20 to 39 tokens and responses of 8 to 29.
MADE = conversations(5, groups=4, prompts=(20, 40), responses=(8, 30))


# Shorter than a response in every family; of 1 and shorter than a prompt in those that differ most.
CASES = [(name, 5) for name in FAMILIES]
CASES += [(name, n) for name in ("mistral", "gemma4", "gemma2", "gpt_oss") for n in (1, 25)]


@pytest.mark.parametrize(("name", "window"), CASES)
def test_packed_rows_equal_the_padded_reference_within_windows(name: str, window: int) -> None:
    model = windowed(name, window)
    model.check_sharing()
    assert model.shared, "the check at opening takes padded rows"
    assert model.narrow == (name not in ("cohere2", "olmo3", "gemma4, shared keys"))
    assert_equal(model, MADE)


@pytest.mark.parametrize("name", ["mistral", "gemma3", "gemma2", "gpt_oss"])
def test_so_do_packed_rows_without_sharing(name: str) -> None:
    assert_equal(windowed(name, 5), MADE, "packed")


def test_a_token_sees_its_window_and_nothing_else() -> None:
    """Of every layout: which keys each query sees, against positions in the conversations."""
    prompts, responses = 700, 300  # More than one block each.
    made = [conversations(9, groups=1, prompts=(prompts, prompts + 1), count=2)[0], *MADE]
    made += conversations(1, groups=1, prompts=(3, 4), responses=(responses, responses + 1))
    packed = pack([group(one) for one in made])
    own = {}  # By token of the row: its conversation's tokens up to it.
    for queries, keys, gather in segments(packed.layout):
        for i in range(queries):
            own[int(gather[keys - queries + i])] = gather[: keys - queries + i + 1].tolist()
    for window in (1, 2, 40, 256, 300, 10_000):
        for layout, tokens in (
            (packed.layout, list(own)),
            (packed.layout.ends, packed.ends.tolist()),
        ):
            assert layout is not None
            within = layout.within(window)
            assert within is layout.within(window)
            assert sum(within.query_lengths) == len(tokens)
            seen = iter(tokens)
            for (queries, keys, gather), mask in zip(segments(within), within.masks, strict=True):
                assert window > 1000 or keys <= queries + window - 1
                sight = torch.ones(queries, keys).tril() > 0 if mask is None else mask
                for row in sight:
                    assert gather[row].tolist() == own[next(seen)][-window:]


def segments(layout: Any) -> list[tuple[int, int, torch.Tensor]]:
    parts = layout.gather.split(layout.key_lengths)
    assert layout.key_starts.tolist()[-1] == len(layout.gather)
    assert layout.query_starts.tolist()[-1] == sum(layout.query_lengths)
    return list(zip(layout.query_lengths, layout.key_lengths, parts, strict=True))


@pytest.mark.parametrize("name", FAMILIES)
def test_keys_that_are_kept_between_micro_batches_change_no_reward(name: str) -> None:
    for window in (1, 7, 300):
        model = windowed(name, window).eval()
        cache = model.prompt_cache(1 << 30)
        assert largest_change(model, cache, dialogues(window, 4)) < ROUNDED
        assert cache.use.found > 2
