"""verl's custom reward function, answered by a Palate server.

    python -m verl.trainer.main_ppo ... \
        reward.custom_reward_function.path=examples/verl_reward.py \
        reward.custom_reward_function.name=compute_score \
        +reward.custom_reward_function.reward_kwargs.url=http://127.0.0.1:8000

verl hands over the response alone, so the data set's `extra_info` must hold the prompt as messages,
under `messages`. A server's token is read from PALATE_TOKEN.
"""

from functools import cache
from typing import Any

import palate


@cache
def client(url: str) -> palate.AsyncRewardClient:
    """One for each server, in each of verl's reward workers."""
    return palate.AsyncRewardClient(url, concurrency=64)


async def compute_score(
    *, solution_str: str, extra_info: dict[str, Any], url: str, **_given: Any
) -> float:
    return await client(url).reward(extra_info["messages"], solution_str)
