"""Text Embeddings Inference: a sigmoid unless `raw_scores`, and errors of its own shape."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from palate.serve.desk import Desk
from palate.serve.protocols.vllm import LABEL
from palate.serve.protocols.wire import Texts, activated, answered, ranking
from palate.serve.reading import Cutting, Form, Written

Pair = Annotated[Texts, Field(min_length=1, max_length=2)]


class PredictRequest(BaseModel):
    """A text, a pair of prompt and response, or a list of lists of one or two."""

    inputs: str | Pair | Annotated[list[Pair], Field(min_length=1, fail_fast=True)]
    raw_scores: bool = False
    truncate: bool | None = None

    @property
    def cutting(self) -> Cutting:
        """What is too long is refused unless `truncate` is set."""
        return Cutting(bool(self.truncate), status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


class TeiRerankRequest(BaseModel):
    """A prompt, and responses to rank."""

    query: str
    texts: Annotated[Texts, Field(min_length=1)]
    raw_scores: bool = False
    return_text: bool = False
    truncate: bool | None = None


class Prediction(BaseModel):
    """The one label's score."""

    score: float
    label: str = LABEL


class Rank(BaseModel):
    """`index` is the place in `texts`."""

    index: int
    score: float
    text: str | None = None


def router(desk: Desk) -> APIRouter:
    """POST /predict and GET /info."""
    routes = APIRouter(tags=["Text Embeddings Inference"])

    @routes.post("/predict")
    async def predict(
        request: Request, body: PredictRequest
    ) -> list[Prediction] | list[list[Prediction]]:
        """One prediction a text: a list of it for one input, a list of lists for a list."""
        inputs = body.inputs
        batch = not isinstance(inputs, str) and isinstance(inputs[0], list)
        asked = [_form(one) for one in inputs] if batch else [_form(inputs)]
        rewards = await desk.rewards(request, asked, cutting=body.cutting)
        rows = [[Prediction(score=s)] for s in activated(rewards, raw=body.raw_scores)]
        return rows if batch else rows[0]

    @routes.get("/info")
    async def info(request: Request) -> dict[str, Any]:
        """What is served, in TEI's words."""
        served = desk.models.get(request.query_params.get("model"))
        label = {"id2label": {"0": LABEL}, "label2id": {LABEL: 0}}
        return {
            "model_id": served.name,
            "model_sha": served.fingerprint,
            "model_dtype": served.facts.get("dtype", ""),
            "model_type": {"reranker": label},
            "max_input_length": served.reader.chat.max_tokens,
            "max_client_batch_size": desk.limits.conversations_per_request,
            "max_concurrent_requests": desk.limits.requests_at_once,
            "auto_truncate": False,
            "version": served.facts.get("version", ""),
        }

    return routes


async def rerank(desk: Desk, request: Request, body: TeiRerankRequest) -> list[Rank]:
    """TEI's /rerank: `texts` as responses to the prompt `query`, the best first."""
    asked = [answered(body.query, text) for text in body.texts]
    values = activated(await desk.rewards(request, asked), raw=body.raw_scores)
    return [
        Rank(index=i, score=values[i], text=body.texts[i] if body.return_text else None)
        for i in ranking(values)
    ]


def _form(given: Any) -> Form:
    if isinstance(given, str):
        return Written(given)
    return Written(given[0]) if len(given) == 1 else answered(given[0], given[1])
