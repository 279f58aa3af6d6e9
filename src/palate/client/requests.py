"""What `RewardClient` and `AsyncRewardClient` share: options, requests, and reading answers.

From (prompt, response) rows to bounded requests to scores, without the network.
`RewardProtocol.scores` is a generator of requests: whoever drives it posts each, from a thread or
a task, sends the response back, and is returned the scores.
"""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, repeat
from typing import Any, NamedTuple, TypedDict

import httpx2
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from palate.data.messages import more_than_text
from palate.data.transcript import Prompt as Transcript
from palate.data.transcript import read_prompt
from palate.http import Retry, Server, TransientError, address, bearer_key
from palate.types import ROLES, Message, PalateError, Score
from palate.validation import explain

TOKEN = "PALATE_TOKEN"
PATH = "/v1/reward"
TOO_LARGE = 413


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


class ClientOptions(TypedDict, total=False):
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


def parse_options(url: str, options: ClientOptions) -> Options:
    """Options that are valid, or a `PalateError` of one line about the first that is not."""
    try:
        return Options.model_validate({"url": url, **options})
    except ValidationError as error:
        # Without the value, which may be an address with a key in it.
        mistake = explain(error, Options, show_input=False)
        raise PalateError(f"reward client: {mistake}") from None


# From (prompt, response) rows to items in bounded requests. Neighbouring rows of one prompt become
# one item, which the server encodes once.

Turn = Message | Mapping[str, Any]
Prompt = str | Sequence[Turn]
"""What stands before the response: all turns, or text: one user's, or with its turns marked."""
Row = tuple[Prompt, str]
"""A prompt and a response to it."""


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
        safety = {} if self.safety is None else {"safety_prompt": self.safety}
        return {"prompt": prompt, "responses": list(self.responses), **safety}

    @property
    def characters(self) -> int:
        """About its size."""
        return sum(map(len, self.responses)) + sum(len(turn.content) for turn in self.prompt)


def batches(
    rows: Iterable[Row], safety: Iterable[bool | None] | None, options: Options
) -> Iterator[tuple[Item, ...]]:
    """Items of the rows, in order, as many together as one request may hold."""
    batch: list[Item] = []
    responses = characters = 0
    for item in _items(rows, safety, options.responses_per_request):
        responses += len(item.responses)
        characters += item.characters
        too_many = responses > options.responses_per_request
        if batch and (too_many or characters > options.characters_per_request):
            yield tuple(batch)
            batch, responses, characters = [], len(item.responses), item.characters
        batch.append(item)
    if batch:
        yield tuple(batch)


def _items(
    rows: Iterable[Row], safety: Iterable[bool | None] | None, max_responses: int
) -> Iterator[Item]:
    flags = repeat(None) if safety is None else safety
    flagged = zip(rows, flags, strict=safety is not None)
    conversations = ((*conversation(*row), flag) for row, flag in flagged)
    for (prompt, flag), group in groupby(conversations, key=lambda row: (row[0], row[2])):
        responses = tuple(response for _, response, _ in group)
        for start in range(0, len(responses), max_responses):
            yield Item(prompt, responses[start : start + max_responses], flag)


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
    transcript = _transcript(prompt)
    return transcript.turns, transcript.reply(text(response))


def turns(prompt: Prompt) -> tuple[Message, ...]:
    """A prompt as messages; raises `PalateError` as `conversation` does."""
    if isinstance(prompt, str):
        return _transcript(prompt).turns
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


def _transcript(prompt: str) -> Transcript:
    try:
        return read_prompt(prompt)
    except PalateError as error:
        raise PalateError(f"reward client: {error}") from None


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
    if reason := more_than_text(turn):
        raise PalateError(f"reward client: {reason}")
    return Message(role, text(content))


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:60]!r}"


class Request(NamedTuple):
    """What to post."""

    content: bytes
    headers: Mapping[str, str]


class RewardProtocol:
    """How one server is asked, and which model answered first."""

    def __init__(self, options: Options) -> None:
        """Raises `PalateError` where `token_env` names a variable that holds no token."""
        self.options = options
        # The default variable may be unset: a server may ask for no token.
        needless = options.token_env == TOKEN and not os.environ.get(TOKEN, "").strip()
        token = "" if needless else bearer_key(options.token_env, "reward client", options.url)
        self.server = Server(
            options.url + PATH, token, options.timeout_seconds, options.concurrency
        )
        self.retry = Retry(options.attempts, options.backoff_seconds, options.longest_wait_seconds)
        self._fingerprint: str | None = None

    def scores(self, items: Sequence[Item]) -> Generator[Request, httpx2.Response, list[Score]]:
        """Scores of the items' responses, in order; of halves, where the whole is too large.

        Raises:
            PalateError: the server refuses, or serves another model than before.
        """
        body: dict[str, Any] = {"items": [item.body for item in items]}
        body["deadline_seconds"] = self.options.timeout_seconds  # Nobody waits for it longer.
        if self.options.model is not None:
            body["model"] = self.options.model
        # The id is one for all attempts; escaped JSON can hold half a surrogate pair.
        response = yield Request(json.dumps(body).encode(), {"x-request-id": uuid.uuid4().hex})
        if response.status_code != TOO_LARGE:
            return self._read(response, items)
        parts = halves(items)
        if parts is None:
            return [Score(None, self.server.status_line(response))]
        first = yield from self.scores(parts[0])
        return first + (yield from self.scores(parts[1]))

    def unavailable(self, error: TransientError) -> PalateError:
        """What to raise where `error` has not passed."""
        return PalateError(
            f"{self.server.url}: {error}, {self.options.attempts} times; start or relieve the "
            "server, or raise `attempts` or `timeout_seconds`"
        )

    def _read(self, response: httpx2.Response, items: Sequence[Item]) -> list[Score]:
        if response.status_code != 200:
            match response.status_code:
                case 401 | 403:
                    cure = f"export the server's token in {self.options.token_env}"
                case 404:
                    cure = "check `url` and `model`; a Palate server answers at /v1/reward"
                case _:
                    cure = "expected 200"
            raise PalateError(f"{self.server.url}: {self.server.status_line(response)}; {cure}")
        expected = [(i, j) for i, item in enumerate(items) for j in range(len(item.responses))]
        try:
            answer = response.json()
            fingerprint = str(answer["fingerprint"])
            rows = [(row["item"], row["response"]) for row in answer["data"]]
            scores = [_score(row) for row in answer["data"]]
        except (LookupError, TypeError, ValueError, ArithmeticError, RecursionError):
            rows, scores = [], []
        if rows != expected:
            raise PalateError(
                f"{self.server.url}: answers 200 with other rows than asked for; expected a Palate "
                "server of this version"
            )
        # Rewards of two models are not comparable, though a server restarts in between.
        if self._fingerprint not in (None, fingerprint):
            raise PalateError(
                f"{self.server.url}: now serves another model ({fingerprint}) than the one that "
                f"answered before ({self._fingerprint}); make a new client if that is meant"
            )
        self._fingerprint = fingerprint
        return scores


def _score(row: Mapping[str, Any]) -> Score:
    value = row["reward"]
    if value is None:
        return Score(None, str(row["reason"]), tokens=int(row["tokens"]))
    if isinstance(value, bool) or not math.isfinite(value):
        raise ValueError("a reward is no finite number")
    return Score(float(value), "", bool(row["truncated"]), int(row["tokens"]))


def single_reward(scores: Sequence[Score]) -> float:
    """The reward of a single row; raises `PalateError` where it has none."""
    (score,) = scores
    if score.value is None:
        raise PalateError(f"reward client: no reward: {score.reason}")
    return score.value
