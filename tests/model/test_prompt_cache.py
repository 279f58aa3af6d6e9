"""Kept prompts: the reward without them, less work, within their bytes; never of other weights."""

from itertools import count

import numpy as np
import pytest
import torch

from packed import ROUNDED, dialogues, largest_change, tiny_reward_model
from palate.model.packing import Group, Tokens, group
from palate.model.prompt_cache import LEAST_TOKENS, NODE_BYTES, PromptCache
from palate.model.reward_model import RewardModel
from tiny import FAMILIES

RNG = np.random.default_rng(0)
FIRST = count()


def tokens(length: int) -> Tokens:
    """So many, of which the first is another at each call."""
    return np.append(next(FIRST) % 400, RNG.integers(0, 400, length - 1)).astype(np.int32)


PROMPT = tokens(40)


def alone(*parts: Tokens) -> list[Group]:
    """One conversation, asked by itself."""
    return [group([np.concatenate(parts)], shared=False)]


@pytest.fixture(scope="module")
def model() -> RewardModel:
    return tiny_reward_model("llama", changes={"num_hidden_layers": 2}).eval()


@torch.inference_mode()
def saved(model: RewardModel, cache: PromptCache, asked: list[Group], salt: str = "") -> int:
    """Tokens of `asked` that need not be computed."""
    before = cache.use.saved_tokens
    model(asked, cache, salt)
    return cache.use.saved_tokens - before


@pytest.mark.parametrize("family", [*FAMILIES, "qwen3_moe"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_kept_changes_no_reward(family: str, dtype: torch.dtype) -> None:
    """Within the bounds of the paths through a model: sums in another order, no more."""
    model = tiny_reward_model(family, dtype=dtype).eval()
    cache = model.prompt_cache(1 << 30)
    bound = 1e-5 if dtype == torch.float32 else 1 / 32
    assert largest_change(model, cache, dialogues(1, 8)) < bound
    assert cache.use.found > 5


@pytest.mark.parametrize("nodes", [1, 3, 10])
def test_it_holds_no_more_than_its_bytes_and_stays_right(model: RewardModel, nodes: int) -> None:
    bytes_per_token = 2 * 2 * 2 * 12 * 4  # Layers, keys and values, heads, width, bytes.
    size = nodes * (NODE_BYTES + 80 * (bytes_per_token + 4))
    cache, batches = model.prompt_cache(size), dialogues(2, 12)
    assert largest_change(model, cache, batches) < ROUNDED
    held = cache.bytes
    assert held == sum(node.bytes for node in cache._nodes)
    assert held == sum(
        NODE_BYTES + len(node.tokens) * (bytes_per_token + 4) for node in cache._nodes
    )
    for node in cache._nodes:  # All of them can still be reached.
        assert (cache._roots if node.parent is None else node.parent.children)[node.key] is node
    cache.clear()
    assert (cache.bytes, len(cache._nodes)) == (0, 0)
    assert largest_change(model, cache, batches[:2]) < ROUNDED


def test_responses_that_come_one_by_one_cost_only_themselves(model: RewardModel) -> None:
    cache = model.prompt_cache(1 << 20)
    assert saved(model, cache, alone(PROMPT, tokens(9))) == 0
    for _ in range(15):
        assert saved(model, cache, alone(PROMPT, tokens(9))) == len(PROMPT)
    assert (cache.use.prompts, cache.use.found) == (16, 15)
    several = [group([np.concatenate((PROMPT, tokens(n))) for n in (3, 4)])]
    assert saved(model, cache, several) == len(PROMPT)


def test_a_next_turn_costs_only_what_is_new_in_it(model: RewardModel) -> None:
    cache = model.prompt_cache(1 << 20)
    said = PROMPT
    for turn in range(5):
        said = np.concatenate((said, tokens(20)))
        known = len(said) - 20 if turn else 0
        assert saved(model, cache, alone(said)) == known
    # What was answered once costs the token that its reward is read at.
    assert saved(model, cache, alone(said)) == len(said) - 1


def test_a_conversation_of_which_more_is_known_leaves_its_group(model: RewardModel) -> None:
    cache, dialogue, fresh = model.prompt_cache(1 << 20), tokens(60), tokens(30)
    with torch.inference_mode():
        model(alone(PROMPT, dialogue), cache)
    rows = [np.concatenate((PROMPT, fresh)), np.concatenate((PROMPT, dialogue, tokens(5)))]
    rows += [np.concatenate((PROMPT, tokens(7))), np.concatenate((PROMPT, dialogue, tokens(6)))]
    asked = [group(rows), *alone(tokens(20))]
    with torch.inference_mode():
        expected = model(asked).reward
        found = model(asked, cache).reward
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert cache.use.saved_tokens == len(PROMPT) + 2 * len(dialogue)


def test_a_short_beginning_is_computed_again(model: RewardModel) -> None:
    cache = model.prompt_cache(1 << 20)
    template = tokens(LEAST_TOKENS - 1)
    for _ in range(2):
        assert saved(model, cache, alone(template, tokens(30))) == 0


def test_another_salt_finds_nothing(model: RewardModel) -> None:
    cache = model.prompt_cache(1 << 20)
    for salt, known in (("", 0), ("a", 0), ("", 40), ("a", 40), ("b", 0)):
        assert saved(model, cache, alone(PROMPT, tokens(5)), salt) == known


def test_weights_that_change_in_place_are_noticed() -> None:
    model = tiny_reward_model("llama", changes={"num_hidden_layers": 1}).eval()
    cache, asked = model.prompt_cache(1 << 20), alone(PROMPT, tokens(5))
    with torch.inference_mode():
        model(asked, cache)
    with torch.no_grad():
        next(model.parameters()).mul_(1.5)
    with torch.inference_mode():
        expected = model(asked).reward
        assert saved(model, cache, asked) == 0
        assert saved(model, cache, asked) == 44
        torch.testing.assert_close(model(asked, cache).reward, expected, rtol=1e-5, atol=1e-5)


def test_what_is_larger_than_the_cache_is_not_kept(model: RewardModel) -> None:
    cache = model.prompt_cache(1_000)
    for _ in range(2):
        assert saved(model, cache, alone(PROMPT, tokens(5))) == 0
    assert cache.bytes == 0
