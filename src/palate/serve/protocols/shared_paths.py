"""Paths that two servers use for shapes of their own: which it is shows in the body's keys."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Discriminator, Tag

from palate.serve.errors import SHAPE, invalid
from palate.serve.protocols import sglang, tei, vllm
from palate.serve.service import RewardService


def by_keys(tag: str, keys: set[str], vllm_keys: set[str]) -> Discriminator:
    """A body is of `tag` where it has one of `keys`, else vLLM's; of both it is refused."""

    def tag_of(body: Any) -> str:
        given = set(body) if isinstance(body, dict) else set()
        if given & keys and given & vllm_keys:
            both = " and ".join(sorted(given & (keys | vllm_keys)))
            raise invalid(f"{both} are of two shapes, and only one would be read; send one")
        return tag if given & keys else "vllm"

    return Discriminator(tag_of)


ClassifyRequest = Annotated[
    Annotated[vllm.PoolingRequest, Tag("vllm")] | Annotated[sglang.NativeRequest, Tag("sglang")],
    by_keys("sglang", {"text", "input_ids"}, {"input", "messages"}),
]
RankRequest = Annotated[
    Annotated[vllm.RerankRequest, Tag("vllm")] | Annotated[tei.TeiRerankRequest, Tag("tei")],
    by_keys("tei", {"texts"}, {"documents"}),
]
VersionedScoreRequest = Annotated[
    Annotated[vllm.ScoreRequest, Tag("vllm")] | Annotated[sglang.ScoringRequest, Tag("sglang")],
    by_keys("sglang", {"query"}, {"text_1", "text_2", "queries", "documents", "data_1", "data_2"}),
]


def router(service: RewardService) -> APIRouter:
    """POST /classify, /rerank and /v1/score."""
    routes = APIRouter(tags=["vLLM, SGLang, TEI"])

    @routes.post("/classify")
    async def classify(
        request: Request, body: ClassifyRequest
    ) -> vllm.Answer | sglang.NativeRow | list[sglang.NativeRow]:
        """SGLang's where the body has `text` or `input_ids`, else vLLM's."""
        if isinstance(body, sglang.NativeRequest):
            return await sglang.classify(service, request, body)
        return await vllm.classify(service, request, body)

    @routes.post("/v1/score")
    async def score(
        request: Request, body: VersionedScoreRequest
    ) -> vllm.Answer | sglang.ScoringAnswer:
        """SGLang's where the body has `query`, else vLLM's."""
        if isinstance(body, sglang.ScoringRequest):
            return await sglang.score(service, request, body)
        return await vllm.score(service, request, body)

    @routes.post("/rerank")
    async def rerank(request: Request, body: RankRequest) -> vllm.RerankAnswer | list[tei.Rank]:
        """TEI's where the body has `texts`, else vLLM's."""
        if isinstance(body, tei.TeiRerankRequest):
            request.scope[SHAPE] = "tei"
            return await tei.rerank(service, request, body)
        return await vllm.rerank(service, request, body)

    return routes
