"""Rewards from a Palate server: `RewardClient` for threads, `AsyncRewardClient` for tasks.

Requests and answers are `client.requests`, retries `palate.http`, reward functions `client.trl`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import partial
from typing import Self, Unpack

import httpx2

from palate.client.requests import (
    ClientOptions,
    Item,
    Prompt,
    Request,
    RewardProtocol,
    Row,
    batches,
    parse_options,
    single_reward,
)
from palate.http import TransientError
from palate.types import Score

__all__ = [
    "AsyncRewardClient",
    "Prompt",
    "RewardClient",
    "Row",
]


class RewardClient:
    """Rewards from a Palate server, from any number of threads.

    ```python
    with palate.RewardClient("http://127.0.0.1:8000", model="helpfulness") as client:
        client.reward("How do I bake bread?", "Mix flour, water, salt and yeast.")
        client.rewards("How do I bake bread?", ["Mix flour.", "I cannot help with that."])
        client.score([(prompt, response), ...])  # many rows, in bounded requests
    ```

    A prompt is a user's turn as text, or all turns before the response. The bearer token is read
    from PALATE_TOKEN. Passing troubles (429, 5xx, no connection) are waited for, as long as
    `Retry-After` asks and `attempts` allows.
    """

    def __init__(self, url: str, **options: Unpack[ClientOptions]) -> None:
        """Raises `PalateError` where an option is wrong or the token is not there."""
        self._protocol = RewardProtocol(parse_options(url, options))
        self._http = httpx2.Client(**self._protocol.server.client_options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connections, when no request is under way."""
        self._http.close()

    def reward(self, prompt: Prompt, response: str, *, safety: bool | None = None) -> float:
        """The raw reward of one response; raises `PalateError` where it has none."""
        return single_reward(self.score([(prompt, response)], safety=[safety]))

    def rewards(
        self, prompt: Prompt, responses: Sequence[str], *, safety: bool | None = None
    ) -> list[float | None]:
        """Raw rewards of one prompt's responses; None where one has none."""
        rows = ((prompt, response) for response in responses)
        return [score.value for score in self.score(rows, safety=[safety] * len(responses))]

    def score(
        self, rows: Iterable[Row], *, safety: Iterable[bool | None] | None = None
    ) -> list[Score]:
        """A score for each (prompt, response), in order: a raw reward, or why there is none.

        `safety` says of each row's prompt whether it is about safety, for a combined reward.

        Raises:
            PalateError: the server cannot be reached, refuses, or serves another model than before.
        """
        options, stop = self._protocol.options, threading.Event()
        requests = list(batches(rows, safety, options))
        if len(requests) == 1:
            return self._score(requests[0], stop)
        pool = ThreadPoolExecutor(options.concurrency, "palate-client")
        try:
            futures = [pool.submit(self._score, items, stop) for items in requests]
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()  # Raises what one request met while others are still waiting.
            return [score for future in futures for score in future.result()]
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)

    def _score(self, items: Sequence[Item], stop: threading.Event) -> list[Score]:
        """Scores of one request, or of the smaller ones that it is split into."""
        server, retry = self._protocol.server, self._protocol.retry
        steps = self._protocol.scores(items)
        request = next(steps)
        while True:
            try:
                response = retry.call(partial(server.post, self._http, *request), stop)
            except TransientError as error:
                raise self._protocol.unavailable(error) from None
            try:
                request = steps.send(response)
            except StopIteration as finished:
                return list(finished.value)


class AsyncRewardClient:
    """`RewardClient` for asynchronous code: the same options and methods, to be awaited.

    ```python
    async with palate.AsyncRewardClient("http://127.0.0.1:8000") as client:
        rewards = await client.rewards("How do I bake bread?", ["Mix flour.", "No."])
    ```

    One client is used in one event loop. At most `concurrency` requests of all its callers are
    under way at once; a cancelled caller's requests end.
    """

    def __init__(self, url: str, **options: Unpack[ClientOptions]) -> None:
        """Raises `PalateError` where an option is wrong or the token is not there."""
        self._protocol = RewardProtocol(parse_options(url, options))
        self._http = httpx2.AsyncClient(**self._protocol.server.client_options)
        self._slots = asyncio.Semaphore(self._protocol.options.concurrency)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connections, when no request is under way."""
        await self._http.aclose()

    async def reward(self, prompt: Prompt, response: str, *, safety: bool | None = None) -> float:
        """The raw reward of one response; raises `PalateError` where it has none."""
        return single_reward(await self.score([(prompt, response)], safety=[safety]))

    async def rewards(
        self, prompt: Prompt, responses: Sequence[str], *, safety: bool | None = None
    ) -> list[float | None]:
        """Raw rewards of one prompt's responses; None where one has none."""
        rows = ((prompt, response) for response in responses)
        return [score.value for score in await self.score(rows, safety=[safety] * len(responses))]

    async def score(
        self, rows: Iterable[Row], *, safety: Iterable[bool | None] | None = None
    ) -> list[Score]:
        """A score for each (prompt, response), in order: a raw reward, or why there is none.

        `safety` says of each row's prompt whether it is about safety, for a combined reward.

        Raises:
            PalateError: the server cannot be reached, refuses, or serves another model than before.
        """
        requests = batches(rows, safety, self._protocol.options)
        tasks = [asyncio.create_task(self._score(items)) for items in requests]
        try:
            return [score for scores in await asyncio.gather(*tasks) for score in scores]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _score(self, items: Sequence[Item]) -> list[Score]:
        steps = self._protocol.scores(items)
        request = next(steps)
        while True:
            try:
                response = await self._protocol.retry.call_async(partial(self._post, request))
            except TransientError as error:
                raise self._protocol.unavailable(error) from None
            try:
                request = steps.send(response)
            except StopIteration as finished:
                return list(finished.value)

    async def _post(self, request: Request) -> httpx2.Response:
        async with self._slots:
            return await self._protocol.server.post_async(self._http, *request)
