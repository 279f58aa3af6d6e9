"""Asking a server over HTTP: its address, its key, when to try again, what its errors say.

`RewardClient`, the endpoint judge and the chat judge all ask by these rules:

- Tried again is what may pass: a status of `TRANSIENT_STATUSES`, a timeout, a connection that is
  refused or breaks. Whatever else an answer says is its reader's to judge, at once.
- `Retry` pauses between the tries. The pause doubles from `backoff_seconds`, up to half of it less
  at random so that clients spread; it is no shorter than the server's `Retry-After` and no longer
  than `longest_wait_seconds`.
- A key comes from an environment variable and is in no message, log or `repr`.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
)

from palate.types import PalateError

# The server's fault, or its load. 409 and 424 are a lock and a model behind the server that fails.
NOT_SERVED = frozenset({501, 505})  # What a server cannot do it will not do later either.
TRANSIENT_STATUSES = frozenset({408, 409, 424, 425, 429, *range(500, 600)}) - NOT_SERVED
REDACTED = "***"
T = TypeVar("T")


class TransientError(Exception):
    """A fault that may pass: what happened, on one line without the key.

    `answer_lost`: the request went out and an answer may have been made, and billed, all the same.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after_seconds: float | None = None,
        answer_lost: bool = False,
    ) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.answer_lost = answer_lost


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a request is sent before its fault counts as one that stays, and the pauses."""

    attempts: int
    backoff_seconds: float
    longest_wait_seconds: float

    def call(self, send: Callable[[], T], stop: threading.Event) -> T:
        """What `send` returns, once it raises no `TransientError`.

        Raises:
            TransientError: that of the last attempt.
            CancelledError: `stop` was set, before an attempt or during a pause.
        """

        def attempt() -> T:
            if stop.is_set():
                raise CancelledError
            return send()

        def pause(seconds: float) -> None:
            stop.wait(seconds)  # Ends early when it is set, and the next attempt then raises.

        return Retrying(**self._rule, sleep=pause)(attempt)

    async def call_async(
        self,
        send: Callable[[], Awaitable[T]],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> T:
        """As `call`, for a coroutine function; a task that awaits it is cancelled as any is."""
        return await AsyncRetrying(**self._rule, sleep=sleep)(send)

    @property
    def _rule(self) -> dict[str, Any]:
        return {
            "retry": retry_if_exception_type(TransientError),
            "stop": stop_after_attempt(self.attempts),
            "wait": self._wait,
            "reraise": True,
        }

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome and state.outcome.exception()
        assert isinstance(error, TransientError)
        return self.pause_seconds(state.attempt_number, error)

    def pause_seconds(self, attempt: int, error: TransientError) -> float:
        """How long to wait after the given attempt, the first being 1, failed with `error`."""
        doubled = self.backoff_seconds * 2.0 ** (attempt - 1)
        pause = max(doubled * random.uniform(0.5, 1.0), error.retry_after_seconds or 0.0)
        return min(pause, self.longest_wait_seconds)


@dataclass(frozen=True, slots=True)
class Server:
    """An address to post JSON to, and the key it wants ("": none)."""

    url: str
    key: str = field(repr=False)
    timeout_seconds: float
    connections: int

    @property
    def client_options(self) -> dict[str, Any]:
        """For `httpx2.Client` or `AsyncClient`; waiting for a free connection has no limit."""
        bearer = {"authorization": f"Bearer {self.key}"} if self.key else {}
        return {
            "headers": {"content-type": "application/json", **bearer},
            "timeout": httpx2.Timeout(self.timeout_seconds, pool=None),
            "limits": httpx2.Limits(max_connections=self.connections),
        }

    def post(
        self, client: httpx2.Client, content: bytes, headers: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        """One try; raises `TransientError` where there is no answer, or one that says try later."""
        with self.connection_errors():
            response = client.post(self.url, content=content, headers=headers)
        self.check_status(response)
        return response

    async def post_async(
        self, client: httpx2.AsyncClient, content: bytes, headers: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        """As `post`."""
        with self.connection_errors():
            response = await client.post(self.url, content=content, headers=headers)
        self.check_status(response)
        return response

    @contextmanager
    def connection_errors(self) -> Generator[None]:
        """Raise those of the network as `TransientError`."""
        try:
            yield
        except httpx2.RequestError as error:
            match error:
                case httpx2.TimeoutException():
                    event = "gives no answer in time"
                case httpx2.ConnectError() | httpx2.ProxyError():
                    event = "cannot be reached"
                case _:
                    event = "breaks the connection"
            unsent = (
                httpx2.ConnectError,
                httpx2.ConnectTimeout,
                httpx2.PoolTimeout,
                httpx2.ProxyError,
            )
            raise TransientError(
                f"{event} ({type(error).__name__}: {one_line(str(error), self.key)})",
                answer_lost=not isinstance(error, unsent),
            ) from None

    def check_status(self, response: httpx2.Response) -> None:
        """Raise `TransientError` where the status is one that may pass."""
        if response.status_code in TRANSIENT_STATUSES:
            raise TransientError(
                self.status_line(response), retry_after_seconds=retry_after(response.headers)
            )

    def status_line(self, response: httpx2.Response) -> str:
        """The status and the words of an error."""
        return f"answers {response.status_code} ({error_line(response, self.key)})"


def address(url: str) -> str:
    """A server's address without a slash at its end; ValueError where it is none or holds a key."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError("expected http://HOST:PORT or https://HOST")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(
            "expected no user, password or query in an address; put a key into an "
            "environment variable and name it in key_env"
        )
    return url.rstrip("/")


def bearer_key(variable: str, who: str, url: str) -> str:
    """The key that an environment variable holds; `PalateError` where it holds none."""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise PalateError(
            f"{who}: environment variable {variable} is not set; export the key of {url} in it, "
            "or name another variable: key_env"
        )
    # A header cannot hold it, and the client's own error would quote it.
    if not all("!" <= character <= "~" for character in key):
        raise PalateError(
            f"{who}: environment variable {variable} holds a space, a line break or another "
            "character that no header can hold; export one bare key in it"
        )
    return key


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds of a `Retry-After` header, a number or a date; None where it has neither."""
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"-?\d{1,9}(\.\d*)?", value):
        return max(0.0, float(value))
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


def error_line(response: httpx2.Response, key: str = "", *, max_characters: int = 160) -> str:
    """What the body of an error says, with its code if that is a word, in one line without the key.

    Read are OpenAI's form (`error.code`, `error.message`), TEI's (`error`), FastAPI's (`detail`).
    """
    code = ""
    try:
        message = response.json()
        while isinstance(message, dict):
            code = message.get("code") or code
            message = next(
                (message[k] for k in ("error", "message", "detail") if message.get(k)), ""
            )
    except (ValueError, RecursionError):
        message = response.text
    text = f"{code}: {message}" if code and isinstance(code, str) else str(message)
    return one_line(text, key, max_characters) or response.reason_phrase


def one_line(text: str, key: str = "", max_characters: int = 160) -> str:
    """The beginning of `text` on one line, without the key: half a key is one too."""
    line = " ".join(text.split())
    return (line.replace(key, REDACTED) if key else line)[:max_characters]
