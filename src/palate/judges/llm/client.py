"""One question to an OpenAI-compatible endpoint: the request, its errors, the reply as an `Answer`.

`api.py` has the request bodies and reads the replies, `palate.http` says what is retried, and
`answer.py` reads the answer.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Self

import httpx2

from palate.http import (
    REDACTED,
    TRANSIENT_STATUSES,
    Server,
    TransientError,
    bearer_key,
    error_line,
    one_line,
    retry_after,
)
from palate.judges.llm.answer import Answer, Refused
from palate.judges.llm.api import APIS
from palate.judges.llm.price import end_of
from palate.judges.options import OPTIONS, ChatSpec
from palate.types import PalateError, digest

# What is sent for one pair, the hash under which its answer is kept, and its size in tokens.

CHARACTERS_PER_TOKEN = 4.0  # A rule of thumb for English; assumed.
TEMPLATE_TOKENS = 64  # More than a chat template writes around one user message; assumed.
# One limit under two names: OpenAI's models that reason refuse the older, and servers of others
# may know that one alone.
LIMITS = ("max_tokens", "max_completion_tokens")
METHOD = "characters / 4 of the message, and max_tokens of the answer"


@dataclass(frozen=True, slots=True)
class Request:
    """A request body without key, `message` in it, and `key`, the hash of it and where it is sent.

    The limit on an answer's tokens is called `max_tokens` here, whatever it is sent as: the same
    question is the same request, under either name.
    """

    key: str
    body: Mapping[str, Any]
    message: str

    @property
    def prompt_tokens_about(self) -> int:
        """About how many tokens the message has."""
        return math.ceil(len(self.message) / CHARACTERS_PER_TOKEN)

    @property
    def prompt_tokens_most(self) -> int:
        """No fewer than the message has: a token of text is at least one byte."""
        return len(self.message.encode("utf-8", "surrogatepass")) + TEMPLATE_TOKENS


def make_request(spec: ChatSpec, message: str) -> Request:
    """The request for one message: the same question is the same request."""
    # Lone surrogates cannot be sent as JSON in UTF-8.
    message = message.encode("utf-8", "replace").decode("utf-8")
    body = {"model": spec.model} | APIS[spec.api].body(spec, message) | spec.extra
    return Request(digest(spec.api, spec.base_url, body), body, message)


# What an error means, by its status and its words.

LONGEST_RETRY_AFTER_SECONDS = 600.0
TOO_LONG = re.compile(r"context.{0,10}length|context_length|too long|maximum.{0,20}tokens", re.I)
FILTERED = re.compile(r"content.?(filter|policy|management)|responsible.?ai", re.I)
# What OpenAI, vLLM and others say of a model that is not there, or not any more.
GONE = re.compile(
    r"model_not_found|model_deprecated|deprecated|decommissioned|retired|shut ?down|"
    r"model.{0,80}(does not exist|not found|no longer)",
    re.I,
)
UNSUPPORTED = re.compile(r"support|unrecogni[sz]ed|unknown|unexpected|extra|permitted", re.I)
NO_CREDIT = re.compile(r"insufficient_quota|billing|credit balance", re.I)


class OptionRefusedError(Exception):
    """The endpoint does not take `option` ("logprobs", or a name of `LIMITS`): ask without it.

    The message is for where nothing can be asked instead.
    """

    def __init__(self, option: str, message: str = "") -> None:
        super().__init__(message)
        self.option = option


def refusal(
    spec: ChatSpec, status: int, headers: Mapping[str, str], words: str, sent: Collection[str]
) -> str:
    """Why this one question is refused, by an error's status and words; others may not be.

    `sent` are the names of the options that the request had.

    Raises:
        TransientError: it may pass.
        OptionRefusedError: the request can be asked in another way.
        PalateError: every further question would meet it too; the message has the cure.
    """
    error = f"HTTP {status}" + (f": {words}" if words else "")
    endpoint = location(spec)
    if status in (400, 402, 429) and NO_CREDIT.search(words):
        raise PalateError(f"{endpoint} has no credit left ({error}); pay it up")
    if status in TRANSIENT_STATUSES:
        wait = retry_after(headers)
        if wait is not None and wait > LONGEST_RETRY_AFTER_SECONDS:
            raise PalateError(f"{endpoint} asks to wait {wait:.0f} s ({error}); run again then")
        raise TransientError(error, retry_after_seconds=wait)
    if status in (400, 403, 422) and "logprobs" in sent and "logprobs" in words:
        raise OptionRefusedError("logprobs")
    if status in (400, 404, 410) and GONE.search(words):
        end = end_of(spec)
        announced = f"its maker announced its end for {end:%Y-%m-%d}; " if end else ""
        raise PalateError(
            f"{endpoint} has no such model ({error}); {announced}name one that is there: "
            "{chat: NAME}, or where `--judges` asks it: --set judging.chat=NAME"
        )
    if status == 413 or (status in (400, 422) and TOO_LONG.search(words)):
        return "too long"
    unsupported = UNSUPPORTED.search(words)
    limit = next((name for name in LIMITS if name in sent), None)
    if status in (400, 422) and limit and limit in words and unsupported:
        raise OptionRefusedError(
            limit, f"{endpoint} takes no limit on an answer ({error}); max_tokens: null"
        )
    if status in (400, 403, 422) and FILTERED.search(words):
        return "refused: content filter"
    option = next((name for name in OPTIONS if name in sent and name in words), None)
    match status:
        case 401 | 403 if spec.key_variable is None:
            cure = "name the environment variable with its key: key_env: NAME"
        case 401 | 403:
            cure = f"put a valid key into {spec.key_variable}, or name another: key_env: NAME"
        case 402:
            cure = "its account must be paid up"
        case 404:
            cure = "check model, and base_url, which usually ends in /v1"
        case 501:
            cure = "it serves this for other models; name one, or another `api`"
        case _ if option and unsupported:
            cure = f"leave {option} out: {option}: null"
        case _:
            cure = "an option it does not take can be left out (null) or given its way under extra"
    raise PalateError(f"{endpoint} refuses ({error}); {cure}")


def location(spec: ChatSpec) -> str:
    """The judge and its endpoint, as messages begin."""
    return f"chat judge {spec.model}: {spec.base_url}"


# What reading JSON of another shape raises, or one nested beyond all reason.
UNREADABLE = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


class Client:
    """Posts to one path of an endpoint, once each: the pool retries, and pays."""

    def __init__(self, spec: ChatSpec) -> None:
        """Raises `PalateError` where the environment has no key."""
        self._spec, self._key = spec, ""
        if spec.key_variable:
            self._key = bearer_key(spec.key_variable, f"chat judge {spec.model}", spec.base_url)
        self._api = APIS[spec.api]
        url = f"{spec.base_url}{self._api.path}"
        self._server = Server(url, self._key, spec.timeout_seconds, spec.concurrency)
        self._http = httpx2.AsyncClient(**self._server.client_options, follow_redirects=True)
        self._http.headers.pop("authorization", None)
        self._http.headers.update(self._api.headers(self._key or "none"))  # Some want one.
        self._http.headers.update(openai_headers(spec))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def ask(self, body: Mapping[str, Any]) -> Answer | Refused:
        """The answer to one request body, in at most `timeout_seconds`; raises as `refusal`."""
        begun, limit_seconds = time.monotonic(), self._spec.timeout_seconds
        content = json.dumps(body).encode()
        try:
            async with asyncio.timeout(limit_seconds):
                with self._server.connection_errors():
                    response = await self._http.post(self._server.url, content=content)
        except TimeoutError:
            raise TransientError(
                f"no answer in {limit_seconds:g} s (timeout_seconds)", answer_lost=True
            ) from None
        seconds = time.monotonic() - begun
        if response.status_code >= 400:
            words = error_line(response, self._key, max_characters=200)
            status, headers = response.status_code, response.headers
            return Refused(refusal(self._spec, status, headers, words, body), seconds)
        try:
            return self._api.read(json.loads(response.text), self._clean, seconds)
        except UNREADABLE:
            beginning = one_line(response.text, self._key, 80)
            raise TransientError(
                f"sent no whole answer ({beginning!r})", answer_lost=True
            ) from None

    def _clean(self, words: object) -> str:
        """Text without the key, which some endpoints say back, and without half characters.

        JSON may spell half a surrogate pair, which no file can hold.
        """
        text = str(words).replace(self._key, REDACTED) if self._key else str(words)
        return text.encode("utf-8", "replace").decode("utf-8")


def openai_headers(spec: ChatSpec) -> dict[str, str]:
    """The headers that OpenAI's own clients make of the environment, by the same variables.

    An account's organization and project are sent to OpenAI alone.
    """
    lines = os.environ.get("OPENAI_CUSTOM_HEADERS", "").splitlines()
    headers = dict(line.split(":", 1) for line in lines if ":" in line)
    if spec.at_openai:
        headers["OpenAI-Organization"] = os.environ.get("OPENAI_ORG_ID", "")
        headers["OpenAI-Project"] = os.environ.get("OPENAI_PROJECT_ID", "")
    return {name.strip(): value.strip() for name, value in headers.items() if value.strip()}
