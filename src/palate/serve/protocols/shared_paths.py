"""Paths that two servers use for shapes of their own: which it is shows in the body's keys."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Discriminator, Tag

from palate.serve.errors import SHAPE, invalid
from palate.serve.protocols import sglang, tei, vllm
from palate.serve.service import RewardService


def _classifier(body: Any) -> str:
    return _whose(body, "sglang", {"text", "input_ids"}, {"input", "messages"})


def _ranker(body: Any) -> str:
    return _whose(body, "tei", {"texts"}, {"documents"})


def _whose(body: Any, other: str, theirs: set[str], vllms: set[str]) -> str:
    """Whose shape a body has; raises `RequestError` for one with texts of both."""
    keys = _keys(body)
    if keys & theirs and keys & vllms:
        both = " and ".join(sorted(keys & (theirs | vllms)))
        raise invalid(f"{both} are of two shapes, and only one would be read; send one")
    return other if keys & theirs else "vllm"


def _keys(body: Any) -> set[str]:
    return set(body) if isinstance(body, dict) else set()


ClassifyRequest = Annotated[
    Annotated[vllm.PoolingRequest, Tag("vllm")] | Annotated[sglang.NativeRequest, Tag("sglang")],
    Discriminator(_classifier),
]
RankRequest = Annotated[
    Annotated[vllm.RerankRequest, Tag("vllm")] | Annotated[tei.TeiRerankRequest, Tag("tei")],
    Discriminator(_ranker),
]


def router(service: RewardService) -> APIRouter:
    """POST /classify and /rerank."""
    routes = APIRouter(tags=["vLLM, SGLang, TEI"])

    @routes.post("/classify")
    async def classify(
        request: Request, body: ClassifyRequest
    ) -> vllm.Answer | sglang.NativeRow | list[sglang.NativeRow]:
        """SGLang's where the body has `text` or `input_ids`, else vLLM's."""
        if isinstance(body, sglang.NativeRequest):
            return await sglang.classify(service, request, body)
        return await vllm.classify(service, request, body)

    @routes.post("/rerank")
    async def rerank(request: Request, body: RankRequest) -> vllm.RerankAnswer | list[tei.Rank]:
        """TEI's where the body has `texts`, else vLLM's."""
        if isinstance(body, tei.TeiRerankRequest):
            request.scope[SHAPE] = "tei"
            return await tei.rerank(service, request, body)
        return await vllm.rerank(service, request, body)

    return routes
