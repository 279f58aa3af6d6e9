"""The bare engine as a worker: the same asks without HTTP; and the offline rewards.

{"rows": FILE, "clients": N}      what they take the engine, asked by so many tasks
{"rows": FILE, "offline": true}   what `palate score` gives
"""

import argparse
import asyncio
from typing import Any

import numpy as np

from benchmarks.peers.worker import Facts, read_rows, serve
from palate.judges.reward_model import RewardScorer
from palate.serve.engine import Engine, ScoreRequest
from palate.types import Candidates, Message


def candidates(row: dict[str, Any]) -> Candidates:
    """A prompt and its responses."""
    prompt = tuple(Message(turn["role"], turn["content"]) for turn in row["prompt"])
    return Candidates(prompt, tuple(row["responses"]))


async def ask_all(
    engine: Engine, asks: list[ScoreRequest], clients: int
) -> list[tuple[float, ...]]:
    """Every ask once, by as many tasks, each with one under way."""
    answers: list[tuple[float, ...]] = [()] * len(asks)
    left = iter(enumerate(asks))

    async def client() -> None:
        for number, ask in left:
            answers[number] = await engine.rewards(ask)

    await asyncio.gather(*(client() for _ in range(clients)))
    return answers


def main() -> None:
    """Serve windows of rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--dtype", default="float32")
    given = parser.parse_args()
    scorer = RewardScorer(given.model, dtype=given.dtype)
    engine = Engine(scorer.model, name="bare")
    engine.start()
    rows: list[dict[str, Any]] = []
    asks: list[ScoreRequest] = []

    def prepare(request: Facts) -> None:
        rows[:] = read_rows(request["rows"])
        ids = [[np.asarray(one, np.int32) for one in row["ids"]] for row in rows]
        asks[:] = [ScoreRequest(tuple(conversations)) for conversations in ids]

    def work(request: Facts) -> Facts:
        if request.get("offline"):
            scored = scorer.score(map(candidates, rows))
            return {"rewards": [[score.value for score in row] for row in scored]}
        before = engine.stats.computed_tokens
        rewards = asyncio.run(ask_all(engine, asks, request["clients"]))
        return {"rewards": rewards, "computed_tokens": engine.stats.computed_tokens - before}

    serve(work, prepare)


if __name__ == "__main__":
    main()
