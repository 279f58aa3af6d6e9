"""Clients that do not behave: gone, too large, no request, in too much of a hurry."""

import asyncio
import contextlib
import json
import random
from collections.abc import Awaitable, Sequence

import httpx2

from benchmarks.serve.clients import Going, connected, drawn, raw
from benchmarks.serve.shapes import Row


async def hangs_up(state: Going, rng: random.Random) -> None:
    """Sends a request, whole or not, and is gone."""
    while True:
        shape, rows = drawn(state, rng)
        body = json.dumps(shape.body(rows)).encode()
        with contextlib.suppress(OSError):
            async with raw(state, shape.path, len(body)) as (_, writer):
                writer.write(body[: rng.choice((len(body), len(body) // 2))])
                await writer.drain()
                await asyncio.sleep(rng.random() / 2)
        state.note("hung up")
        await asyncio.sleep(rng.random())


async def _expect(
    state: Going, kind: str, statuses: Sequence[int], send: Awaitable[httpx2.Response]
) -> None:
    try:
        response = await send
    except httpx2.HTTPError as error:
        # A server may close on a body that is too long before all of it was sent.
        state.note(f"{kind}: {type(error).__name__}")
        return
    if response.status_code in statuses:
        state.note(f"{kind}: {response.status_code}")
    else:
        state.note("unexpected", f"{kind}: {response.status_code} {response.text}")


async def too_much(state: Going, rng: random.Random) -> None:
    """Sends a text, or a body, that is larger than any that is taken."""
    async with connected(state) as http:
        while True:
            body: Row = {"query": ["x" * rng.choice((2 << 20, 20 << 20))]}
            await _expect(state, "too much", (400, 413), http.post("/get_reward", json=body))
            await asyncio.sleep(5)


async def no_request(state: Going, rng: random.Random) -> None:
    """Sends what is not JSON, or not the right JSON."""
    async with connected(state) as http:
        while True:
            body = rng.choice((b"{", b"\xff\x00", b"[]", b'{"query": 7}', b'{"query": [null]}'))
            headers = {"content-type": "application/json"}
            send = http.post("/get_reward", content=body, headers=headers)
            await _expect(state, "no request", (400, 422), send)
            await asyncio.sleep(0.5)


async def hurried(state: Going, rng: random.Random) -> None:
    """Wants its answer sooner than a busy server has it."""
    async with connected(state) as http:
        while True:
            shape, rows = drawn(state, rng)
            headers = {"x-deadline-seconds": "0.05"}
            send = http.post(shape.path, json=shape.body(rows), headers=headers)
            await _expect(state, "hurried", (200, 429, 504), send)
            await asyncio.sleep(1)
