"""A model in a process of its own: the server outlives it, and starts another.

A kernel that crashes, a device that fails or the kernel's out-of-memory killer takes the process
that computes. What it was computing is asked again of its successor, so nobody notices but by the
time it takes. Nothing of the server's Python runs beside the model's either.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import torch

from palate.model.device import keep_memory
from palate.model.packing import Group
from palate.model.reward_model import RewardModel
from palate.serve.compute import Here
from palate.types import PalateError

HUNG_SECONDS = 600.0  # A micro-batch takes seconds; a device that hangs takes for ever.
LOADS = 5

log = logging.getLogger(__name__)


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
        model = Here(load())
    except Exception as error:
        pipe.send(("unloaded", f"{type(error).__name__}: {error}"))
        return
    pipe.send(("rewards", []))
    with suppress(EOFError, OSError):  # The server is gone, or has done with this process.
        while True:
            pipe.send(_answer(model, pipe.recv()))


def _answer(model: Here, groups: Sequence[Group]) -> tuple[str, list[float] | str]:
    try:
        return "rewards", model(groups)
    except PalateError as error:
        return "refused", str(error)
    except Exception as error:  # Its text may quote what it was given; its kind does not.
        return "failed", type(error).__name__
