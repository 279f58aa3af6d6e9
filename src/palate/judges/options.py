"""What a recipe may say of a judge that is not Palate's own; needs no torch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from palate.judges.llm.providers import OPENAI, PROVIDERS, REASONS
from palate.model.options import Dtype
from palate.types import Role

HH_PREFIXES: Mapping[Role, str] = {
    "system": "",
    "user": "\n\nHuman: ",
    "assistant": "\n\nAssistant: ",
}


class SequenceClassifierSpec(BaseModel):
    """A one-label sequence-classification checkpoint and the input format it was trained on.

    `format`:
        `chat` the tokenizer's own chat template over the whole conversation;
        `pair` `tokenizer(question, answer)`, as Open Assistant's DeBERTa: a lone user turn is
        the question as it stands, earlier turns stand before it under `prefixes`;
        `plain` one text: every turn under its prefix, then the response, then `suffix`.
    `over_limit`: `unscored` answers "too long"; `cut-oldest` drops whole oldest turns, then the
    oldest characters of the first turn kept, never the response, and marks the score truncated.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(description="Hub id or folder.")
    format: Literal["chat", "pair", "plain"]
    name: str | None = Field(None, description="Name in tables; default: the model's.")
    revision: str | None = Field(None, description="Hub revision (commit, tag or branch).")
    max_tokens: int | None = Field(None, ge=4, description="Default: the checkpoint's limit.")
    over_limit: Literal["unscored", "cut-oldest"] = "unscored"
    prefixes: Mapping[Role, str] = Field(default=HH_PREFIXES, description="For plain and pair.")
    suffix: str = Field("", description="For plain: ends the text, such as an EOS token.")
    date: str = Field("26 Jul 2024", description="For templates that write the day (pitfall 7).")
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, ...")
    batch_tokens: int = Field(8_192, ge=1, description="Padded tokens of one forward pass.")
    window: int = Field(
        256, ge=1, description="Prompts sorted by length together, at most; 16 batches end it."
    )


class TextToTextSpec(BaseModel):
    """An encoder-decoder that is asked SteamSHP's question and answers A or B.

    `reading`:
        `pair` both responses are read at once, and the answer is greedy generation's letter;
        `absolute` each response is read beside "." and scored by the probability of A.
    Over `max_tokens` the context is cut: whole oldest turns, then the last words of the turn that
    is left. Responses never are; what cannot fit is unscored ("too long").
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1, description="Hub id or folder.")
    reading: Literal["pair", "absolute"] = "pair"
    name: str | None = Field(None, description="Name in tables; default: the model's.")
    revision: str | None = Field(None, description="Hub revision (commit, tag or branch).")
    max_tokens: int = Field(512, ge=32, description="SteamSHP was trained on at most 512.")
    prefixes: Mapping[Role, str] = Field(
        default=HH_PREFIXES, description="Of a context's turns, where it has several."
    )
    attention: Literal["auto", "eager", "sdpa"] = "auto"
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, ...")
    batch_tokens: int = Field(8_192, ge=1, description="Padded tokens of one forward pass.")
    window: int = Field(
        256, ge=1, description="Questions sorted by length together, at most; 16 batches end it."
    )


PAIRS_ONLY = ("vllm-score", "infinity-rerank")


class RewardEndpointSpec(BaseModel):
    """A reward model behind HTTP, in one of the shapes that servers speak.

    `input`:
        `chat` the chat template of `tokenizer` over the whole conversation, rendered here;
        `plain` every turn under its prefix, then the response, then `suffix`;
        `pair` question and answer as two texts, for cross-encoders (`tei-predict`, `vllm-score`,
        `infinity-rerank`);
        `messages` the turns as they are, for the server to render (vLLM's /classify and /pooling).
    With a `tokenizer`, the shapes that take token ids (vLLM's, SGLang's, llama.cpp's) are sent ids,
    so that the server cannot add a second BOS, and a text over `max_tokens` is treated as
    `over_limit` says. llama.cpp gives the state at the last token; the export in `head` has the
    weights that make a reward of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(description="Where the server is, such as http://127.0.0.1:8000.")
    shape: Literal[
        "vllm-classify",
        "vllm-pooling",
        "vllm-score",
        "sglang-classify",
        "tei-predict",
        "infinity-rerank",
        "llama.cpp",
        "openrlhf",
    ]
    input: Literal["chat", "plain", "pair", "messages"]
    path: str | None = Field(None, pattern="^[^?#]*$", description="Default: the shape's own.")
    model: str | None = Field(None, description="What is served there; in requests and protocol.")
    revision: str | None = Field(None, description="Of model and tokenizer.")
    name: str | None = Field(None, description="Name in tables; default: the model's.")
    tokenizer: str | None = Field(None, description="Hub id or folder of the tokenizer.")
    head: str | None = Field(None, description="Of llama.cpp: folder of the export, for its head.")
    key_env: str | None = Field(
        None, pattern="^[A-Z_][A-Z0-9_]*$", description="Environment variable of a bearer key."
    )
    max_tokens: int | None = Field(None, ge=4, description="Default: the tokenizer's limit.")
    over_limit: Literal["unscored", "cut-oldest"] = "unscored"
    prefixes: Mapping[Role, str] = Field(default=HH_PREFIXES, description="For plain and pair.")
    suffix: str = Field("", description="For plain: ends the text, such as an EOS token.")
    date: str = Field("26 Jul 2024", description="For templates that write the day (pitfall 7).")
    batch_size: int = Field(16, ge=1, description="Texts of one request.")
    concurrency: int = Field(4, ge=1, le=256, description="Requests under way at once.")
    timeout_seconds: float = Field(60.0, gt=0, description="Of one request.")
    attempts: int = Field(6, ge=1, description="Of one request, before the run stops.")
    backoff_seconds: float = Field(0.5, ge=0, description="Before the second; doubles after.")
    longest_wait_seconds: float = Field(60.0, ge=0, description="Bound on any wait asked of us.")

    @field_validator("url")
    @classmethod
    def _plain_address(cls, url: str) -> str:
        from palate.http import address  # httpx2, which a recipe without endpoints does without.

        return address(url)

    @model_validator(mode="after")
    def _fits_together(self) -> RewardEndpointSpec:
        if self.input == "chat" and self.tokenizer is None:
            raise ValueError("input chat renders the template here and needs `tokenizer`")
        if self.shape in PAIRS_ONLY and self.input != "pair":
            raise ValueError(
                f"shape {self.shape} joins two texts without a template; set input to pair for a "
                "model that reads pairs, or another shape"
            )
        if self.input == "messages" and self.shape not in ("vllm-classify", "vllm-pooling"):
            raise ValueError(f"shape {self.shape} takes no messages; set input to chat or plain")
        if self.input == "pair" and self.shape not in (*PAIRS_ONLY, "tei-predict"):
            raise ValueError(f"shape {self.shape} takes no pairs; set input to chat or plain")
        if self.head is not None and self.shape != "llama.cpp":
            raise ValueError(f"head: shape {self.shape} gives rewards, not states; leave it out")
        if self.tokenizer is None and (self.max_tokens or self.over_limit != "unscored"):
            raise ValueError("max_tokens and over_limit count tokens and need `tokenizer`")
        return self


class RunBatchSpec(BaseModel):
    """A reward model that vLLM's offline batch asks: requests in a file, answers in another.

    In `folder` stand `requests.jsonl`, which is written, and the `answers*.jsonl` that
    `vllm run-batch` made of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(description="Hub id or folder; its tokenizer and template write the texts.")
    folder: Path = Field(description="Where requests and answers stand.")
    name: str | None = Field(None, description="Name in tables; default: the model's.")
    revision: str | None = Field(None, description="Hub revision (commit, tag or branch).")
    input: Literal["chat", "plain"] = Field("chat", description="As of reward-endpoint.")
    max_tokens: int | None = Field(None, ge=4, description="Default: the tokenizer's limit.")
    over_limit: Literal["unscored", "cut-oldest"] = "unscored"
    prefixes: Mapping[Role, str] = Field(default=HH_PREFIXES, description="For plain.")
    suffix: str = Field("", description="For plain: ends the text, such as an EOS token.")
    date: str = Field("26 Jul 2024", description="For templates that write the day (pitfall 7).")

    @property
    def tokenizer(self) -> str:
        """The model's own."""
        return self.model


class GenerationSpec(BaseModel):
    """A chat checkpoint that is asked the chat judge's question, without an API."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1, description="Hub id, folder, .gguf file, or 'smollm2'.")
    name: str | None = Field(None, description="Name in tables; default: the model's.")
    revision: str | None = Field(None, description="Hub revision (commit, tag or branch).")
    preset: str = Field("llama2-zero-shot", description="A prompt of Palate's or a file.")
    template: str = Field("model", description="'model' (its own), 'chatml', or a Jinja file.")
    date: str = Field("26 Jul 2024", description="For templates that write the day (pitfall 7).")
    max_tokens: int | None = Field(None, ge=8, description="Of a question; default: its limit.")
    dtype: Dtype = Field("float32", description="Of matrix products; 'auto', 'bfloat16'.")
    batch_tokens: int = Field(8_192, ge=1, description="Padded tokens of one forward pass.")
    window: int = Field(
        256, ge=1, description="Questions sorted by length together, at most; 16 batches end it."
    )


# What a recipe may say of a chat judge.

# An extra of this name would change what is asked or how an answer is read.
RESERVED = ("model", "messages", "n", "stream", "stream_options", "input", "state", "questions")
OPTIONS = ("temperature", "max_tokens", "seed", "logprobs", "reasoning_effort")
# Of these an API takes none, or a model's maker has none.
NOT_TAKEN: Mapping[str, tuple[str, ...]] = {
    "chat": (),
    "messages": ("temperature", "seed", "logprobs"),
    "decisions": (*OPTIONS, "reasoning_tokens"),
    "systemone": (*OPTIONS, "reasoning_tokens"),
}
# OpenAI's models that reason; `chat` in a name says that it does not.
REASONS_BY_NAME = re.compile(r"(?:o\d|gpt-(?:[5-9]|[1-9]\d))(?!.*chat)")
LETTER_TOKENS = 8  # Room for a letter or a number, and for what stands around it.
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class Criterion(BaseModel):
    """What one criterion of a rubric asks, and how much it counts beside the others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str = Field(min_length=1, description="What an answer is rated by, in a sentence.")
    weight: float = Field(
        1.0, gt=0, allow_inf_nan=False, description="Of its rating in the weighted mean."
    )

    @model_validator(mode="before")
    @classmethod
    def _text_alone(cls, given: Any) -> Any:
        return {"text": given} if isinstance(given, str) else given


# As a reply's lines are read: what stands around a name is dropped, and capitals are as small ones.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z](?:[A-Za-z0-9_ -]{0,38}[A-Za-z0-9_])?$")]


class ChatSpec(BaseModel):
    """A chat model at an endpoint, the prompt it is shown, and what it may cost.

    Only what changes an answer is part of the protocol: the endpoint, the model, the prompts,
    `criteria`, `api`, `temperature`, `max_tokens`, `seed`, `logprobs`, `reasoning_effort`,
    `reasoning_tokens` and `extra`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider: Literal["openai", "anthropic", "google", "mistral"] | None = Field(
        None, description="Its endpoint, key, model and what that needs, where you name none."
    )
    model: str = Field(
        min_length=1, description="The model's name at the endpoint; default: the provider's."
    )
    base_url: str = Field(OPENAI, description="Usually ends in /v1.")
    api: Literal["chat", "messages", "decisions", "systemone"] = Field(
        "chat",
        description="chat completions; Anthropic's messages; or a question of choice answered with "
        "probabilities: OpenAI's decisions, vLLM's and SGLang's systemone.",
    )
    name: str | None = Field(None, description="Name in tables; default: the model's.")
    key_env: str | None = Field(
        None,
        description="Environment variable that holds the key. Default: that of the provider whose "
        "host this is and none elsewhere, so that no other host is sent a key unasked.",
    )
    preset: str = Field("llama2-zero-shot", description="A prompt of Palate's or a file.")
    rated_preset: str = Field(
        "rating-ties",
        description="Of best-of-k: the prompt that rates the responses of items of K for which "
        "one best is not what is asked, such as RewardBench 2's Ties.",
    )
    criteria: dict[Name, Criterion] = Field(
        default_factory=dict, description="Of a rubric: what is rated, by name, and its weight."
    )
    temperature: float | None = Field(
        0.0, ge=0, description="null: not sent, as to OpenAI's models that reason by default."
    )
    max_tokens: int | None = Field(
        LETTER_TOKENS,
        ge=1,
        description="Of an answer; null: not sent. Unless given, a prompt that asks for more "
        "than a letter or a number has its own.",
    )
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

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, given: Any) -> Any:
        """What a provider, or a model that reasons, has where nothing else is said."""
        if not isinstance(given, Mapping):
            return given
        filled = dict(given)
        if (provider := PROVIDERS.get(str(given.get("provider")))) is not None:
            if "model" not in given:
                filled |= {**provider.options, **given, "model": provider.model}
            filled.setdefault("base_url", provider.base_url)
            # Of OpenAI's models not all reason: their names say it.
            kept = () if given["provider"] == "openai" else ("api", *REASONS)
            for name in kept:
                if name in provider.options and name != "reasoning_effort":
                    filled.setdefault(name, provider.options[name])
        at_openai = _host(str(filled.get("base_url", OPENAI))) == _host(OPENAI)
        chat = filled.get("api", "chat") == "chat"
        if at_openai and chat and REASONS_BY_NAME.match(str(filled.get("model", ""))):
            filled.setdefault("temperature", None)
            # What bounds the answer otherwise has no reasoning in it either.
            if filled.get("max_tokens", LETTER_TOKENS) is not None:
                filled.setdefault("reasoning_tokens", REASONS["reasoning_tokens"])
        return filled

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
        for name in NOT_TAKEN[self.api]:
            if name in self.model_fields_set:
                raise ValueError(f"{name}: {self.api} takes none; leave it out")
        alike: dict[str, str] = {}
        for name in self.criteria:
            if (other := alike.setdefault(name.casefold(), name)) != name:
                raise ValueError(f"criteria: {other} and {name} are read alike; rename one")
        if self.api == "messages":
            if self.max_tokens is None:
                raise ValueError("max_tokens: messages wants one; leave it out, or say how many")
            if self.reasoning_effort in ("none", "minimal"):
                raise ValueError(
                    "reasoning_effort: messages takes low, medium, high, xhigh or max; "
                    "for none leave it out and set reasoning_tokens to 0"
                )
        if self.reasoning_tokens and self.max_tokens is None:
            raise ValueError("reasoning_tokens: room beside max_tokens, which is not set")
        for name in self.extra:
            taken = name in OPTIONS and name not in NOT_TAKEN[self.api]
            asked = taken and getattr(self, name) is not None
            if name in RESERVED or asked:
                raise ValueError(f"extra.{name}: set by Palate; leave it out")
        return self

    @property
    def key_variable(self) -> str | None:
        """The environment variable that holds the key, if one is to be sent."""
        keys = {_host(one.base_url): one.key_env for one in PROVIDERS.values()}
        return self.key_env or keys.get(_host(self.base_url))

    @property
    def at_openai(self) -> bool:
        """Whether the endpoint is OpenAI's own."""
        return _host(self.base_url) == _host(OPENAI)

    @property
    def decides(self) -> bool:
        """Whether the endpoint answers a question of choice with probabilities."""
        return self.api in ("decisions", "systemone")

    @property
    def limit(self) -> int | None:
        """The most tokens of reasoning and answer together; None: not sent."""
        if self.decides:
            return None
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


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:  # No address: said where the URL is checked.
        return None
