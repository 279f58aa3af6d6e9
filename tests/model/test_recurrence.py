"""Layers that carry a state: packed and shared as padded, in rewards and gradients."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from hybrids import HYBRIDS, hybrid_config
from packed import ROUNDED, conversations, dialogues, largest_change, rewards
from palate.model.attention import NAME
from palate.model.compute import apply_compute
from palate.model.options import BaseOptions, Compute
from palate.model.packing import PADDING, SPARE, SegmentBatches, Segments, Tokens, group, pack
from palate.model.recurrence import share_states
from palate.model.reward_model import RewardModel
from palate.model.tokenizer import ChatTokens
from tiny import tiny_tokenizer

CHAT = ChatTokens(tiny_tokenizer(), BaseOptions())
# Groups of several lengths, prompts shorter than a convolution, a single response, sixteen, and
# responses without a prompt.
MADE = [
    *conversations(3, groups=2, prompts=(30, 50), responses=(1, 24)),
    *conversations(4, groups=2, prompts=(1, 4), count=2),
    *conversations(5, groups=1, count=1),
    *conversations(6, groups=1, count=16, responses=(1, 20)),
    *conversations(7, groups=1, count=3, prompts=(0, 1)),
]


def reward_model(family: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> RewardModel:
    """A reward model of `family` whose weights are wide enough for states to matter."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        backbone = AutoModel.from_config(hybrid_config(family)).eval()
        for name, weight in backbone.named_parameters():
            if weight.dim() > 1 and "conv" not in name:
                nn.init.normal_(weight.data, std=0.1)
            elif name.endswith("bias"):  # Of convolutions and projections too, where there are any.
                weight.data += 0.1 * torch.randn_like(weight)
        model = RewardModel(backbone, CHAT, dtype=dtype)
        nn.init.normal_(model.head.weight)
    model.check_sharing()
    return model


def outcome(model: RewardModel, path: str) -> tuple[Tensor, Tensor]:
    """Rewards of all conversations, and the gradient of all that learns in one vector."""
    model.zero_grad()
    reward = rewards(model, path, MADE)
    nn.functional.softplus(reward).sum().backward()
    learnt = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return reward.detach(), torch.cat(learnt)


def apart(mine: Tensor, theirs: Tensor) -> float:
    return float((mine - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("family", HYBRIDS)
def test_shared_states_give_the_rewards_and_gradients_of_padded_rows(family: str) -> None:
    model = reward_model(family)
    assert model.shared
    for mine, theirs in zip(outcome(model, "shared"), outcome(model, "padded"), strict=True):
        assert apart(mine, theirs) < 1e-5


@pytest.mark.parametrize("family", ["qwen3_5_text", "bamba", "lfm2"])
def test_bf16_paths_agree_within_a_stated_bound(family: str) -> None:
    """Relative to the norm, rewards within 1/32 and gradients within 1/16.

    Measured over three seeds and all families: 0.016 and 0.051 at most, while bf16 itself is up to
    0.076 and 0.077 from float32.
    """
    model = reward_model(family, torch.bfloat16)
    bounds = 1 / 32, 1 / 16
    paths = outcome(model, "shared"), outcome(model, "padded")
    for mine, theirs, bound in zip(*paths, bounds, strict=True):
        assert apart(mine, theirs) < bound


@pytest.mark.parametrize("family", HYBRIDS)
def test_states_that_are_kept_between_micro_batches_change_no_reward(family: str) -> None:
    model = reward_model(family)
    cache = model.prompt_cache(1 << 30)
    assert largest_change(model, cache, dialogues(0, 8)) < ROUNDED
    assert cache.use.found > 5
    assert cache.use.saved_tokens > 300


def test_a_state_is_kept_where_two_conversations_were_seen_to_part() -> None:
    """The second response shows where the prompt ends; from the third on the prompt is not run."""
    model, rng = reward_model("lfm2"), np.random.default_rng(0)
    cache = model.prompt_cache(1 << 20)

    def saved(said: Tokens, first: int) -> int:
        response = np.append(first, rng.integers(0, 400, 30))
        before = cache.use.saved_tokens
        with torch.inference_mode():
            asked = np.concatenate((said, response)).astype(np.int32)
            model([group([asked], shared=False)], cache)
        return cache.use.saved_tokens - before

    prompt = rng.integers(0, 400, 40)
    assert [saved(prompt, first) for first in (1, 2, 3, 4)] == [0, 0, 40, 40]
    longer = np.concatenate((prompt, np.append(5, rng.integers(0, 400, 29))))
    assert [saved(longer, first) for first in (1, 2, 3)] == [40, 40, 70]


@torch.inference_mode()
def test_many_responses_do_not_each_run_what_follows_a_kept_state() -> None:
    """Up to where they part, which is run once and its state kept; that of before saves less."""
    model, rng = reward_model("lfm2"), np.random.default_rng(0)
    cache, prompt = model.prompt_cache(1 << 20), rng.integers(0, 400, 40)

    def saved(said: Tokens, count: int) -> int:
        whole = [np.append(said, [n, *rng.integers(0, 400, 9)]) for n in range(count)]
        asked = [group([one.astype(np.int32) for one in whole])]
        before = cache.use.saved_tokens
        assert apart(model(asked, cache).reward, model(asked).reward) < ROUNDED
        return cache.use.saved_tokens - before

    assert saved(prompt, 2) == 0
    assert saved(np.append(prompt, rng.integers(0, 400, 15)), 2) == 40 - 15
    longer = np.append(prompt, rng.integers(0, 400, 15))
    assert [saved(longer, 8), saved(longer, 8)] == [0, 55]


def test_recomputed_activations_and_a_copy_give_the_same_gradient() -> None:
    model = reward_model("qwen3_5_text")
    _, expected = outcome(model, "shared")
    again = deepcopy(model)
    apply_compute(again.train(), Compute(activation_checkpointing="full"))
    for weight in model.parameters():  # Of which the copy's mixers know nothing.
        nn.init.zeros_(weight)
    assert apart(outcome(again, "shared")[1], expected) < 1e-6


def test_the_last_layer_is_narrow_where_it_carries_no_state() -> None:
    assert reward_model("qwen3_5_text").narrow
    for family in ("falcon_h1", "bamba"):  # Beside its attention, and in its place.
        assert not reward_model(family).narrow


@pytest.mark.parametrize("family", ["jamba", "mamba2", "recurrent_gemma"])
def test_other_recurrences_take_padded_rows_and_say_so(
    family: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Jamba's scan starts from nothing, whatever a cache says of what came before."""
    small = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 400}
    small |= {
        "pad_token_id": 0,
        "num_heads": 6,
        "head_dim": 16,
        "attn_layer_period": 3,
        "attn_layer_offset": 1,
    }
    with torch.device("meta"):
        backbone = AutoModel.from_config(AutoConfig.for_model(family, **small))
    model = RewardModel(backbone, CHAT)
    with caplog.at_level("INFO"):
        model.check_sharing()
    assert (model.shared, model.path) == (False, "padded")
    assert "takes padded rows" in caplog.text


@pytest.mark.parametrize("family", ["qwen3_next", "falcon_h1", "lfm2"])
def test_no_mixer_reads_the_device(family: str) -> None:
    """On the meta device every read by the host (item, tolist, a branch on a value) raises."""
    with torch.device("meta"):
        backbone = AutoModel.from_config(hybrid_config(family, mlp_only_layers=[0, 1]))
    backbone.set_attn_implementation(NAME)
    share_states(backbone)
    packed = pack([group(one) for one in MADE], "meta")
    row = {"input_ids": packed.ids, "position_ids": packed.positions, "layout": packed.layout}
    hidden = backbone(**row, use_cache=False).last_hidden_state
    hidden[0, packed.ends].sum().backward()
    assert hidden.is_meta


def test_batches_hold_each_token_once_with_little_padding() -> None:
    rng = np.random.default_rng(0)
    sizes = [(int(rng.integers(0, 90)), rng.integers(1, 90, rng.integers(1, 9))) for _ in range(40)]
    segments = Segments.of([(prompt, list(map(int, responses))) for prompt, responses in sizes])
    made = SegmentBatches.of(segments.query_lengths, segments.sources, torch.device("cpu"))
    batches = (*made.prompts, *made.responses)
    laid = torch.cat([batch.tokens.flatten() for batch in batches])
    assert torch.equal(laid[made.places], torch.arange(sum(segments.query_lengths)))
    whole = np.split(segments.gather, np.cumsum(segments.key_lengths)[:-1])
    expected = {int(tokens[-1]): tokens.tolist() for tokens in whole}
    prompts: list[list[int]] = []
    for batch in batches:
        present = torch.ones_like(batch.tokens) if batch.present is None else batch.present
        assert batch.tokens.numel() <= (1 + PADDING) * present.sum() + SPARE
        for row, filled, prompt in zip(batch.tokens, present.bool(), batch.sources, strict=True):
            own = row[filled].tolist()
            follows = any(batch is one for one in made.responses)
            assert expected.pop(own[-1]) == [*(prompts[int(prompt)] if follows else ()), *own]
            if not follows:
                prompts.append(own)
    assert not expected
