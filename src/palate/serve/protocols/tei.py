"""Text Embeddings Inference: a sigmoid unless `raw_scores`, and errors of its own shape.

Fields are those of TEI 1.9.3.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from palate.serve.protocols.schema import (
    NUMBER,
    RequestBody,
    Texts,
    activated,
    answered,
    honoured,
    ranking,
)
from palate.serve.protocols.vllm import LABEL
from palate.serve.service import RewardService
from palate.serve.tokenize import Form, Templated, Truncation

Pair = Annotated[Texts, Field(min_length=1, max_length=2)]
Direction = Literal["left", "Left", "right", "Right"] | None

OPTIONS = {
    "raw_scores": honoured("true: the raw reward; false: its sigmoid", "TEI 0.6.0"),
    "truncate": honoured(
        "true: what is too long is cut at its oldest end; false: it is refused", "TEI 0.6.0"
    ),
    "truncation_direction": honoured(
        "left, as without it: the oldest tokens go. right would cut the response and is "
        "refused where anything has to be cut",
        "TEI 1.3.0",
    ),
}
PREDICT_FIELDS = {
    "inputs": honoured("a text, a pair of prompt and response, or a list of these", "TEI 0.6.0"),
    **OPTIONS,
}
RERANK_FIELDS = {
    "query": honoured("the prompt", "TEI 0.6.0"),
    "texts": honoured("the responses", "TEI 0.6.0"),
    "return_text": honoured("whether the texts come back", "TEI 0.6.0"),
    "top_n": honoured("how many come back; TEI itself sends all", "litellm 1.110.2"),
    **OPTIONS,
}


class PredictRequest(RequestBody, fields=PREDICT_FIELDS):
    """A text, a pair of prompt and response, or a list of lists of one or two.

    A text that is too long is refused unless `truncate` is set.
    """

    inputs: str | Pair | Annotated[list[Pair], Field(min_length=1, fail_fast=True)]
    raw_scores: bool = False
    truncate: bool | None = None
    truncation_direction: Direction = None


class TeiRerankRequest(RequestBody, fields=RERANK_FIELDS):
    """A prompt, and responses to rank."""

    query: str
    texts: Annotated[Texts, Field(min_length=1)]
    raw_scores: bool = False
    return_text: bool = False
    top_n: Annotated[int | None, Field(ge=0), NUMBER] = None
    truncate: bool | None = None
    truncation_direction: Direction = None


class Prediction(BaseModel):
    """The one label's score."""

    score: float
    label: str = LABEL


class Rank(BaseModel):
    """`index` is the place in `texts`."""

    index: int
    score: float
    text: str | None = None


def router(service: RewardService) -> APIRouter:
    """POST /predict and GET /info."""
    routes = APIRouter(tags=["Text Embeddings Inference"])

    @routes.post("/predict")
    async def predict(
        request: Request, body: PredictRequest
    ) -> list[Prediction] | list[list[Prediction]]:
        """One prediction a text: a list of it for one input, a list of lists for a list."""
        inputs = body.inputs
        batch = not isinstance(inputs, str) and isinstance(inputs[0], list)
        forms = [_form(one) for one in inputs] if batch else [_form(inputs)]
        rewards = await service.rewards(request, forms, truncation=truncation(body))
        rows = [[Prediction(score=s)] for s in activated(rewards, raw=body.raw_scores)]
        return rows if batch else rows[0]

    @routes.get("/info")
    async def info(request: Request) -> dict[str, Any]:
        """What is served, in TEI's words."""
        served = service.served(request, None)
        label = {"id2label": {"0": LABEL}, "label2id": {LABEL: 0}}
        return {
            "model_id": served.name,
            "model_sha": served.fingerprint,
            "model_dtype": served.facts.get("dtype", ""),
            "model_type": {"reranker": label},
            "max_input_length": served.reader.chat.max_tokens,
            "max_client_batch_size": service.limits.conversations_per_request,
            "max_concurrent_requests": service.limits.requests_at_once,
            "auto_truncate": False,
            "version": served.facts.get("version", ""),
        }

    return routes


async def rerank(service: RewardService, request: Request, body: TeiRerankRequest) -> list[Rank]:
    """TEI's /rerank: `texts` as responses to the prompt `query`, the best first."""
    pairs = [answered(body.query, text) for text in body.texts]
    rewards = await service.rewards(request, pairs, truncation=truncation(body))
    values = activated(rewards, raw=body.raw_scores)
    return [
        Rank(index=i, score=values[i], text=body.texts[i] if body.return_text else None)
        for i in ranking(rewards)[: body.top_n or None]
    ]


def truncation(body: PredictRequest | TeiRerankRequest) -> Truncation:
    """What is done with what is too long: without `truncate` a pair is cut and a text is not."""
    return Truncation(
        texts=bool(body.truncate),
        conversations=body.truncate is not False,
        right="truncation_direction" if body.truncation_direction in ("right", "Right") else "",
        status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    )


def _form(given: Any) -> Form:
    if isinstance(given, str):
        return Templated(given)
    return Templated(given[0]) if len(given) == 1 else answered(given[0], given[1])
