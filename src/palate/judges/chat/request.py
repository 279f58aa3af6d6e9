"""What is sent for one pair, the hash under which its answer is kept, and its size in tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palate.judges.chat.spec import ChatSpec
from palate.judges.prompt import Prompt
from palate.types import Pair, digest

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
