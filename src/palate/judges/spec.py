"""What a recipe may say of a judge that is not Palate's own; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from palate.http import address
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
    window: int = Field(256, ge=1, description="Prompts sorted by length together.")


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
    window: int = Field(256, ge=1, description="Questions sorted by length together.")


class RewardEndpointSpec(BaseModel):
    """A reward model behind HTTP, in one of the shapes that servers speak.

    `input`:
        `chat` the chat template of `tokenizer` over the whole conversation, rendered here;
        `plain` every turn under its prefix, then the response, then `suffix`;
        `pair` question and answer as two texts (`tei-predict` only);
        `messages` the turns as they are, for the server to render (vLLM's shapes only).
    With a `tokenizer`, the shapes that take token ids (vLLM's, SGLang's) are sent ids, so that the
    server cannot add a second BOS, and a text over `max_tokens` is treated as `over_limit` says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(description="Where the server is, such as http://127.0.0.1:8000.")
    shape: Literal["vllm-classify", "vllm-pooling", "sglang-classify", "tei-predict", "openrlhf"]
    input: Literal["chat", "plain", "pair", "messages"]
    path: str | None = Field(None, pattern="^[^?#]*$", description="Default: the shape's own.")
    model: str | None = Field(None, description="What is served there; in requests and protocol.")
    revision: str | None = Field(None, description="Of model and tokenizer.")
    name: str | None = Field(None, description="Name in tables; default: the model's.")
    tokenizer: str | None = Field(None, description="Hub id or folder of the tokenizer.")
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
        return address(url)

    @model_validator(mode="after")
    def _fits_together(self) -> RewardEndpointSpec:
        if self.input == "chat" and self.tokenizer is None:
            raise ValueError("input chat renders the template here and needs `tokenizer`")
        if self.input == "messages" and not self.shape.startswith("vllm"):
            raise ValueError(f"shape {self.shape} takes no messages; set input to chat or plain")
        if self.input == "pair" and self.shape != "tei-predict":
            raise ValueError(f"shape {self.shape} takes no pairs; set input to chat or plain")
        if self.tokenizer is None and (self.max_tokens or self.over_limit != "unscored"):
            raise ValueError("max_tokens and over_limit count tokens and need `tokenizer`")
        return self


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
    window: int = Field(256, ge=1, description="Questions sorted by length together.")
