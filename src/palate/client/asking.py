"""One request's way to its scores, without the network: threads and tasks walk it alike.

`Asking.scores` is a generator of steps. Whoever drives it does each step in its own way, sends
back the response or the network's error, and is returned the scores.
"""

from __future__ import annotations

import json
import math
import random
import uuid
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2

from palate.client.options import Options, token
from palate.client.rows import Item, halves
from palate.http import PASSING, error_line, one_line, retry_after
from palate.types import PalateError, Score

PATH = "/v1/reward"
TOO_LARGE = 413


@dataclass(frozen=True, slots=True)
class Send:
    """Post this, and send back the response or the error."""

    content: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Wait:
    """Let so many seconds pass."""

    seconds: float


Step = Send | Wait
Reply = httpx2.Response | httpx2.RequestError | None
Steps = Generator[Step, Reply, list[Score]]


class Asking:
    """How one server is asked, and which model it was that answered first."""

    def __init__(self, chosen: Options) -> None:
        """Raises `PalateError` where `token_env` names a variable that holds no token."""
        self.chosen, self.address = chosen, chosen.url + PATH
        self._token = token(chosen)
        self._fingerprint: str | None = None

    @property
    def http(self) -> dict[str, Any]:
        """How the HTTP library is set up; waiting for a free connection has no limit."""
        bearer = {"authorization": f"Bearer {self._token}"} if self._token else {}
        return {
            "headers": {"content-type": "application/json", **bearer},
            "timeout": httpx2.Timeout(self.chosen.timeout_seconds, pool=None),
            "limits": httpx2.Limits(max_connections=self.chosen.concurrency),
        }

    def scores(self, items: Sequence[Item]) -> Steps:
        """Scores of the items' responses, in order; of halves, where the whole is too large.

        Raises:
            PalateError: the server cannot be reached or fails as often as `attempts` allows,
                refuses the request, or serves another model than before.
        """
        body: dict[str, Any] = {"items": [item.body for item in items]}
        body["deadline_seconds"] = self.chosen.timeout_seconds  # Nobody waits for it longer.
        if self.chosen.model is not None:
            body["model"] = self.chosen.model
        response = yield from self._response(body)
        if response.status_code != TOO_LARGE:
            return self._read(response, items)
        parts = halves(items)
        if parts is None:
            return [Score(None, self._line(response))]
        first = yield from self.scores(parts[0])
        return first + (yield from self.scores(parts[1]))

    def _response(self, body: Mapping[str, Any]) -> Generator[Step, Reply, httpx2.Response]:
        """The first response that is not a passing trouble."""
        # The id is one for all attempts; escaped JSON can hold half a surrogate pair.
        send = Send(json.dumps(body).encode(), {"x-request-id": uuid.uuid4().hex})
        reply: Reply = None
        for attempt in range(1, self.chosen.attempts + 1):
            reply = yield send
            if isinstance(reply, httpx2.Response) and reply.status_code not in PASSING:
                return reply
            if attempt < self.chosen.attempts:
                yield Wait(self._pause_seconds(attempt, reply))
        raise PalateError(
            f"{self.address}: {self._trouble(reply)}, {self.chosen.attempts} times; start or "
            "relieve the server, or raise `attempts` or `timeout_seconds`"
        )

    def _pause_seconds(self, attempt: int, reply: Reply) -> float:
        """Doubling, up to half of it less so that clients spread; never less than asked for."""
        doubled = self.chosen.backoff_seconds * 2.0 ** (attempt - 1)
        asked = retry_after(reply.headers) if isinstance(reply, httpx2.Response) else None
        pause = max(doubled * random.uniform(0.5, 1.0), asked or 0.0)
        return min(pause, self.chosen.longest_wait_seconds)

    def _read(self, response: httpx2.Response, items: Sequence[Item]) -> list[Score]:
        if response.status_code != 200:
            cure = _cure(response.status_code, self.chosen)
            raise PalateError(f"{self.address}: {self._line(response)}; {cure}")
        try:
            answer = response.json()
            rows, fingerprint = answer["data"], str(answer["fingerprint"])
            places = [(row["item"], row["response"]) for row in rows]
            scores = [_score(row) for row in rows]
        except (LookupError, TypeError, ValueError, ArithmeticError, RecursionError):
            places, scores = [], []
        if places != [(i, r) for i, item in enumerate(items) for r in range(len(item.responses))]:
            raise PalateError(
                f"{self.address}: answers 200 with other rows than asked for; expected a Palate "
                "server of this version"
            )
        self._hold_to(fingerprint)
        return scores

    def _hold_to(self, fingerprint: str) -> None:
        """Rewards of two models are not comparable, though a server restarts in between."""
        if self._fingerprint not in (None, fingerprint):
            raise PalateError(
                f"{self.address}: now serves another model ({fingerprint}) than the one that "
                f"answered before ({self._fingerprint}); make a new client if that is meant"
            )
        self._fingerprint = fingerprint

    def _line(self, response: httpx2.Response) -> str:
        return f"answers {response.status_code} ({error_line(response, self._token)})"

    def _trouble(self, reply: Reply) -> str:
        if isinstance(reply, httpx2.Response):
            return self._line(reply)
        kind = "no answer in time" if isinstance(reply, httpx2.TimeoutException) else "not reached"
        return f"{kind} ({type(reply).__name__}: {one_line(str(reply), self._token)})"


def _cure(status: int, chosen: Options) -> str:
    match status:
        case 401 | 403:
            return f"export the server's token in {chosen.token_env}"
        case 404:
            return "check `url` and `model`; a Palate server answers at /v1/reward"
        case _:
            return "expected 200"


def _score(row: Mapping[str, Any]) -> Score:
    value = row["reward"]
    if value is None:
        return Score(None, str(row["reason"]), tokens=int(row["tokens"]))
    if isinstance(value, bool) or not math.isfinite(value):
        raise ValueError("a reward is no finite number")
    return Score(float(value), "", bool(row["truncated"]), int(row["tokens"]))


def only(scores: Sequence[Score]) -> float:
    """The reward of a single row; raises `PalateError` where it has none."""
    (score,) = scores
    if score.value is None:
        raise PalateError(f"reward client: no reward: {score.reason}")
    return score.value
