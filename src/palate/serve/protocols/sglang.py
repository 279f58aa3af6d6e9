"""SGLang: the raw reward as an embedding of one number; verl's SGLang engine reads it so.

Fields are those of SGLang 0.5.23 (`EmbeddingReqInput`, `EmbeddingRequest`), and for /v1/embeddings
those of vLLM 0.33.0 and TEI 1.9.3 too, whose clients ask there.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, model_validator

from palate.serve.errors import invalid
from palate.serve.protocols import vllm
from palate.serve.protocols.schema import (
    Input,
    Texts,
    TokenIds,
    Usage,
    forms,
    honoured,
    made,
    no_effect,
    one_of,
    packed,
    refused,
    single,
    spelled,
    usage,
)
from palate.serve.service import RewardService
from palate.serve.tokenize import Cutting

REFUSING = Cutting(texts=False)
PEER = "SGLang 0.5.23"

Ids = TokenIds | Annotated[list[TokenIds], Field(fail_fast=True)]
Media = Annotated[Any, refused("only text is read; leave it out", PEER)]
Inner = Annotated[Any, refused("this server has no such part; leave it out", PEER)]
Adapter = Annotated[Any, refused("serve the merged model under a name of its own", PEER)]
Vectors = Annotated[Any, refused("only text and token ids are read", PEER)]
Dimensions = Annotated[Any, refused("a reward is one number; leave it out", PEER, (None, 1))]
Unneeded = Annotated[Any, no_effect("nothing here depends on it", PEER)]


class NativeRequest(BaseModel):
    """SGLang's own form: a text or several, or token ids of one or several."""

    model_config = one_of(("text",), ("input_ids",))

    text: Annotated[str | Texts | None, honoured("a text or several", PEER)] = None
    input_ids: Annotated[Ids | None, honoured("token ids of one or several", PEER)] = None
    rid: Annotated[
        str | Texts | None, honoured("comes back as meta_info.id, one for each input", PEER)
    ] = None
    input_embeds: Vectors = None
    embed_overrides: Vectors = None
    embed_override_token_id: Vectors = None
    positional_embed_overrides: Vectors = None
    image_data: Media = None
    video_data: Media = None
    audio_data: Media = None
    modalities: Media = None
    lora_path: Adapter = None
    lora_id: Adapter = None
    dimensions: Dimensions = None
    is_cross_encoder_request: Annotated[Any, refused("send pairs to /rerank or /score", PEER)] = (
        None
    )
    return_pooled_hidden_states: Annotated[
        Any, refused("only the reward comes back; leave it out", PEER)
    ] = None
    return_prompt_token_ids: Annotated[
        Any, refused("only the reward comes back; leave it out", PEER)
    ] = None
    multi_item_delimiter_indices: Inner = None
    token_indices_to_pool: Annotated[
        Any, refused("the reward is read at the end of the response", PEER)
    ] = None
    decision_layout: Inner = None
    sampling_params: Unneeded = None
    log_metrics: Unneeded = None
    routing_key: Unneeded = None
    background: Unneeded = None
    priority: Unneeded = None
    external_trace_header: Unneeded = None
    received_time: Unneeded = None
    http_worker_ipc: Unneeded = None

    _spelled = model_validator(mode="before")(spelled)

    @model_validator(mode="after")
    def _one_of_them(self) -> NativeRequest:
        if (self.text is None) == (self.input_ids is None):
            raise ValueError("expected either text or input_ids")
        return self

    @property
    def given(self) -> Input:
        """Whichever is there."""
        return self.input_ids if self.text is None else self.text  # type: ignore[return-value]

    def names(self, count: int, otherwise: str) -> list[str]:
        """What each of `count` answers is called, as SGLang derives it from `rid`."""
        if isinstance(self.rid, str):
            return [self.rid if single(self.given) else f"{self.rid}_{i}" for i in range(count)]
        if self.rid is not None and len(self.rid) != count:
            raise invalid(f"rid: {len(self.rid)} ids for {count} inputs")
        return self.rid or [otherwise] * count


class NativeRow(BaseModel):
    """`embedding` holds the raw reward."""

    embedding: list[float]
    meta_info: dict[str, Any]


class EmbeddingsRequest(BaseModel):
    """OpenAI's form."""

    input: Annotated[Input, honoured("texts or token ids, one or many", PEER)]
    model: vllm.Model = None
    encoding_format: Annotated[
        Literal["float", "base64"], honoured("float, or base64 of a float32", PEER)
    ] = "float"
    truncate_prompt_tokens: vllm.MostTokens = None
    truncation_side: vllm.TruncationSide = None
    dimensions: Dimensions = None
    lora_path: Adapter = None
    embed_overrides: Vectors = None
    embed_override_token_id: Vectors = None
    use_activation: Annotated[
        Any, refused("ask /classify or /pooling for a sigmoid", "vLLM 0.16")
    ] = None
    embed_dtype: vllm.EncodedAs = None
    endianness: vllm.Endianness = None
    padding: vllm.Padding = None
    add_special_tokens: vllm.SpecialTokens = None
    mm_processor_kwargs: vllm.Media = None
    messages: Annotated[Any, refused("send messages to /classify or /pooling", "vLLM 0.10.2")] = (
        None
    )
    cache_salt: vllm.CacheSalt = None
    priority: vllm.Priority = None
    request_id: Annotated[str | None, no_effect("the answer has no id", "vLLM 0.10.2")] = None
    rid: Annotated[Any, no_effect("the answer has no id", PEER)] = None
    user: vllm.User = None

    _spelled = model_validator(mode="before")(spelled)


class EmbeddingRow(BaseModel):
    """`embedding` holds the raw reward: a list of one number, or its four bytes in base64."""

    object: str = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingsAnswer(BaseModel):
    """OpenAI's form."""

    object: str = "list"
    data: list[EmbeddingRow]
    model: str
    usage: Usage


def router(service: RewardService) -> APIRouter:
    """POST /v1/embeddings."""
    routes = APIRouter(tags=["SGLang"])

    @routes.post("/v1/embeddings")
    async def embeddings(request: Request, body: EmbeddingsRequest) -> EmbeddingsAnswer:
        """The raw reward of each input, for clients of OpenAI's embeddings."""
        cutting = vllm.cutting(body, texts=body.truncate_prompt_tokens is not None)
        rewards = await service.rewards(request, forms(body.input), body.model, cutting)
        in_base64 = body.encoding_format == "base64"
        rows = [
            EmbeddingRow(index=i, embedding=packed(reward) if in_base64 else [reward])
            for i, reward in enumerate(rewards)
        ]
        _, _, model = made(request, "embd")
        return EmbeddingsAnswer(data=rows, model=model, usage=usage(request))

    return routes


async def classify(
    service: RewardService, request: Request, body: NativeRequest
) -> NativeRow | list[NativeRow]:
    """SGLang's /classify: a row for one input, a list for a list."""
    asked = forms(body.given)
    names = body.names(len(asked), made(request, "classify")[0])
    scored = await service.score(request, asked, cutting=REFUSING, whole=True)
    rows = [
        NativeRow(
            embedding=[one.reward or 0.0], meta_info={"id": name, "prompt_tokens": one.tokens}
        )
        for name, one in zip(names, scored, strict=True)
    ]
    return rows[0] if single(body.given) else rows
