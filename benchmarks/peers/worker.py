"""The child's side: one timed window a request, as JSON lines on stdin and stdout.

Imports the standard library alone, for it runs in every contender's environment.
"""

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Facts = dict[str, Any]


class Requests:
    """The parent's requests, in order; each is answered once before the next is read.

    Whatever libraries print goes to stderr, so that stdout carries answers alone.
    """

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
        os.dup2(2, 1)

    def __iter__(self) -> Iterator[Facts]:
        for line in sys.stdin:
            yield json.loads(line)

    def answer(self, **facts: Any) -> None:
        """Send one answer."""
        self._answers.write(json.dumps(facts) + "\n")


class Window:
    """A timed span: seconds on the wall, and the peak resident memory within it."""

    def __init__(self) -> None:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # The peak starts at what is held now.
        self._resident = _status_bytes("VmRSS")
        self._started = time.perf_counter()

    def close(self) -> Facts:
        """What it took until now; the last call is the end."""
        seconds = time.perf_counter() - self._started
        peak = _status_bytes("VmHWM")
        return {"seconds": seconds, "peak_bytes": peak, "before_bytes": self._resident}


def serve(
    work: Callable[[Facts], Facts],
    prepare: Callable[[Facts], object] | None = None,
    *,
    source: str = "",
) -> None:
    """Answer every request with what `work` says of it and what the window took.

    `prepare` sees the request before the window opens; `source` is the package that works.
    """
    requests = Requests()
    requests.answer(ready=True, source=source)
    for request in requests:
        if prepare is not None:
            prepare(request)
        window = Window()
        facts = work(request)
        requests.answer(**{**window.close(), **facts})


def read_rows(path: str | Path) -> list[Facts]:
    """The rows of a JSON-lines file."""
    with Path(path).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}; these benchmarks need Linux")
