"""The engine: the offline reward whatever else is asked, and no request that waits for ever."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asked import clients, conversation, several
from packed import tiny_reward_model
from palate.model.export import Card, export
from palate.model.loading import load_reward_model
from palate.model.packing import Tokens, group
from palate.model.reward_model import RewardModel
from palate.serve.engine import (
    Busy,
    Closing,
    DiedError,
    Engine,
    Failed,
    Late,
    NonFinite,
    ScoreRequest,
    Worker,
)
from palate.types import PalateError
from refusing import refusing

SECONDS = 60  # Nothing here takes a second; who waits so long would wait for ever.
SHORT = 0.05
# Rewards here spread by 7, and float32 sums in another order differ by a millionth of that; two
# conversations mixed up would differ by far more.
NOISE = 3e-5


@pytest.fixture(scope="module")
def model() -> RewardModel:
    return tiny_reward_model("llama", changes={"num_hidden_layers": 2}).eval()


def offline(model: RewardModel, rows: tuple[Tokens, ...]) -> list[float]:
    with torch.inference_mode():
        return [model([group([row])]).reward.item() for row in rows]


def run(
    model: RewardModel, steps: Callable[[Engine], Coroutine[Any, Any, Any]], **options: Any
) -> Any:
    """What `steps` gives with a started engine, which is drained after it."""

    async def main() -> Any:
        engine = Engine(model, name="tiny", **options)
        engine.start()
        async with asyncio.timeout(SECONDS):
            found = await steps(engine)
            assert await engine.drain(SECONDS)
        assert engine.waiting_tokens == engine.waiting_asks == 0
        return found

    return asyncio.run(main())


class Gate:
    """Holds a model before its next micro-batch until it is opened."""

    def __init__(self, model: RewardModel) -> None:
        self.arrived, self._open = threading.Event(), threading.Event()
        self._hook = model.register_forward_pre_hook(self._hold)

    def _hold(self, *_: Any) -> None:
        self.arrived.set()
        assert self._open.wait(SECONDS)

    def open(self) -> None:
        self._open.set()
        self._hook.remove()


@pytest.fixture
def gate(model: RewardModel) -> Iterator[Gate]:
    gate = Gate(model)
    yield gate
    gate.open()


async def held(engine: Engine, gate: Gate) -> asyncio.Task[tuple[float, ...]]:
    """A first ask that the model is computing while the gate is shut."""
    first = asyncio.create_task(engine.rewards(one(0)))
    await asyncio.to_thread(gate.arrived.wait)
    return first


async def accepted(engine: Engine, count: int) -> None:
    """Until so many asks are under way."""
    while engine.waiting_asks < count:
        await asyncio.sleep(0)


def one(number: int, **options: Any) -> ScoreRequest:
    return ScoreRequest((conversation(1, [number % 400, number // 400]),), **options)


async def settle(task: asyncio.Task[Any]) -> Any:
    return (await asyncio.gather(task, return_exceptions=True))[0]


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(clients, several), min_size=1, max_size=12),
    st.sets(st.integers(0, 11)),
    st.sampled_from([32, 150, 4_096]),
)
def test_everybody_gets_the_offline_rewards_of_what_they_asked(
    model: RewardModel, asked: Any, gone: set[int], budget: int
) -> None:
    async def steps(engine: Engine) -> Any:
        tasks = [
            asyncio.create_task(engine.rewards(ScoreRequest(rows, client)))
            for client, rows in asked
        ]
        await asyncio.sleep(0)
        for number in gone & set(range(len(tasks))):
            tasks[number].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = run(model, steps, tokens_per_microbatch=budget, cache_bytes=1 << 17)
    for number, ((_, rows), answer) in enumerate(zip(asked, answers, strict=True)):
        if isinstance(answer, asyncio.CancelledError):
            assert number in gone
        else:
            assert answer == pytest.approx(offline(model, rows), abs=NOISE)


def test_an_ensemble_says_how_far_its_members_differ(model: RewardModel) -> None:
    several = RewardModel(model.backbone, model.chat, members=3).eval()
    torch.nn.init.normal_(several.head.weight, generator=torch.Generator().manual_seed(2))
    row = conversation(3, [5, 6, 7])
    ask = ScoreRequest((row, row))
    (first, second) = run(several, lambda engine: engine.rewards_with_std(ask))
    with torch.inference_mode():
        read = several([group([row], shared=False)])
    assert first == second == (read.reward.item(), read.members.std(1).item())
    assert run(several, lambda engine: engine.rewards(ask)) == (first[0], first[0])
    assert run(model, lambda engine: engine.rewards_with_std(ask))[0][1] is None


def test_responses_that_come_one_by_one_cost_only_themselves(model: RewardModel) -> None:
    rows = [conversation(3, [n, *range(9)]) for n in range(8)]

    async def steps(engine: Engine) -> Any:
        answers = [await engine.rewards(ScoreRequest((row,))) for row in rows]
        apart = await engine.rewards(ScoreRequest((rows[0],), salt="another"))
        stats, prompt = engine.stats, len(rows[0]) - 10
        assert stats.kept_tokens == (len(rows) - 1) * prompt
        assert stats.computed_tokens == stats.asked_tokens - stats.kept_tokens
        assert (stats.prompts, stats.prompts_found) == (len(rows) + 1, len(rows) - 1)
        assert 0 < engine.kept_bytes <= 1 << 20
        return [reward for (reward,) in [*answers, apart]]

    answers = run(model, steps, cache_bytes=1 << 20)
    assert answers == pytest.approx(offline(model, (*rows, rows[0])), abs=NOISE)


def test_two_salts_share_no_micro_batch_and_both_are_answered(
    model: RewardModel, gate: Gate
) -> None:
    row = conversation(3, [1, 2, 3])

    async def steps(engine: Engine) -> Any:
        first = await held(engine, gate)
        asks = [ScoreRequest((row,), salt=salt) for salt in ("a", "b", "a")]
        tasks = [asyncio.create_task(engine.rewards(ask)) for ask in asks]
        await accepted(engine, 4)
        gate.open()
        await first
        answers = [await task for task in tasks]
        assert engine.stats.computed_tokens == 2 * len(row) + len(one(0).conversations[0])
        return [reward for (reward,) in answers]

    answers = run(model, steps, cache_bytes=1 << 20)
    assert answers == pytest.approx(offline(model, (row,)) * 3, abs=NOISE)


def test_an_ask_alone_is_bit_for_bit_the_offline_reward(model: RewardModel) -> None:
    row = conversation(3, [5, 6, 7])
    (reward,) = run(model, lambda engine: engine.rewards(ScoreRequest((row,))))
    with torch.inference_mode():
        assert reward == model([group([row], shared=False)]).reward.item()


def test_a_prompt_of_several_clients_and_an_equal_response_are_computed_once(
    model: RewardModel, gate: Gate
) -> None:
    rows = [conversation(3, [response] * 5) for response in (1, 2, 2)]

    async def steps(engine: Engine) -> Any:
        first = await held(engine, gate)
        before = len(one(0).conversations[0])
        tasks = [
            engine.rewards(ScoreRequest((row,), client))
            for row, client in zip(rows, "abc", strict=True)
        ]
        tasks = [asyncio.create_task(task) for task in tasks]
        await accepted(engine, 4)
        gate.open()
        answers = await asyncio.gather(*tasks)
        await first
        assert answers[1] == answers[2] != answers[0]
        return (
            engine.stats.computed_tokens - before,
            engine.stats.asked_tokens,
            engine.stats.batches,
        )

    computed, asked, batches = run(model, steps)
    assert computed == 90 + 5 + 5
    assert asked == 14 + 3 * 95
    assert batches == 2


def test_a_cancelled_ask_is_not_computed(model: RewardModel, gate: Gate) -> None:
    async def steps(engine: Engine) -> int:
        first = await held(engine, gate)
        second = asyncio.create_task(engine.rewards(one(1)))
        await accepted(engine, 2)
        second.cancel()
        assert isinstance(await settle(second), asyncio.CancelledError)
        assert engine.waiting_tokens == 0
        gate.open()
        await first
        assert engine.stats.cancelled == 1
        return engine.stats.conversations

    assert run(model, steps) == 1


def test_an_ask_past_its_deadline_is_late_and_dropped(model: RewardModel, gate: Gate) -> None:
    async def steps(engine: Engine) -> int:
        first = await held(engine, gate)
        with pytest.raises(Late):
            await engine.rewards(one(1, deadline=time.monotonic() + SHORT))
        with pytest.raises(Late):
            await engine.rewards(one(2, deadline=time.monotonic() - 1))
        assert engine.waiting_tokens == 0
        gate.open()
        await first
        assert engine.stats.late == 2
        return engine.stats.conversations

    assert run(model, steps) == 1


def test_a_full_queue_says_when_to_come_back(model: RewardModel, gate: Gate) -> None:
    async def steps(engine: Engine) -> None:
        first = await held(engine, gate)
        second = asyncio.create_task(engine.rewards(one(1)))
        await accepted(engine, 2)
        with pytest.raises(Busy) as caught:
            await engine.rewards(one(2))
        assert caught.value.retry_after_seconds >= 1
        gate.open()
        assert len(await first) == len(await second) == 1
        assert len(await engine.rewards(one(2))) == 1

    run(model, steps, max_waiting_tokens=10)


def test_a_reward_that_is_no_number_is_an_error_of_that_ask_alone() -> None:
    model = tiny_reward_model("llama").eval()
    with torch.no_grad():
        model.backbone.get_input_embeddings().weight[7] = torch.nan

    async def steps(engine: Engine) -> Any:
        asks = [ScoreRequest((conversation(1, [1]), conversation(1, [n]))) for n in (6, 7, 8)]
        return await asyncio.gather(*map(engine.rewards, asks), return_exceptions=True)

    well, odd, also_well = run(model, steps)
    assert isinstance(odd, NonFinite)
    assert "conversation 1" in str(odd)
    assert np.isfinite([*well, *also_well]).all()


def test_an_ask_that_cannot_be_computed_takes_no_other_with_it() -> None:
    model = tiny_reward_model("llama").eval()

    def fail(_: Any, inputs: Any) -> None:
        if any((suffix == 7).any() for item in inputs[0] for suffix in item.suffixes):
            raise torch.OutOfMemoryError("of a secret size")

    model.register_forward_pre_hook(fail)
    asks = [one(n, client=str(n)) for n in (6, 7, 8)]

    async def steps(engine: Engine) -> Any:
        tasks = [engine.rewards(ask) for ask in asks]
        return await asyncio.gather(*tasks, return_exceptions=True)

    well, odd, also_well = run(model, steps)
    assert isinstance(odd, Failed)
    assert "secret" not in str(odd)
    assert [*well, *also_well] == pytest.approx(
        offline(model, (asks[0].conversations[0], asks[2].conversations[0])), abs=NOISE
    )


def test_what_the_model_refuses_is_said_in_its_words() -> None:
    model = tiny_reward_model("llama").eval()

    def refuse(_: Any, inputs: Any) -> None:
        if any(7 in suffix for item in inputs[0] for suffix in item.suffixes):
            raise PalateError("sevens are too many")

    model.register_forward_pre_hook(refuse)

    async def steps(engine: Engine) -> Any:
        asks = [ScoreRequest((np.full(n, n, np.int32),)) for n in (6, 7)]
        return await asyncio.gather(*map(engine.rewards, asks), return_exceptions=True)

    short, long = run(model, steps)
    assert len(short) == 1
    assert isinstance(long, PalateError)
    assert str(long) == "sevens are too many"


def test_a_conversation_longer_than_a_sliding_window_is_answered() -> None:
    model = tiny_reward_model("mistral").eval()  # Its window is 16.
    rows = [np.arange(n, dtype=np.int32) for n in (10, 20)]

    async def steps(engine: Engine) -> Any:
        return await asyncio.gather(*(engine.rewards(ScoreRequest((row,))) for row in rows))

    with torch.no_grad():
        expected = model.forward_padded(rows).reward.tolist()
    assert [reward for (reward,) in run(model, steps)] == pytest.approx(expected, abs=NOISE)


@pytest.mark.parametrize(
    ("ids", "message"), [([], "without tokens"), ([400], "0 to 399"), ([1, -1], "0 to 399")]
)
def test_tokens_that_the_model_does_not_have_are_refused(
    model: RewardModel, ids: list[int], message: str
) -> None:
    async def steps(engine: Engine) -> None:
        with pytest.raises(ValueError, match=message):
            await engine.rewards(ScoreRequest((np.array(ids, np.int32),)))
        assert await engine.rewards(ScoreRequest(())) == ()

    run(model, steps)


def test_draining_finishes_what_was_accepted_and_refuses_the_rest(
    model: RewardModel, gate: Gate
) -> None:
    async def steps(engine: Engine) -> None:
        first = await held(engine, gate)
        second = asyncio.create_task(engine.rewards(one(1)))
        await accepted(engine, 2)
        draining = asyncio.create_task(engine.drain(SECONDS))
        await asyncio.sleep(0)
        with pytest.raises(Closing):
            await engine.rewards(one(2))
        gate.open()
        assert await draining
        assert [len(await task) for task in (first, second)] == [1, 1]

    run(model, steps)


def test_draining_ends_when_its_time_is_over(model: RewardModel, gate: Gate) -> None:
    async def main() -> None:
        engine = Engine(model, name="tiny")
        engine.start()
        tasks = [await held(engine, gate)]
        tasks.append(asyncio.create_task(engine.rewards(one(1))))
        await accepted(engine, 2)
        draining = asyncio.create_task(engine.drain(SHORT))
        assert [type(await settle(task)) for task in tasks] == [Closing, Closing]
        gate.open()
        assert not await draining

    asyncio.run(main())


def test_models_of_one_device_lock_never_compute_at_once(model: RewardModel) -> None:
    inside, most = [0], [0]
    other = tiny_reward_model("llama", seed=1).eval()

    def enter(*_: Any) -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])

    def leave(*_: Any) -> None:
        inside[0] -= 1

    for each in (model, other):
        each.register_forward_pre_hook(enter)
        each.register_forward_hook(leave)
    device_lock = threading.Lock()

    async def steps(engine: Engine) -> None:
        second = Engine(other, name="other", device_lock=device_lock)
        second.start()
        asks = [one(n) for n in range(20)]
        await asyncio.gather(*(e.rewards(ask) for ask in asks for e in (engine, second)))
        assert await second.drain(SECONDS)

    run(model, steps, device_lock=device_lock, tokens_per_microbatch=20)
    assert most == [1]


def test_a_mistake_of_ours_leaves_nobody_waiting(
    model: RewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def steps(engine: Engine) -> None:
        monkeypatch.setattr(engine._queue, "take", lambda _budget: 1 / 0)
        with pytest.raises(Failed, match="engine stopped"):
            await engine.rewards(one(1))
        assert not engine.ready
        with pytest.raises(Closing):
            await engine.rewards(one(2))

    run(model, steps)


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
