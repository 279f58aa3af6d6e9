"""Clients that behave, two of them slowly: each asks again until it is answered, and checks."""

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx2

from benchmarks.serve.shapes import SHAPES, Row, Shape

RIGHT = 2e-5  # Rewards spread by about 1; float32 in other orders of sums differs by up to 7e-6.
GIVE_UP_SECONDS = 300.0
TRY_AGAIN = (429, 503, 504)
LONGEST_PAUSE_SECONDS = 5.0
Send = Callable[[Shape, Sequence[Row]], Awaitable[httpx2.Response]]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Going:
    """What happened so far, and until when it goes on."""

    address: str
    rows: Sequence[Row]
    ends: float
    counts: Counter[str] = field(default_factory=Counter)
    odd: list[str] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)
    leaving: bool = False

    @property
    def over(self) -> bool:
        return self.leaving or time.monotonic() > self.ends

    def note(self, kind: str, what: str = "") -> None:
        self.counts[kind] += 1
        if kind in ("wrong", "lost", "unexpected") and len(self.odd) < 20:
            self.odd.append(f"{kind}: {what}"[:300])


def connected(state: Going) -> httpx2.AsyncClient:
    """A client with a connection for each request.

    A server that stops may close an idle one, which loses nothing but looks as if it did.
    """
    limits = httpx2.Limits(max_keepalive_connections=0)
    return httpx2.AsyncClient(base_url=state.address, timeout=GIVE_UP_SECONDS, limits=limits)


def drawn(state: Going, rng: random.Random) -> tuple[Shape, list[Row]]:
    """A shape and some pairs to ask about in it."""
    return rng.choice(SHAPES), rng.sample(list(state.rows), rng.choice((1, 1, 1, 2, 4)))


async def steady(state: Going, number: int) -> None:
    """Asks, checks the answer, asks again."""
    rng = random.Random(number)
    async with connected(state) as http:

        def send(shape: Shape, rows: Sequence[Row]) -> Awaitable[httpx2.Response]:
            return http.post(shape.path, json=shape.body(rows))

        while not state.over:
            shape, rows = drawn(state, rng)
            await _until_answered(state, shape, rows, send)


async def _until_answered(state: Going, shape: Shape, rows: Sequence[Row], send: Send) -> None:
    started = time.monotonic()
    while time.monotonic() - started < GIVE_UP_SECONDS:
        try:
            response = await send(shape, rows)
        except httpx2.ConnectError:
            if not state.leaving:
                state.note("lost", f"{shape.path}: cannot connect")
            return
        except httpx2.HTTPError as error:
            state.note("lost", f"{shape.path}: {type(error).__name__} {error}")
            return
        if response.status_code not in TRY_AGAIN:
            _check(state, shape, rows, response)
            return
        state.note(f"refused {response.status_code}")
        if state.leaving:
            return
        await asyncio.sleep(
            min(LONGEST_PAUSE_SECONDS, float(response.headers.get("retry-after", 1)))
        )
    state.note("lost", f"{shape.path}: refused for {GIVE_UP_SECONDS} s")


def _check(state: Going, shape: Shape, rows: Sequence[Row], response: httpx2.Response) -> None:
    if response.status_code != 200:
        state.note("unexpected", f"{shape.path}: {response.status_code} {response.text}")
        return
    expected = [reward for row in rows for reward in row["rewards"]]
    found = shape.rewards(response.json())
    right = len(found) == len(expected) and all(
        abs(a - b) <= RIGHT for a, b in zip(found, expected, strict=True)
    )
    state.note("right" if right else "wrong", f"{shape.path}: {found} instead of {expected}")


async def slow(state: Going, number: int) -> None:
    """Sends its request in pieces, and reads the answer a few bytes at a time."""
    rng = random.Random(100 + number)

    async def send(shape: Shape, rows: Sequence[Row]) -> httpx2.Response:
        return await _send_slowly(state, shape, rows)

    while not state.over:
        shape, rows = drawn(state, rng)
        await _until_answered(state, shape, rows, send)


async def _send_slowly(state: Going, shape: Shape, rows: Sequence[Row]) -> httpx2.Response:
    body = json.dumps(shape.body(rows)).encode()
    try:
        async with raw(state, shape.path, len(body)) as (reader, writer):
            with contextlib.suppress(ConnectionError):  # Refused before it was all sent.
                for start in range(0, len(body), 2_048):
                    writer.write(body[start : start + 2_048])
                    await writer.drain()
                    await asyncio.sleep(0.05)
            answer = b""
            while piece := await reader.read(512):
                answer += piece
                await asyncio.sleep(0.01)
    except ConnectionRefusedError as error:
        raise httpx2.ConnectError(str(error)) from None
    except OSError as error:
        raise httpx2.ReadError(str(error)) from None
    head, _, content = answer.partition(b"\r\n\r\n")
    if not head:
        raise httpx2.ReadError("no answer")
    return httpx2.Response(int(head.split()[1]), content=content)


@contextlib.asynccontextmanager
async def raw(state: Going, path: str, length: int) -> AsyncIterator[Streams]:
    """A connection on which the head of a request was sent."""
    at = urlsplit(state.address)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    head = f"POST {path} HTTP/1.1\r\nhost: {at.netloc}\r\nconnection: close\r\n"
    head += f"content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    writer.write(head.encode())
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
