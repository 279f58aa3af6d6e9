"""Clients in a closed loop: each sends its next request when its last one is answered."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx2

from benchmarks.peers.worker import Facts


@dataclass(frozen=True)
class Answered:
    """What a window of requests came to: seconds in all and of each, and the rewards of each."""

    seconds: float
    latencies: list[float]
    rewards: list[list[float]]


def ask_all(address: str, requests: Sequence[Facts], clients: int) -> Answered:
    """Send every request once, by as many clients, in OpenRLHF's shape."""
    return asyncio.run(_ask_all(address, requests, clients))


async def _ask_all(address: str, requests: Sequence[Facts], clients: int) -> Answered:
    latencies, rewards = [0.0] * len(requests), [[0.0]] * len(requests)
    left = iter(enumerate(requests))
    limits = httpx2.Limits(max_connections=clients)
    async with httpx2.AsyncClient(base_url=address, timeout=None, limits=limits) as http:

        async def client() -> None:
            for number, request in left:
                started = time.perf_counter()
                response = await http.post("/get_reward", json={"query": request["texts"]})
                latencies[number] = time.perf_counter() - started
                rewards[number] = response.raise_for_status().json()["rewards"]

        started = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        seconds = time.perf_counter() - started
    return Answered(seconds, latencies, rewards)
