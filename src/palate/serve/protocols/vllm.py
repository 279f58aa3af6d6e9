"""vLLM's pooling endpoints, as verl, reward_hub and vLLM's own clients call them.

Where a request does not say whether it wants an activation, /classify and /score do what vLLM does
with the same checkpoint: its configuration decides, and that of a model that Palate exported asks
for none. /pooling is raw unless asked otherwise. /rerank is Jina's and Cohere's shape too, whose
scores are between 0 and 1: a sigmoid, unless asked otherwise.

Fields are those of vLLM 0.33.0, cohere 7.3.1 (its rerank of v1 and v2) and Jina's documentation.
The releases of vLLM looked at for `since` are 0.10.2, 0.12, 0.16, 0.24, 0.28, 0.30, 0.32 and 0.33.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from palate.data.messages import unread
from palate.serve.errors import invalid
from palate.serve.protocols.schema import (
    NUMBER,
    Input,
    Part,
    RequestBody,
    Support,
    Turns,
    Usage,
    activated,
    answer_head,
    answered,
    conversation,
    forms,
    honoured,
    no_effect,
    packed,
    ranking,
    refused,
    usage,
)
from palate.serve.service import RewardService
from palate.serve.tokenize import Form, Truncation

LABEL = "reward"
COHERE = "cohere 7.3.1"

ONE_NUMBER = refused("a reward is one number; leave it out", "vLLM 0.10.2", (None, 1))
ONLY_TEXT = refused("only text is read; leave it out", "vLLM 0.10.2")
ONLY_MESSAGES = refused("only messages are read; write them into these")
# Of every request.
COMMON_FIELDS: dict[str, Support] = {
    "model": honoured("which model, where several are served", "vLLM 0.10.2"),
    "use_activation": honoured("false: the raw reward; true: its sigmoid", "vLLM 0.12"),
    "activation": honoured("the older name of use_activation, once verl's", "vLLM 0.10.2 to 0.12"),
    "softmax": honoured("another older name of use_activation", "vLLM 0.12"),
    "truncate_prompt_tokens": honoured(
        "how many tokens are kept of what is too long; -1: as many as the model reads",
        "vLLM 0.10.2",
    ),
    "truncation_side": honoured(
        "left, as without it: the oldest tokens go. right would cut the response and is "
        "refused where anything has to be cut",
        "vLLM 0.24",
    ),
    "request_id": honoured(
        "the end of the answer's id, unless the header x-request-id is", "vLLM 0.12"
    ),
    "user": no_effect("who asks is known by the token", "vLLM 0.10.2", str | None),
    "priority": no_effect(
        "clients take turns by tokens, whatever they claim", "vLLM 0.10.2", int | None
    ),
    "cache_salt": honoured(
        "what is kept of prompts is kept apart from requests with another, or none", "vLLM 0.16"
    ),
    "normalize": refused("vLLM took it out; send use_activation", "vLLM 0.10.2 to 0.16", (None,)),
    "padding": refused("nothing is padded; leave it out", "vLLM 0.30", (None, "do_not_pad")),
    "chat_template_kwargs": refused(
        "a reward model reads its template as it was trained; leave it out", "vLLM 0.12"
    ),
    "mm_processor_kwargs": ONLY_TEXT,
}
# Of how a number comes back, and of what texts become.
ENCODING_FIELDS = {
    "encoding_format": honoured("float; on /pooling also base64, of a float32", "vLLM 0.12"),
    "embed_dtype": refused("base64 is of float32; leave it out", "vLLM 0.12", (None, "float32")),
    "endianness": refused(
        "base64 has the lowest byte first; leave it out", "vLLM 0.12", (None, "little", "native")
    ),
    "add_special_tokens": no_effect(
        "a text has BOS and its end once, as in training; ids stay as they are",
        "vLLM 0.12",
        bool | None,
    ),
}
POOLING_FIELDS = {
    "input": honoured("texts or token ids, one or many", "vLLM 0.10.2"),
    "messages": honoured("one conversation, which ends in the response", "vLLM 0.12"),
    **ENCODING_FIELDS,
    "add_generation_prompt": refused(
        "a reward is read at the end of the response; leave it out", "vLLM 0.12"
    ),
    "continue_final_message": refused(
        "a reward is read at the end of a finished response; leave it out", "vLLM 0.16"
    ),
    "chat_template": refused(
        "a reward model reads the template it was trained with; send input, written by "
        "yours, if that is meant",
        "vLLM 0.12",
    ),
    "tools": honoured("functions that the model was given, which its template writes", "vLLM 0.12"),
    "documents": ONLY_MESSAGES,
    "task": refused("the only task is classify; leave it out", "vLLM 0.12", (None, "classify")),
    "data": refused("there are no plugins; send input or messages", "vLLM 0.12"),
    "dimensions": ONE_NUMBER,
    "media_io_kwargs": ONLY_TEXT,
}
# Of requests that hold prompts and responses apart.
PAIR_FIELDS = {
    "max_tokens_per_query": honoured(
        "a query with more tokens is refused: it is never cut at its end", "vLLM 0.24"
    ),
    "max_tokens_per_doc": honoured(
        "a document with more tokens is refused: a response is never cut", "vLLM 0.24"
    ),
    "instruction": refused(
        "write it into the prompt, or send messages with a system turn", "vLLM 0.24"
    ),
}
A_PROMPT, A_RESPONSE = "a prompt, or one for each response", "a response, or several"
SCORE_FIELDS = {
    "text_1": honoured(A_PROMPT, "vLLM 0.10.2"),
    "text_2": honoured(A_RESPONSE, "vLLM 0.10.2"),
    "queries": honoured(A_PROMPT, "vLLM 0.16"),
    "documents": honoured(A_RESPONSE, "vLLM 0.16"),
    "items": honoured(A_RESPONSE, "vLLM 0.16"),
    "data_1": honoured(A_PROMPT, "vLLM 0.16"),
    "data_2": honoured(A_RESPONSE, "vLLM 0.16"),
}
RERANK_FIELDS = {
    "query": honoured("the prompt", "vLLM 0.10.2"),
    "documents": honoured("the responses", "vLLM 0.10.2"),
    "top_n": honoured("how many come back; 0 or absent: all", "vLLM 0.10.2"),
    "return_documents": honoured(
        "whether the texts come back", "cohere 7.3.1 (v1), Jina, SGLang 0.5.23"
    ),
    "raw_scores": honoured("true: the raw reward, as in TEI's shape", "infinity 0.0.78"),
    "max_chunks_per_doc": no_effect(
        "a document is one piece and never cut", f"{COHERE} (v1)", int | None
    ),
    "rank_fields": refused(
        "send each document as one text", f"{COHERE} (v1)", (None, [], ["text"])
    ),
    "relevant_spans": refused(
        "a reward is of the whole response", COHERE, (None, {"mode": "disabled"})
    ),
    "instruct": refused("write it into the query", "SGLang 0.5.23"),
}


MaxTokens = Annotated[int | None, Field(ge=-1, le=2**31), NUMBER]
Count = Annotated[int | None, Field(ge=0), NUMBER]
TruncationSide = Literal["left", "right"] | None


Salt = Annotated[str | None, Field(min_length=1, max_length=256)]


class VllmRequest(RequestBody, fields=COMMON_FIELDS):
    """What any of vLLM's requests may have."""

    model: str | None = None
    use_activation: bool | None = None
    activation: bool | None = None
    softmax: bool | None = None
    truncate_prompt_tokens: MaxTokens = None
    truncation_side: TruncationSide = None
    request_id: Annotated[str | None, Field(min_length=1, max_length=128)] = None
    cache_salt: Salt = None

    def raw(self, otherwise: bool, raw_scores: bool | None = None) -> bool:
        """Whether the raw reward is wanted; raises `RequestError` where a request says both."""
        activated = None if raw_scores is None else not raw_scores
        votes = {self.use_activation, self.activation, self.softmax, activated} - {None}
        if len(votes) > 1:
            raise invalid("use_activation and its other names disagree; send one of them")
        return not votes.pop() if votes else otherwise

    def truncation(self) -> Truncation:
        """What is done with what is too long."""
        return truncation(self.truncate_prompt_tokens, self.truncation_side)


class PoolingRequest(VllmRequest, fields=POOLING_FIELDS, one_of=(("input",), ("messages",))):
    """Texts or token ids in `input`, or one conversation in `messages`.

    What is too long is refused unless `truncate_prompt_tokens` is set; -1 is the model's limit.
    """

    input: Input | None = None
    messages: Turns | None = None
    tools: list[dict[str, Any]] | None = None
    encoding_format: Literal["float", "base64"] = "float"

    def forms(self) -> list[Form]:
        """What is to be scored."""
        if self.tools and not self.messages:
            raise invalid("tools: only messages are given tools; leave it out")
        if self.messages:
            return [conversation(self.messages, self.tools)]
        return forms(self.input or "")


class Document(BaseModel):
    """A document as Cohere's and Jina's clients may send one (`text`), or vLLM's (`content`)."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"oneOf": [{"required": ["text"]}, {"required": ["content"]}]},
    )

    text: str | None = None
    content: Annotated[list[Part], Field(min_length=1, fail_fast=True)] | None = None
    image: Annotated[Any, refused("only text is read")] = None

    @model_validator(mode="before")
    @classmethod
    def _nothing_unread(cls, value: Any) -> Any:
        if isinstance(value, dict) and (reason := unread({"content": value.get("content")})):
            raise ValueError(reason)
        return value

    @model_validator(mode="after")
    def _one_form(self) -> Document:
        if (self.text is None) == (self.content is None):
            raise ValueError("expected either text or content")
        return self

    def __str__(self) -> str:
        return self.text or "".join(part.text for part in self.content or ())


def _kind(value: Any) -> str:
    """Which of a union's members is meant, so that an error is of that one alone."""
    if isinstance(value, dict | Document):
        return "document"
    return "list" if isinstance(value, list) else "text"


Text = Annotated[
    Annotated[str, Tag("text")] | Annotated[Document, Tag("document")], Discriminator(_kind)
]
OneOrMany = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[Document, Tag("document")]
    | Annotated[list[Text], Field(min_length=1, fail_fast=True), Tag("list")],
    Discriminator(_kind),
]
PAIRS = (("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2"))


class PairsRequest(VllmRequest, fields=PAIR_FIELDS):
    """What requests may have that hold prompts and responses apart."""

    max_tokens_per_query: Count = None
    max_tokens_per_doc: Count = None

    def truncation(self) -> Truncation:
        """What is done with what is too long."""
        return replace(
            super().truncation(),
            max_tokens_per_query=self.max_tokens_per_query,
            max_tokens_per_doc=self.max_tokens_per_doc,
        )


class ScoreRequest(PairsRequest, fields=SCORE_FIELDS, one_of=PAIRS):
    """Prompts and responses, under the names of one of `PAIRS`; one prompt may stand for all."""

    text_1: OneOrMany | None = None
    text_2: OneOrMany | None = None
    queries: OneOrMany | None = None
    documents: OneOrMany | None = None
    items: OneOrMany | None = None
    data_1: OneOrMany | None = None
    data_2: OneOrMany | None = None

    def forms(self) -> list[Form]:
        """Each response with its prompt."""
        first, second = next(pair for pair in PAIRS if getattr(self, pair[1]) is not None)
        prompts, responses = texts(getattr(self, first)), texts(getattr(self, second))
        if len(prompts) not in (1, len(responses)) or not responses:
            raise invalid(f"{len(prompts)} texts in {first} for {len(responses)} in {second}")
        if len(prompts) == 1:
            prompts *= len(responses)
        return [answered(p, r) for p, r in zip(prompts, responses, strict=True)]


class RerankRequest(PairsRequest, fields=RERANK_FIELDS):
    """A prompt and the responses to rank; also Jina's, Cohere's and SGLang's shape."""

    query: Text
    documents: OneOrMany
    top_n: Count = None
    return_documents: bool = True
    raw_scores: bool | None = None


def truncation(most: int | None, side: TruncationSide) -> Truncation:
    """What vLLM's two fields say of what is too long."""
    return Truncation(
        texts=most is not None,
        max_tokens=None if most == -1 else most,
        right="truncation_side" if side == "right" else "",
    )


def texts(given: Text | Sequence[Text]) -> list[str]:
    """The texts of one or many."""
    return [str(one) for one in ([given] if isinstance(given, str | Document) else given)]


class ClassRow(BaseModel):
    """`probs` holds the one value, raw or through the sigmoid."""

    index: int
    label: str = LABEL
    probs: list[float]
    num_classes: int = 1


class PoolingRow(BaseModel):
    """The one value of one input: a list of one number, or its four bytes in base64."""

    index: int
    object: str = "pooling"
    data: list[float] | str


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


def router(service: RewardService) -> APIRouter:
    """POST /pooling, /score, /v1/rerank and /v2/rerank."""
    routes = APIRouter(tags=["vLLM"])

    @routes.post("/pooling")
    async def pooling(request: Request, body: PoolingRequest) -> Answer:
        """The raw reward, unless `use_activation` is true."""
        values = await scores(service, request, body, raw=True)
        in_base64 = body.encoding_format == "base64"
        rows = [
            PoolingRow(index=i, data=packed(value) if in_base64 else [value])
            for i, value in enumerate(values)
        ]
        return answer(request, "pool", rows, body.request_id)

    @routes.post("/score")
    async def score_route(request: Request, body: ScoreRequest) -> Answer:
        """The first of each pair as a prompt, the second as the response to it."""
        return await score(service, request, body)

    @routes.post("/v1/rerank")
    @routes.post("/v2/rerank")
    async def rerank_route(request: Request, body: RerankRequest) -> RerankAnswer:
        """`documents` as responses to the prompt `query`, the best first."""
        return await rerank(service, request, body)

    return routes


async def classify(service: RewardService, request: Request, body: PoolingRequest) -> Answer:
    """vLLM's /classify."""
    values = await scores(service, request, body)
    rows = [ClassRow(index=i, probs=[value]) for i, value in enumerate(values)]
    return answer(request, "classify", rows, body.request_id)


async def score(service: RewardService, request: Request, body: ScoreRequest) -> Answer:
    """vLLM's /score."""
    values = await scores(service, request, body)
    rows = [ScoreRow(index=i, score=value) for i, value in enumerate(values)]
    return answer(request, "score", rows, body.request_id)


async def rerank(service: RewardService, request: Request, body: RerankRequest) -> RerankAnswer:
    """vLLM's /rerank."""
    raw = body.raw(False, body.raw_scores)
    responses, (query,) = texts(body.documents), texts(body.query)
    pairs = [answered(query, text) for text in responses]
    rewards = await service.rewards(request, pairs, body.model, body.truncation(), body.cache_salt)
    values = activated(rewards, raw=raw)
    rows = [
        RerankRow(
            index=index,
            relevance_score=values[index],
            document=RerankDocument(text=responses[index]) if body.return_documents else None,
        )
        # By raw reward: beyond 37 the sigmoid is exactly 1, and all would be equally good.
        for index in ranking(rewards)[: body.top_n or None]
    ]
    id_, _, model = answer_head(request, "rerank", body.request_id)
    return RerankAnswer(id=id_, model=model, usage=usage(request), results=rows)


async def scores(
    service: RewardService,
    request: Request,
    body: PoolingRequest | ScoreRequest,
    raw: bool | None = None,
) -> list[float]:
    """A number for each form, raw or through a sigmoid: as asked, else by `raw`, else the model."""
    raw = body.raw(service.served(request, body.model).raw if raw is None else raw)
    rewards = await service.rewards(
        request, body.forms(), body.model, body.truncation(), body.cache_salt
    )
    return activated(rewards, raw=raw)


def answer(
    request: Request,
    kind: str,
    rows: list[ClassRow] | list[PoolingRow] | list[ScoreRow],
    own_id: str | None,
) -> Answer:
    """Rows with what vLLM puts around them."""
    id_, created, model = answer_head(request, kind, own_id)
    return Answer(id=id_, created=created, model=model, data=rows, usage=usage(request))
