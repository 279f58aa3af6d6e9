"""Checkpointing and compilation change time and memory, never a gradient."""

from typing import Any

import pytest
import torch
from transformers import OpenAIGPTConfig, OpenAIGPTModel

from packed import conversations, gradients, tiny_reward_model
from palate.model.options import BaseOptions, Compute
from palate.model.reward_model import RewardModel, apply_compute
from palate.model.tokenizer import ChatTokens
from palate.train.options import LoraOptions, Trainable, TrainOptions
from palate.train.trainable import choose_trainable
from palate.types import PalateError
from tiny import tiny_tokenizer

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
