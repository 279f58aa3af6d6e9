"""Conversations as tokens, and the paths that a reward model can take through them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from palate.model.options import BaseOptions
from palate.model.packing import Group, Tokens, group, pack
from palate.model.prompt_cache import PromptCache
from palate.model.reward_model import RewardModel
from palate.model.tokenizer import ChatTokens
from rounding import rounding
from tiny import tiny_model, tiny_tokenizer

Conversations = Sequence[Sequence[Tokens]]


def tiny_reward_model(family: str, *, changes: dict[str, Any] | None = None, **options: Any) -> Any:
    """A reward model of `family` whose head is wide enough for rewards of about 1."""
    chat = ChatTokens(tiny_tokenizer(), BaseOptions())
    model = RewardModel(tiny_model(family, **changes or {}), chat, **options)
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(1))
    return model


def conversations(
    seed: int = 0,
    *,
    groups: int = 5,
    prompts: tuple[int, int] = (1, 40),
    responses: tuple[int, int] = (1, 30),
    count: int | None = None,
) -> list[list[Tokens]]:
    """Groups of conversations that share a prompt, ids of any kind, pads too.

    Prompts and responses have lengths in the given ranges; a group has `count` responses, 1 to 4
    where that is None.
    """
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(groups):
        prompt = rng.integers(0, 400, rng.integers(*prompts))
        number = count or rng.integers(1, 5)
        rests = [rng.integers(0, 400, rng.integers(*responses)) for _ in range(number)]
        made.append([np.concatenate((prompt, r)).astype(np.int32) for r in rests])
    return made


def flat(made: Conversations) -> list[Tokens]:
    """Every conversation, in order."""
    return [c for one in made for c in one]


def rewards(model: RewardModel, path: str, made: Conversations) -> Tensor:
    """Rewards by "padded" rows, a "packed" row without sharing, or a "shared" one."""
    if path == "padded":
        return model.forward_padded(flat(made)).reward
    if path == "packed":
        return model.forward_packed(pack([group([c], shared=False) for c in flat(made)])).reward
    return model.forward_packed(pack([group(one) for one in made])).reward


def gradients(model: RewardModel, path: str, made: Conversations) -> Tensor:
    """The gradient of all that learns, in one vector."""
    model.zero_grad()
    torch.nn.functional.softplus(rewards(model, path, made)).sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def dialogues(seed: int, steps: int, *, prompt: tuple[int, int] = (10, 60)) -> list[list[Group]]:
    """Micro-batches as they come in rollouts: responses to a prompt together and one by one, turns
    that follow on what was said, a conversation again, prompts that begin alike.
    """
    rng = np.random.default_rng(seed)

    def tokens(low: int, high: int) -> Tokens:
        return rng.integers(0, 400, rng.integers(low, high)).astype(np.int32)

    system = tokens(20, 21)
    said = [np.concatenate((system, tokens(*prompt))) for _ in range(3)]
    batches = []
    for _ in range(steps):
        groups = []
        for _ in range(rng.integers(1, 4)):
            before = said[rng.integers(len(said))]
            more = (before, tokens(1, 30)) if rng.random() < 0.7 else (before,)
            turn = np.concatenate(more)
            responses = [np.append(turn, tokens(1, 20)) for _ in range(rng.integers(1, 4))]
            if rng.random() < 0.2:
                responses.append(said[-1])
            groups.append(group(responses, shared=len(responses) > 1))
            said += [turn, responses[0]]
        batches.append(groups)
    return batches


# Tiny models of three layers: seven products each and the head's; the longest sums are over keys.
ROUNDED = rounding(torch.float32, terms=400, products=22)
"""How far kept keys and values may move a reward, relative to the norm of a micro-batch's."""


@torch.inference_mode()
def largest_change(model: RewardModel, cache: PromptCache, batches: Sequence[list[Group]]) -> float:
    """How far what is kept moves a reward, relative to the norm of a micro-batch's."""
    changes = [0.0]
    for groups in batches:
        kept, plain = model(groups, cache).reward, model(groups).reward
        changes.append(float((kept - plain).norm() / plain.norm()))
        assert cache.bytes <= cache.max_bytes
    return max(changes)
