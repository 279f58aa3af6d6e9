"""A running engine: started, asked, and always ended.

A server is started on a free port of the loopback and asked over HTTP; a worker reads a line of
JSON and answers with one. Both run under `guard.py`, which ends them, and whatever they started,
when the `with` ends, on Ctrl-C, and when this process is killed.
"""

from __future__ import annotations

import json
import os
import queue
import re
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx2

from palate.engines.base import Ask, Engine, NumberFormat, Reading, RefusedError, Setup
from palate.engines.environment import Environment
from palate.http import error_line, one_line
from palate.process import temporary_folder
from palate.types import PalateError

GUARD = Path(__file__).with_name("guard.py")
ANSWER_SECONDS = 600.0
END_SECONDS = 15.0
LAST_LINES = 40
NO_MEMORY = r"(?i)out of memory|MemoryError|Cannot allocate memory|std::bad_alloc|oom"


@dataclass(frozen=True, slots=True)
class Session:
    """An engine that runs: its address or its worker, its log, its version."""

    engine: Engine
    setup: Setup
    version: str
    model: Path
    url: str
    log: Path
    process: subprocess.Popen[bytes]
    client: httpx2.Client
    answers: queue.Queue[bytes]

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """What the server answers to `body`, as JSON.

        Raises:
            RefusedError: it answers with another status than 200.
            PalateError: it has died.
        """
        try:
            response = self.client.post(f"{self.url}{path}", json=body)
        except httpx2.HTTPError as error:
            raise self._gone(f"{type(error).__name__} at {path}") from None
        if response.status_code != 200:
            said = error_line(response).replace(str(self.model), "MODEL")
            raise RefusedError(f"{response.status_code}: {said}")
        try:
            return response.json()
        except ValueError:
            raise RefusedError(f"200 with what is no JSON: {one_line(response.text)}") from None

    def get(self, path: str) -> Any:
        """As `post`, without a body."""
        try:
            response = self.client.get(f"{self.url}{path}")
            return response.json() if response.status_code == 200 else None
        except (httpx2.HTTPError, ValueError):
            return None

    def call(self, request: Mapping[str, Any]) -> Any:
        """What the worker answers to `request`: `{"answer": ...}`, or `{"refused": "why"}`.

        Raises:
            RefusedError: it cannot be asked like that.
            PalateError: it has died.
        """
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            raise self._gone("its worker reads no more") from None
        line = self._line(time.monotonic() + ANSWER_SECONDS)
        answer = json.loads(line)
        if "refused" in answer:
            raise RefusedError(one_line(answer["refused"]))
        return answer["answer"]

    def number_format(self) -> NumberFormat:
        """What it computes in, where its log says so; else what its setup says."""
        read = self.engine.number_format
        said = read(self.log.read_text(errors="replace")) if read is not None else None
        return said or self.setup.number_format

    def _line(self, until: float) -> bytes:
        while time.monotonic() < until:
            with suppress(queue.Empty):
                line = self.answers.get(timeout=0.2)
                if not line:
                    raise self._gone("its worker ended")
                return line
        raise self._gone("its worker gives no answer in time")

    def _gone(self, event: str) -> PalateError:
        # The guard ends a moment after what it watches.
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(2.0)
        return _failed(self.engine, self.setup, self.log, event, self.process.poll())


WORKER = Path(__file__).parent / "workers" / "__main__.py"


def worker_command(program: Path, library: str, model: Path, setup: Setup) -> list[str]:
    """The words that start `workers/LIBRARY.py` on a model; its flags are keyword arguments."""
    options = dict(flag.split("=", 1) for flag in setup.flags)
    # -I: neither the folder of the script nor that of the caller is where packages are looked for.
    return [str(program), "-I", str(WORKER), library, str(model), json.dumps(options)]


def ask_worker(way: str) -> Ask:
    """Ask the worker's function `way` for the rewards of readings."""

    def ask(session: Session, readings: Sequence[Reading]) -> Sequence[float | None]:
        rows = [
            {
                "messages": [{"role": m.role, "content": m.content} for m in reading.messages],
                "text": reading.text,
                "ids": list(reading.ids),
                "prompt": reading.prompt,
                "response": reading.response,
            }
            for reading in readings
        ]
        values: Sequence[float | None] = session.call({"way": way, "readings": rows})
        return values

    return ask


@contextmanager
def running(
    engine: Engine,
    environment: Environment,
    setup: Setup,
    model: Path,
    *,
    say: Callable[[str], None] = lambda _: None,
) -> Generator[Session]:
    """Start `engine` on `model` as `setup` says, and end it with all that it started.

    Raises:
        PalateError: it does not start, or serves another model.
    """
    with temporary_folder(f"palate-{engine.name}-") as folder:
        port = _free_port() if engine.server else 0
        words = [str(w) for w in engine.command(environment.program, model, port, setup)]
        log = Path(folder) / "log.txt"
        # The write end is inherited by no one: when this process ends, however, it is closed.
        lifeline, held = os.pipe()
        try:
            process = _spawn(words, lifeline, log, environment, engine, setup, folder)
        finally:
            os.close(lifeline)
        answers: queue.Queue[bytes] = queue.Queue()
        if not engine.server:
            assert process.stdout is not None
            reader = threading.Thread(target=_read, args=(process.stdout, answers), daemon=True)
            reader.start()
        client = httpx2.Client(timeout=ANSWER_SECONDS, trust_env=False)
        url = f"http://127.0.0.1:{port}" if port else ""
        session = Session(
            engine, setup, environment.version, model, url, log, process, client, answers
        )
        try:
            say(f"{engine.title} {environment.version}, {setup.name}: starting ...")
            _wait(session)
            yield session
        finally:
            os.close(held)
            client.close()
            with suppress(OSError):
                if process.stdin is not None:
                    process.stdin.close()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _spawn(
    words: Sequence[str],
    lifeline: int,
    log: Path,
    environment: Environment,
    engine: Engine,
    setup: Setup,
    folder: str,
) -> subprocess.Popen[bytes]:
    # What is set for Palate must not change what an engine finds: its packages are its own.
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    variables = {
        # Nothing of it needs a network, and a fault there would look like one of the model's.
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
        "NO_COLOR": "1",
        **engine.environment,
        **setup.environment,
    }
    first = environment.program.parent
    path = f"{first}{os.pathsep}{os.environ.get('PATH', '')}"
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(GUARD), str(lifeline), *words],
            stdin=subprocess.DEVNULL if engine.server else subprocess.PIPE,
            stdout=file if engine.server else subprocess.PIPE,
            stderr=file,
            env={**kept, **variables, "PATH": path},
            cwd=folder,
            pass_fds=(lifeline,),
            start_new_session=True,
        )


def _read(stdout: IO[bytes], answers: queue.Queue[bytes]) -> None:
    """Hand on each line, and an empty one at the end."""
    with suppress(ValueError):  # Closed while it was read.
        for line in stdout:
            if line.startswith(b"{"):  # Libraries print to stdout, too.
                answers.put(line)
    answers.put(b"")


def _wait(session: Session) -> None:
    """Return once the engine is ready; raises `PalateError` where it ends before, or never is."""
    engine, until = session.engine, time.monotonic() + session.engine.start_seconds
    if not engine.server:
        said = json.loads(session._line(until))
        if "ready" not in said:
            event = one_line(str(said.get("refused", said)))
            raise _failed(engine, session.setup, session.log, event, None)
        return
    while session.process.poll() is None and time.monotonic() < until:
        with suppress(httpx2.HTTPError):
            ready = session.client.get(f"{session.url}{engine.health}", timeout=5.0)
            if ready.status_code == 200:
                break
        time.sleep(0.2)
    else:
        ended = session.process.poll()
        event = f"not ready in {engine.start_seconds:g} seconds" if ended is None else ""
        raise _failed(engine, session.setup, session.log, event, ended)
    served = engine.served(session) if engine.served is not None else None
    if served is not None and Path(served) != session.model:
        raise PalateError(
            f"{engine.name}: the server at {session.url} serves {served}, not {session.model}; "
            "another server took its port, so run it again"
        )


def _failed(engine: Engine, setup: Setup, log: Path, event: str, code: int | None) -> PalateError:
    """One line of a log that says why, with the cure."""
    text = log.read_text(errors="replace") if log.is_file() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = list(deque(lines, LAST_LINES))
    named = re.compile(r"^\S*(Error|Exception|error)\b[^:]*:")
    told = [re.sub(r"^\([^)]*\)\s*(ERROR [\d: -]+\[[^]]*\]\s*)?", "", line) for line in last]
    reason = next((line for line in told if named.match(line)), told[-1] if told else "")
    cure = next(
        (cure for pattern, cure in engine.cures.items() if re.search(pattern, "\n".join(lines))), ""
    )
    if not cure and (re.search(NO_MEMORY, "\n".join(last)) or code in (9, 137)):
        cure = "out of memory; close other programs or take a smaller model"
    cure = (
        cure or f"start it yourself to see all of its log, or palate engines install {engine.name}"
    )
    ended = f"ended with code {code}" if code is not None else event or "did not start"
    what = f"{engine.name}, {setup.name}: {ended}"
    return PalateError(f"{what} ({one_line(reason, max_characters=300)}); {cure}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
