"""The three paths give one reward: padded reference, packed, packed with shared prefixes."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from palate.model.attention import supports_shared_prefix
from palate.model.batch import Group, Tokens, group, pack
from palate.model.options import BaseOptions
from palate.model.reward_model import RewardModel
from palate.model.tokens import ChatTokens
from palate.types import PalateError
from tiny import FAMILIES, tiny_model, tiny_tokenizer

SHARED_FAMILIES = [f for f in FAMILIES if f != "mistral"]


def reward_model(family: str, **options: Any) -> RewardModel:
    changes = options.pop("changes", {})
    chat = ChatTokens(tiny_tokenizer(), BaseOptions())
    model = RewardModel(tiny_model(family, **changes), chat, **options)
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(1))
    return model


def conversations(seed: int = 0) -> list[list[Tokens]]:
    """Prompts of 1 to 40 tokens with 1 to 4 responses of 1 to 30, ids of any kind, pads too."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(5):
        prompt = rng.integers(0, 400, rng.integers(1, 40))
        responses = [rng.integers(0, 400, rng.integers(1, 30)) for _ in range(rng.integers(1, 5))]
        made.append([np.concatenate((prompt, r)).astype(np.int32) for r in responses])
    return made


def flat(made: list[list[Tokens]]) -> list[Tokens]:
    return [c for one in made for c in one]


def run(model: RewardModel, path: str, made: list[list[Tokens]]) -> torch.Tensor:
    if path == "padded":
        return model.forward_padded(flat(made)).reward
    groups: list[Group]
    if path == "packed":
        groups = [group([c], shared=False) for c in flat(made)]
    else:
        groups = [group(one) for one in made]
    return model.forward_packed(pack(groups)).reward


def gradients(model: RewardModel, path: str, made: list[list[Tokens]]) -> torch.Tensor:
    model.zero_grad()
    torch.nn.functional.softplus(run(model, path, made)).sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("family", SHARED_FAMILIES)
@pytest.mark.parametrize("path", ["packed", "shared"])
def test_pitfall_08_packed_paths_equal_the_padded_reference(family: str, path: str) -> None:
    model, made = reward_model(family), conversations()
    assert model.shared
    reference, ours = run(model, "padded", made), run(model, path, made)
    torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-5)
    reference, ours = gradients(model, "padded", made), gradients(model, path, made)
    assert (ours - reference).norm() <= 1e-5 * reference.norm()


def test_a_sliding_window_is_right_while_it_reaches_and_refused_beyond() -> None:
    made = conversations()
    wide = reward_model("mistral", changes={"sliding_window": 128})
    torch.testing.assert_close(
        run(wide, "shared", made), run(wide, "padded", made), rtol=1e-5, atol=1e-5
    )
    with pytest.raises(PalateError, match="sliding window of 16"):
        run(reward_model("mistral"), "shared", made)


def test_bf16_paths_agree_within_a_stated_bound() -> None:
    """0.05 of the rewards' spread: bf16 has 8 bits, and the paths sum in another order."""
    model, made = reward_model("llama", dtype=torch.bfloat16), conversations()
    padded, shared = run(model, "padded", made), run(model, "shared", made)
    assert shared.dtype == torch.float32
    assert (shared - padded).abs().max() < 0.05 * padded.std()


def test_encoders_take_the_padded_path() -> None:
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, is_decoder=False,
    )  # fmt: skip
    assert not supports_shared_prefix(BertModel(config))


def test_a_reward_does_not_depend_on_its_company() -> None:
    model, made = reward_model("llama"), conversations()
    together = run(model, "shared", made)
    alone = torch.cat([run(model, "shared", [[c]]) for c in flat(made)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_pitfall_03_ids_equal_to_pad_or_terminal_inside_a_response_change_no_reading() -> None:
    model = reward_model("llama")
    pad, end = model.chat.pad_id, model.chat.terminal_id
    rows = [np.array([5, 6, end, 7, pad, 9, end], np.int32), np.array([5, pad, end], np.int32)]
    alone = torch.cat([run(model, "shared", [[row]]) for row in rows])
    torch.testing.assert_close(model.forward_padded(rows).reward, alone, rtol=1e-5, atol=1e-5)


def test_pitfall_09_the_head_computes_in_float32() -> None:
    """Two hidden states that bf16 would tie get different rewards."""
    model = reward_model("llama", dtype=torch.bfloat16)
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
    model = reward_model("llama")
    widths = [m.out_features for m in model.modules() if isinstance(m, torch.nn.Linear)]
    assert 400 not in widths
