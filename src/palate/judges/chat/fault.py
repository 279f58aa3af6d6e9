"""What went wrong with a request, and what is to be done about it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from palate.http import HIDDEN, retry_after
from palate.judges.chat.price import end_of
from palate.judges.chat.request import LIMITS
from palate.judges.chat.spec import OPTIONS, ChatSpec

LONGEST_WAIT_SECONDS = 600.0
PASSING = {408, 409, 425, 429}
TOO_LONG = re.compile(r"context.{0,10}length|context_length|too long|maximum.{0,20}tokens", re.I)
FILTERED = re.compile(r"content.?(filter|policy|management)|responsible.?ai", re.I)
# What OpenAI, vLLM and others say of a model that is not there, or not any more.
GONE = re.compile(
    r"model_not_found|model_deprecated|deprecated|decommissioned|retired|shut ?down|"
    r"model.{0,80}(does not exist|not found|no longer)",
    re.I,
)
UNSUPPORTED = re.compile(r"support|unrecogni[sz]ed|unknown|unexpected|extra|permitted", re.I)
BROKE = re.compile(r"insufficient_quota|billing|credit balance", re.I)


@dataclass(frozen=True, slots=True)
class Passing:
    """A fault that may pass: ask again, after `wait_seconds` where the endpoint says.

    `billed`: an answer may have been made and be on the bill, though it did not arrive.
    """

    line: str
    billed: bool = False
    wait_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Permanent:
    """A fault that every further question would meet too; `line` names the cure."""

    line: str


@dataclass(frozen=True, slots=True)
class NoLogprobs:
    """The endpoint refuses to give logprobs: ask without them."""


@dataclass(frozen=True, slots=True)
class OtherLimit:
    """The endpoint does not know the limit on an answer's tokens by the name `refused`.

    `line` is what to say where it knows it by neither.
    """

    refused: str
    line: str


@dataclass(frozen=True, slots=True)
class Unanswerable:
    """This one question is refused, the others may not be."""

    reason: str


Fault = Passing | Permanent | NoLogprobs | OtherLimit | Unanswerable


def of_status(
    spec: ChatSpec, status: int, headers: Mapping[str, str], said: str, sent: Collection[str]
) -> Fault:
    """The fault that an HTTP status stands for, by what the endpoint `said` with it.

    `sent` are the names of the options that the request had.
    """
    what = f"HTTP {status}" + (f": {said}" if said else "")
    if status == 429 and BROKE.search(said):
        return Permanent(f"{_at(spec)} has no credit left ({what}); pay it up")
    if status in PASSING or status >= 500:
        wait = retry_after(headers)
        if wait is not None and wait > LONGEST_WAIT_SECONDS:
            return Permanent(f"{_at(spec)} asks to wait {wait:.0f} s ({what}); run again then")
        return Passing(f"{_at(spec)}: {what}", wait_seconds=wait)
    if status in (400, 403, 422) and "logprobs" in sent and "logprobs" in said:
        return NoLogprobs()
    if status in (400, 404, 410) and GONE.search(said):
        return Permanent(f"{_at(spec)} has no such model ({what}); {_another_model(spec)}")
    if status == 413 or (status in (400, 422) and TOO_LONG.search(said)):
        return Unanswerable("too long")
    limit = next((name for name in LIMITS if name in sent), None)
    if status in (400, 422) and limit and limit in said and UNSUPPORTED.search(said):
        return OtherLimit(
            limit, f"{_at(spec)} takes no limit on an answer ({what}); max_tokens: null"
        )
    if status in (400, 403, 422) and FILTERED.search(said):
        return Unanswerable("refused: content filter")
    return Permanent(f"{_at(spec)} refuses ({what}); {_cure(spec, status, said, sent)}")


def said(body: Any, key: str = "") -> str:
    """What the body of an error says, as one short line without the key."""
    if isinstance(body, dict):
        inner = body.get("error", body)
        parts = [inner.get(name) for name in ("code", "message")] if isinstance(inner, dict) else []
        body = ": ".join(str(part) for part in parts if part) or inner
    line = " ".join(str(body or "").split())
    # Before it is cut: half a key is one too.
    return (line.replace(key, HIDDEN) if key else line)[:200]


def _at(spec: ChatSpec) -> str:
    return f"chat judge {spec.model}: {spec.base_url}"


def _another_model(spec: ChatSpec) -> str:
    end = end_of(spec)
    ended = f"its maker announced its end for {end:%Y-%m-%d}; " if end else ""
    return (
        f"{ended}name one that is there: {{chat: NAME}}, or where `--judges` asks it: "
        "--set judging.chat=NAME"
    )


def _cure(spec: ChatSpec, status: int, said: str, sent: Collection[str]) -> str:
    if status in (401, 403):
        if spec.key_variable is None:
            return "name the environment variable with its key: key_env: NAME"
        return f"put a valid key into {spec.key_variable}, or name another: key_env: NAME"
    if status == 402:
        return "its account must be paid up"
    if status == 404:
        return "check model, and base_url, which usually ends in /v1"
    named = next((name for name in OPTIONS if name in sent and name in said), None)
    if named and UNSUPPORTED.search(said):
        return f"leave {named} out: {named}: null"
    return "an option it does not take can be left out (null) or given its way under extra"
