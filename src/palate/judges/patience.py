"""Requests that outlast a server's bad moments: bounded retries with backoff, then one line."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from palate.http import PASSING, REFUSED, bearer_key, error_line, one_line, retry_after
from palate.judges.spec import RewardEndpointSpec
from palate.types import PalateError

CURES: Mapping[int, str] = {
    401: "name the environment variable of the right key in `key_env`",
    403: "name the environment variable of the right key in `key_env`",
    404: "check `url`, `shape` and `path`, and `model` where several are served",
    405: "check `url`, `shape` and `path`",
}


class RefusedError(Exception):
    """The server will not score this text; the message says why, in its words."""


class StoppedError(Exception):
    """Nobody waits for this answer any more."""


@dataclass(frozen=True, slots=True)
class _Trouble:
    said: str
    wait_seconds: float | None = None


class Patience:
    """Posts JSON to one address, from any number of threads.

    The key is read from the environment, and is in no message: what a server says is stripped
    of it.
    """

    def __init__(self, spec: RewardEndpointSpec, path: str) -> None:
        """Raises `PalateError` where `key_env` names a variable that holds no key."""
        self.address = spec.url + (path if spec.path is None else f"/{spec.path.lstrip('/')}")
        self._spec = spec
        self._key = bearer_key(spec.key_env, "reward-endpoint", spec.url) if spec.key_env else ""
        headers = {"content-type": "application/json"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        self._http = httpx2.Client(
            headers=headers,
            timeout=spec.timeout_seconds,
            limits=httpx2.Limits(max_connections=spec.concurrency),
        )
        self._stop = threading.Event()

    def post(self, body: Mapping[str, Any]) -> Any:
        """The JSON that the server answers.

        Raises:
            RefusedError: the server refuses the text.
            StoppedError: `stop` was called meanwhile.
            PalateError: it cannot be reached, or fails as often as `attempts` allows.
        """
        # Escaped, since data may hold half a surrogate pair, which has no UTF-8.
        content = json.dumps(body).encode()
        trouble = _Trouble("")
        for attempt in range(self._spec.attempts):
            if attempt and self._stop.wait(self._pause(attempt, trouble)):
                raise StoppedError
            answer = self._try(content)
            if not isinstance(answer, _Trouble):
                return answer
            trouble = answer
        raise PalateError(
            f"{self.address}: {trouble.said}, {self._spec.attempts} times; start or relieve the "
            "server (`concurrency`, `timeout_seconds`, `attempts`) and run again, answers so far "
            "are kept"
        )

    def stop(self) -> None:
        """End waits; requests under way end by themselves, within `timeout_seconds`."""
        self._stop.set()

    def close(self) -> None:
        """End connections, when no request is under way."""
        self._http.close()

    def _try(self, content: bytes) -> Any | _Trouble:
        if self._stop.is_set():
            raise StoppedError
        try:
            response = self._http.post(self.address, content=content)
        except httpx2.RequestError as error:
            late = isinstance(error, httpx2.TimeoutException)
            kind = "gives no answer in time" if late else "cannot be reached"
            return _Trouble(f"{kind} ({type(error).__name__}: {one_line(str(error), self._key)})")
        status = response.status_code
        if status == 200:
            try:
                return response.json()
            except ValueError:
                return _Trouble("answers 200 with what is not JSON")
        said = error_line(response, self._key)
        if status in PASSING:
            return _Trouble(f"answers {status} ({said})", retry_after(response.headers))
        if status in REFUSED:
            # Without its numbers, equal reasons of unequal texts are counted together.
            said = re.sub(r"\d+", "N", said)
            raise RefusedError(f"refused by the endpoint ({status}): {said}")
        cure = CURES.get(status, "expected 200; check `url` and `shape`")
        raise PalateError(f"{self.address}: answers {status} ({said}); {cure}")

    def _pause(self, attempt: int, trouble: _Trouble) -> float:
        doubled = self._spec.backoff_seconds * 2.0 ** (attempt - 1)
        return min(max(doubled, trouble.wait_seconds or 0.0), self._spec.longest_wait_seconds)
