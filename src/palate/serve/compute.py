"""From conversations to rewards: equal ones once, each prompt once, a token budget at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from palate.model.packing import Group, Tokens, microbatches
from palate.model.reward_model import RewardModel
from palate.serve.prefixes import by_prompt, prompt_group


class Compute(Protocol):
    """A place where a model computes: this process, or one of its own."""

    @property
    def lane(self) -> threading.Lock:
        """Held while computing: models that share a device share a lane, and take turns."""
        ...

    def open(self) -> None:
        """Wait until it can compute; raises where it never will."""
        ...

    def __call__(self, groups: Sequence[Group]) -> list[float]:
        """Rewards of every response of every group, in order."""
        ...

    def close(self) -> None:
        """Give up what it holds."""
        ...


class Here:
    """A model in this process."""

    def __init__(self, model: RewardModel, lane: threading.Lock | None = None) -> None:
        self.lane = lane or threading.Lock()
        self._model = model

    def open(self) -> None:
        """It was opened before it came here."""

    @torch.inference_mode()
    def __call__(self, groups: Sequence[Group]) -> list[float]:
        rewards: list[float] = self._model(groups).reward.tolist()
        return rewards

    def close(self) -> None:
        """Whoever brought it may go on with it."""


def rewards_of(
    compute: Callable[[Sequence[Group]], list[float]],
    conversations: Sequence[Tokens],
    budget: int,
    *,
    shared: bool,
    tell: Callable[[int], None],
) -> list[float]:
    """The reward of each conversation, in order.

    With `shared` off nothing shares a prompt. `tell` hears of each micro-batch, when it has
    ended, how many tokens it ran.
    """
    rows = list({c.tobytes(): c for c in conversations}.values())
    found = by_prompt(rows) if shared else [[i] for i in range(len(rows))]
    groups = [prompt_group([rows[i] for i in places]) for places in found]
    rewards: dict[bytes, float] = {}
    for indices, chosen in microbatches(groups, budget):
        values = compute(chosen)
        asked = [rows[i].tobytes() for index in indices for i in found[index]]
        rewards.update(zip(asked, values, strict=True))
        tell(sum(item.tokens for item in chosen))
    return [rewards[c.tobytes()] for c in conversations]
