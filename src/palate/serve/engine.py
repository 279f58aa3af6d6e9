"""One model answering everybody: the asks that wait fill the next micro-batch.

The event loop accepts asks and hands out answers. A thread for each place where the model computes
takes from what waits at the moment its micro-batch before has ended, so under load micro-batches
are full and without load nothing waits for company.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

from palate.model.packing import Tokens
from palate.model.reward_model import RewardModel
from palate.serve.ask import Ask, Busy, Closing, Failed, Late, NonFinite
from palate.serve.compute import Compute, Here, rewards_of
from palate.serve.meter import Meter
from palate.serve.units import Unit, units_of
from palate.serve.waiting import Waiting
from palate.types import PalateError

__all__ = ["Ask", "Busy", "Closing", "Engine", "Failed", "Late", "NonFinite"]

log = logging.getLogger(__name__)


class _Job:
    """An ask under way: workers fill in its rewards, its loop hears of the outcome."""

    def __init__(self, answer: asyncio.Future[tuple[float, ...]], count: int) -> None:
        self.answer = answer
        self.units: list[Unit[_Job]] = []
        self._rewards = [math.nan] * count
        self._missing = count

    def fill(self, places: Sequence[int], rewards: Iterator[float]) -> None:
        """Take as many rewards as there are places; with the last one it is answered."""
        for place in places:
            self._rewards[place] = next(rewards)
        self._missing -= len(places)
        if not self._missing:
            self.finish(_finite(self._rewards))

    def finish(self, outcome: tuple[float, ...] | Exception) -> None:
        """Hand the outcome to the loop that waits for it; that loop may be gone."""
        with suppress(RuntimeError):
            self.answer.get_loop().call_soon_threadsafe(_settle, self.answer, outcome)


class Engine:
    """One model: asks of all clients in micro-batches of one token budget.

    Rewards are raw and those of `palate score`. `meter` counts, and may be read at any time.
    """

    def __init__(
        self,
        model: RewardModel,
        *,
        name: str,
        tokens_per_microbatch: int = 4_096,
        max_waiting_tokens: int = 262_144,
        lane: threading.Lock | None = None,
        workers: Sequence[Compute] = (),
    ) -> None:
        """Wrap a loaded model; `start` before asking.

        With `workers` they compute, side by side, and `model` only says what it is. Without, it
        computes in this process, and holds `lane` while it does: models that share a device share
        a lane, and take turns instead of the device's threads.
        """
        self.name, self.model, self.meter = name, model, Meter()
        self.tokens_per_microbatch = tokens_per_microbatch
        self.max_waiting_tokens = max_waiting_tokens
        self.vocabulary = int(model.backbone.get_input_embeddings().num_embeddings)
        self._waiting: Waiting[_Job] = Waiting()
        self._jobs: set[_Job] = set()
        self._changed = threading.Condition()
        self._closing = self._stopped = False
        self._places = tuple(workers) or (Here(model, lane),)
        self._opened = 0
        self._threads = [
            threading.Thread(target=self._work, args=(place,), name=f"palate-{name}", daemon=True)
            for place in self._places
        ]

    @property
    def waiting_tokens(self) -> int:
        """Tokens that no micro-batch has taken yet."""
        return self._waiting.tokens

    @property
    def waiting_asks(self) -> int:
        """Asks accepted and not answered yet."""
        return len(self._jobs)

    @property
    def ready(self) -> bool:
        """Whether the model is loaded somewhere and asks are accepted."""
        return bool(self._opened) and not self._closing

    def start(self) -> None:
        """Begin to answer."""
        for thread in self._threads:
            thread.start()

    async def rewards(self, ask: Ask) -> tuple[float, ...]:
        """The raw reward of each conversation, in order.

        Cancelling the caller drops the ask: what no micro-batch has taken is not computed.

        Raises:
            Busy, Late, Closing: not accepted, not in time.
            NonFinite, Failed: the model has no number for it.
            PalateError: the model refuses it, in words for the user.
            ValueError: an empty conversation, or a token id that the model does not have.
        """
        if not ask.conversations:
            return ()
        if ask.deadline is not None and ask.deadline <= time.monotonic():
            self.meter.late += 1
            raise Late
        job = _Job(asyncio.get_running_loop().create_future(), len(ask.conversations))
        if len(ask.conversations) == 1:  # No prompt to look for; among many it takes milliseconds.
            job.units = self._units(job, ask)
        else:
            job.units = await asyncio.to_thread(self._units, job, ask)
        self._accept(job)
        try:
            async with asyncio.timeout_at(_loop_time(ask.deadline)):
                return await job.answer
        except TimeoutError:
            self.meter.late += 1
            raise Late from None
        except asyncio.CancelledError:
            self.meter.cancelled += 1
            raise
        finally:
            self._leave(job)

    async def drain(self, timeout_seconds: float) -> bool:
        """Refuse new asks, finish the accepted ones, stop; False where some were left undone."""
        self._closing = True
        answers = [job.answer for job in self._jobs]
        undone = (await asyncio.wait(answers, timeout=timeout_seconds))[1] if answers else ()
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for job in list(self._jobs):
            _settle(job.answer, Closing("the server stopped before the answer"))
        await asyncio.to_thread(self._end)
        return not undone

    def _end(self) -> None:
        for place in self._places:
            place.close()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def _units(self, job: _Job, ask: Ask) -> list[Unit[_Job]]:
        for conversation in ask.conversations:
            _check(conversation, self.vocabulary)
        budget, shared = self.tokens_per_microbatch, self.model.shared
        return units_of(job, ask.client, ask.conversations, budget, shared=shared)

    def _accept(self, job: _Job) -> None:
        with self._changed:
            if self._closing:
                raise Closing("the server is shutting down")
            if self._waiting.tokens >= self.max_waiting_tokens:
                self.meter.refused += 1
                speed = self.meter.tokens_per_second * len(self._places)
                raise Busy(max(1.0, self._waiting.tokens / speed))
            self._waiting.push(job.units)
            self._jobs.add(job)
            self._changed.notify_all()  # A large ask has work for several places.

    def _leave(self, job: _Job) -> None:
        with self._changed:
            self._waiting.drop(job.units)
            self._jobs.discard(job)

    def _work(self, place: Compute) -> None:
        try:
            place.open()
        except Exception as error:
            log.error("%s: a worker cannot start: %s", self.name, error)
        else:
            self._opened += 1
        try:
            while self._wait():
                self._next(place)
        except Exception:  # A mistake of ours; whoever waits must hear of it, now and later.
            log.exception("%s: the engine stopped", self.name)
            self._closing = True
            for job in list(self._jobs):
                job.finish(Failed("the engine stopped"))

    def _next(self, place: Compute) -> None:
        with place.lane:
            with self._changed:
                units = self._waiting.take(self.tokens_per_microbatch)
            if units:
                self._answer(units, place)

    def _wait(self) -> bool:
        """Whether there is something to compute; waits until there is, or the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._waiting.tokens)
            return not self._stopped

    def _answer(self, units: Sequence[Unit[_Job]], place: Compute) -> None:
        try:
            rewards = self._compute([c for unit in units for c in unit.conversations], place)
        except Exception as error:  # Whatever a model raises: out of memory, a window too short.
            if len(units) == 1:
                self._fail(units[0].owner, error)
                return
            # One ask that cannot be computed must not take those of others with it.
            for unit in units:
                if not unit.owner.answer.done():
                    self._answer([unit], place)
            return
        with self._changed:  # The parts of one ask may be computed side by side.
            values = iter(rewards)
            for unit in units:
                unit.owner.fill(unit.places, values)

    def _fail(self, job: _Job, error: Exception) -> None:
        self.meter.failed += 1
        if not isinstance(error, PalateError):
            kind = type(error).__name__
            if not self._stopped:
                log.error("%s: an ask failed: %s", self.name, kind)
            error = Failed(f"the model failed: {kind}")
        job.finish(error)

    def _compute(self, conversations: Sequence[Tokens], place: Compute) -> list[float]:
        started = time.perf_counter()

        def tell(tokens: int) -> None:
            nonlocal started
            now = time.perf_counter()
            with self._changed:
                self.meter.computed(tokens, now - started)
            started = now

        rewards = rewards_of(
            place,
            conversations,
            self.tokens_per_microbatch,
            shared=self.model.shared,
            tell=tell,
        )
        with self._changed:
            self.meter.conversations += len(conversations)
            self.meter.asked_tokens += sum(map(len, conversations))
        return rewards


def _check(conversation: Tokens, vocabulary: int) -> None:
    if not len(conversation):
        raise ValueError("a conversation without tokens cannot be scored")
    if conversation.min() < 0 or conversation.max() >= vocabulary:
        raise ValueError(f"token ids must be from 0 to {vocabulary - 1}")


def _loop_time(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    return asyncio.get_running_loop().time() + deadline - time.monotonic()


def _finite(rewards: Sequence[float]) -> tuple[float, ...] | NonFinite:
    odd = [place for place, reward in enumerate(rewards) if not math.isfinite(reward)]
    if odd:
        return NonFinite(f"the reward of conversation {odd[0]} is not a finite number")
    return tuple(rewards)


def _settle(
    answer: asyncio.Future[tuple[float, ...]], outcome: tuple[float, ...] | Exception
) -> None:
    if answer.done():
        return
    if isinstance(outcome, Exception):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)
