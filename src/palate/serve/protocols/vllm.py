"""vLLM's pooling endpoints, as verl, reward_hub and vLLM's own clients call them.

vLLM sends one label through a sigmoid unless `use_activation` is false (`activation` in verl).
/pooling is how it serves reward models, without one; it is raw here unless asked otherwise.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from palate.serve.desk import Desk
from palate.serve.faults import invalid
from palate.serve.protocols.wire import (
    Input,
    Texts,
    Turns,
    Usage,
    activated,
    answered,
    conversation,
    forms,
    made,
    one_of,
    ranking,
    usage,
)
from palate.serve.reading import Cutting, Form

LABEL = "reward"


Name = Annotated[str | None, Field(description="Which model, where several are served.")]
Activation = Annotated[bool | None, Field(description="False: the raw reward.")]
ActivationOfVerl = Annotated[bool | None, Field(description="verl's name for use_activation.")]


class PoolingRequest(BaseModel):
    """Texts or token ids in `input`, or one conversation in `messages`.

    What is too long is refused unless `truncate_prompt_tokens` is set; -1 is the model's limit.
    """

    model_config = one_of(("input",), ("messages",))

    model: Name = None
    use_activation: Activation = None
    activation: ActivationOfVerl = None
    truncate_prompt_tokens: int | None = Field(None, ge=-1, le=2**31)
    input: Input | None = None
    messages: Turns | None = None

    def forms(self) -> list[Form]:
        """What is to be scored."""
        if (self.input is None) == (self.messages is None):
            raise invalid("expected either input or messages")
        return [conversation(self.messages)] if self.messages else forms(self.input or "")

    @property
    def cutting(self) -> Cutting:
        """What is done with what is too long."""
        most = self.truncate_prompt_tokens
        return Cutting(most is not None, most if most is not None and most > 0 else None)


class ScoreRequest(BaseModel):
    """Prompts and responses; one prompt may stand for all."""

    model: Name = None
    use_activation: Activation = None
    activation: ActivationOfVerl = None
    text_1: str | Texts = Field(description="A prompt, or one for each response.")
    text_2: str | Texts

    def forms(self) -> list[Form]:
        """Each response with its prompt."""
        first = [self.text_1] if isinstance(self.text_1, str) else self.text_1
        second = [self.text_2] if isinstance(self.text_2, str) else self.text_2
        if len(first) not in (1, len(second)) or not second:
            raise invalid(f"{len(first)} texts in text_1 for {len(second)} in text_2")
        prompts = first * len(second) if len(first) == 1 else first
        return [answered(p, r) for p, r in zip(prompts, second, strict=True)]


class Document(BaseModel):
    """A document as Cohere's clients may send one."""

    text: str


class RerankRequest(BaseModel):
    """A prompt and the responses to rank; also Jina's and Cohere's shape."""

    model: Name = None
    use_activation: Activation = None
    activation: ActivationOfVerl = None
    query: str
    documents: Annotated[list[str | Document], Field(min_length=1, fail_fast=True)]
    top_n: int | None = Field(None, ge=0, description="How many come back; 0 or absent: all.")
    return_documents: bool = True

    def texts(self) -> list[str]:
        """The documents' texts."""
        return [one if isinstance(one, str) else one.text for one in self.documents]


class ClassRow(BaseModel):
    """`probs` holds the one value, raw or through the sigmoid."""

    index: int
    label: str = LABEL
    probs: list[float]
    num_classes: int = 1


class PoolingRow(BaseModel):
    """The one value of one input."""

    index: int
    object: str = "pooling"
    data: list[float]


class ScoreRow(BaseModel):
    """The one value of one pair."""

    index: int
    object: str = "score"
    score: float


class Answer(BaseModel):
    """What the lists of vLLM begin and end with."""

    id: str
    object: str = "list"
    created: int
    model: str
    data: list[ClassRow] | list[PoolingRow] | list[ScoreRow]
    usage: Usage


class RerankDocument(BaseModel):
    """What was sent."""

    text: str


class RerankRow(BaseModel):
    """`index` is the place in `documents`."""

    index: int
    relevance_score: float
    document: RerankDocument | None = None


class RerankAnswer(BaseModel):
    """The best first."""

    id: str
    model: str
    usage: Usage
    results: list[RerankRow]


def router(desk: Desk) -> APIRouter:
    """POST /pooling, /score, /v1/score, /v1/rerank and /v2/rerank."""
    routes = APIRouter(tags=["vLLM"])

    @routes.post("/pooling")
    async def pooling(request: Request, body: PoolingRequest) -> Answer:
        """The raw reward, unless `use_activation` is true."""
        rewards = await desk.rewards(request, body.forms(), body.model, body.cutting)
        values = activated(rewards, raw=is_raw(body, default=True))
        rows = [PoolingRow(index=i, data=[value]) for i, value in enumerate(values)]
        return listed(request, "pool", rows)

    @routes.post("/score")
    @routes.post("/v1/score")
    async def score(request: Request, body: ScoreRequest) -> Answer:
        """`text_2` as responses to the prompts `text_1`."""
        rewards = await desk.rewards(request, body.forms(), body.model)
        values = activated(rewards, raw=is_raw(body))
        rows = [ScoreRow(index=i, score=value) for i, value in enumerate(values)]
        return listed(request, "score", rows)

    @routes.post("/v1/rerank")
    @routes.post("/v2/rerank")
    async def rerank_route(request: Request, body: RerankRequest) -> RerankAnswer:
        """`documents` as responses to the prompt `query`, the best first."""
        return await rerank(desk, request, body)

    return routes


def is_raw(body: PoolingRequest | ScoreRequest | RerankRequest, default: bool = False) -> bool:
    """Whether the reward is wanted as it is."""
    wanted = body.activation if body.use_activation is None else body.use_activation
    return default if wanted is None else not wanted


async def classify(desk: Desk, request: Request, body: PoolingRequest) -> Answer:
    """vLLM's /classify."""
    rewards = await desk.rewards(request, body.forms(), body.model, body.cutting)
    values = activated(rewards, raw=is_raw(body))
    return listed(request, "classify", [ClassRow(index=i, probs=[v]) for i, v in enumerate(values)])


async def rerank(desk: Desk, request: Request, body: RerankRequest) -> RerankAnswer:
    """vLLM's /rerank."""
    texts = body.texts()
    asked = [answered(body.query, text) for text in texts]
    values = activated(await desk.rewards(request, asked, body.model), raw=is_raw(body))
    best = ranking(values)[: body.top_n or None]
    rows = [
        RerankRow(
            index=index,
            relevance_score=values[index],
            document=RerankDocument(text=texts[index]) if body.return_documents else None,
        )
        for index in best
    ]
    number, _, model = made(request, "rerank")
    return RerankAnswer(id=number, model=model, usage=usage(request), results=rows)


def listed(
    request: Request, kind: str, rows: list[ClassRow] | list[PoolingRow] | list[ScoreRow]
) -> Answer:
    """Rows with what vLLM puts around them."""
    number, created, model = made(request, kind)
    return Answer(id=number, created=created, model=model, data=rows, usage=usage(request))
