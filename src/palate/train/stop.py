"""Ctrl-C and SIGTERM: noticed at once, obeyed at the end of a step."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM arrived; everything up to `step` is saved."""

    def __init__(self, step: int) -> None:
        super().__init__(f"saved at step {step}")
        self.step = step


@contextmanager
def stop_signals() -> Generator[Callable[[], bool]]:
    """Yield a function that says whether Ctrl-C or SIGTERM came; a second Ctrl-C stops at once.

    A SIGTERM after a Ctrl-C does not: torchrun sends one to a process that is saving already.
    """
    caught: list[int] = []

    def handle(number: int, _frame: object) -> None:
        if number == signal.SIGINT and number in caught:
            raise KeyboardInterrupt
        caught.append(number)

    try:
        before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # Not the main thread: whoever runs us handles signals.
        before = {}
    try:
        yield lambda: bool(caught)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
