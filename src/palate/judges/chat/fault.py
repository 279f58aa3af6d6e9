"""What went wrong with a request, and what is to be done about it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palate.asking import HIDDEN, retry_after
from palate.judges.chat.spec import ChatSpec

LONGEST_WAIT_SECONDS = 600.0
PASSING = {408, 409, 425, 429}
TOO_LONG = re.compile(r"context.{0,10}length|context_length|too long|maximum.{0,20}tokens", re.I)
FILTERED = re.compile(r"content.?(filter|policy|management)|responsible.?ai", re.I)
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
class Unanswerable:
    """This one question is refused, the others may not be."""

    reason: str


Fault = Passing | Permanent | NoLogprobs | Unanswerable


def of_status(
    spec: ChatSpec, status: int, headers: Mapping[str, str], said: str, *, logprobs: bool
) -> Fault:
    """The fault that an HTTP status stands for, by what the endpoint `said` with it."""
    what = f"HTTP {status}" + (f": {said}" if said else "")
    if status == 429 and BROKE.search(said):
        return Permanent(f"{_at(spec)} has no credit left ({what}); pay it up")
    if status in PASSING or status >= 500:
        wait = retry_after(headers)
        if wait is not None and wait > LONGEST_WAIT_SECONDS:
            return Permanent(f"{_at(spec)} asks to wait {wait:.0f} s ({what}); run again then")
        return Passing(f"{_at(spec)}: {what}", wait_seconds=wait)
    if status in (400, 422) and logprobs and "logprobs" in said:
        return NoLogprobs()
    if status == 413 or (status in (400, 422) and TOO_LONG.search(said)):
        return Unanswerable("too long")
    if status in (400, 403, 422) and FILTERED.search(said):
        return Unanswerable("refused: content filter")
    return Permanent(f"{_at(spec)} refuses ({what}); {_cure(spec, status)}")


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


def _cure(spec: ChatSpec, status: int) -> str:
    if status in (401, 403):
        if spec.key_variable is None:
            return "name the environment variable with its key: key_env: NAME"
        return f"put a valid key into {spec.key_variable}, or name another: key_env: NAME"
    if status == 402:
        return "its account must be paid up"
    if status == 404:
        return "check model, and base_url, which usually ends in /v1"
    return "an option it does not take can be left out (null) or given its way under extra"
