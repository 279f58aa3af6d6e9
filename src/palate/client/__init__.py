"""The client for ordinary code: requests go out from threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Self, Unpack

import httpx2

from palate.client.requests import (
    Asking,
    Chosen,
    Prompt,
    Reply,
    Row,
    Step,
    Steps,
    Wait,
    only,
    options,
    requests,
    told,
)
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

    def __init__(self, url: str, **chosen: Unpack[Chosen]) -> None:
        """Raises `PalateError` where an option is wrong or the token is not there."""
        self._asking = Asking(options(url, chosen))
        self._http = httpx2.Client(**self._asking.http)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connections, when no request is under way."""
        self._http.close()

    def reward(self, prompt: Prompt, response: str, *, safety: bool | None = None) -> float:
        """The raw reward of one response; raises `PalateError` where it has none."""
        return only(self.score([(prompt, response)], safety=told(safety, 1)))

    def rewards(
        self, prompt: Prompt, responses: Sequence[str], *, safety: bool | None = None
    ) -> list[float | None]:
        """Raw rewards of one prompt's responses; None where one has none."""
        rows = ((prompt, response) for response in responses)
        return [score.value for score in self.score(rows, safety=told(safety, len(responses)))]

    def score(
        self, rows: Iterable[Row], *, safety: Iterable[bool | None] | None = None
    ) -> list[Score]:
        """A score for each (prompt, response), in order: a raw reward, or why there is none.

        `safety` says of each row's prompt whether it is about safety, for a combined reward.

        Raises:
            PalateError: the server cannot be reached, refuses, or serves another model than before.
        """
        walks = [
            self._asking.scores(items) for items in requests(rows, safety, self._asking.chosen)
        ]
        stop = threading.Event()
        if len(walks) == 1:
            return self._walk(walks[0], stop)
        pool = ThreadPoolExecutor(self._asking.chosen.concurrency, "palate-client")
        try:
            futures = [pool.submit(self._walk, steps, stop) for steps in walks]
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()  # Raises here, while others are still waiting, what one met.
            return [score for future in futures for score in future.result()]
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)

    def _walk(self, steps: Steps, stop: threading.Event) -> list[Score]:
        reply: Reply = None
        while True:
            try:
                step = steps.send(reply)
            except StopIteration as done:
                return list(done.value)
            reply = self._do(step, stop)

    def _do(self, step: Step, stop: threading.Event) -> Reply:
        if stop.wait(step.seconds if isinstance(step, Wait) else 0.0):
            raise CancelledError
        if isinstance(step, Wait):
            return None
        try:
            return self._http.post(self._asking.address, content=step.content, headers=step.headers)
        except httpx2.RequestError as error:
            return error


# The client for asynchronous code: requests go out from tasks.


class AsyncRewardClient:
    """`RewardClient` for asynchronous code: the same options and methods, to be awaited.

    ```python
    async with palate.AsyncRewardClient("http://127.0.0.1:8000") as client:
        rewards = await client.rewards("How do I bake bread?", ["Mix flour.", "No."])
    ```

    One client is used in one event loop. At most `concurrency` requests of all its callers are
    under way at once; a cancelled caller's requests end.
    """

    def __init__(self, url: str, **chosen: Unpack[Chosen]) -> None:
        """Raises `PalateError` where an option is wrong or the token is not there."""
        self._asking = Asking(options(url, chosen))
        self._http = httpx2.AsyncClient(**self._asking.http)
        self._gate = asyncio.Semaphore(self._asking.chosen.concurrency)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connections, when no request is under way."""
        await self._http.aclose()

    async def reward(self, prompt: Prompt, response: str, *, safety: bool | None = None) -> float:
        """The raw reward of one response; raises `PalateError` where it has none."""
        return only(await self.score([(prompt, response)], safety=told(safety, 1)))

    async def rewards(
        self, prompt: Prompt, responses: Sequence[str], *, safety: bool | None = None
    ) -> list[float | None]:
        """Raw rewards of one prompt's responses; None where one has none."""
        rows = ((prompt, response) for response in responses)
        return [
            score.value for score in await self.score(rows, safety=told(safety, len(responses)))
        ]

    async def score(
        self, rows: Iterable[Row], *, safety: Iterable[bool | None] | None = None
    ) -> list[Score]:
        """A score for each (prompt, response), in order: a raw reward, or why there is none.

        `safety` says of each row's prompt whether it is about safety, for a combined reward.

        Raises:
            PalateError: the server cannot be reached, refuses, or serves another model than before.
        """
        found = requests(rows, safety, self._asking.chosen)
        tasks = [asyncio.create_task(self._walk(self._asking.scores(items))) for items in found]
        try:
            return [score for scores in await asyncio.gather(*tasks) for score in scores]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _walk(self, steps: Steps) -> list[Score]:
        reply: Reply = None
        while True:
            try:
                step = steps.send(reply)
            except StopIteration as done:
                return list(done.value)
            reply = await self._do(step)

    async def _do(self, step: Step) -> Reply:
        if isinstance(step, Wait):
            await asyncio.sleep(step.seconds)
            return None
        async with self._gate:
            try:
                return await self._http.post(
                    self._asking.address, content=step.content, headers=step.headers
                )
            except httpx2.RequestError as error:
                return error


# Asking a Palate server for rewards: from Python, from threads or tasks, from TRL.
