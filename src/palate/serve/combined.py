"""Two reward models as one, as the paper's reinforcement learning asks them (section 3.2.3)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from palate.serve.ask import Ask
from palate.serve.combination import Combination, Flags, Floats, by_safety, combine
from palate.serve.engine import Engine
from palate.types import PalateError

Answers = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Parts:
    """What made one combined reward; `helpfulness` is None where it was not asked."""

    reward: float
    safety: float
    helpfulness: float | None
    decided_by: str


class Combined:
    """A safety and a helpfulness engine, asked together, that answer with one reward."""

    def __init__(
        self,
        safety: Engine,
        helpfulness: Engine,
        combination: Combination,
        *,
        name: str = "combined",
    ) -> None:
        """Raises `PalateError` where the two models do not read the same tokens."""
        if safety.model.chat.fingerprint != helpfulness.model.chat.fingerprint:
            raise PalateError(
                f"{name}: {safety.name} and {helpfulness.name} turn a conversation into different "
                "tokens; combine models of one tokenizer, template and max_tokens"
            )
        self.name, self.model = name, helpfulness.model
        self.safety, self.helpfulness, self.combination = safety, helpfulness, combination

    async def rewards(self, ask: Ask) -> tuple[float, ...]:
        """The whitened combined reward of each conversation; raises what the engines raise.

        Raises:
            ValueError: a number of safety tags that is not the number of conversations.
        """
        return tuple(part.reward for part in await self.explain(ask))

    async def explain(self, ask: Ask) -> tuple[Parts, ...]:
        """The combined rewards and what made them."""
        count = len(ask.conversations)
        if len(ask.safety) not in (0, count):
            raise ValueError(f"{len(ask.safety)} safety tags for {count} conversations")
        tagged = np.array(ask.safety or [False] * count, dtype=np.bool_)
        # Where the prompt is tagged, helpfulness decides nothing and is not computed.
        rest = tuple(c for c, tag in zip(ask.conversations, tagged, strict=True) if not tag)
        r_s, some = await _both(
            self.safety.rewards(ask), self.helpfulness.rewards(replace(ask, conversations=rest))
        )
        r_h = np.full(count, math.nan)
        r_h[~tagged] = some
        return tuple(self._parts(np.array(r_s), r_h, tagged))

    def _parts(self, r_s: Floats, r_h: Floats, tagged: Flags) -> Iterator[Parts]:
        combined = combine(r_s, r_h, tagged, self.combination.threshold)
        decided = by_safety(r_s, tagged, self.combination.threshold)
        whitened = self.combination.whiten(combined)
        for reward, safe, helpful, safely in zip(whitened, r_s, r_h, decided, strict=True):
            asked = None if math.isnan(helpful) else float(helpful)
            by = "safety" if safely else "helpfulness"
            yield Parts(float(reward), float(safe), asked, by)


async def _both(first: Awaitable[Answers], second: Awaitable[Answers]) -> tuple[Answers, Answers]:
    """Both answers; the first failure drops the other ask."""
    tasks = [asyncio.ensure_future(ask) for ask in (first, second)]
    try:
        one, other = await asyncio.gather(*tasks)
        return one, other
    finally:
        for task in tasks:
            task.cancel()
