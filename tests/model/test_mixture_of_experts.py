"""Mixtures of experts: packed rows equal stock padded ones, and so does their routers' loss."""

import importlib
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel

from packed import conversations, flat, gradients, rewards, tiny_reward_model
from palate.model.compute import apply_compute
from palate.model.options import BaseOptions, Compute
from palate.model.packing import group
from palate.model.reward_model import RewardModel
from palate.model.tokenizer import ChatTokens
from palate.train.loss import load_balancing_loss
from palate.train.options import LoraOptions, Trainable, TrainOptions
from palate.train.trainable import choose_trainable
from palate.types import PalateError
from tiny import tiny_tokenizer

CHAT = ChatTokens(tiny_tokenizer(), BaseOptions())
SHAPE: dict[str, Any] = {
    "hidden_size": 48, "intermediate_size": 32, "moe_intermediate_size": 32,
    "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12,
    "max_position_embeddings": 1024, "vocab_size": 400, "pad_token_id": 3, "eos_token_id": 2,
    "bos_token_id": 1, "use_cache": False, "initializer_range": 0.1, "num_experts_per_tok": 2,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen3_moe": {"num_experts": 6, "mlp_only_layers": [1]},
    "qwen2_moe": {"num_experts": 6, "shared_expert_intermediate_size": 32},
    "mixtral": {"num_local_experts": 6},
    "olmoe": {"num_experts": 6},
    "gpt_oss": {"num_local_experts": 6, "sliding_window": 5},
    "granitemoe": {"num_local_experts": 6},
}
MADE = conversations(2, groups=4)


def mixture(family: str, **changes: Any) -> RewardModel:
    config = AutoConfig.for_model(family, **SHAPE | FAMILIES[family] | changes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = RewardModel(AutoModel.from_config(config).eval(), CHAT)
        for name, weight in model.named_parameters():
            if "router" in name or ".gate.weight" in name:
                torch.nn.init.normal_(weight, std=0.3)  # So that experts are chosen unevenly.
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(1))
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_rows_equal_the_padded_reference(family: str) -> None:
    """No expert is ever full, so that a token's experts do not depend on its company."""
    model = mixture(family)
    model.check_sharing()
    assert (model.shared, model.narrow) == (True, True)
    padded, shared = rewards(model, "padded", MADE), rewards(model, "shared", MADE)
    torch.testing.assert_close(shared, padded, rtol=1e-5, atol=1e-5)
    alone = torch.cat([rewards(model, "shared", [[c]]) for c in flat(MADE)])
    torch.testing.assert_close(shared, alone, rtol=1e-5, atol=1e-5)
    padded, shared = gradients(model, "padded", MADE), gradients(model, "shared", MADE)
    assert (shared - padded).norm() <= 1e-5 * padded.norm()


def balance(model: RewardModel, *, shared: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The routers' loss of MADE, and its gradient of all that learns, in one vector."""
    model.zero_grad()
    before, model.shared = model.shared, shared
    logits = model([group(one) for one in MADE]).router_logits
    model.shared = before
    loss = load_balancing_loss(logits, model.experts_per_token)
    loss.backward()
    grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return loss.detach(), torch.cat(grads)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_router_loss_is_one_and_the_same_packed_and_padded(family: str) -> None:
    """Every token counts once, a prompt that is read by several responses too."""
    model = mixture(family)
    model.keep_router_logits()
    tokens = sum(group(one).tokens for one in MADE)
    logits = model([group(one) for one in MADE]).router_logits
    assert {tuple(of_layer.shape) for of_layer in logits} == {(tokens, 6)}
    assert len(logits) == (2 if family == "qwen3_moe" else 3)
    (ours, gradient), (theirs, reference) = (balance(model, shared=s) for s in (True, False))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    assert ours > 2.05, "even: 2"
    assert reference.norm() > 0
    assert (gradient - reference).norm() <= 1e-5 * reference.norm()
    padded, shared = rewards(model, "padded", MADE), rewards(model, "shared", MADE)
    torch.testing.assert_close(shared, padded, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_of_one_layer_it_is_the_family_s_own(family: str) -> None:
    module = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    model = mixture(family)
    model.keep_router_logits()
    logits = model([group(one) for one in MADE]).router_logits
    own = [module.load_balancing_loss_func((one,), 6, 2) for one in logits]
    ours = load_balancing_loss(logits, 2)
    torch.testing.assert_close(ours, torch.stack(own).mean())


def test_recomputed_layers_and_adapters_have_the_same_router_loss() -> None:
    kept = mixture("qwen3_moe").train()
    kept.keep_router_logits()
    again = mixture("qwen3_moe").train()
    again.keep_router_logits()
    apply_compute(again, Compute(activation_checkpointing="full"))
    adapted = mixture("qwen3_moe").train()
    adapted.keep_router_logits()
    choose_trainable(adapted, TrainOptions(trainable=Trainable(lora=LoraOptions(rank=2))))
    (loss, gradient), (recomputed, other) = (balance(m, shared=True) for m in (kept, again))
    assert torch.equal(loss, recomputed)
    assert torch.equal(gradient, other)
    assert torch.equal(balance(adapted, shared=True)[0], loss)


def test_a_model_without_experts_is_refused() -> None:
    with pytest.raises(PalateError, match=r"router_loss_coefficient: llama has no experts"):
        tiny_reward_model("llama").keep_router_logits()
