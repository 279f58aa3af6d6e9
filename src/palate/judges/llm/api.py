"""The APIs by which a model is asked which response is better: path, request body, and reply.

`chat` is `/chat/completions`, which everybody serves, `messages` Anthropic's `/messages` (as of
anthropic 2.14.0, which has no temperature, no seed and no logprobs). The other two answer a
question of choice with the probability of every option and generate nothing: `decisions` is
OpenAI's `/decisions` (openai 3.57.0), `systemone` the `/systemone` of vLLM 0.32 and SGLang 0.5.23.
SGLang's own `/decisions` has the path of OpenAI's and another body: it refuses ours, and
`systemone` asks it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from palate.judges.llm.answer import Answer, Refused, TopTokens
from palate.judges.options import ChatSpec

TOP_LOGPROBS = 20  # The most that OpenAI and vLLM give.
MAX_TOKEN_COUNT = 2**40  # No answer has as many; SQLite's integers end at 2^63.
LEAST_PROBABILITY = 1e-12  # Of a letter that a server rounds to zero: its logarithm is finite.
# vLLM, SGLang, OpenRouter and others.
REASONING = ("reasoning_content", "reasoning", "reasoning_details", "thinking")
# The prompt asks it already; a decision endpoint wants the question by itself, under a name.
MESSAGES_VERSION = "2026-10-21"  # The header of anthropic 2.14.0.
QUESTION, NAME = "Which of the two answers is the best, A or B?", "better"

Clean = Callable[[object], str]
"""Makes text of what a server said, without our key and without half characters."""


def _bearer(key: str) -> Mapping[str, str]:
    return {"authorization": f"Bearer {key}"}


@dataclass(frozen=True, slots=True)
class Api:
    """Where a question is posted, what is sent for one message, and what the reply says.

    `read` takes the reply's JSON, a `Clean` and the seconds it took; of JSON of another shape it
    raises what Python does. `headers` are made of the key.
    """

    path: str
    body: Callable[[ChatSpec, str], dict[str, Any]]
    read: Callable[[Any, Clean, float], Answer | Refused]
    headers: Callable[[str], Mapping[str, str]] = _bearer


# A conversation that is continued.


def _completion(spec: ChatSpec, message: str) -> dict[str, Any]:
    options = {
        "temperature": spec.temperature,
        "max_tokens": spec.limit,
        "reasoning_effort": spec.reasoning_effort,
        "seed": spec.seed,
    }
    body: dict[str, Any] = {"messages": [{"role": "user", "content": message}]}
    body |= {key: value for key, value in options.items() if value is not None}
    if spec.logprobs == "auto":
        body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
    return body


def _completed(reply: Any, clean: Clean, seconds: float) -> Answer:
    choice = reply["choices"][0]
    said = choice["message"]
    words, finish = said["content"], clean(choice.get("finish_reason") or "")
    # Where a model reasons apart, the first token is one of its reasoning.
    reasons = any(said.get(name) for name in REASONING)
    if isinstance(words, list):  # In blocks, as Mistral's models that reason.
        reasons = reasons or any(block["type"] == "thinking" for block in words)
        words = "".join(block["text"] for block in words if block["type"] == "text")
    if declined := said.get("refusal"):
        words, finish = declined, "refusal"
    tokens = () if reasons else (choice.get("logprobs") or {}).get("content") or ()
    listed = (tokens[0].get("top_logprobs") or ()) if tokens else ()
    top = [(clean(one["token"]), one["logprob"]) for one in listed]
    usage = reply.get("usage") or {}
    return Answer(
        "" if words is None else clean(words),
        finish,
        tuple((token, float(value)) for token, value in top if _is_number(value)),
        seconds,
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
    )


# The same at Anthropic: thinking is said to be done or not, and comes in blocks of its own.

FINISHES = {"max_tokens": "length", "model_context_window_exceeded": "length"}


def _message(spec: ChatSpec, message: str) -> dict[str, Any]:
    thinks = {"type": "adaptive" if spec.reasoning_tokens else "disabled"}
    body: dict[str, Any] = {
        "max_tokens": spec.limit,
        "messages": [{"role": "user", "content": message}],
        "thinking": thinks,
    }
    return body | (
        {"output_config": {"effort": effort}} if (effort := spec.reasoning_effort) else {}
    )


def _message_said(reply: Any, clean: Clean, seconds: float) -> Answer:
    words = "".join(block["text"] for block in reply["content"] if block["type"] == "text")
    stop = str(reply["stop_reason"])
    usage = reply.get("usage") or {}
    cached = ("cache_creation_input_tokens", "cache_read_input_tokens")
    read = [_count(usage.get(name)) for name in ("input_tokens", *cached)]
    return Answer(
        clean(words),
        FINISHES.get(stop, clean(stop)),
        (),
        seconds,
        None if read[0] is None else sum(count or 0 for count in read),
        _count(usage.get("output_tokens")),
    )


def _message_headers(key: str) -> Mapping[str, str]:
    # The key goes as a bearer, as anthropic 2.14.0 sends it; earlier versions had x-api-key.
    return {"anthropic-version": MESSAGES_VERSION, **_bearer(key)}


# A question of choice, answered with probabilities.


def _decision(_spec: ChatSpec, message: str) -> dict[str, Any]:
    choices = [{"value": letter} for letter in "AB"]
    question = {"type": "choice", "name": NAME, "instructions": QUESTION, "choices": choices}
    return {"input": message, "questions": [question]}


def _decided(reply: Any, clean: Clean, seconds: float) -> Answer | Refused:
    answer = reply["answers"][0]
    if answer["type"] == "refusal":
        return Refused("refused: the model declines to answer", seconds)
    shares = {one["value"]: one["probability"] for one in answer["probabilities"]}
    return _chosen(answer["choice"], shares, reply, clean, seconds)


def _system_one(_spec: ChatSpec, message: str) -> dict[str, Any]:
    question = {"type": "choice", "instructions": QUESTION, "criteria": {"A": None, "B": None}}
    return {"state": message, "questions": {NAME: question}}


def _system_one_said(reply: Any, clean: Clean, seconds: float) -> Answer:
    answer = reply["answers"][NAME]
    return _chosen(answer["choice"], answer["probabilities"], reply, clean, seconds)


def _chosen(
    choice: object, shares: Mapping[str, Any], reply: Any, clean: Clean, seconds: float
) -> Answer:
    """The answer whose first token's likeliest are the two letters, with their probabilities."""
    said = [(letter, shares[letter]) for letter in "AB"]
    if not all(_is_number(p) and 0 <= p <= 1 for _, p in said) or not any(p for _, p in said):
        raise ValueError("no probabilities of A and B")
    top: TopTokens = tuple((letter, math.log(max(LEAST_PROBABILITY, p))) for letter, p in said)
    usage = reply.get("usage") or {}
    counted = (_count(usage.get(name)) for name in ("input_tokens", "output_tokens"))
    return Answer(clean(choice), "", top, seconds, *counted)


def _count(value: Any) -> int | None:
    return int(value) if _is_number(value) and 0 <= value < MAX_TOKEN_COUNT else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


APIS: Mapping[str, Api] = {
    "chat": Api("/chat/completions", _completion, _completed),
    "messages": Api("/messages", _message, _message_said, _message_headers),
    "decisions": Api("/decisions", _decision, _decided),
    "systemone": Api("/systemone", _system_one, _system_one_said),
}
