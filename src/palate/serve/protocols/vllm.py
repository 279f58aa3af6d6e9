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
from typing import Annotated, Any, Literal, Protocol

from fastapi import APIRouter, Request
from pydantic import BaseModel, Discriminator, Field, Tag, model_validator

from palate.data.messages import unread
from palate.serve.errors import invalid
from palate.serve.protocols.schema import (
    Input,
    Part,
    Turns,
    Usage,
    activated,
    answered,
    conversation,
    forms,
    honoured,
    made,
    no_effect,
    one_of,
    packed,
    ranking,
    refused,
    spelled,
    usage,
)
from palate.serve.service import RewardService
from palate.serve.tokenize import Cutting, Form

LABEL = "reward"
COHERE = "cohere 7.3.1"

Model = Annotated[str | None, honoured("which model, where several are served", "vLLM 0.10.2")]
User = Annotated[str | None, no_effect("who asks is known by the token", "vLLM 0.10.2")]
RequestId = Annotated[
    str | None,
    Field(min_length=1, max_length=128),
    honoured("the end of the answer's id, unless the header x-request-id is", "vLLM 0.12"),
]
Priority = Annotated[
    int | None, no_effect("clients take turns by tokens, whatever they claim", "vLLM 0.10.2")
]
CacheSalt = Annotated[
    str | None, no_effect("nothing of a prompt is kept after its micro-batch", "vLLM 0.16")
]
UseActivation = Annotated[
    bool | None, honoured("false: the raw reward; true: its sigmoid", "vLLM 0.12")
]
Activation = Annotated[
    bool | None, honoured("the older name of use_activation, once verl's", "vLLM 0.10.2 to 0.12")
]
Softmax = Annotated[bool | None, honoured("another older name of use_activation", "vLLM 0.12")]
Normalize = Annotated[
    Any, refused("vLLM took it out; send use_activation", "vLLM 0.10.2 to 0.16", (None,))
]
MostTokens = Annotated[
    int | None,
    Field(ge=-1, le=2**31),
    honoured("how many tokens are kept of what is too long; -1: as many as the model reads",
             "vLLM 0.10.2"),
]  # fmt: skip
TruncationSide = Annotated[
    Literal["left", "right"] | None,
    honoured("left, as without it: the oldest tokens go. right would cut the response and is "
             "refused where anything has to be cut", "vLLM 0.24"),
]  # fmt: skip
MostOfQuery = Annotated[
    int | None,
    Field(ge=0),
    honoured("a query with more tokens is refused: it is never cut at its end", "vLLM 0.24"),
]
MostOfDocument = Annotated[
    int | None,
    Field(ge=0),
    honoured("a document with more tokens is refused: a response is never cut", "vLLM 0.24"),
]
Padding = Annotated[
    Any,
    refused("nothing is padded; leave it out", "vLLM 0.30", (None, "do_not_pad")),
]
SpecialTokens = Annotated[
    bool | None,
    no_effect("a text has BOS and its end once, as in training; ids stay as they are", "vLLM 0.12"),
]
GenerationPrompt = Annotated[
    Any,
    refused("a reward is read at the end of the response; leave it out", "vLLM 0.12"),
]
ContinueFinal = Annotated[
    Any,
    refused("a reward is read at the end of a finished response; leave it out", "vLLM 0.16"),
]
Template = Annotated[
    Any,
    refused("a reward model reads the template it was trained with; send input, written by "
            "yours, if that is meant", "vLLM 0.12"),
]  # fmt: skip
TemplateOptions = Annotated[
    Any,
    refused("a reward model reads its template as it was trained; leave it out", "vLLM 0.12"),
]
Instruction = Annotated[
    Any, refused("write it into the prompt, or send messages with a system turn", "vLLM 0.24")
]
Media = Annotated[Any, refused("only text is read; leave it out", "vLLM 0.10.2")]
Tools = Annotated[Any, refused("only messages are read; write them into these")]
Dimensions = Annotated[
    Any, refused("a reward is one number; leave it out", "vLLM 0.10.2", (None, 1))
]
Encoding = Annotated[
    Literal["float", "base64"],
    honoured("float; on /pooling also base64, of a float32", "vLLM 0.12"),
]
Task = Annotated[
    Any, refused("the only task is classify; leave it out", "vLLM 0.12", (None, "classify"))
]
PluginData = Annotated[Any, refused("there are no plugins; send input or messages", "vLLM 0.12")]
EncodedAs = Annotated[
    Any, refused("base64 is of float32; leave it out", "vLLM 0.12", (None, "float32"))
]
Endianness = Annotated[
    Any,
    refused("base64 has the lowest byte first; leave it out", "vLLM 0.12",
            (None, "little", "native")),
]  # fmt: skip


class PoolingRequest(BaseModel):
    """Texts or token ids in `input`, or one conversation in `messages`.

    What is too long is refused unless `truncate_prompt_tokens` is set; -1 is the model's limit.
    """

    model_config = one_of(("input",), ("messages",))

    input: Annotated[Input | None, honoured("texts or token ids, one or many", "vLLM 0.10.2")] = (
        None
    )
    messages: Annotated[
        Turns | None, honoured("one conversation, which ends in the response", "vLLM 0.12")
    ] = None
    model: Model = None
    use_activation: UseActivation = None
    activation: Activation = None
    softmax: Softmax = None
    normalize: Normalize = None
    truncate_prompt_tokens: MostTokens = None
    truncation_side: TruncationSide = None
    padding: Padding = None
    add_special_tokens: SpecialTokens = None
    add_generation_prompt: GenerationPrompt = None
    continue_final_message: ContinueFinal = None
    chat_template: Template = None
    chat_template_kwargs: TemplateOptions = None
    tools: Tools = None
    documents: Tools = None
    task: Task = None
    data: PluginData = None
    dimensions: Dimensions = None
    encoding_format: Encoding = "float"
    embed_dtype: EncodedAs = None
    endianness: Endianness = None
    media_io_kwargs: Media = None
    mm_processor_kwargs: Media = None
    cache_salt: CacheSalt = None
    priority: Priority = None
    request_id: RequestId = None
    user: User = None

    _spelled = model_validator(mode="before")(spelled)

    def forms(self) -> list[Form]:
        """What is to be scored."""
        if (self.input is None) == (self.messages is None):
            raise invalid("expected either input or messages")
        return [conversation(self.messages)] if self.messages else forms(self.input or "")

    @property
    def cutting(self) -> Cutting:
        """What is done with what is too long."""
        return cutting(self, texts=self.truncate_prompt_tokens is not None)


class Document(BaseModel):
    """A document as Cohere's and Jina's clients may send one (`text`), or vLLM's (`content`)."""

    model_config = one_of(("text",), ("content",))

    text: str | None = None
    content: Annotated[list[Part], Field(min_length=1, fail_fast=True)] | None = None
    image: Annotated[Any, refused("only text is read")] = None

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, value: Any) -> Any:
        if isinstance(value, dict) and (reason := unread({"content": value.get("content")})):
            raise ValueError(reason)
        return value

    @model_validator(mode="after")
    def _one_form(self) -> Document:
        if (self.text is None) == (self.content is None):
            raise ValueError("expected either text or content")
        return self

    @property
    def said(self) -> str:
        """Its text."""
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
Prompts = Annotated[OneOrMany | None, honoured("a prompt, or one for each response", "vLLM 0.16")]
Responses = Annotated[OneOrMany | None, honoured("a response, or several", "vLLM 0.16")]


class ScoreRequest(BaseModel):
    """Prompts and responses, under the names of one of `PAIRS`; one prompt may stand for all."""

    model_config = one_of(*PAIRS)

    text_1: Annotated[
        OneOrMany | None, honoured("a prompt, or one for each response", "vLLM 0.10.2")
    ] = None
    text_2: Annotated[OneOrMany | None, honoured("a response, or several", "vLLM 0.10.2")] = None
    queries: Prompts = None
    documents: Responses = None
    items: Responses = None
    data_1: Prompts = None
    data_2: Responses = None
    model: Model = None
    use_activation: UseActivation = None
    activation: Activation = None
    softmax: Softmax = None
    normalize: Normalize = None
    truncate_prompt_tokens: MostTokens = None
    truncation_side: TruncationSide = None
    max_tokens_per_query: MostOfQuery = None
    max_tokens_per_doc: MostOfDocument = None
    padding: Padding = None
    instruction: Instruction = None
    chat_template_kwargs: TemplateOptions = None
    mm_processor_kwargs: Media = None
    cache_salt: CacheSalt = None
    priority: Priority = None
    request_id: RequestId = None
    user: User = None

    _spelled = model_validator(mode="before")(spelled)

    @model_validator(mode="after")
    def _one_pair(self) -> ScoreRequest:
        given = {name for pair in PAIRS for name in pair if getattr(self, name) is not None}
        if given not in map(set, PAIRS):
            pairs = ", ".join(" and ".join(pair) for pair in PAIRS)
            got = " and ".join(sorted(given)) or "none of them"
            raise ValueError(f"expected one of {pairs}; got {got}")
        return self

    def forms(self) -> list[Form]:
        """Each response with its prompt."""
        one, other = next(pair for pair in PAIRS if getattr(self, pair[1]) is not None)
        first, second = said(getattr(self, one)), said(getattr(self, other))
        if len(first) not in (1, len(second)) or not second:
            raise invalid(f"{len(first)} texts in {one} for {len(second)} in {other}")
        prompts = first * len(second) if len(first) == 1 else first
        return [answered(p, r) for p, r in zip(prompts, second, strict=True)]

    @property
    def cutting(self) -> Cutting:
        """What is done with what is too long."""
        return cutting(self, limits=(self.max_tokens_per_query, self.max_tokens_per_doc))


class RerankRequest(BaseModel):
    """A prompt and the responses to rank; also Jina's, Cohere's and SGLang's shape."""

    query: Annotated[Text, honoured("the prompt", "vLLM 0.10.2")]
    documents: Annotated[
        OneOrMany,
        honoured("the responses", "vLLM 0.10.2"),
    ]
    top_n: Annotated[
        int | None,
        Field(ge=0),
        honoured("how many come back; 0 or absent: all", "vLLM 0.10.2"),
    ] = None
    return_documents: Annotated[
        bool, honoured("whether the texts come back", "cohere 7.3.1 (v1), Jina, SGLang 0.5.23")
    ] = True
    model: Model = None
    use_activation: UseActivation = None
    activation: Activation = None
    softmax: Softmax = None
    raw_scores: Annotated[bool | None, honoured("true: the raw reward, as in TEI's shape")] = None
    normalize: Normalize = None
    truncate_prompt_tokens: MostTokens = None
    truncation_side: TruncationSide = None
    max_tokens_per_query: MostOfQuery = None
    max_tokens_per_doc: MostOfDocument = None
    max_chunks_per_doc: Annotated[
        int | None, no_effect("a document is one piece and never cut", f"{COHERE} (v1)")
    ] = None
    rank_fields: Annotated[
        Any,
        refused("send each document as one text", f"{COHERE} (v1)", (None, [], ["text"])),
    ] = None
    relevant_spans: Annotated[
        Any,
        refused("a reward is of the whole response", COHERE, (None, {"mode": "disabled"})),
    ] = None
    padding: Padding = None
    instruction: Instruction = None
    instruct: Annotated[Any, refused("write it into the query", "SGLang 0.5.23")] = None
    chat_template_kwargs: TemplateOptions = None
    mm_processor_kwargs: Media = None
    cache_salt: CacheSalt = None
    priority: Priority = None
    request_id: RequestId = None
    user: User = None

    _spelled = model_validator(mode="before")(spelled)

    def texts(self) -> list[str]:
        """The documents' texts."""
        return said(self.documents)

    @property
    def cutting(self) -> Cutting:
        """What is done with what is too long."""
        return cutting(self, limits=(self.max_tokens_per_query, self.max_tokens_per_doc))


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
    """POST /pooling, /score, /v1/score, /v1/rerank and /v2/rerank."""
    routes = APIRouter(tags=["vLLM"])

    @routes.post("/pooling")
    async def pooling(request: Request, body: PoolingRequest) -> Answer:
        """The raw reward, unless `use_activation` is true."""
        raw = is_raw(body, unless_asked=True)
        rewards = await service.rewards(request, body.forms(), body.model, body.cutting)
        in_base64 = body.encoding_format == "base64"
        rows = [
            PoolingRow(index=i, data=packed(value) if in_base64 else [value])
            for i, value in enumerate(activated(rewards, raw=raw))
        ]
        return listed(request, "pool", rows, body.request_id)

    @routes.post("/score")
    @routes.post("/v1/score")
    async def score(request: Request, body: ScoreRequest) -> Answer:
        """The first of each pair as a prompt, the second as the response to it."""
        raw = is_raw(body, unless_asked=service.served(request, body.model).raw)
        rewards = await service.rewards(request, body.forms(), body.model, body.cutting)
        values = activated(rewards, raw=raw)
        rows = [ScoreRow(index=i, score=value) for i, value in enumerate(values)]
        return listed(request, "score", rows, body.request_id)

    @routes.post("/v1/rerank")
    @routes.post("/v2/rerank")
    async def rerank_route(request: Request, body: RerankRequest) -> RerankAnswer:
        """`documents` as responses to the prompt `query`, the best first."""
        return await rerank(service, request, body)

    return routes


def is_raw(body: PoolingRequest | ScoreRequest | RerankRequest, unless_asked: bool) -> bool:
    """Whether the reward is wanted as it is; raises `Fault` where a request says both."""
    votes = {body.use_activation, body.activation, body.softmax}
    if isinstance(body, RerankRequest) and body.raw_scores is not None:
        votes.add(not body.raw_scores)
    votes.discard(None)
    if len(votes) > 1:
        raise invalid("use_activation and its other names disagree; send one of them")
    return not votes.pop() if votes else unless_asked


class Truncating(Protocol):
    """A request with vLLM's fields of what is too long."""

    truncate_prompt_tokens: int | None
    truncation_side: Literal["left", "right"] | None


def cutting(
    body: Truncating,
    *,
    texts: bool = True,
    limits: tuple[int | None, int | None] = (None, None),
) -> Cutting:
    """What a request says of what is too long; `limits` are the tokens of query and document."""
    most = body.truncate_prompt_tokens
    return Cutting(
        texts=texts,
        most=None if most == -1 else most,
        newest="truncation_side" if body.truncation_side == "right" else "",
        max_tokens_per_query=limits[0],
        max_tokens_per_doc=limits[1],
    )


def said(given: Text | Sequence[Text]) -> list[str]:
    """The texts of one or many."""
    many = [given] if isinstance(given, str | Document) else given
    return [one if isinstance(one, str) else one.said for one in many]


async def classify(service: RewardService, request: Request, body: PoolingRequest) -> Answer:
    """vLLM's /classify."""
    raw = is_raw(body, unless_asked=service.served(request, body.model).raw)
    rewards = await service.rewards(request, body.forms(), body.model, body.cutting)
    values = activated(rewards, raw=raw)
    rows = [ClassRow(index=i, probs=[value]) for i, value in enumerate(values)]
    return listed(request, "classify", rows, body.request_id)


async def rerank(service: RewardService, request: Request, body: RerankRequest) -> RerankAnswer:
    """vLLM's /rerank."""
    texts, (query,) = body.texts(), said(body.query)
    raw = is_raw(body, unless_asked=False)
    asked = [answered(query, text) for text in texts]
    rewards = await service.rewards(request, asked, body.model, body.cutting)
    values = activated(rewards, raw=raw)
    # By raw reward: beyond 37 the sigmoid is exactly 1, and all would be equally good.
    best = ranking(rewards)[: body.top_n or None]
    rows = [
        RerankRow(
            index=index,
            relevance_score=values[index],
            document=RerankDocument(text=texts[index]) if body.return_documents else None,
        )
        for index in best
    ]
    number, _, model = made(request, "rerank", body.request_id)
    return RerankAnswer(id=number, model=model, usage=usage(request), results=rows)


def listed(
    request: Request,
    kind: str,
    rows: list[ClassRow] | list[PoolingRow] | list[ScoreRow],
    wanted: str | None,
) -> Answer:
    """Rows with what vLLM puts around them; `wanted` is the id that the request asks for."""
    number, created, model = made(request, kind, wanted)
    return Answer(id=number, created=created, model=model, data=rows, usage=usage(request))
