"""SGLang: the raw reward as an embedding of one number; verl's SGLang engine reads it so."""

from __future__ import annotations

import base64
import struct
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, model_validator

from palate.serve.desk import Desk
from palate.serve.protocols.wire import (
    Input,
    Texts,
    TokenIds,
    Usage,
    forms,
    made,
    one_of,
    single,
    usage,
)
from palate.serve.reading import Cutting

REFUSING = Cutting(allowed=False)


class NativeRequest(BaseModel):
    """SGLang's own form: a text or several, or token ids of one or several."""

    model_config = one_of(("text",), ("input_ids",))

    text: str | Texts | None = None
    input_ids: TokenIds | Annotated[list[TokenIds], Field(fail_fast=True)] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> NativeRequest:
        if (self.text is None) == (self.input_ids is None):
            raise ValueError("expected either text or input_ids")
        return self

    @property
    def given(self) -> Input:
        """Whichever is there."""
        return self.input_ids if self.text is None else self.text  # type: ignore[return-value]


class NativeRow(BaseModel):
    """`embedding` holds the raw reward."""

    embedding: list[float]
    meta_info: dict[str, Any]


class EmbeddingsRequest(BaseModel):
    """OpenAI's form."""

    input: Input
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"


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


def router(desk: Desk) -> APIRouter:
    """POST /v1/embeddings."""
    routes = APIRouter(tags=["SGLang"])

    @routes.post("/v1/embeddings")
    async def embeddings(request: Request, body: EmbeddingsRequest) -> EmbeddingsAnswer:
        """The raw reward of each input, for clients of OpenAI's embeddings."""
        rewards = await desk.rewards(request, forms(body.input), body.model, REFUSING)
        packed = body.encoding_format == "base64"
        rows = [
            EmbeddingRow(index=i, embedding=_base64(reward) if packed else [reward])
            for i, reward in enumerate(rewards)
        ]
        _, _, model = made(request, "embd")
        return EmbeddingsAnswer(data=rows, model=model, usage=usage(request))

    return routes


async def classify(
    desk: Desk, request: Request, body: NativeRequest
) -> NativeRow | list[NativeRow]:
    """SGLang's /classify: a row for one input, a list for a list."""
    asked = forms(body.given)
    scored = await desk.score(request, asked, cutting=REFUSING, whole=True)
    number, _, _ = made(request, "classify")
    rows = [
        NativeRow(
            embedding=[one.reward or 0.0], meta_info={"id": number, "prompt_tokens": one.tokens}
        )
        for one in scored
    ]
    return rows[0] if single(body.given) else rows


def _base64(reward: float) -> str:
    return base64.b64encode(struct.pack("<f", reward)).decode()
