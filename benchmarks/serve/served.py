"""Servers as processes: started on a free port, waited for until they say they are ready."""

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from benchmarks.peers.contender import HERE, WORK, environment

ADDRESS = re.compile(r"(http://[\w.\[\]:-]+:\d+)")
START_SECONDS = 120.0


class Served:
    """One server that was started from a module's command line."""

    def __init__(
        self,
        name: str,
        module: str,
        arguments: Sequence[object],
        threads: int,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Start it and wait; raises `RuntimeError` with its last words where it ends instead."""
        self.name, self.address, self.log = name, "", WORK / "logs" / f"{name}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._ready, started = threading.Event(), time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=HERE.parent,
            env=environment(threads) | dict(variables or {}),
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()
        if not self._ready.wait(START_SECONDS) or not self.address:
            self.process.kill()
            last = "\n".join(self.log.read_text().splitlines()[-15:])
            raise RuntimeError(f"{name} did not become ready; {self.log} ends in\n{last}")
        self.seconds_to_ready = time.perf_counter() - started

    def stop(self, number: int = signal.SIGTERM, timeout_seconds: float = 60.0) -> int:
        """Send a signal and wait for the end; the exit status."""
        self.process.send_signal(number)
        try:
            status = self.process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self._reading.join()
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.stop()

    def _read(self) -> None:
        """Keep what it says, and find the address in it."""
        assert self.process.stderr is not None
        with self.log.open("w", encoding="utf-8") as log:
            for line in self.process.stderr:
                log.write(line)
                log.flush()
                found = ADDRESS.search(line)
                if found and not self.address:
                    self.address = found[1]
                    self._ready.set()
        self._ready.set()


def palate_serve(
    name: str, threads: int, *arguments: object, variables: Mapping[str, str] | None = None
) -> Served:
    """`palate serve ARGUMENTS` on a free port of this machine."""
    return Served(name, "palate", ["serve", *arguments, "--port", 0], threads, variables)
