"""Reward functions for TRL's trainers (GRPO, RLOO, ...): a server's rewards, or a checkpoint's.

TRL calls `f(prompts=..., completions=..., **columns)` and takes a float or None for each. It
awaits those whose call is a coroutine, and logs under a function's `__name__`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from palate.client import AsyncRewardClient, RewardClient
from palate.client.requests import ClientOptions, Prompt, Row, conversation, turns
from palate.data.messages import more_than_text
from palate.types import Candidates, PalateError, Score

Completion = str | Sequence[Mapping[str, Any]]
Rewards = list[float | None]


def reward_func(where: str | Path, **options: Unpack[ClientOptions]) -> ServedReward | LocalReward:
    """A reward function for TRL; `where` is a server's URL, or the folder of a reward model.

    ```python
    GRPOTrainer(..., reward_funcs=reward_func("http://127.0.0.1:8000", model="helpfulness"))
    GRPOTrainer(..., reward_funcs=reward_func("runs/llama2/models/helpfulness"))
    ```

    Raises:
        PalateError: an option is wrong, or the token or the checkpoint is not there.
    """
    if str(where).startswith(("http://", "https://")):
        return ServedReward(str(where), **options)
    if options:
        raise PalateError(f"reward_func: {min(options)} is for a server; {where} is a folder")
    return LocalReward(Path(where))


def async_reward_func(url: str, **options: Unpack[ClientOptions]) -> AsyncServedReward:
    """As `reward_func` of a server, awaited: TRL asks it and other such functions at once."""
    return AsyncServedReward(url, **options)


class ServedReward:
    """A server's raw rewards. Sent to another process, it opens a client of its own there."""

    def __init__(self, url: str, **options: Unpack[ClientOptions]) -> None:
        """Raises `PalateError` where an option is wrong or the token is not there."""
        self.client = RewardClient(url, **options)
        self._remade = partial(type(self), url, **options)
        self.__name__ = options.get("model") or "palate"

    def __reduce__(self) -> Any:
        return self._remade, ()

    def __call__(
        self, prompts: Sequence[Prompt], completions: Sequence[Completion], **columns: Any
    ) -> Rewards:
        rows = rows_of(prompts, completions)
        scores = self.client.score(_present(rows), safety=_safety(rows, columns))
        return _placed(rows, scores)


class AsyncServedReward:
    """`ServedReward`, to be awaited."""

    def __init__(self, url: str, **options: Unpack[ClientOptions]) -> None:
        """Raises `PalateError` where an option is wrong or the token is not there."""
        self.client = AsyncRewardClient(url, **options)
        self._remade = partial(type(self), url, **options)
        self.__name__ = options.get("model") or "palate"

    def __reduce__(self) -> Any:
        return self._remade, ()

    async def __call__(
        self, prompts: Sequence[Prompt], completions: Sequence[Completion], **columns: Any
    ) -> Rewards:
        rows = rows_of(prompts, completions)
        scores = await self.client.score(_present(rows), safety=_safety(rows, columns))
        return _placed(rows, scores)


class LocalReward:
    """A checkpoint's raw rewards, by the shared-prefix engine in this process."""

    def __init__(self, folder: Path) -> None:
        """Raises `PalateError` where there is no reward model in `folder`."""
        # torch, which a server's client does without.
        from palate.judges.reward_model import RewardScorer

        self._folder, self._scorer = folder, RewardScorer(folder)
        self.__name__ = folder.name

    def __reduce__(self) -> Any:
        return type(self), (self._folder,)

    def __call__(
        self, prompts: Sequence[Prompt], completions: Sequence[Completion], **_columns: Any
    ) -> Rewards:
        rows = rows_of(prompts, completions)
        scores = self._scorer.score(_candidates(row) for row in _present(rows))
        return _placed(rows, [score for (score,) in scores])


def rows_of(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Row | None]:
    """What TRL gives as rows; None where a completion cannot be read.

    That is one that ends in no assistant's text, or has content beside its text (calls of tools).
    A prompt of text is one user turn, or the turns that are marked in it. Of a completion of
    several turns the last is the response and those before it are part of the prompt.
    """
    return [_row(*pair) for pair in zip(prompts, completions, strict=True)]


def _row(prompt: Prompt, completion: Completion) -> Row | None:
    if isinstance(completion, str):
        return prompt, completion
    last = completion[-1] if completion else {}
    if last.get("role") != "assistant" or last.get("content") is None:
        return None
    if any(map(more_than_text, completion)):
        return None
    return (*turns(prompt), *completion[:-1]), last["content"]


def _present(rows: Sequence[Row | None]) -> list[Row]:
    return [row for row in rows if row is not None]


def _safety(rows: Sequence[Row | None], columns: Mapping[str, Any]) -> list[bool | None] | None:
    """What the column `safety_prompt` says of the rows that are present, where there is one."""
    flags = columns.get("safety_prompt")
    if flags is None:
        return None
    return [flag for row, flag in zip(rows, flags, strict=True) if row is not None]


def _placed(rows: Sequence[Row | None], scores: Sequence[Score]) -> Rewards:
    left = iter(scores)
    return [None if row is None else next(left).value for row in rows]


def _candidates(row: Row) -> Candidates:
    prompt, response = conversation(*row)
    return Candidates(prompt, (response,))
