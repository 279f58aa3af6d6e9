"""A real chat endpoint on loopback that counts what it is asked and misbehaves when told to."""

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from palate.types import Message, Pair


@dataclass(frozen=True)
class Reply:
    """What the server does: a status, a body (JSON or bytes), headers, and two misdeeds.

    `cut` sends that many bytes less than it announced and hangs up.
    """

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    wait_seconds: float = 0.0
    cut: int = 0

    @property
    def payload(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


PATHS = ("chat/completions", "messages", "decisions", "systemone")
Behaviour = Callable[[dict[str, Any], int], Reply]
"""From a request body, and how often this very question came before, to what is done."""


def says(text: str | None, *, top: dict[str, float] | None = None, **choice: Any) -> Reply:
    """A whole answer of 100 prompt tokens and 1 token; `top` are its first token's likeliest."""
    listed = [{"token": token, "logprob": value} for token, value in (top or {}).items()]
    first = {"token": str(text), "logprob": 0.0, "top_logprobs": listed}
    message = {"role": "assistant", "content": text}
    made = {"index": 0, "message": message, "finish_reason": "stop"} | choice
    if top is not None:
        made["logprobs"] = {"content": [first]}
    usage = {"prompt_tokens": 100, "completion_tokens": 1, "total_tokens": 101}
    return Reply({"id": "x", "object": "chat.completion", "choices": [made], "usage": usage})


def fails(status: int, message: str = "try later", **headers: str) -> Reply:
    """An error in OpenAI's form."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply({"error": {"message": message, "code": None}}, status, given)


def message(body: dict[str, Any]) -> str:
    """The question of a request."""
    if "messages" in body:
        return str(body["messages"][0]["content"])
    return str(body.get("input") or body["state"])


def answers(text: str) -> tuple[str, str]:
    """What stands between the tags of A and B."""
    a, b = (re.findall(rf"<answer_{x}>\n(.*?)\n</answer_{x}>", text, re.S) for x in "AB")
    return a[0], b[0]


def judges(body: dict[str, Any], _before: int) -> Reply:
    """An honest model: it prefers the answer that says `good`."""
    return says("A" if "good" in answers(message(body))[0] else "B")


@dataclass
class Endpoint:
    """A running server: what it was asked (`asked`, `bodies`), and whole answers it sent."""

    url: str
    asked: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    most_at_once: int = 0


@contextmanager
def endpoint(behave: Behaviour = judges) -> Generator[Endpoint]:
    """A chat endpoint that behaves as told, on a free port of 127.0.0.1."""
    lock, at_once = threading.Lock(), [0]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                question = message(body)
                before = running.asked[question]
                running.asked[question] += 1
                running.bodies.append(body)
                running.keys.append(self.headers.get("Authorization", ""))
                running.headers.append({k.lower(): v for k, v in self.headers.items()})
                running.times.append(time.monotonic())
                at_once[0] += 1
                running.most_at_once = max(running.most_at_once, at_once[0])
            if self.path.removeprefix("/v1/") not in PATHS:
                reply = fails(404, "no such page")
            else:
                reply = behave(body, before)
            time.sleep(reply.wait_seconds)
            with lock:
                at_once[0] -= 1
                # Counted before it is sent: a client that was killed meanwhile has paid.
                running.answered[question] += reply.status == 200 and not reply.cut
            self._send(reply)

        def _send(self, reply: Reply) -> None:
            payload = reply.payload
            lines = [f"HTTP/1.1 {reply.status} X", "Content-Type: application/json"]
            lines += [f"Content-Length: {len(payload)}"]
            lines += [f"{name}: {value}" for name, value in reply.headers.items()]
            raw = "\r\n".join([*lines, "", ""]).encode() + payload
            try:
                self.wfile.write(raw[: len(raw) - reply.cut])
            except OSError:
                self.close_connection = True  # The client was killed.
            if reply.cut:
                self.close_connection = True

        def handle(self) -> None:
            with suppress(OSError):  # The client was killed between two requests.
                super().handle()

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 256

    server = Server(("127.0.0.1", 0), Handler)
    running = Endpoint(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def pair(number: int) -> Pair:
    """Pair `number`; the good answer stands first where the number is even."""
    sides = (f"good answer {number}", f"bad answer {number}")
    first, second = sides if number % 2 == 0 else sides[::-1]
    return Pair(f"p{number}", (Message("user", f"Question {number}?"),), first, second)
