"""What a recipe may say of a checkpoint as a judge; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

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
