"""A tiny real reward model behind HTTP on loopback, in the shapes of real servers.

It tokenises text as they do, with the tokenizer's special tokens, and squashes the one label
unless told not to. `faults` decides for each request whether it misbehaves instead; `about` is what
it says of itself, by path.
"""

import json
import math
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer


@dataclass(frozen=True)
class Fault:
    """What is answered instead of rewards; `cut` sends less than announced and hangs up."""

    status: int = 500
    body: Any = field(default_factory=lambda: {"error": "not now"})
    headers: dict[str, str] = field(default_factory=dict)
    wait_seconds: float = 0.0
    cut: bool = False


Faults = Callable[[int, dict[str, Any]], Fault | None]


class Served:
    """The stock model: rewards of one text alone and unpadded, and what was asked of it."""

    def __init__(self, folder: Path, faults: Faults | None) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
        self.model = model.eval()
        self.faults: Faults = faults or (lambda _number, _body: None)
        self.url = ""
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.about: dict[str, Any] = {}
        self.at_seconds: list[float] = []
        self.lock = threading.Lock()

    def reward(self, said: Any, *, raw: bool) -> float:
        ids = said
        if isinstance(said, str):
            ids = self.tokenizer(said)["input_ids"]
        elif isinstance(said[0], str):
            ids = self.tokenizer(*said)["input_ids"]
        elif isinstance(said[0], dict):
            ids = self.tokenizer.apply_chat_template(said, return_dict=False)
        with self.lock, torch.inference_mode():
            logit = float(self.model(torch.tensor([ids])).logits[0, 0])
        return logit if raw else 1 / (1 + math.exp(-logit))

    def state(self, ids: list[int], normalize: int) -> list[float]:
        """The last token's state after the last norm, as llama.cpp's `--pooling last` gives it."""
        with self.lock, torch.inference_mode():
            vector = self.model.model(torch.tensor([ids])).last_hidden_state[0, -1]
        return (vector / vector.norm() if normalize == 2 else vector).tolist()

    def answer(self, path: str, body: dict[str, Any]) -> Any:
        match path:
            case "/classify" if "text" in body or "input_ids" in body:
                said = body.get("text") or body["input_ids"]
                return [{"embedding": [self.reward(s, raw=True)], "meta_info": {}} for s in said]
            case "/classify" | "/pooling":
                said = [body["messages"]] if "messages" in body else body["input"]
                rewards = [self.reward(s, raw=body.get("use_activation") is False) for s in said]
                key = "probs" if path == "/classify" else "data"
                rows = [{"index": i, key: [reward]} for i, reward in enumerate(rewards)]
                return {"object": "list", "data": rows[::-1]}  # The index counts, not the order.
            case "/predict":
                raw = body.get("raw_scores") is True
                texts = [s[0] if len(s) == 1 else s for s in body["inputs"]]
                return [[{"score": self.reward(s, raw=raw), "label": "LABEL_0"}] for s in texts]
            case "/score":
                pairs = zip(body["text_1"], body["text_2"], strict=True)
                raw = body.get("use_activation") is False
                return {"data": [{"score": self.reward(pair, raw=raw)} for pair in pairs]}
            case "/rerank":
                raw = body.get("raw_scores") is True
                pairs = [(body["query"], one) for one in body["documents"]]
                rows = [
                    {"index": i, "relevance_score": self.reward(pair, raw=raw)}
                    for i, pair in enumerate(pairs)
                ]
                return {"results": sorted(rows, key=lambda row: -row["relevance_score"])}
            case "/embedding":
                return [
                    {"index": i, "embedding": [self.state(said, body["embd_normalize"])]}
                    for i, said in enumerate(body["content"])
                ]
            case "/get_reward":
                rewards = [self.reward(s, raw=True) for s in body["query"]]
                return {"rewards": rewards, "scores": rewards, "extra_logs": {}}
        return None


@contextmanager
def serving(folder: Path, faults: Faults | None = None) -> Generator[Served]:
    """The model of `folder` at `.url`, until the block ends."""
    served = Served(folder, faults)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(served))
    server.daemon_threads = True
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(served: Served) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with served.lock:
                number = len(served.bodies)
                served.bodies.append(body)
                served.keys.append(self.headers.get("authorization"))
                served.at_seconds.append(time.monotonic())
            fault = served.faults(number, body)
            if fault is None:
                found = served.answer(self.path, body)
                fault = Fault(404, {"detail": "Not Found"}) if found is None else Fault(200, found)
            self._send(fault)

        def do_GET(self) -> None:
            known = self.path in served.about
            missing = Fault(404, {"detail": "Not Found"})
            self._send(Fault(200, served.about[self.path]) if known else missing)

        def _send(self, fault: Fault) -> None:
            time.sleep(fault.wait_seconds)
            given = fault.body
            content = given if isinstance(given, bytes) else json.dumps(given).encode()
            try:
                self.send_response(fault.status)
                for name, value in fault.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if fault.cut else content)
            except OSError:
                fault = Fault(cut=True)  # The client went away.
            self.close_connection = self.close_connection or fault.cut

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    return Handler
