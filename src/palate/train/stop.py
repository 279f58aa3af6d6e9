"""Ctrl-C and SIGTERM: noticed at once, obeyed at the end of a step, or at once if asked again."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

STOPPING = "stopping after this step; again to stop now"


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM arrived; everything up to `step` is saved."""

    def __init__(self, step: int) -> None:
        super().__init__(f"saved at step {step}")
        self.step = step


class Stop:
    """Whether Ctrl-C or SIGTERM came; a second Ctrl-C raises KeyboardInterrupt at once.

    A SIGTERM after a Ctrl-C does not: torchrun sends one to a process that is saving already.
    """

    def __init__(self) -> None:
        self._caught: list[int] = []
        self._whole = False
        self._late = False

    def __call__(self) -> bool:
        return bool(self._caught)

    def handle(self, number: int, _frame: object) -> None:
        """What `signal` calls."""
        again = number == signal.SIGINT and number in self._caught
        self._caught.append(number)
        if not again:
            return
        if self._whole:
            self._late = True
        else:
            raise KeyboardInterrupt

    @contextmanager
    def whole(self) -> Generator[None]:
        """What runs inside is not left half done: a second Ctrl-C waits for its end."""
        self._whole = True
        try:
            yield
        finally:
            self._whole = False
        if self._late:
            self._late = False
            raise KeyboardInterrupt


@contextmanager
def stop_signals(say: Callable[[str], None] = lambda _: None) -> Generator[Stop]:
    """Yield what notices Ctrl-C and SIGTERM, and `say` at the first that it was noticed."""
    stop = Stop()
    try:
        before = {s: signal.signal(s, stop.handle) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # Not the main thread: whoever runs us handles signals.
        yield stop
        return
    try:
        with _said_at_once(say):
            yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _said_at_once(say: Callable[[str], None]) -> Generator[None]:
    """Say that a signal came while the main thread is still deep in a matrix product.

    Python runs a signal's handler between two of its instructions, and a step of a large model
    has seconds of none. The number of the signal comes through a socket in the meantime.
    """
    receiving, sending = socket.socketpair()
    sending.setblocking(False)
    before = signal.set_wakeup_fd(sending.fileno(), warn_on_full_buffer=False)

    def listen() -> None:
        with receiving:
            while number := receiving.recv(1):
                if number[0] in (signal.SIGINT, signal.SIGTERM):
                    say(STOPPING)
                    return

    thread = threading.Thread(target=listen, name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        sending.close()
        thread.join()
