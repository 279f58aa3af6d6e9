"""The last layer is exact on the rows that are read, and does nothing for the others."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import Olmo2Config, Olmo2Model

from packed import conversations, flat, gradients, rewards, tiny_reward_model
from palate.model.options import BaseOptions
from palate.model.packing import group, pack
from palate.model.reward_model import RewardModel
from palate.model.tokenizer import ChatTokens
from palate.train.options import LoraOptions, Trainable, TrainOptions
from palate.train.trainable import choose_trainable
from tiny import tiny_tokenizer

MADE = conversations(3, groups=4)
ENDS = len(flat(MADE))
TOKENS = sum(group(one).tokens for one in MADE)
PARTS = {
    "llama": ("self_attn.q_proj", "self_attn.o_proj", "post_attention_layernorm", "mlp"),
    "gpt_neox": ("attention.dense", "post_attention_layernorm", "mlp"),
    "gemma": ("self_attn.q_proj", "self_attn.o_proj", "mlp"),
}


def rows_through(layer: nn.Module, part: str, seen: dict[str, int]) -> None:
    def note(_: Any, given: tuple[torch.Tensor]) -> None:
        seen[part] = given[0].shape[1]

    # The innermost matrix: hooks on `part` itself would run before those that are looked for.
    module = layer.get_submodule(part)
    inner = next((m for m in module.modules() if isinstance(m, nn.Linear)), module)
    inner.register_forward_pre_hook(note)


@pytest.mark.parametrize("family", PARTS)
def test_only_the_ends_go_through_the_last_layer_and_all_tokens_through_the_others(
    family: str,
) -> None:
    model = tiny_reward_model(family)
    last: dict[str, int] = {}
    first: dict[str, int] = {}
    inner = [p for p in PARTS[family] if not p.endswith(("q_proj", "o_proj", "dense"))]
    for part in inner:
        rows_through(model.backbone.layers[-1], part, last)
        rows_through(model.backbone.layers[0], part, first)
    rewards(model, "shared", MADE)
    assert model.narrow
    assert last == dict.fromkeys(inner, ENDS)
    assert first == dict.fromkeys(inner, TOKENS)


@pytest.mark.parametrize("family", PARTS)
def test_nothing_is_left_behind_on_the_layer(family: str) -> None:
    """Padded rows after a packed one, and a packed one after an error, are as before."""
    model = tiny_reward_model(family)
    padded, shared = rewards(model, "padded", MADE), rewards(model, "shared", MADE)
    model.backbone.layers[-1].mlp.register_forward_hook(fail := Once())
    with pytest.raises(ZeroDivisionError):
        rewards(model, "shared", MADE)
    assert fail.done
    assert torch.equal(rewards(model, "padded", MADE), padded)
    assert torch.equal(rewards(model, "shared", MADE), shared)


class Once:
    """A hook that raises the first time."""

    done = False

    def __call__(self, *_: object) -> None:
        if not self.done:
            self.done = True
            raise ZeroDivisionError


def test_adapters_inside_the_last_layer_learn_the_same() -> None:
    model = tiny_reward_model("llama")
    choose_trainable(model, TrainOptions(trainable=Trainable(lora=LoraOptions(rank=4))))
    for name, weight in model.named_parameters():
        if "lora_B" in name:  # Zero at first, which would hide a difference.
            nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(2))
    reference, narrow = (gradients(model, path, MADE) for path in ("padded", "shared"))
    assert (narrow - reference).norm() <= 1e-5 * reference.norm()


def test_a_layer_of_another_build_stays_whole_and_equal() -> None:
    config = Olmo2Config(
        vocab_size=400, hidden_size=48, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=512, pad_token_id=0,
    )  # fmt: skip
    model = RewardModel(Olmo2Model(config).eval(), ChatTokens(tiny_tokenizer(), BaseOptions()))
    assert model.shared
    assert not model.narrow
    torch.testing.assert_close(
        rewards(model, "shared", MADE), rewards(model, "padded", MADE), rtol=1e-5, atol=1e-6
    )


def test_ends_of_a_layout_are_last_rows_that_see_their_whole_conversation() -> None:
    packed = pack([group(one) for one in MADE])
    ends = packed.layout.ends
    assert ends is not None
    assert ends.rows is not None
    assert torch.equal(ends.rows, packed.ends)
    assert ends.query_lengths == (1,) * ENDS
    row = packed.ids[0]
    for tokens, kept in zip(flat(MADE), ends.gather.split(ends.key_lengths), strict=True):
        assert row[kept].tolist() == tokens.tolist()
