"""The application, its health for machines, and the server from start to drained stop."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from types import FrameType

import numpy as np
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from palate import __version__
from palate.serve.auth import Tokens
from palate.serve.engine import Engine, ScoreRequest
from palate.serve.errors import SHAPE, RequestError, explain_body, invalid
from palate.serve.metrics import Telemetry
from palate.serve.middleware import RequestMiddleware, ServerState
from palate.serve.protocols import PROTOCOLS
from palate.serve.service import Registry, RewardService, rewards_from
from palate.serve.settings import Settings
from palate.types import PalateError

DESCRIPTION = """Rewards of responses, in the shapes that trainers and rankers already speak.
The raw reward comes back unless a protocol's own default is another."""
GUIDE = (
    "docs/serve.md beside Palate's source: shapes, fields, limits; `palate serve --help`: options"
)
UNTRACED = frozenset({"/health", "/ready", "/metrics"})
STATUSES = (400, 401, 404, 408, 413, 421, 422, 429, 500, 503, 504)


class ErrorBody(BaseModel):
    """`type` is one word for programs, `message` one line for people."""

    message: str
    type: str
    code: int


class ErrorAnswer(BaseModel):
    """An error as OpenAI's clients read it; TEI's paths answer `{error, error_type}`."""

    error: ErrorBody | str
    error_type: str | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """What is served and how: everything that an application is made of."""

    models: Registry
    engines: Sequence[Engine]
    settings: Settings = field(default_factory=Settings)
    tokens: Tokens | None = None
    state: ServerState = field(default_factory=ServerState)
    telemetry: Telemetry = field(default_factory=Telemetry)


def create_app(server: Server) -> ASGIApp:
    """The ASGI application of `server`, whose engines `serve` starts and stops."""
    app = FastAPI(
        title="Palate",
        version=__version__,
        description=DESCRIPTION,
        responses={status: {"model": ErrorAnswer} for status in STATUSES},
        docs_url=None,  # Its page loads scripts from elsewhere.
        redoc_url=None,
        telemetry={
            "tracing": server.settings.trace,
            "exclude": lambda scope: scope["path"] in UNTRACED,
            "operation_spans": False,
            "metrics": False,
            "logs": False,  # They quote what was wrong in a body.
            "auto_configure": False,
        },
    )
    service = RewardService(server.models, server.settings.limits, server.telemetry)
    for router in PROTOCOLS:
        app.include_router(router(service))
    _add_operation_paths(app, server)
    app.add_exception_handler(RequestError, _refused)
    app.add_exception_handler(RequestValidationError, _unreadable)
    app.add_exception_handler(HTTPException, _http_error)
    server.telemetry.watch(server.engines)
    return RequestMiddleware(
        app,
        settings=server.settings,
        telemetry=server.telemetry,
        state=server.state,
        tokens=server.tokens,
        paths=frozenset(app.openapi()["paths"]),
    )


class About(BaseModel):
    """What answers here, and where it is described."""

    name: str
    version: str
    about: str
    models: list[str]
    shapes: dict[str, str]
    docs: dict[str, str]


def _add_operation_paths(app: FastAPI, server: Server) -> None:
    @app.get("/", tags=["operation"])
    async def about() -> About:
        """What this server is, and where its documents are."""
        operations = app.openapi()["paths"].items()
        return About(
            name="Palate",
            version=__version__,
            about=DESCRIPTION,
            models=[served.name for served in server.models],
            shapes={
                f"POST {path}": methods["post"]["description"].splitlines()[0]
                for path, methods in operations
                if "post" in methods
            },
            docs={"every path and field": "/openapi.json", "models": "/v1/models", "guide": GUIDE},
        )

    @app.get("/health", tags=["operation"])
    async def health() -> dict[str, str]:
        """Whether the process lives; needs no token."""
        return {"status": "ok"}

    @app.get("/ready", tags=["operation"])
    async def ready() -> dict[str, str]:
        """Whether requests should be sent here: 503 from SIGTERM on; needs no token."""
        if server.state.leaving:
            raise RequestError(
                HTTPStatus.SERVICE_UNAVAILABLE, "closing", "the server is shutting down"
            )
        if not all(engine.ready for engine in server.engines):
            raise RequestError(
                HTTPStatus.SERVICE_UNAVAILABLE, "loading", "a model is not loaded yet"
            )
        return {"status": "ready"}

    @app.get("/metrics", tags=["operation"], response_class=Response)
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(server.telemetry.page(), media_type=CONTENT_TYPE_LATEST)


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestError)
    return error.response(request.scope)


async def _unreadable(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    if isinstance(error.body, dict) and "texts" in error.body:
        request.scope[SHAPE] = "tei"
    return invalid(explain_body(error.errors())).response(request.scope)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    refusal = RequestError(error.status_code, "invalid_request", str(error.detail))
    response = refusal.response(request.scope)
    response.headers.update(error.headers or {})
    return response


# From start to a stop that loses nothing: uvicorn with a drain before it closes.

LOG = logging.getLogger("palate.serve")
POLL_SECONDS = 0.05
HANDOVER_SECONDS = 1.0  # In which a connection that was accepted sends its request.


def check_exposure(settings: Settings) -> None:
    """Raises `PalateError` where everybody on the network could ask without a token."""
    if settings.loopback or settings.tokens or settings.without_token:
        return
    raise PalateError(
        f"--host {settings.host}: others can reach it, and no token is asked for; give --tokens "
        "FILE (palate tokens add NAME), or say --without-token"
    )


def listen(settings: Settings) -> socket.socket:
    """A socket at the address of `settings`; raises `PalateError` where it cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # With the protocol named: asyncio turns Nagle's algorithm off only where it reads TCP there,
    # and with it on every answer waits 40 ms for the client's delayed acknowledgement.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as error:
        listening.close()
        reason = error.strerror or error
        raise PalateError(
            f"{settings.host}:{settings.port}: cannot listen there ({reason}); choose another "
            "--host or --port"
        ) from None
    return listening


PASSED_FD = 3  # The first that systemd's protocol passes (sd_listen_fds(3)).


def passed_socket() -> socket.socket | None:
    """The listening socket that whoever started this process passed to it, by systemd's protocol.

    Another process may hold the same socket: connections wait in one queue, and whoever is there
    takes them. So one server can take over from another without a request that finds no one.

    Raises:
        PalateError: more than one socket, or one that is not of TCP.
    """
    count, process = os.environ.pop("LISTEN_FDS", ""), os.environ.pop("LISTEN_PID", "")
    if not count or process != str(os.getpid()):
        return None
    os.environ.pop("LISTEN_FDNAMES", None)
    if count != "1":
        raise PalateError(f"LISTEN_FDS={count[:8]}: expected one socket; pass one listening socket")
    try:
        passed = socket.socket(fileno=PASSED_FD)
    except OSError as error:
        raise PalateError(
            f"LISTEN_FDS=1: file descriptor {PASSED_FD} is no socket ({error.strerror})"
        ) from None
    if passed.family not in (socket.AF_INET, socket.AF_INET6) or not passed.getsockopt(
        socket.SOL_SOCKET, socket.SO_ACCEPTCONN
    ):
        passed.close()
        raise PalateError("LISTEN_FDS=1: expected a TCP socket that listens")
    passed.set_inheritable(False)  # The processes of --workers have no use for it.
    return passed


def notify(state: str) -> None:
    """Tell systemd, where it listens (`Type=notify`), that the server is ready or stops."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor, suppress(OSError):
        supervisor.sendto(state.encode(), address.replace("@", "\0", 1))


def run(server: Server, listening: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal stops at once."""
    asyncio.run(serve(server, listening, asyncio.Event()))


async def serve(server: Server, listening: socket.socket, leaving: asyncio.Event) -> None:
    """Start the engines and serve on `listening` until a signal or `leaving`, then drain.

    Raises:
        PalateError: a model that gives no number; it must not become ready.
    """
    try:
        for engine in server.engines:
            engine.start()
        for served in server.models:
            terminal = np.array([served.reader.chat.terminal_id], np.int32)
            try:
                await rewards_from(served, ScoreRequest((terminal,)))
            except RequestError as error:
                raise PalateError(f"{served.name}: cannot be served: {error.message}") from None
        await _serve_http(server, listening, leaving)
    finally:
        listening.close()
        for engine in server.engines:
            await engine.drain(server.settings.drain_seconds)
        for served in server.models:
            served.reader.close()


async def _serve_http(server: Server, listening: socket.socket, leaving: asyncio.Event) -> None:
    settings = server.settings
    config = uvicorn.Config(
        create_app(server),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=math.ceil(settings.drain_seconds) + 1,
        lifespan="off",
        ws="none",
    )
    # Its lines hold addresses as clients wrote them; ours hold the names of routes.
    logging.getLogger("uvicorn.access").disabled = True
    running, loop = uvicorn.Server(config), asyncio.get_running_loop()

    def stop(sig: int, frame: FrameType | None) -> None:  # noqa: ARG001 - uvicorn's names.
        if leaving.is_set() or not running.started:
            running.should_exit = running.force_exit = True
        loop.call_soon_threadsafe(leaving.set)

    running.handle_exit = stop  # type: ignore[method-assign]
    leave = asyncio.create_task(_leave(running, server.state, settings, leaving))
    announce = asyncio.create_task(_announce(running, listening, [m.name for m in server.models]))
    try:
        await running.serve(sockets=[listening])
    finally:
        leave.cancel()
        announce.cancel()


async def _announce(running: uvicorn.Server, listening: socket.socket, names: list[str]) -> None:
    while not running.started:
        await asyncio.sleep(POLL_SECONDS)
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    LOG.info("ready at http://%s:%d: %s", shown, port, ", ".join(names))
    notify("READY=1")


async def _leave(
    running: uvicorn.Server, state: ServerState, settings: Settings, leaving: asyncio.Event
) -> None:
    """After `leaving`: refer others away, take no more, wait for what was accepted, close."""
    await leaving.wait()
    LOG.info("leaving: %d requests under way", state.under_way)
    notify("STOPPING=1")
    state.leaving = True
    if settings.socket_was_passed:
        # Whoever else holds the socket takes the connections that come from now on, and those
        # that wait in its queue. Those taken here may not have said yet what they want.
        for server in running.servers:
            server.close()
    least = HANDOVER_SECONDS if settings.socket_was_passed else 0.0
    await asyncio.sleep(max(settings.grace_seconds, least))
    state.closed = True
    try:
        async with asyncio.timeout(settings.drain_seconds):
            while state.under_way:
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        LOG.error("leaving %d requests unanswered after the drain", state.under_way)
    running.should_exit = True
