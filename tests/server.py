"""A real server of tiny models on a free port of loopback, in a thread of the test's process."""

import asyncio
import math
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch

from packed import tiny_reward_model
from palate.model.export import Card, export
from palate.serve.app import Server, listen, serve
from palate.serve.loading import open_models
from palate.serve.service import Registry
from palate.serve.settings import Settings

PROMPT, RESPONSE = "How do I bake bread?", "Mix flour, water, salt and yeast."
OTHER = "The sea is wide."
TURNS = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": RESPONSE}]


def near(value: Any) -> Any:
    """A reward, or several, up to float32's rounding."""
    return pytest.approx(value, rel=1e-6, abs=1e-6)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def exported(folder: Path, **options: Any) -> Path:
    """A tiny reward model as `palate train` leaves one, with rewards of about 1."""
    model = tiny_reward_model("llama", **options)
    with torch.no_grad():
        model.head.weight.mul_(0.1)
    return export(model, folder, card=Card("tiny", "tiny", "0"))


def server_of(models: dict[str, str], settings: Settings | None = None, **options: Any) -> Server:
    """A server of models, not started."""
    served, engines = open_models(models, **options)
    return Server(Registry(served), engines, settings or Settings())


def until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait for what another thread is about to do."""
    done = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        done.wait(0.01)
    raise AssertionError("it did not come to pass")


@dataclass
class Live:
    """A running server: its address, what it was made of, and how it is told to leave."""

    url: str
    server: Server
    http: httpx2.Client
    stopped: threading.Event = field(default_factory=threading.Event)
    loop: Any = None
    leaving: Any = None
    error: BaseException | None = None

    def leave(self) -> None:
        """What SIGTERM does."""
        self.loop.call_soon_threadsafe(self.leaving.set)

    def post(self, path: str, body: Any, **headers: str) -> httpx2.Response:
        return self.http.post(path, json=body, headers=headers)

    def ok(self, path: str, body: Any, **headers: str) -> Any:
        answer = self.post(path, body, **headers)
        assert answer.status_code == 200, answer.text
        return answer.json()


@contextmanager
def live(server: Server) -> Generator[Live]:
    """`server`, until the block ends."""
    listening = listen(replace(server.settings, port=0))
    listening.listen()  # So that clients wait, and do not have to try again, until it is ready.
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    with httpx2.Client(base_url=url, timeout=30) as http:
        running = Live(url, server, http)
        known = threading.Event()

        async def main() -> None:
            running.loop, running.leaving = asyncio.get_running_loop(), asyncio.Event()
            known.set()
            await serve(server, listening, running.leaving)

        def thread() -> None:
            try:
                asyncio.run(main())
            except BaseException as error:
                running.error = error
            finally:
                running.stopped.set()

        worker = threading.Thread(target=thread)
        worker.start()
        known.wait()
        try:
            yield running
        finally:
            if not running.stopped.is_set():
                running.leave()
            worker.join()
        if running.error is not None:
            raise running.error
