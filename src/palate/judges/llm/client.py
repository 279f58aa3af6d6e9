"""One request over the wire by the `openai` client: an answer or a fault, never an exception."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Literal, Self

import openai

from palate.http import HIDDEN, bearer_key, retry_after
from palate.judges.llm.price import end_of
from palate.judges.options import OPTIONS, ChatSpec
from palate.judges.prompting import Prompt
from palate.types import Pair, Preference, digest

# What is sent for one pair, the hash under which its answer is kept, and its size in tokens.

CHARACTERS_PER_TOKEN = 4.0  # A rule of thumb for English; assumed.
TEMPLATE_TOKENS = 64  # More than a chat template writes around one user message; assumed.
TOP_LOGPROBS = 20  # The most that OpenAI and vLLM give.
# One limit under two names: OpenAI's models that reason refuse the older, and servers of others
# may know that one alone.
LIMITS = ("max_tokens", "max_completion_tokens")
METHOD = "characters / 4 of the message, and max_tokens of the answer"


@dataclass(frozen=True, slots=True)
class Request:
    """A request body without key, and `key`, the hash of it and of where it is sent.

    The limit on an answer's tokens is called `max_tokens` here, whatever it is sent as: the same
    question is the same request, under either name.
    """

    key: str
    body: Mapping[str, Any]

    @property
    def prompt_tokens_about(self) -> int:
        """About how many tokens the message has."""
        return math.ceil(len(self._text) / CHARACTERS_PER_TOKEN)

    @property
    def prompt_tokens_most(self) -> int:
        """No fewer than the message has: a token of text is at least one byte."""
        return len(self._text.encode("utf-8", "surrogatepass")) + TEMPLATE_TOKENS

    @property
    def _text(self) -> str:
        return str(self.body["messages"][0]["content"])


def request(spec: ChatSpec, prompt: Prompt, pair: Pair) -> Request:
    """The request for one pair: the same pair in the same order is the same request."""
    body: dict[str, Any] = {
        "model": spec.model,
        "messages": [{"role": "user", "content": _sendable(prompt.ask(pair))}],
    }
    given = {
        "temperature": spec.temperature,
        "max_tokens": spec.limit,
        "reasoning_effort": spec.reasoning_effort,
        "seed": spec.seed,
    }
    body |= {key: value for key, value in given.items() if value is not None}
    if spec.logprobs == "auto":
        body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
    body |= spec.extra
    return Request(digest("chat", spec.base_url, body), body)


def _sendable(text: str) -> str:
    """Lone surrogates cannot be sent as JSON in UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8")


# What went wrong with a request, and what is to be done about it.

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


# What came back for one request, and the preference it amounts to.
#
# Reasoning before the answer is not read. Logprobs come first: of the first token's likeliest,
# those
# that are A or B but for white space. Else the words, strictly: A or B alone, or in the forms
# that
# `LETTER` tolerates. Anything else is unparsed, which is unscored: it is never guessed at and
# never
# counted as half right.

UNPARSED = "unparsed"
# `A`, ` b`: no. `A`, `A.`, `(B)`, `B)`, `[A]`, `"B"`, `**A**`, `Answer: B`, `answer A`: yes.
LETTER = re.compile(r"[\s\"'`*(\[]*(?i:answer\s*:?)?[\s\"'`*(\[]*(?P<letter>[AB])[\s\"'`*)\].]*")
# What open models that reason in their answer write around it; the end alone where the template
# has written the beginning: tags of Qwen, DeepSeek and others; Mistral's; gpt-oss's channels.
REASONED = re.compile(
    r"\s*(?:(?:<think(?:ing)?>)?.*?</think(?:ing)?>|(?:\[THINK\])?.*?\[/THINK\]"
    r"|<\|channel\|>.*?<\|channel\|>final<\|message\|>)",
    re.S | re.I,
)
REASONS = re.compile(r"\s*(?:<think(?:ing)?>|\[THINK\]|<\|channel\|>(?!final))", re.I)
LONGEST = 40  # Characters; no tolerated form is longer, and matching stays cheap.
PARSER = "first-token logprobs of A and B, else exactly one letter A or B; version 3"

TopTokens = tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer: its words, why it ended, and its first token's likeliest, if given."""

    text: str
    finish: str
    top: TopTokens
    seconds: float
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The endpoint will not answer this one question; asking again would not help."""

    reason: str
    seconds: float


def preference(pair_id: str, reply: Answer | Refused) -> Preference:
    """The preference that a reply amounts to, with its words and its seconds."""
    if isinstance(reply, Refused):
        return Preference(pair_id, None, reason=reply.reason, seconds=reply.seconds)
    words, reasoned = _without_reasoning(reply.text)
    letter = parse(words)
    # Of "**B**" or "Answer: B" the first token is no letter: what is likely beside it is not the
    # answer ("A" may be the beginning of "Answer").
    beside = letter is not None and not _led_by_a_letter(reply.top)
    if not reasoned and not beside and (found := first_token(reply.top)):
        choice, share = found
        rest = None if share is None else 1.0 - share
        read = Preference(pair_id, choice, share, rest)
    elif letter:
        read = Preference(pair_id, "first" if letter == "A" else "second")
    else:
        read = Preference(pair_id, None, reason=_why(reply, words))
    return replace(read, answer=reply.text, seconds=reply.seconds)


def parse(text: str) -> Literal["A", "B"] | None:
    """The letter that an answer consists of, or None."""
    found = LETTER.fullmatch(text) if len(text) <= LONGEST else None
    if found is None:
        return None
    return "A" if found["letter"] == "A" else "B"


def first_token(top: TopTokens) -> tuple[Literal["first", "second", "tie"], float | None] | None:
    """The choice among A and B by the first token, and A's share P(A) / (P(A) + P(B)).

    A letter that is not among the likeliest is no likelier than the least of them, nor than what
    all of them leave: the other is chosen, and that bound is the letter's probability. Where the
    bound says nothing (one token listed, at 0.4) there is a choice without a share. None where
    neither letter is there.
    """
    a, b = _log_probability("A", top), _log_probability("B", top)
    if a is None and b is None:
        return None
    if a is not None and b is not None:
        return ("tie" if a == b else "first" if a > b else "second"), _sigmoid(a - b)
    most = _most_of_the_unlisted(top)
    if b is None:
        return "first", None if a is None or most >= a else _sigmoid(a - most)
    return "second", None if most >= b else _sigmoid(most - b)


def _most_of_the_unlisted(top: TopTokens) -> float:
    """The highest log-probability that a token outside the list can have."""
    left = 1.0 - math.fsum(math.exp(min(value, 0.0)) for _, value in top)
    least = min(value for _, value in top)
    return min(least, math.log(left)) if left > 0 else least


def _led_by_a_letter(top: TopTokens) -> bool:
    return bool(top) and max(top, key=lambda one: one[1])[0].strip() in ("A", "B")


def _log_probability(letter: str, top: TopTokens) -> float | None:
    values = [value for token, value in top if token.strip() == letter]
    if not values:
        return None
    most = max(values)
    return most + math.log(sum(math.exp(value - most) for value in values))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _without_reasoning(text: str) -> tuple[str, bool]:
    """The answer proper, and whether reasoning stood before it.

    Its first token then is one of the reasoning, and the likeliest beside that say nothing.
    """
    if block := REASONED.match(text):
        return text[block.end() :], True
    return ("", True) if REASONS.match(text) else (text, False)


def _why(answer: Answer, words: str) -> str:
    if answer.finish == "content_filter":
        return f"{UNPARSED}: content filter"
    if not words.strip():
        if answer.finish == "length":
            return f"{UNPARSED}: no token was left for the answer; raise reasoning_tokens"
        return f"{UNPARSED}: empty"
    return UNPARSED


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
# vLLM, SGLang, OpenRouter and others.
REASONING = ("reasoning_content", "reasoning", "reasoning_details", "thinking")
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
