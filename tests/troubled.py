"""Rows to ask for, and an application that meets its requests with troubles first."""

import asyncio
import threading
from collections.abc import Callable

from palate.types import Message

ROWS = [
    ("How do I bake bread?", "Mix flour, water, salt and yeast."),
    ("How do I bake bread?", "I cannot help you with that."),
    ([{"role": "user", "content": "What is the capital of France?"}], "Paris."),
    (
        [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "What is the sea?"},
            {"role": "assistant", "content": "Wide and deep."},
            {"role": "user", "content": "And blue?"},
        ],
        "The sea is blue.",
    ),
    ("How do I bake bread?", "Mix flour, water, salt and yeast."),
    ("Thank you!", ""),
]


def messages(prompt):
    if isinstance(prompt, str):
        return (Message("user", prompt),)
    return tuple(Message(turn["role"], turn["content"]) for turn in prompt)


HANG_UP, HOLD = 0, 1
SIX_BYTES = [(b"content-length", b"6")]


class Troubled:
    """Stands before `app`: a request meets a fault first, where `fault(number)` gives a status.

    `HANG_UP` for a status ends the connection in the midst of an answer, `HOLD` holds the request
    until the client ends it. `most` is how many were under way at once; `gather` makes each wait
    until so many are.
    """

    def __init__(self, fault: Callable[[int], int | None], gather: int) -> None:
        self.app, self._fault = None, fault
        self._barrier = asyncio.Barrier(gather) if gather else None
        self.requests = self.now = self.most = 0
        self.held, self.gone = threading.Event(), threading.Event()

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        number, self.requests = self.requests, self.requests + 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if self._barrier:
                await self._barrier.wait()
            status = self._fault(number)
            if status is None:
                await self.app(scope, receive, send)
            elif status == HANG_UP:
                await send({"type": "http.response.start", "status": 200, "headers": SIX_BYTES})
                await send({"type": "http.response.body", "body": b"{", "more_body": True})
            elif status == HOLD:
                self.held.set()
                while (await receive())["type"] != "http.disconnect":
                    pass
                self.gone.set()
            else:
                headers = [(b"content-length", b"0"), (b"retry-after", b"0")]
                await send({"type": "http.response.start", "status": status, "headers": headers})
                await send({"type": "http.response.body"})
        finally:
            self.now -= 1
        return None
