"""The three paths give one reward: padded reference, packed, packed with shared prefixes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, OpenAIGPTConfig, OpenAIGPTModel

from packed import conversations, flat, gradients, rewards, tiny_reward_model
from palate.model.attention import supports_shared_prefix
from palate.model.compute import apply_compute
from palate.model.options import BaseOptions, Compute
from palate.model.packing import Tokens
from palate.model.reward_model import RewardModel
from palate.model.tokenizer import ChatTokens
from palate.train.options import LoraOptions, Trainable, TrainOptions
from palate.train.trainable import choose_trainable
from palate.types import PalateError
from tiny import FAMILIES, tiny_model, tiny_tokenizer


def shape(name: str) -> Sequence[Sequence[Tokens]]:
    """Groups whose shape is an edge of what a packed row can hold."""
    if name == "four responses":
        return conversations(prompts=(100, 140), count=4)
    if name == "one token each":
        return conversations(prompts=(1, 20), responses=(1, 2), count=3)
    if name == "no common prefix":
        return [[*flat(conversations(seed, groups=3))] for seed in range(3)]
    return conversations(groups=80, prompts=(1, 8), responses=(1, 8))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("path", ["packed", "shared"])
def test_pitfall_08_packed_paths_equal_the_padded_reference(family: str, path: str) -> None:
    model, made = tiny_reward_model(family), conversations()
    assert model.path == "shared prefix (sdpa)"
    assert_equal(model, path, made)


@pytest.mark.parametrize("path", ["packed", "shared"])
@pytest.mark.parametrize(
    "name", ["four responses", "one token each", "no common prefix", "many groups"]
)
def test_pitfall_08_packed_paths_equal_the_reference_at_the_edges(name: str, path: str) -> None:
    assert_equal(tiny_reward_model("llama"), path, shape(name))


def assert_equal(model: RewardModel, path: str, made: Sequence[Sequence[Tokens]]) -> None:
    reference, ours = rewards(model, "padded", made), rewards(model, path, made)
    torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-5)
    reference, ours = gradients(model, "padded", made), gradients(model, path, made)
    assert (ours - reference).norm() <= 1e-5 * reference.norm()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("path", ["packed", "shared"])
def test_bf16_paths_agree_within_a_stated_bound(family: str, path: str) -> None:
    """Relative to the norm, rewards within 1/64 and gradients within 1/32.

    bf16 rounds to 1/256, and the paths sum in another order. Measured over six seeds and all
    families: 0.007 and 0.010 at most, while bf16 itself is up to 0.019 and 0.048 from float32.
    """
    model = tiny_reward_model(family, dtype=torch.bfloat16)
    made = conversations()
    padded, ours = rewards(model, "padded", made), rewards(model, path, made)
    assert ours.dtype == torch.float32
    assert (ours - padded).norm() <= padded.norm() / 64
    padded, ours = gradients(model, "padded", made), gradients(model, path, made)
    assert (ours - padded).norm() <= padded.norm() / 32


def test_encoders_take_the_padded_path() -> None:
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, is_decoder=False,
    )  # fmt: skip
    assert not supports_shared_prefix(BertModel(config))


def test_a_reward_does_not_depend_on_its_company() -> None:
    model, made = tiny_reward_model("llama"), conversations()
    together = rewards(model, "shared", made)
    alone = torch.cat([rewards(model, "shared", [[c]]) for c in flat(made)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_pitfall_03_ids_equal_to_pad_or_terminal_inside_a_response_change_no_reading() -> None:
    model = tiny_reward_model("llama")
    pad, end = model.chat.pad_id, model.chat.terminal_id
    rows = [np.array([5, 6, end, 7, pad, 9, end], np.int32), np.array([5, pad, end], np.int32)]
    alone = torch.cat([rewards(model, "shared", [[row]]) for row in rows])
    torch.testing.assert_close(model.forward_padded(rows).reward, alone, rtol=1e-5, atol=1e-5)


def test_pitfall_09_the_head_computes_in_float32() -> None:
    """Two hidden states that bf16 would tie get different rewards."""
    model = tiny_reward_model("llama", dtype=torch.bfloat16)
    last = torch.full((2, 48), 4.0)
    last[1, 0] += 1e-3
    rewards = model._read(last).reward
    assert rewards.dtype == torch.float32
    assert rewards[0] != rewards[1]


def test_pitfall_15_the_head_is_seeded_and_small() -> None:
    chat = ChatTokens(tiny_tokenizer(), BaseOptions())
    heads = [RewardModel(tiny_model("llama"), chat, seed=seed).head.weight for seed in (3, 3, 4)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert heads[0].abs().max() < 0.01


def test_pitfall_18_no_vocabulary_logits_are_computed() -> None:
    model = tiny_reward_model("llama")
    widths = [m.out_features for m in model.modules() if isinstance(m, torch.nn.Linear)]
    assert 400 not in widths


# Checkpointing and compilation change time and memory, never a gradient.

LEARNS = {
    "full": TrainOptions(),
    "last layer": TrainOptions(trainable=Trainable(last_layers=1)),
    "adapters": TrainOptions(trainable=Trainable(lora=LoraOptions(rank=4))),
}

QUIET = {"gpt_neox": {"hidden_dropout": 0.0, "attention_dropout": 0.0}}


def learning(family: str, learns: str = "full", **compute: Any) -> RewardModel:
    """A model in training mode that computes as `compute` says; adapters seeded."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = tiny_reward_model(family, changes=QUIET.get(family))
        choose_trainable(model, LEARNS[learns])
    apply_compute(model, Compute(**compute))
    return model.train()


def count_forwards(model: RewardModel) -> list[int]:
    """How often each layer's attention has run, kept up to date while the model computes."""
    counts: list[int] = []
    for name, module in model.backbone.named_modules():
        if name.endswith("self_attn"):
            index = len(counts)
            counts.append(0)

            def count(*_: Any, index: int = index) -> None:
                counts[index] += 1

            module.register_forward_hook(count)
    return counts


@pytest.mark.parametrize("learns", LEARNS)
@pytest.mark.parametrize("checkpointing", ["selective", "full"])
def test_checkpointing_leaves_gradients_as_they_are(learns: str, checkpointing: str) -> None:
    made = conversations()
    kept = gradients(learning("llama", learns), "shared", made)
    again = gradients(
        learning("llama", learns, activation_checkpointing=checkpointing), "shared", made
    )
    assert torch.equal(kept, again)


@pytest.mark.parametrize(
    ("learns", "checkpointing", "expected"),
    [
        ("full", "none", [1, 1, 1]),
        ("full", "selective", [2, 1, 1]),
        ("full", "full", [2, 2, 1]),
        ("last layer", "full", [1, 1, 1]),  # Nothing below learns, and the last is kept.
        ("adapters", "full", [2, 2, 1]),
    ],
)
def test_checkpointed_layers_run_again_but_for_the_last(
    learns: str, checkpointing: str, expected: list[int]
) -> None:
    model = learning("llama", learns, activation_checkpointing=checkpointing)
    counts = count_forwards(model)
    gradients(model, "shared", conversations())
    assert counts == expected


@pytest.mark.parametrize("family", ["gemma", "gpt_neox", "qwen3"])
def test_checkpointing_serves_other_families(family: str) -> None:
    made = conversations()
    kept = gradients(learning(family), "shared", made)
    again = gradients(learning(family, activation_checkpointing="full"), "shared", made)
    assert torch.equal(kept, again)


def test_scoring_is_not_touched() -> None:
    model = learning("llama", activation_checkpointing="full").eval()
    counts = count_forwards(model)
    gradients(model, "shared", conversations())
    assert counts == [1, 1, 1]


def test_an_architecture_without_such_layers_is_refused() -> None:
    config = OpenAIGPTConfig(vocab_size=400, n_embd=16, n_layer=1, n_head=2, n_positions=64)
    chat = ChatTokens(tiny_tokenizer(), BaseOptions())
    model = RewardModel(OpenAIGPTModel(config), chat)
    apply_compute(model, Compute())
    with pytest.raises(PalateError, match="OpenAIGPTModel can be neither"):
        apply_compute(model, Compute(compile=True))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # torch's own.
@pytest.mark.parametrize("checkpointing", ["none", "full"])
def test_compiled_parts_give_the_same_gradients(checkpointing: str) -> None:
    """And compile once for all lengths, also where the backward pass computes a layer again."""
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    plain = learning("llama")
    compiled = learning("llama", compile=True, activation_checkpointing=checkpointing)
    graphs = []
    for seed in range(3):
        made = conversations(seed)
        kept, again = gradients(plain, "shared", made), gradients(compiled, "shared", made)
        assert (again - kept).norm() <= 2e-6 * kept.norm()
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert graphs[0] > 0
    assert graphs == graphs[:1] * 3
