"""What a recipe may say of a chat judge."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

OPENAI = "https://api.openai.com/v1"
# An extra of this name would change what is asked or how an answer is read.
RESERVED = ("model", "messages", "n", "stream", "stream_options")
OPTIONS = ("temperature", "max_tokens", "seed", "logprobs", "reasoning_effort")
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class ChatSpec(BaseModel):
    """A chat model at an endpoint, the prompt it is shown, and what it may cost.

    Only what changes an answer is part of the protocol: the endpoint, the model, the prompt,
    `temperature`, `max_tokens`, `seed`, `logprobs`, `reasoning_effort`, `reasoning_tokens` and
    `extra`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1, description="The model's name at the endpoint.")
    base_url: str = Field(OPENAI, description="Usually ends in /v1.")
    name: str | None = Field(None, description="Name in tables; default: the model's.")
    key_env: str | None = Field(
        None,
        description="Environment variable that holds the key. Default: OPENAI_API_KEY for "
        "api.openai.com and none elsewhere, so that no other host is sent that key unasked.",
    )
    preset: str = Field("llama2-zero-shot", description="A prompt of Palate's or a file.")
    temperature: float | None = Field(0.0, ge=0, description="null: not sent.")
    max_tokens: int | None = Field(8, ge=1, description="Of an answer; null: not sent.")
    reasoning_effort: Effort | None = Field(
        None, description="Of a model that reasons before it answers; null: not sent."
    )
    reasoning_tokens: int = Field(
        0, ge=0, description="Room for reasoning, beside the max_tokens of the answer itself."
    )
    seed: int | None = Field(None, description="Sent where given.")
    logprobs: Literal["auto", "off"] = Field(
        "auto", description="Read the first token's A and B where the endpoint gives them."
    )
    extra: dict[str, Any] = Field(default_factory=dict, description="More of the request body.")
    concurrency: int = Field(16, ge=1, le=512, description="Requests in flight.")
    requests_per_minute: float | None = Field(None, gt=0, description="Of this process.")
    tokens_per_minute: float | None = Field(None, gt=0, description="Of this process; estimated.")
    timeout_seconds: float = Field(60.0, gt=0, description="For one whole answer.")
    retries: int = Field(6, ge=0, description="After a fault that may pass.")
    retry_seconds: float = Field(0.5, gt=0, description="First pause; doubles, with jitter.")
    budget: float | None = Field(
        None, gt=0, description="Most money for this model here, by all runs with this cache."
    )
    prices: str | None = Field(None, description="A price table of one's own (YAML).")
    cache: str | None = Field(None, description="SQLite file; default under PALATE_CACHE.")

    @field_validator("base_url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected a URL such as https://api.openai.com/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("a key does not belong in a URL, which is recorded; use key_env")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _nothing_twice(self) -> Self:
        if self.reasoning_tokens and self.max_tokens is None:
            raise ValueError("reasoning_tokens: room beside max_tokens, which is not set")
        for name in self.extra:
            if name in RESERVED or (name in OPTIONS and getattr(self, name) is not None):
                raise ValueError(f"extra.{name}: set by Palate; leave it out")
        return self

    @property
    def key_variable(self) -> str | None:
        """The environment variable that holds the key, if one is to be sent."""
        return self.key_env or ("OPENAI_API_KEY" if self.at_openai else None)

    @property
    def at_openai(self) -> bool:
        """Whether the endpoint is OpenAI's own."""
        return urlsplit(self.base_url).hostname == urlsplit(OPENAI).hostname

    @property
    def limit(self) -> int | None:
        """The most tokens of reasoning and answer together; None: not sent."""
        return self.max_tokens + self.reasoning_tokens if self.max_tokens else None

    @property
    def most_tokens(self) -> int | None:
        """The most tokens an answer may have, under either name; None where nothing says."""
        limit = self.limit or self.extra.get("max_completion_tokens")
        return int(limit) if limit else None

    @property
    def cache_path(self) -> Path:
        """Where answers and the ledger are kept."""
        root = os.environ.get("PALATE_CACHE") or Path.home() / ".cache" / "palate"
        return Path(self.cache).expanduser() if self.cache else Path(root) / "chat.sqlite"
