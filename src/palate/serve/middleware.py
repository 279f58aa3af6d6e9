"""Around every request: who sends it, how much, how fast, whether the server is still open."""

from __future__ import annotations

import asyncio
import logging
import re
import traceback
import uuid
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from palate.serve.auth import Tokens
from palate.serve.errors import CLIENT_GONE, SHAPE, RequestError, overloaded, too_large
from palate.serve.metrics import LOG, Telemetry
from palate.serve.service import CLIENT, STATS, TRUNCATED, UNFRAMED, RequestStats, closing
from palate.serve.settings import LOOPBACK_NAMES, Settings, TokenBucket

OPEN = frozenset({"/health", "/ready"})  # A load balancer has no token.
TEI_PATHS = frozenset({"/predict", "/info"})
REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
OTHER = "other"


@dataclass(slots=True)
class ServerState:
    """How far the server is from its end: `leaving` refers others away, `closed` takes no more."""

    leaving: bool = False
    closed: bool = False
    under_way: int = 0


class RequestMiddleware:
    """Lets requests in with their whole body, and sees to it that each is answered and logged."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: Settings,
        telemetry: Telemetry,
        state: ServerState,
        tokens: Tokens | None,
        paths: frozenset[str],
    ) -> None:
        """`paths` are those of the application: any other is a client's text, and never written."""
        self._app, self._settings, self._limits = app, settings, settings.limits
        self._paths = paths
        self._telemetry, self._state, self._tokens = telemetry, state, tokens
        self._requests_per_minute = TokenBucket(settings.limits.requests_per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, send, self._telemetry.clock())
        self._state.under_way += 1
        self._telemetry.under_way.inc()
        try:
            body = await self._admit(scope, exchange.headers, receive)
            exchange.close = self._state.leaving
            await self._app(scope, _with_body(body, receive), exchange.send)
        except RequestError as error:
            await exchange.refuse(error)
        except Exception as error:
            # Without its message, which may quote a client's text.
            frames = reversed(traceback.extract_tb(error.__traceback__)[-4:])
            where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
            LOG.error("request=%s %s at %s", exchange.id, type(error).__name__, where)
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            await exchange.refuse(RequestError(status, "internal", "the server failed"))
        finally:
            self._state.under_way -= 1
            self._telemetry.under_way.dec()
            exchange.log(self._telemetry, scope["path"] if scope["path"] in self._paths else OTHER)

    async def _admit(self, scope: Scope, headers: Headers, receive: Receive) -> bytes:
        """The body of a request that may come in; raises `RequestError` for any other."""
        if scope["path"] in TEI_PATHS:
            scope[SHAPE] = "tei"
        # On loopback, refuse what a web page sent under a name of its own (DNS rebinding).
        host = re.sub(r":\d+$", "", headers.get("host", ""))
        if self._settings.loopback and self._tokens is None and host not in LOOPBACK_NAMES:
            raise RequestError(
                HTTPStatus.MISDIRECTED_REQUEST, "host", "expected the host to be localhost"
            )
        if self._tokens is None or scope["path"] in OPEN:
            scope[CLIENT] = str(scope["client"][0]) if scope.get("client") else "local"
        elif holder := self._tokens.holder(headers.get("authorization", "")):
            scope[CLIENT] = holder
        else:
            raise RequestError(HTTPStatus.UNAUTHORIZED, "unauthorized", "expected a bearer token")
        if scope["method"] != "POST":
            return b""
        if self._state.closed:
            raise closing()
        if self._state.under_way > self._limits.requests_at_once:
            raise overloaded("too many requests at once", 1.0)
        if wait := self._requests_per_minute.wait_seconds(scope[CLIENT], 1.0):
            raise overloaded("over the requests a minute of one client", wait)
        return await self._body(headers, receive)

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        most = self._limits.body_bytes
        message = f"a body may have {most} bytes"
        length = headers.get("content-length", "")
        if re.fullmatch(r"\d{1,18}", length) and int(length) > most:
            raise too_large(message)
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                parts, size, more = [], 0, True
                while more:
                    part = await receive()
                    if part["type"] == "http.disconnect":
                        raise RequestError(CLIENT_GONE, "client_gone", "the client hung up")
                    parts.append(part.get("body", b""))
                    size, more = size + len(parts[-1]), part.get("more_body", False)
                    if size > most:
                        raise too_large(message)
                return b"".join(parts)
        except TimeoutError:
            slow = f"the body did not arrive in {self._limits.body_seconds:g} s"
            raise RequestError(HTTPStatus.REQUEST_TIMEOUT, "slow_body", slow) from None


class _Exchange:
    """One request from its arrival to its log line."""

    def __init__(self, scope: Scope, send: Send, started: float) -> None:
        self.scope, self.headers = scope, Headers(scope=scope)
        self._send, self._started = send, started
        wanted = self.headers.get("x-request-id", "")
        self.id = wanted if REQUEST_ID.fullmatch(wanted) else uuid.uuid4().hex
        self.status, self.close = 0, True  # Until the body is read, the connection is unusable.
        self.stats = scope[STATS] = RequestStats()
        scope[CLIENT] = ""
        scope.setdefault("state", {})["request_id"] = self.id

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.id
            headers["x-content-type-options"] = "nosniff"
            headers[TRUNCATED] = str(self.stats.truncated)
            if self.stats.unframed:
                headers[UNFRAMED] = str(self.stats.unframed)
            if self.close:
                headers["connection"] = "close"
        await self._send(message)

    async def refuse(self, error: RequestError) -> None:
        """Answer with an error, unless an answer has begun."""
        if not self.status:
            await error.response(self.scope)(self.scope, _disconnected, self.send)

    def log(self, telemetry: Telemetry, path: str) -> None:
        """Count the request, and write its line."""
        seconds = telemetry.clock() - self._started
        telemetry.answered(path, self.status, seconds)
        LOG.log(
            logging.DEBUG if path in OPEN else logging.INFO,
            "request=%s client=%s %s %s %d %.1fms model=%s conversations=%d tokens=%d truncated=%d",
            *(self.id, self.scope[CLIENT] or "-", self.scope["method"], path, self.status),
            *(1e3 * seconds, self.stats.model or "-", self.stats.conversations),
            *(self.stats.tokens, self.stats.truncated),
        )


def _with_body(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read, then whatever comes after it."""
    unread = [body]

    async def receive_again() -> Message:
        if unread:
            return {"type": "http.request", "body": unread.pop(), "more_body": False}
        return await receive()

    return receive_again


async def _disconnected() -> Message:
    return {"type": "http.disconnect"}
