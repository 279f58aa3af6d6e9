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


def ask_all(
    address: str, requests: Sequence[Facts], clients: int, model: str | None = None
) -> Answered:
    """Send every request once, by as many clients, in OpenRLHF's shape.

    In vLLM's where a `model` is named, which it asks for.
    """
    return asyncio.run(_ask_all(address, requests, clients, model))


async def _ask_all(
    address: str, requests: Sequence[Facts], clients: int, model: str | None
) -> Answered:
    latencies, rewards = [0.0] * len(requests), [[0.0]] * len(requests)
    left = iter(enumerate(requests))
    limits = httpx2.Limits(max_connections=clients)
    async with httpx2.AsyncClient(base_url=address, timeout=None, limits=limits) as http:

        async def client() -> None:
            for number, request in left:
                started = time.perf_counter()
                if model is None:
                    response = await http.post("/get_reward", json={"query": request["texts"]})
                else:
                    body = {"model": model, "input": request["texts"], "use_activation": False}
                    response = await http.post("/classify", json=body)
                latencies[number] = time.perf_counter() - started
                answer = response.raise_for_status().json()
                rewards[number] = (
                    answer["rewards"]
                    if model is None
                    else [row["probs"][0] for row in sorted(answer["data"], key=_index)]
                )

        started = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        seconds = time.perf_counter() - started
    return Answered(seconds, latencies, rewards)


def _index(row: Facts) -> int:
    return int(row["index"])
