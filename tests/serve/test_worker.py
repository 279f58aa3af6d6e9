"""A model in a process of its own, which may die."""

import asyncio
import os
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from asked import conversation
from packed import tiny_reward_model
from palate.model.export import Card, export
from palate.model.loading import load_reward_model
from palate.model.packing import group
from palate.serve.engine import DiedError, Engine, Failed, ScoreRequest, Worker
from palate.types import PalateError
from refusing import refusing


@pytest.mark.slow
def test_a_killed_worker_loses_no_ask(tmp_path: Path) -> None:
    model = tiny_reward_model("llama").eval()
    folder = export(model, tmp_path / "model", card=Card("tiny", "tiny", "0"))
    asks = [
        ScoreRequest(tuple(conversation(1, [n, m]) for m in range(4)), str(n % 3))
        for n in range(40)
    ]
    workers = [Worker(partial(load_reward_model, folder), threads=1) for _ in range(2)]

    async def steps() -> list[tuple[float, ...]]:
        engine = Engine(model, name="tiny", workers=workers, tokens_per_microbatch=64)
        engine.start()
        tasks = [asyncio.create_task(engine.rewards(ask)) for ask in asks]
        await tasks[0]
        assert engine.ready
        for worker in workers:
            assert worker.pid
            os.kill(worker.pid, signal.SIGKILL)
        answers = await asyncio.gather(*tasks)
        answers.append(await engine.rewards(asks[0]))
        assert await engine.drain(60)
        return answers

    answers = asyncio.run(steps())
    assert sum(worker.restarts for worker in workers) >= 1
    with torch.inference_mode():
        for ask, answer in zip([*asks, asks[0]], answers, strict=True):
            expected = model([group(ask.conversations)]).reward.tolist()
            assert answer == pytest.approx(expected, abs=3e-5)


@pytest.mark.slow
def test_what_fails_in_a_worker_is_said_here(tmp_path: Path) -> None:
    model = tiny_reward_model("llama").eval()
    folder = export(model, tmp_path / "model", card=Card("tiny", "tiny", "0"))
    worker = Worker(partial(refusing, folder), threads=1)
    broken = Worker(partial(load_reward_model, tmp_path / "none"), threads=1)
    with pytest.raises(DiedError, match="no such folder"):
        broken.open()

    async def steps() -> None:
        engine = Engine(model, name="tiny", workers=[worker])
        engine.start()
        with pytest.raises(PalateError, match="20 tokens are too many"):
            await engine.rewards(ScoreRequest((np.arange(20, dtype=np.int32),)))
        assert len(await engine.rewards(ScoreRequest((np.arange(10, dtype=np.int32),)))) == 1
        other = Engine(model, name="broken", workers=[broken])
        other.start()
        with pytest.raises(Failed, match="DiedError"):
            await other.rewards(ScoreRequest((np.arange(10, dtype=np.int32),)))
        assert not other.ready
        assert await engine.drain(60)
        assert await other.drain(60)

    asyncio.run(steps())
    assert worker.pid
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)
