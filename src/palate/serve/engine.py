"""One model answering everybody: the requests that wait fill the next micro-batch.

The event loop accepts requests and hands out answers. A thread for each backend, a place where the
model computes, takes from the queue at the moment its micro-batch before has ended, so under load
micro-batches are full and without load nothing waits for company (continuous batching).
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
from concurrent import futures
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Protocol

import torch

from palate.model.device import keep_memory
from palate.model.packing import Group, Tokens, microbatches
from palate.model.prompt_cache import CacheUse
from palate.model.reward_model import RewardModel
from palate.serve.scheduler import FairQueue, WorkItem, by_prompt, prompt_group, work_items
from palate.types import PalateError

log = logging.getLogger(__name__)


# What a client asks of a model, and the ways in which it gets no answer.


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Conversations to score together, of one prompt or of several.

    `conversations` are token ids, each at least one long; those that begin alike share their
    prompt's work, in one request and across requests. `client` takes turns with other clients.
    After `deadline`, a time of `time.monotonic()`, nobody waits for the answer. `safety` says for
    each conversation whether its prompt is about safety, which only the combined reward reads;
    empty where it is not known. What is kept of prompts is kept apart by `salt`.
    """

    conversations: tuple[Tokens, ...]
    client: str = ""
    deadline: float | None = None
    safety: tuple[bool, ...] = ()
    salt: str = ""


# Named for what a client is told, which is not always that something is in error.


class Busy(Exception):  # noqa: N818
    """Too much is waiting; by `retry_after_seconds` what waits now should be answered."""

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__(f"too many tokens are waiting; ask again in {retry_after_seconds:.0f} s")
        self.retry_after_seconds = retry_after_seconds


class Late(Exception):  # noqa: N818
    """The deadline passed before the answer."""


class Closing(Exception):  # noqa: N818
    """The server is shutting down and takes no new requests."""


class NonFinite(Exception):  # noqa: N818
    """The model gave a reward that is not a finite number."""


class Failed(Exception):  # noqa: N818
    """The model could not compute this request, alone and in a micro-batch of its own."""


# Where a model computes.


Reward = tuple[float, float | None]
"""A raw reward, and the standard deviation of an ensemble's members; None of a single model."""


@dataclass(frozen=True, slots=True)
class Computed:
    """Rewards in order; what kept prompts saved, and the bytes that they take now."""

    rewards: list[Reward]
    use: CacheUse
    kept_bytes: int


class Backend(Protocol):
    """A place where a model computes: this process, or one of its own."""

    @property
    def device_lock(self) -> threading.Lock:
        """Held while computing: models that share a device share its lock, and take turns."""
        ...

    def open(self) -> None:
        """Wait until it can compute; raises where it never will."""
        ...

    def __call__(self, groups: Sequence[Group], salt: str) -> Computed:
        """Rewards of every response of every group, in order."""
        ...

    def close(self) -> None:
        """Give up what it holds."""
        ...


class LocalModel:
    """A model in this process, which keeps up to `cache_bytes` of prompts."""

    def __init__(
        self,
        model: RewardModel,
        device_lock: threading.Lock | None = None,
        *,
        cache_bytes: int = 0,
    ) -> None:
        self.device_lock = device_lock or threading.Lock()
        self._model = model
        self._cache = model.prompt_cache(cache_bytes) if cache_bytes else None

    def open(self) -> None:
        """It was opened before it came here."""

    @torch.inference_mode()
    def __call__(self, groups: Sequence[Group], salt: str) -> Computed:
        use, cache = CacheUse(), self._cache
        if cache is not None:
            cache.use = use
        read = self._model(groups, cache, salt)
        stds: list[float | None] = [None] * len(read.reward)
        if read.members is not None:
            stds = read.members.std(1).tolist()
        rewards = list(zip(read.reward.tolist(), stds, strict=True))
        return Computed(rewards, use, 0 if cache is None else cache.bytes)

    def close(self) -> None:
        """Whoever brought it may go on with it."""


# What an engine has done, for metrics and for saying when to come back.

FIRST_TOKENS_PER_SECOND = 1_000.0  # Of a small model on two CPU cores, until it is measured.
REMEMBERED_SECONDS = 10.0


@dataclass(slots=True)
class EngineStats:
    """Running counts since the start.

    `asked_tokens` are those of conversations as they came, `computed_tokens` those that the model
    ran; between them lie shared prompts, equal conversations and prompts that were kept.
    `prompts` were looked for among those, `prompts_found` had a kept beginning, `kept_tokens` were
    saved by it. `busy_seconds` is time in the model.
    """

    batches: int = 0
    conversations: int = 0
    asked_tokens: int = 0
    computed_tokens: int = 0
    prompts: int = 0
    prompts_found: int = 0
    kept_tokens: int = 0
    busy_seconds: float = 0.0
    refused: int = 0
    late: int = 0
    cancelled: int = 0
    failed: int = 0
    tokens_per_second: float = FIRST_TOKENS_PER_SECOND

    def computed(self, tokens: int, use: CacheUse, seconds: float) -> None:
        """Add a micro-batch of so many tokens, and what it says of the speed of late."""
        self.computed_tokens += tokens - use.saved_tokens
        self.prompts += use.prompts
        self.prompts_found += use.found
        self.kept_tokens += use.saved_tokens
        self.busy_seconds += seconds
        self.batches += 1
        # By its time, so that a hundred small micro-batches say no more than they lasted.
        weight = 1 - math.exp(-seconds / REMEMBERED_SECONDS)
        speed = tokens / max(seconds, 1e-6)
        self.tokens_per_second += weight * (speed - self.tokens_per_second)


class _Job:
    """A request under way: backends fill in its rewards, and its event loop awaits `answer`."""

    def __init__(self, count: int) -> None:
        self.answer: futures.Future[tuple[Reward, ...]] = futures.Future()
        self.answer.set_running_or_notify_cancel()  # Who stops waiting does not end it.
        self.items: list[WorkItem[_Job]] = []
        self._rewards: list[Reward] = [(math.nan, None)] * count
        self._missing = count

    def fill(self, places: Sequence[int], rewards: Iterator[Reward]) -> None:
        """Take as many rewards as there are places; with the last one it is answered."""
        for place in places:
            self._rewards[place] = next(rewards)
        self._missing -= len(places)
        if self._missing or self.answer.done():
            return
        for place, (reward, std) in enumerate(self._rewards):
            if not (math.isfinite(reward) and math.isfinite(std or 0.0)):
                self.fail(NonFinite(f"the reward of conversation {place} is not a finite number"))
                return
        self.answer.set_result(tuple(self._rewards))

    def fail(self, error: Exception) -> None:
        """Answer with an error, unless it is answered."""
        if not self.answer.done():
            self.answer.set_exception(error)


class Engine:
    """One model: requests of all clients in micro-batches of one token budget.

    Rewards are raw and those of `palate score`. `stats` counts, and may be read at any time.
    """

    def __init__(
        self,
        model: RewardModel,
        *,
        name: str,
        tokens_per_microbatch: int = 4_096,
        max_waiting_tokens: int = 262_144,
        cache_bytes: int = 0,
        device_lock: threading.Lock | None = None,
        workers: Sequence[Backend] = (),
    ) -> None:
        """Wrap a loaded model; `start` before asking for rewards.

        With `workers` they compute, side by side, and `model` only says what it is. Without, it
        computes in this process, keeps up to `cache_bytes` of prompts, and holds `device_lock`
        while it does: models that share a device share its lock, and take turns instead of the
        device's threads.
        """
        self.name, self.model, self.stats = name, model, EngineStats()
        self.tokens_per_microbatch = tokens_per_microbatch
        self.max_waiting_tokens = max_waiting_tokens
        self.vocabulary = int(model.backbone.get_input_embeddings().num_embeddings)
        self._queue: FairQueue[_Job] = FairQueue()
        self._jobs: set[_Job] = set()
        self._changed = threading.Condition()  # Also the lock of all that is below and of jobs.
        self._closing = self._stopped = False
        local = LocalModel(model, device_lock, cache_bytes=cache_bytes)
        self._backends = tuple(workers) or (local,)
        self._kept_bytes: dict[Backend, int] = {}
        self._opened = 0
        self._threads = [
            threading.Thread(target=self._run, args=(backend,), name=f"palate-{name}", daemon=True)
            for backend in self._backends
        ]

    @property
    def waiting_tokens(self) -> int:
        """Tokens that no micro-batch has taken yet."""
        return self._queue.tokens

    @property
    def waiting_asks(self) -> int:
        """Requests accepted and not answered yet."""
        return len(self._jobs)

    @property
    def kept_bytes(self) -> int:
        """Bytes of prompts that are kept, by all workers together."""
        return sum(list(self._kept_bytes.values()))

    @property
    def ready(self) -> bool:
        """Whether the model is loaded somewhere and requests are accepted."""
        return bool(self._opened) and not self._closing

    def start(self) -> None:
        """Begin to answer."""
        for thread in self._threads:
            thread.start()

    async def rewards(self, request: ScoreRequest) -> tuple[float, ...]:
        """The raw reward of each conversation, in order; see `rewards_with_std`."""
        return tuple(reward for reward, _ in await self.rewards_with_std(request))

    async def rewards_with_std(self, request: ScoreRequest) -> tuple[Reward, ...]:
        """The raw reward of each conversation, in order, and how far an ensemble's members differ.

        Cancelling the caller drops the request: what no micro-batch has taken is not computed.

        Raises:
            Busy, Late, Closing: not accepted, not in time.
            NonFinite, Failed: the model has no number for it.
            PalateError: the model refuses it, in words for the user.
            ValueError: an empty conversation, or a token id that the model does not have.
        """
        if not request.conversations:
            return ()
        seconds = None if request.deadline is None else request.deadline - time.monotonic()
        if seconds is not None and seconds <= 0:
            self.stats.late += 1
            raise Late
        job = _Job(len(request.conversations))
        if len(request.conversations) == 1:  # Among many, looking for prompts takes milliseconds.
            job.items = self._items(job, request)
        else:
            job.items = await asyncio.to_thread(self._items, job, request)
        with self._changed:
            if self._closing:
                raise Closing("the server is shutting down")
            if self._queue.tokens >= self.max_waiting_tokens:
                self.stats.refused += 1
                speed = self.stats.tokens_per_second * len(self._backends)
                raise Busy(max(1.0, self._queue.tokens / speed))
            self._queue.push(job.items)
            self._jobs.add(job)
            self._changed.notify_all()  # A large request has work for several backends.
        if request.deadline is not None:
            seconds = request.deadline - time.monotonic()
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.wrap_future(job.answer)
        except TimeoutError:
            self.stats.late += 1
            raise Late from None
        except asyncio.CancelledError:
            self.stats.cancelled += 1
            raise
        finally:
            with self._changed:
                self._queue.drop(job.items)
                self._jobs.discard(job)

    def _items(self, job: _Job, request: ScoreRequest) -> list[WorkItem[_Job]]:
        for conversation in request.conversations:
            if not len(conversation):
                raise ValueError("a conversation without tokens cannot be scored")
            if conversation.min() < 0 or conversation.max() >= self.vocabulary:
                raise ValueError(f"token ids must be from 0 to {self.vocabulary - 1}")
        budget, shared = self.tokens_per_microbatch, self.model.shared
        return work_items(
            job, request.client, request.conversations, budget, shared=shared, salt=request.salt
        )

    async def drain(self, timeout_seconds: float) -> bool:
        """Refuse new requests, finish the accepted ones, stop; False where some were not done."""
        self._closing = True
        answers = [job.answer for job in self._jobs]
        unfinished = (await asyncio.to_thread(futures.wait, answers, timeout_seconds)).not_done
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            for job in self._jobs:
                job.fail(Closing("the server stopped before the answer"))

        def stop() -> None:
            for backend in self._backends:
                backend.close()
            for thread in self._threads:
                if thread.is_alive():
                    thread.join()

        await asyncio.to_thread(stop)
        return not unfinished

    def _run(self, backend: Backend) -> None:
        """The thread of a backend."""
        try:
            backend.open()
        except Exception as error:
            log.error("%s: a worker cannot start: %s", self.name, error)
        else:
            self._opened += 1
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._stopped or self._queue.tokens)
                    if self._stopped:
                        return
                with backend.device_lock:
                    with self._changed:
                        items = self._queue.take(self.tokens_per_microbatch)
                    if items:
                        self._answer(items, backend)
        except Exception:  # A mistake of ours; whoever waits must hear of it, now and later.
            log.exception("%s: the engine stopped", self.name)
            self._closing = True
            with self._changed:
                for job in self._jobs:
                    job.fail(Failed("the engine stopped"))

    def _answer(self, items: Sequence[WorkItem[_Job]], backend: Backend) -> None:
        try:
            rewards = self._compute(items, backend)
        except Exception as error:  # Whatever a model raises: out of memory, a window too short.
            if len(items) == 1:
                self._fail(items[0].owner, error)
                return
            # One request that cannot be computed must not take those of others with it.
            for item in items:
                if item.owner in self._jobs and not item.owner.answer.done():
                    self._answer([item], backend)
            return
        with self._changed:  # The parts of one request may be computed side by side.
            values = iter(rewards)
            for item in items:
                item.owner.fill(item.places, values)

    def _fail(self, job: _Job, error: Exception) -> None:
        self.stats.failed += 1
        if not isinstance(error, PalateError):
            kind = type(error).__name__
            if not self._stopped:
                log.error("%s: a request failed: %s", self.name, kind)
            error = Failed(f"the model failed: {kind}")
        with self._changed:
            job.fail(error)

    def _compute(self, items: Sequence[WorkItem[_Job]], backend: Backend) -> list[Reward]:
        """The reward of each conversation, in order: equal ones once, each prompt once."""
        by_salt: dict[str, dict[bytes, Tokens]] = {}
        for item in items:
            by_salt.setdefault(item.salt, {}).update({c.tobytes(): c for c in item.conversations})
        rewards: dict[tuple[str, bytes], Reward] = {}
        for salt, distinct in by_salt.items():
            rows, keys = list(distinct.values()), list(distinct)
            runs = by_prompt(rows) if self.model.shared else [[i] for i in range(len(rows))]
            groups = [prompt_group([rows[i] for i in run]) for run in runs]
            for indices, chosen in microbatches(groups, self.tokens_per_microbatch):
                started = time.perf_counter()
                computed = backend(chosen, salt)
                with self._changed:
                    tokens, seconds = sum(g.tokens for g in chosen), time.perf_counter() - started
                    self.stats.computed(tokens, computed.use, seconds)
                    self._kept_bytes[backend] = computed.kept_bytes
                places = [(salt, keys[i]) for index in indices for i in runs[index]]
                rewards.update(zip(places, computed.rewards, strict=True))
        asked = [(item.salt, c) for item in items for c in item.conversations]
        with self._changed:
            self.stats.conversations += len(asked)
            self.stats.asked_tokens += sum(len(c) for _, c in asked)
        return [rewards[salt, c.tobytes()] for salt, c in asked]


# A model in a process of its own: the server outlives it, and starts another.
#
# A kernel that crashes, a device that fails or the system's out-of-memory killer takes the process
# that computes. What it was computing is asked again of its successor, so nobody notices but by the
# time it takes. Nothing of the server's Python runs beside the model's either.

HUNG_SECONDS = 600.0  # A micro-batch takes seconds; a device that hangs takes for ever.
LOAD_ATTEMPTS = 5


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
        cache_bytes: int = 0,
        device_lock: threading.Lock | None = None,
    ) -> None:
        """Start a process that opens the model by `load`, a function that can be pickled.

        `threads` are torch's there; as many as the machine has cores where None. It keeps up to
        `cache_bytes` of prompts, its own.
        """
        self.device_lock = device_lock or threading.Lock()
        self.restarts = 0
        self._load, self._threads, self._cache_bytes = load, threads, cache_bytes
        self._process, self._pipe = self._spawn()
        self._ready, self._closed = False, threading.Event()

    @property
    def pid(self) -> int | None:
        """The process that computes now."""
        return self._process.pid

    def open(self) -> None:
        """Wait until the model is loaded; raises `DiedError` where it cannot be."""
        try:
            self._wait_ready()
        except (EOFError, OSError):
            raise DiedError("the process died while it loaded the model") from None

    def __call__(self, groups: Sequence[Group], salt: str) -> Computed:
        """Rewards in order; a process that dies over them is replaced and asked again, once."""
        for _ in range(2):
            self._load_again()
            try:
                self._pipe.send((groups, salt))
                computed = self._receive()
                assert computed is not None
                return computed
            except (EOFError, OSError):
                self._replace()
        raise DiedError("the process died twice over the same micro-batch")

    def close(self) -> None:
        """End the process; whoever waits for it gets `DiedError`."""
        self._closed.set()
        self._process.kill()  # It holds nothing that must be saved.
        self._process.join()

    def _spawn(self) -> tuple[BaseProcess, Connection]:
        # Not forked: threads of torch and of the server do not survive a fork.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_serve_pipe,
            args=(theirs, self._load, self._threads, self._cache_bytes),
            daemon=True,
        )
        process.start()
        theirs.close()  # Or we would never notice that the process is gone.
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
        for _ in range(LOAD_ATTEMPTS):
            try:
                self._wait_ready()
                return
            except (EOFError, OSError):
                self._replace()
        raise DiedError(f"the process died {LOAD_ATTEMPTS} times while it loaded the model")

    def _wait_ready(self) -> None:
        if not self._ready:
            self._receive()
            self._ready = True

    def _receive(self) -> Computed | None:
        if not self._pipe.poll(HUNG_SECONDS):
            raise EOFError
        answer: Computed | Exception | None = self._pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


def _serve_pipe(
    pipe: Connection, load: Callable[[], RewardModel], threads: int | None, cache_bytes: int
) -> None:
    """The process: load, send None, then answer until the pipe closes."""
    # Ctrl-C reaches every process of the terminal; the server drains, and then ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_memory()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        model = LocalModel(load(), cache_bytes=cache_bytes)
    except Exception as error:
        kind = type(error).__name__
        pipe.send(DiedError(f"the process cannot load the model: {kind}: {error}"))
        return
    pipe.send(None)
    with suppress(EOFError, OSError):  # The server is gone, or has done with this process.
        while True:
            groups, salt = pipe.recv()
            answer: Computed | Exception
            try:
                answer = model(groups, salt)
            except PalateError as error:
                answer = PalateError(str(error))
            except Exception as error:  # Its text may quote what it was given; its kind does not.
                answer = RemoteError(type(error).__name__)
            pipe.send(answer)
