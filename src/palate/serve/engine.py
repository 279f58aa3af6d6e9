"""One model answering everybody: the asks that wait fill the next micro-batch.

The event loop accepts asks and hands out answers. A thread for each place where the model computes
takes from what waits at the moment its micro-batch before has ended, so under load micro-batches
are full and without load nothing waits for company.
"""

from __future__ import annotations

import asyncio
import logging
import math
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Protocol

import torch

from palate.model.device import keep_memory
from palate.model.packing import Group, Tokens, microbatches
from palate.model.reward_model import RewardModel
from palate.serve.scheduler import FairQueue, WorkItem, by_prompt, prompt_group, work_items
from palate.types import PalateError

__all__ = [
    "Busy",
    "Closing",
    "Engine",
    "Failed",
    "Late",
    "NonFinite",
    "ScoreRequest",
]


# What a client asks of a model, and the ways in which it gets no answer.


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Conversations to score together, of one prompt or of several.

    `conversations` are token ids, each at least one long; those that begin alike share their
    prompt's work, in one ask and across asks. `client` takes turns with other clients. After
    `deadline`, a time of `time.monotonic()`, nobody waits for the answer. `safety` says for each
    conversation whether its prompt is about safety, which only the combined reward reads; empty
    where it is not known.
    """

    conversations: tuple[Tokens, ...]
    client: str = ""
    deadline: float | None = None
    safety: tuple[bool, ...] = ()


# Named for what a client is told, which is not always that something is in error.


class Busy(Exception):  # noqa: N818
    """Too much is waiting; by `retry_after_seconds` what waits now should be answered."""

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__(f"too many tokens are waiting; ask again in {retry_after_seconds:.0f} s")
        self.retry_after_seconds = retry_after_seconds


class Late(Exception):  # noqa: N818
    """The deadline passed before the answer."""


class Closing(Exception):  # noqa: N818
    """The server is shutting down and takes no new asks."""


class NonFinite(Exception):  # noqa: N818
    """The model gave a reward that is not a finite number."""


class Failed(Exception):  # noqa: N818
    """The model could not compute this ask, alone and in a micro-batch of its own."""


# From conversations to rewards: equal ones once, each prompt once, a token budget at a time.


class Compute(Protocol):
    """A place where a model computes: this process, or one of its own."""

    @property
    def lane(self) -> threading.Lock:
        """Held while computing: models that share a device share a lane, and take turns."""
        ...

    def open(self) -> None:
        """Wait until it can compute; raises where it never will."""
        ...

    def __call__(self, groups: Sequence[Group]) -> list[float]:
        """Rewards of every response of every group, in order."""
        ...

    def close(self) -> None:
        """Give up what it holds."""
        ...


class LocalModel:
    """A model in this process."""

    def __init__(self, model: RewardModel, lane: threading.Lock | None = None) -> None:
        self.lane = lane or threading.Lock()
        self._model = model

    def open(self) -> None:
        """It was opened before it came here."""

    @torch.inference_mode()
    def __call__(self, groups: Sequence[Group]) -> list[float]:
        rewards: list[float] = self._model(groups).reward.tolist()
        return rewards

    def close(self) -> None:
        """Whoever brought it may go on with it."""


def rewards_of(
    compute: Callable[[Sequence[Group]], list[float]],
    conversations: Sequence[Tokens],
    budget: int,
    *,
    shared: bool,
    tell: Callable[[int], None],
) -> list[float]:
    """The reward of each conversation, in order.

    With `shared` off nothing shares a prompt. `tell` hears of each micro-batch, when it has
    ended, how many tokens it ran.
    """
    rows = list({c.tobytes(): c for c in conversations}.values())
    found = by_prompt(rows) if shared else [[i] for i in range(len(rows))]
    groups = [prompt_group([rows[i] for i in places]) for places in found]
    rewards: dict[bytes, float] = {}
    for indices, chosen in microbatches(groups, budget):
        values = compute(chosen)
        asked = [rows[i].tobytes() for index in indices for i in found[index]]
        rewards.update(zip(asked, values, strict=True))
        tell(sum(item.tokens for item in chosen))
    return [rewards[c.tobytes()] for c in conversations]


# What an engine has done, for metrics and for saying when to come back.

FIRST_TOKENS_PER_SECOND = 1_000.0  # Of a small model on two CPU cores, until it is measured.
REMEMBERED_SECONDS = 10.0


@dataclass(slots=True)
class EngineStats:
    """Running counts since the start.

    `asked_tokens` are those of conversations as asked, `computed_tokens` those that the model ran;
    between them lie shared prompts and equal conversations. `busy_seconds` is time in the model.
    """

    batches: int = 0
    conversations: int = 0
    asked_tokens: int = 0
    computed_tokens: int = 0
    busy_seconds: float = 0.0
    refused: int = 0
    late: int = 0
    cancelled: int = 0
    failed: int = 0
    tokens_per_second: float = FIRST_TOKENS_PER_SECOND

    def computed(self, tokens: int, seconds: float) -> None:
        """Add a micro-batch, and what it says of the speed of late."""
        self.computed_tokens += tokens
        self.busy_seconds += seconds
        self.batches += 1
        # By its time, so that a hundred small micro-batches say no more than they lasted.
        weight = 1 - math.exp(-seconds / REMEMBERED_SECONDS)
        speed = tokens / max(seconds, 1e-6)
        self.tokens_per_second += weight * (speed - self.tokens_per_second)


log = logging.getLogger(__name__)


class _Job:
    """An ask under way: workers fill in its rewards, its loop hears of the outcome."""

    def __init__(self, answer: asyncio.Future[tuple[float, ...]], count: int) -> None:
        self.answer = answer
        self.units: list[WorkItem[_Job]] = []
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
        self.name, self.model, self.meter = name, model, EngineStats()
        self.tokens_per_microbatch = tokens_per_microbatch
        self.max_waiting_tokens = max_waiting_tokens
        self.vocabulary = int(model.backbone.get_input_embeddings().num_embeddings)
        self._waiting: FairQueue[_Job] = FairQueue()
        self._jobs: set[_Job] = set()
        self._changed = threading.Condition()
        self._closing = self._stopped = False
        self._places = tuple(workers) or (LocalModel(model, lane),)
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

    async def rewards(self, ask: ScoreRequest) -> tuple[float, ...]:
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

    def _units(self, job: _Job, ask: ScoreRequest) -> list[WorkItem[_Job]]:
        for conversation in ask.conversations:
            _check(conversation, self.vocabulary)
        budget, shared = self.tokens_per_microbatch, self.model.shared
        return work_items(job, ask.client, ask.conversations, budget, shared=shared)

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

    def _answer(self, units: Sequence[WorkItem[_Job]], place: Compute) -> None:
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


# A model in a process of its own: the server outlives it, and starts another.
#
# A kernel that crashes, a device that fails or the kernel's out-of-memory killer takes the
# process
# that computes. What it was computing is asked again of its successor, so nobody notices but by
# the
# time it takes. Nothing of the server's Python runs beside the model's either.

HUNG_SECONDS = 600.0  # A micro-batch takes seconds; a device that hangs takes for ever.
LOADS = 5


class DiedError(Exception):
    """The process died with a micro-batch, and so did its successor."""


class RemoteError(Exception):
    """The model failed in its process; the message is the kind of error it raised there."""


class Worker:
    """One model in one process."""

    def __init__(
        self,
        load: Callable[[], RewardModel],
        *,
        threads: int | None = None,
        lane: threading.Lock | None = None,
    ) -> None:
        """Start a process that opens the model by `load`, a function that can be pickled.

        `threads` are torch's there; as many as the machine has cores where None.
        """
        self.lane = lane or threading.Lock()
        self.restarts = 0
        self._load, self._threads = load, threads
        self._process, self._pipe = self._spawn()
        self._ready, self._closed = False, threading.Event()

    @property
    def pid(self) -> int | None:
        """The process that computes now."""
        return self._process.pid

    def open(self) -> None:
        """Wait until the model is loaded; raises `DiedError` where it cannot be."""
        try:
            self._hear_ready()
        except (EOFError, OSError):
            raise DiedError("the process died while it loaded the model") from None

    def __call__(self, groups: Sequence[Group]) -> list[float]:
        """Rewards in order; a process that dies over them is replaced and asked again, once."""
        for _ in range(2):
            self._load_again()
            try:
                self._pipe.send(groups)
                return self._hear()
            except (EOFError, OSError):
                self._replace()
        raise DiedError("the process died twice over the same micro-batch")

    def close(self) -> None:
        """End the process; whoever waits for it hears `DiedError`."""
        self._closed.set()
        self._process.kill()  # It holds nothing that must be saved.
        self._process.join()

    def _spawn(self) -> tuple[BaseProcess, Connection]:
        # Not forked: threads of torch and of the server do not survive a fork.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_compute, args=(theirs, self._load, self._threads), daemon=True
        )
        process.start()
        theirs.close()  # Or we would never hear that the process is gone.
        return process, ours

    def _replace(self) -> None:
        self._process.kill()
        self._process.join()
        if self._closed.is_set():
            raise DiedError("the worker was closed")
        log.warning("worker %s died (%s); starting another", self.pid, self._process.exitcode)
        self._pipe.close()
        self.restarts += 1
        self._process, self._pipe = self._spawn()
        self._ready = False
        if self._closed.is_set():  # Meanwhile, and it may have ended the one before.
            self._process.kill()

    def _load_again(self) -> None:
        """Wait until it is ready; a death over loading is not the micro-batch's fault."""
        for _ in range(LOADS):
            try:
                self._hear_ready()
                return
            except (EOFError, OSError):
                self._replace()
        raise DiedError(f"the process died {LOADS} times while it loaded the model")

    def _hear_ready(self) -> None:
        if not self._ready:
            self._hear()
            self._ready = True

    def _hear(self) -> list[float]:
        if not self._pipe.poll(HUNG_SECONDS):
            raise EOFError
        kind, said = self._pipe.recv()
        if kind == "refused":
            raise PalateError(said)
        if kind == "failed":
            raise RemoteError(said)
        if kind == "unloaded":
            raise DiedError(f"the process cannot load the model: {said}")
        rewards: list[float] = said
        return rewards


def _compute(pipe: Connection, load: Callable[[], RewardModel], threads: int | None) -> None:
    """The process: load, say so, then answer until the pipe closes."""
    # Ctrl-C reaches every process of the terminal; the server drains, and then ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_memory()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        model = LocalModel(load())
    except Exception as error:
        pipe.send(("unloaded", f"{type(error).__name__}: {error}"))
        return
    pipe.send(("rewards", []))
    with suppress(EOFError, OSError):  # The server is gone, or has done with this process.
        while True:
            pipe.send(_answer(model, pipe.recv()))


def _answer(model: LocalModel, groups: Sequence[Group]) -> tuple[str, list[float] | str]:
    try:
        return "rewards", model(groups)
    except PalateError as error:
        return "refused", str(error)
    except Exception as error:  # Its text may quote what it was given; its kind does not.
        return "failed", type(error).__name__
