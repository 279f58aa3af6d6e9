"""One request's way to its scores, without the network: threads and tasks walk it alike.

`Asking.scores` is a generator of steps. Whoever drives it does each step in its own way, sends
back the response or the network's error, and is returned the scores.
"""

from __future__ import annotations

import json
import math
import os
import random
import uuid
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, TypedDict

import httpx2
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from palate.data.messages import unread
from palate.data.transcript import Prompt as Written
from palate.data.transcript import read_prompt
from palate.http import PASSING, address, bearer_key, error_line, one_line, retry_after
from palate.types import ROLES, Message, PalateError, Score
from palate.validation import explain

# What may be said of a server and of how it is asked.

TOKEN = "PALATE_TOKEN"


class Options(BaseModel):
    """How a server is asked. No secret is in it, so it can be kept and sent to another process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    model: str | None = Field(None, description="By name, where the server has several.")
    token_env: str = Field(TOKEN, description="Environment variable of the bearer token.")
    timeout_seconds: float = Field(60.0, gt=0, description="Of one request.")
    concurrency: int = Field(8, ge=1, le=256, description="Requests under way at once.")
    responses_per_request: int = Field(64, ge=1, description="Best-of-n stays together.")
    characters_per_request: int = Field(1_000_000, ge=1, description="One response at least.")
    attempts: int = Field(8, ge=1, description="Of one request.")
    backoff_seconds: float = Field(0.5, ge=0, description="Before the second; doubles after.")
    longest_wait_seconds: float = Field(60.0, ge=0, description="Bound on any wait asked of us.")

    @field_validator("url")
    @classmethod
    def _plain_address(cls, url: str) -> str:
        return address(url)


class Chosen(TypedDict, total=False):
    """The keyword arguments of a client: `Options` but for the address."""

    model: str | None
    token_env: str
    timeout_seconds: float
    concurrency: int
    responses_per_request: int
    characters_per_request: int
    attempts: int
    backoff_seconds: float
    longest_wait_seconds: float


def options(url: str, chosen: Chosen) -> Options:
    """Options that hold, or one line about the first that does not."""
    try:
        return Options.model_validate({"url": url, **chosen})
    except ValidationError as error:
        # Without the value, which may be an address with a key in it.
        mistake = explain(error, Options, show_input=False)
        raise PalateError(f"reward client: {mistake}") from None


def token(chosen: Options) -> str:
    """The bearer token, "" where the default variable is unset: a server may ask for none."""
    if chosen.token_env == TOKEN and not os.environ.get(TOKEN, "").strip():
        return ""
    return bearer_key(chosen.token_env, "reward client", chosen.url)


# From (prompt, response) rows to items in bounded requests.
#
# Rows of one prompt that stand together become one item, which the server encodes once.

Turn = Message | Mapping[str, Any]
Prompt = str | Sequence[Turn]
"""What stands before the response: all turns, or text: one user's, or with its turns marked."""
Row = tuple[Prompt, str]
"""A prompt and a response to it."""
_Row = tuple[tuple[Message, ...], str, bool | None]


@dataclass(frozen=True, slots=True)
class Item:
    """One prompt and some responses to it; `safety` says whether the prompt is about safety."""

    prompt: tuple[Message, ...]
    responses: tuple[str, ...]
    safety: bool | None = None

    @property
    def body(self) -> dict[str, Any]:
        """As it is sent."""
        prompt = [{"role": turn.role, "content": turn.content} for turn in self.prompt]
        known = {} if self.safety is None else {"safety_prompt": self.safety}
        return {"prompt": prompt, "responses": list(self.responses), **known}

    @property
    def characters(self) -> int:
        """About its size."""
        return sum(map(len, self.responses)) + sum(len(turn.content) for turn in self.prompt)


def requests(
    rows: Iterable[Row], safety: Iterable[bool | None] | None, chosen: Options
) -> Iterator[tuple[Item, ...]]:
    """Items of the rows, in order, as many together as one request may hold."""
    taken: list[Item] = []
    responses = characters = 0
    for item in _items(_rows(rows, safety), chosen.responses_per_request):
        responses += len(item.responses)
        characters += item.characters
        full = responses > chosen.responses_per_request
        if taken and (full or characters > chosen.characters_per_request):
            yield tuple(taken)
            taken, responses, characters = [], len(item.responses), item.characters
        taken.append(item)
    if taken:
        yield tuple(taken)


def told(safety: bool | None, count: int) -> list[bool] | None:
    """What is said of one prompt, for each of its responses."""
    return None if safety is None else [safety] * count


def halves(items: Sequence[Item]) -> tuple[Sequence[Item], Sequence[Item]] | None:
    """Two smaller requests for the same rows in order; None where there is one row."""
    if len(items) > 1:
        return items[: len(items) // 2], items[len(items) // 2 :]
    (item,) = items
    middle = len(item.responses) // 2
    if not middle:
        return None
    first, second = item.responses[:middle], item.responses[middle:]
    return [replace(item, responses=first)], [replace(item, responses=second)]


def conversation(prompt: Prompt, response: Any) -> tuple[tuple[Message, ...], str]:
    """A prompt as messages, and the response as text.

    Raises:
        PalateError: either is neither text nor turns, or has content that Palate does not read.
    """
    if not isinstance(prompt, str):
        return turns(prompt), text(response)
    read = _read(prompt)
    return read.turns, read.reply(text(response))


def turns(prompt: Prompt) -> tuple[Message, ...]:
    """A prompt as messages; raises `PalateError` as `conversation` does."""
    if isinstance(prompt, str):
        return _read(prompt).turns
    if not isinstance(prompt, Sequence):
        raise PalateError(f"reward client: expected text or turns, got {_shown(prompt)}")
    return tuple(turn if isinstance(turn, Message) else _message(turn) for turn in prompt)


def text(content: Any) -> str:
    """Text, also where it comes as blocks of text; raises `PalateError` where it is another."""
    if isinstance(content, str):
        return content
    try:
        return "".join(block["text"] for block in content)
    except (KeyError, TypeError):
        raise PalateError(f"reward client: expected text, got {_shown(content)}") from None


def _rows(rows: Iterable[Row], safety: Iterable[bool | None] | None) -> Iterator[_Row]:
    if safety is None:
        yield from ((*conversation(*row), None) for row in rows)
        return
    for row, flag in zip(rows, safety, strict=True):
        yield (*conversation(*row), flag)


def _items(rows: Iterable[_Row], most: int) -> Iterator[Item]:
    for (prompt, flag), group in groupby(rows, key=lambda row: (row[0], row[2])):
        responses = tuple(response for _, response, _ in group)
        for start in range(0, len(responses), most):
            yield Item(prompt, responses[start : start + most], flag)


def _message(turn: Any) -> Message:
    try:
        role, content = turn["role"], turn["content"]
    except (KeyError, TypeError):
        raise PalateError(
            f"reward client: expected turns with role and content, got {_shown(turn)}"
        ) from None
    if role not in ROLES:
        raise PalateError(
            f"reward client: a turn of role {_shown(role)}; a reward model reads {', '.join(ROLES)}"
        )
    if reason := unread(turn):
        raise PalateError(f"reward client: {reason}")
    return Message(role, text(content))


def _read(prompt: str) -> Written:
    try:
        return read_prompt(prompt)
    except PalateError as error:
        raise PalateError(f"reward client: {error}") from None


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:60]!r}"


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
