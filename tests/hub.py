"""A hub on loopback: the endpoints that huggingface_hub uploads through, with LFS by hash.

It knows one token, keeps repositories in memory and refuses bytes that are not what was announced.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_of_this_test_only"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What was pushed: {repository: {path: bytes}}, and which repositories are private."""

    url: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    branches: list[str] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    writable: bool = True

    def create(self, asked: dict[str, Any]) -> tuple[int, Any]:
        name = f"{asked['organization']}/{asked['name']}"
        there = name in self.private
        self.private.setdefault(
            name, bool(asked.get("private", asked.get("visibility") == "private"))
        )
        self.files.setdefault(name, {})
        return 409 if there else 200, {"url": f"{self.url}/{name}", "error": "it is there"}

    def batch(self, asked: dict[str, Any]) -> Any:
        return {"objects": [self._upload(o) for o in asked["objects"]], "transfer": "basic"}

    def _upload(self, asked: dict[str, Any]) -> dict[str, Any]:
        if asked["oid"] in self.blobs:
            return asked
        upload = {"href": f"{self.url}/upload/{asked['oid']}", "header": {}}
        return {**asked, "actions": {"upload": upload}}

    def commit(self, repo: str, lines: bytes) -> Any:
        for line in map(json.loads, lines.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.messages.append(value["summary"])
            elif line["key"] == "file":
                self.files[repo][value["path"]] = base64.b64decode(value["content"])
            else:
                assert line["key"] == "lfsFile", line
                self.files[repo][value["path"]] = self.blobs[value["oid"]]
        return {"commitUrl": f"{self.url}/{repo}/commit/{COMMIT}", "commitOid": COMMIT}


@contextmanager
def hub() -> Generator[Hub]:
    """The hub at `.url`, until the block ends."""
    kept = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(kept))
    server.daemon_threads = True
    kept.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
    thread.start()
    try:
        yield kept
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(kept: Hub, method: str, path: str, body: bytes) -> tuple[int, Any]:
    parts = path.split("?")[0].strip("/").split("/")
    match [method, *parts]:
        case ["POST", "api", "repos", "create"]:
            return kept.create(json.loads(body))
        case ["POST", "api", "validate-yaml"]:
            return 200, {"warnings": [], "errors": []}
        case ["GET", "api", "models", owner, name, *_] if f"{owner}/{name}" in kept.private:
            repo = f"{owner}/{name}"
            return 200, {"id": repo, "private": kept.private[repo], "sha": COMMIT, "siblings": []}
        case ["POST", "api", "models", _, _, "branch", branch]:
            kept.branches.append(branch)
            return 200, {}
        case ["POST", "api", "models", _, _, "preupload", _]:
            paths = [file["path"] for file in json.loads(body)["files"]]
            modes = [
                "lfs" if path.endswith((".safetensors", ".onnx")) else "regular" for path in paths
            ]
            rows = zip(paths, modes, strict=True)
            return 200, {
                "files": [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in rows]
            }
        case ["POST", _, _, "info", "lfs", "objects", "batch"]:
            return 200, kept.batch(json.loads(body))
        case ["PUT", "upload", oid]:
            if hashlib.sha256(body).hexdigest() != oid:
                return 422, {"error": "not what was announced"}
            kept.blobs[oid] = body
            return 200, {}
        case ["POST", "api", "models", owner, name, "commit", _]:
            return 200, kept.commit(f"{owner}/{name}", body)
    return 404, {"error": f"no {method} {path}"}


def _handler(kept: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if self.headers.get("transfer-encoding") == "chunked":
                body = self._chunks()
            status, answer = 401, {"error": "who are you?"}
            named = self.headers.get("authorization") == f"Bearer {TOKEN}"
            if named and not kept.writable and self.command == "POST":
                status, answer = 403, {"error": "read only"}
            elif named or self.command == "PUT":  # An upload's address is its own permission.
                status, answer = _answer(kept, self.command, self.path, body)
            self._send(status, json.dumps(answer).encode())

        def do_GET(self) -> None:
            self.do_POST()

        def do_PUT(self) -> None:
            self.do_POST()

        def _chunks(self) -> bytes:
            found = b""
            while size := int(self.rfile.readline(), 16):
                found += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return found

        def _send(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    return Handler
