"""From start to a stop that loses nothing: uvicorn with a drain before it closes the door."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from types import FrameType

import numpy as np
import uvicorn

from palate.serve.app import Server, create_app
from palate.serve.ask import Ask
from palate.serve.desk import asked
from palate.serve.faults import Fault
from palate.serve.gate import Shift
from palate.serve.served import Served
from palate.serve.settings import Settings
from palate.types import PalateError

LOG = logging.getLogger("palate.serve")
LOOK_EVERY_SECONDS = 0.05


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
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((settings.host, settings.port))
    except OSError as error:
        found.close()
        reason = error.strerror or error
        raise PalateError(
            f"{settings.host}:{settings.port}: cannot listen there ({reason}); choose another "
            "--host or --port"
        ) from None
    return found


def run(server: Server, listening: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal stops at once."""

    async def running() -> None:
        await serve(server, listening, asyncio.Event())

    asyncio.run(running())


async def serve(server: Server, listening: socket.socket, leaving: asyncio.Event) -> None:
    """Start the engines and serve on `listening` until a signal or `leaving`, then drain.

    Raises:
        PalateError: a model that gives no number; it must not become ready.
    """
    try:
        for engine in server.engines:
            engine.start()
        for served in server.models:
            await _try(served)
        await _answer(server, listening, leaving)
    finally:
        listening.close()
        for engine in server.engines:
            await engine.drain(server.settings.drain_seconds)
        for served in server.models:
            served.reader.close()


async def _try(served: Served) -> None:
    terminal = np.array([served.reader.chat.terminal_id], np.int32)
    try:
        await asked(served, Ask((terminal,)))
    except Fault as fault:
        raise PalateError(f"{served.name}: cannot be served: {fault.message}") from None


async def _answer(server: Server, listening: socket.socket, leaving: asyncio.Event) -> None:
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

    def told(sig: int, frame: FrameType | None) -> None:  # noqa: ARG001 - uvicorn's names.
        if leaving.is_set() or not running.started:
            running.should_exit = running.force_exit = True
        loop.call_soon_threadsafe(leaving.set)

    running.handle_exit = told  # type: ignore[method-assign]
    leave = asyncio.create_task(_leave(running, server.shift, settings, leaving))
    say = asyncio.create_task(_announce(running, listening, [m.name for m in server.models]))
    try:
        await running.serve(sockets=[listening])
    finally:
        leave.cancel()
        say.cancel()


async def _announce(running: uvicorn.Server, listening: socket.socket, names: list[str]) -> None:
    while not running.started:
        await asyncio.sleep(LOOK_EVERY_SECONDS)
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    LOG.info("ready at http://%s:%d: %s", shown, port, ", ".join(names))


async def _leave(
    running: uvicorn.Server, shift: Shift, settings: Settings, leaving: asyncio.Event
) -> None:
    """When told to: refer others away, take no more, wait for what was accepted, close."""
    await leaving.wait()
    LOG.info("leaving: %d requests under way", shift.under_way)
    shift.leaving = True
    await asyncio.sleep(settings.grace_seconds)
    shift.closed = True
    try:
        async with asyncio.timeout(settings.drain_seconds):
            while shift.under_way:
                await asyncio.sleep(LOOK_EVERY_SECONDS)
    except TimeoutError:
        LOG.error("leaving %d requests unanswered after the drain", shift.under_way)
    running.should_exit = True
