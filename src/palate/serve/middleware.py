"""The door of the server: who asks, how much, how fast, and whether it is still open."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
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
        shift: ServerState,
        tokens: Tokens | None,
        paths: frozenset[str],
    ) -> None:
        """`paths` are those of the application: any other is a client's text, and never written."""
        self._app, self._settings, self._limits = app, settings, settings.limits
        self._paths = paths
        self._telemetry, self._shift, self._tokens = telemetry, shift, tokens
        self._allowance = TokenBucket(settings.limits.requests_per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        visit = _Visit(scope, send, self._telemetry.clock())
        self._shift.under_way += 1
        self._telemetry.under_way.inc()
        try:
            await self._answered(visit, receive)
        finally:
            self._shift.under_way -= 1
            self._telemetry.under_way.dec()
            visit.note(self._telemetry, scope["path"] if scope["path"] in self._paths else OTHER)

    async def _answered(self, visit: _Visit, receive: Receive) -> None:
        try:
            body = await self._admitted(visit.scope, visit.headers, receive)
            visit.close = self._shift.leaving
            await self._app(visit.scope, _again(body, receive), visit.send)
        except RequestError as fault:
            await visit.refuse(fault)
        except Exception as error:
            # Without its message, which may quote a client's text.
            LOG.error("request=%s %s at %s", visit.id, type(error).__name__, _where(error))
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            await visit.refuse(RequestError(status, "internal", "the server failed"))

    async def _admitted(self, scope: Scope, headers: Headers, receive: Receive) -> bytes:
        if scope["path"] in TEI_PATHS:
            scope[SHAPE] = "tei"
        self._check_host(headers)
        scope[CLIENT] = self._client(scope, headers)
        if scope["method"] != "POST":
            return b""
        if self._shift.closed:
            raise closing()
        if self._shift.under_way > self._limits.requests_at_once:
            raise overloaded("too many requests at once", 1.0)
        if wait := self._allowance.wait_seconds(scope[CLIENT], 1.0):
            raise overloaded("over the requests a minute of one client", wait)
        return await self._body(headers, receive)

    def _check_host(self, headers: Headers) -> None:
        """On loopback, refuse what a web page sent under a name of its own (DNS rebinding)."""
        host = re.sub(r":\d+$", "", headers.get("host", ""))
        if self._settings.loopback and self._tokens is None and host not in LOOPBACK_NAMES:
            raise RequestError(
                HTTPStatus.MISDIRECTED_REQUEST, "host", "expected the host to be localhost"
            )

    def _client(self, scope: Scope, headers: Headers) -> str:
        if self._tokens is None or scope["path"] in OPEN:
            return str(scope["client"][0]) if scope.get("client") else "local"
        holder = self._tokens.holder(headers.get("authorization", ""))
        if holder is None:
            raise RequestError(HTTPStatus.UNAUTHORIZED, "unauthorized", "expected a bearer token")
        return holder

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        most = self._limits.body_bytes
        message = f"a body may have {most} bytes"
        if _length(headers) > most:
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


class _Visit:
    """One request from its arrival to its log line."""

    def __init__(self, scope: Scope, send: Send, started: float) -> None:
        self.scope, self.headers = scope, Headers(scope=scope)
        self._send, self._started = send, started
        wanted = self.headers.get("x-request-id", "")
        self.id = wanted if REQUEST_ID.fullmatch(wanted) else uuid.uuid4().hex
        self.status, self.close = 0, True  # Until the body is read, the connection is unusable.
        scope[STATS], scope[CLIENT] = RequestStats(), ""
        scope.setdefault("state", {})["request_id"] = self.id

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.id
            headers["x-content-type-options"] = "nosniff"
            if stats := self.scope[STATS]:
                headers[TRUNCATED] = str(stats.truncated)
                if stats.unframed:
                    headers[UNFRAMED] = str(stats.unframed)
            if self.close:
                headers["connection"] = "close"
        await self._send(message)

    async def refuse(self, fault: RequestError) -> None:
        """Answer with a fault, unless an answer has begun."""
        if not self.status:
            response = fault.response(self.scope)
            await response(self.scope, _nothing, self.send)

    def note(self, telemetry: Telemetry, path: str) -> None:
        """Count the request, and write its line."""
        seconds = telemetry.clock() - self._started
        telemetry.answered(path, self.status, seconds)
        stats: RequestStats = self.scope[STATS]
        LOG.log(
            logging.DEBUG if path in OPEN else logging.INFO,
            "request=%s client=%s %s %s %d %.1fms model=%s conversations=%d tokens=%d truncated=%d",
            *(self.id, self.scope[CLIENT] or "-", self.scope["method"], path, self.status),
            *(1e3 * seconds, stats.model or "-", stats.conversations, stats.tokens),
            stats.truncated,
        )


def _again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read, then whatever comes after it."""
    left = [body]

    async def received() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return received


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


def _length(headers: Headers) -> int:
    stated = headers.get("content-length", "")
    return int(stated) if re.fullmatch(r"\d{1,18}", stated) else 0


def _where(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__ or sys.exc_info()[2])
    return " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames[-4:]))
