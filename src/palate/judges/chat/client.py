"""One request over the wire by the `openai` client: an answer or a fault, never an exception."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import openai

from palate.http import HIDDEN, bearer_key
from palate.judges.chat.answer import Answer
from palate.judges.chat.fault import Fault, Passing, of_status, said
from palate.judges.chat.spec import ChatSpec

MOST_TOKENS = 2**40  # No answer has as many; SQLite's integers end at 2^63.
# What reading JSON of another shape raises, or one nested beyond all reason.
UNREADABLE = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
REASONING = ("reasoning_content", "reasoning", "thinking")  # vLLM, SGLang and others.
NOT_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError")


class Client:
    """Requests to one endpoint. The key is read from the environment and held only here."""

    def __init__(self, spec: ChatSpec) -> None:
        """Raises `PalateError` where the environment has no key."""
        self._spec, self._key = spec, key(spec)
        self._openai = openai.AsyncOpenAI(
            api_key=self._key or "none",
            base_url=spec.base_url,
            timeout=spec.timeout_seconds,
            max_retries=0,  # The pool retries, and counts what it pays.
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._openai.close()

    async def ask(self, body: Mapping[str, Any]) -> Answer | Fault:
        """The answer to one request body, in at most `timeout_seconds`."""
        begun = time.monotonic()
        try:
            async with asyncio.timeout(self._spec.timeout_seconds):
                text = await self._post(body)
        except openai.APIStatusError as error:
            words = said(error.body, self._key)
            headers = error.response.headers
            return of_status(self._spec, error.status_code, headers, words, body)
        except (TimeoutError, openai.APITimeoutError):
            seconds = self._spec.timeout_seconds
            return Passing(f"{self._at}: no answer in {seconds:g} s (timeout_seconds)", billed=True)
        except openai.OpenAIError as error:
            return self._broken(error)
        return self._read(text, time.monotonic() - begun)

    async def _post(self, body: Mapping[str, Any]) -> str:
        rest = {key: value for key, value in body.items() if key not in ("model", "messages")}
        raw = await self._openai.chat.completions.with_raw_response.create(
            model=body["model"], messages=body["messages"], extra_body=rest
        )
        return raw.text

    def _read(self, text: str, seconds: float) -> Answer | Fault:
        try:
            whole = json.loads(text)
            choice = whole["choices"][0]
            words = choice["message"]["content"]
            # Where a model reasons apart, the first token is one of its reasoning.
            reasons = any(choice["message"].get(name) for name in REASONING)
            top = () if reasons else _top(choice.get("logprobs"))
            usage = whole.get("usage") or {}
            return Answer(
                "" if words is None else self._clean(str(words)),
                self._clean(str(choice.get("finish_reason") or "")),
                tuple((self._clean(token), value) for token, value in top),
                seconds,
                _count(usage.get("prompt_tokens")),
                _count(usage.get("completion_tokens")),
            )
        except UNREADABLE:
            line = f"{self._at}: sent no whole answer ({said(text, self._key)[:80]!r})"
            return Passing(line, billed=True)

    def _broken(self, error: openai.OpenAIError) -> Passing:
        cause = error.__cause__ or error
        sent = type(cause).__name__ not in NOT_SENT
        reason = "the connection broke" if sent else "cannot be reached"
        words = said(str(cause), self._key)[:120] or type(cause).__name__
        return Passing(f"{self._at}: {reason} ({words})", billed=sent)

    @property
    def _at(self) -> str:
        return f"chat judge {self._spec.model}: {self._spec.base_url}"

    def _clean(self, text: str) -> str:
        """Text without the key, which some endpoints say back, and without half characters.

        JSON may spell half a surrogate pair, which no file can hold.
        """
        text = text.replace(self._key, HIDDEN) if self._key else text
        return text.encode("utf-8", "replace").decode("utf-8")


def key(spec: ChatSpec) -> str:
    """The key from the environment, or "" where none is to be sent."""
    who = f"chat judge {spec.model}"
    return bearer_key(spec.key_variable, who, spec.base_url) if spec.key_variable else ""


def _top(logprobs: Any) -> tuple[tuple[str, float], ...]:
    """The likeliest first tokens, or () where none were given."""
    tokens = (logprobs or {}).get("content") or []
    listed = (tokens[0].get("top_logprobs") or []) if tokens else []
    found = [(str(item["token"]), item["logprob"]) for item in listed]
    return tuple((token, float(value)) for token, value in found if _is_number(value))


def _count(value: Any) -> int | None:
    return int(value) if _is_number(value) and 0 <= value < MOST_TOKENS else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
