"""SGLang: the raw reward as an embedding of one number; verl's SGLang engine reads it so.

Its /v1/classify answers the softmax over the labels, which over one label is 1 for every text
(`serving_classify.py` of 0.5.23); here it is the raw reward. Its /v1/score gives a classifier's
logits, unless `apply_softmax` asks for that same 1.

Fields are those of SGLang 0.5.23 (`EmbeddingReqInput`, `EmbeddingRequest`, `ClassifyRequest`,
`ScoringRequest`), and for /v1/embeddings those of vLLM 0.33.0 and TEI 1.9.3 too, whose clients ask
there.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from palate.serve.errors import invalid
from palate.serve.protocols import vllm
from palate.serve.protocols.schema import (
    Input,
    RequestBody,
    Texts,
    TokenIds,
    Usage,
    answer_head,
    answers,
    forms,
    honoured,
    no_effect,
    packed,
    refused,
    single,
    usage,
)
from palate.serve.service import RewardService
from palate.serve.tokenize import Form, Ids, Truncation

PEER = "SGLang 0.5.23"

ONLY_TEXT = refused("only text is read; leave it out", PEER)
NO_VECTORS = refused("only text and token ids are read", PEER)
NO_ADAPTER = refused("serve the merged model under a name of its own", PEER)
NO_SUCH_PART = refused("this server has no such part; leave it out", PEER)
ONLY_REWARD = refused("only the reward comes back; leave it out", PEER)
ONE_NUMBER = refused("a reward is one number; leave it out", PEER, (None, 1))
NOT_NEEDED = no_effect("nothing here depends on it", PEER)
NATIVE_FIELDS = {
    "text": honoured("a text or several", PEER),
    "input_ids": honoured("token ids of one or several", PEER),
    "rid": honoured("comes back as meta_info.id, one for each input", PEER),
    "input_embeds": NO_VECTORS,
    "embed_overrides": NO_VECTORS,
    "embed_override_token_id": NO_VECTORS,
    "positional_embed_overrides": NO_VECTORS,
    "image_data": ONLY_TEXT,
    "video_data": ONLY_TEXT,
    "audio_data": ONLY_TEXT,
    "modalities": ONLY_TEXT,
    "lora_path": NO_ADAPTER,
    "lora_id": NO_ADAPTER,
    "dimensions": ONE_NUMBER,
    "is_cross_encoder_request": refused("send pairs to /rerank or /score", PEER),
    "return_pooled_hidden_states": ONLY_REWARD,
    "return_prompt_token_ids": ONLY_REWARD,
    "multi_item_delimiter_indices": NO_SUCH_PART,
    "token_indices_to_pool": refused("the reward is read at the end of the response", PEER),
    "decision_layout": NO_SUCH_PART,
    "sampling_params": NOT_NEEDED,
    "log_metrics": NOT_NEEDED,
    "routing_key": NOT_NEEDED,
    "background": NOT_NEEDED,
    "priority": NOT_NEEDED,
    "external_trace_header": NOT_NEEDED,
    "received_time": NOT_NEEDED,
    "http_worker_ipc": NOT_NEEDED,
}
# Of messages, which vLLM 0.12 and later embeds too.
CHAT_TOO = (
    "add_generation_prompt", "continue_final_message", "chat_template", "media_io_kwargs",
)  # fmt: skip
VLLM_TOO = (
    "model", "truncate_prompt_tokens", "truncation_side", "padding", "mm_processor_kwargs",
    "cache_salt", "priority", "user", "chat_template_kwargs",
)  # fmt: skip
EMBEDDINGS_FIELDS = {
    "input": honoured("texts or token ids, one or many", PEER),
    **{name: vllm.COMMON_FIELDS[name] for name in VLLM_TOO},
    **{name: vllm.POOLING_FIELDS[name] for name in CHAT_TOO},
    **vllm.ENCODING_FIELDS,
    "encoding_format": honoured("float, or base64 of a float32", PEER),
    "dimensions": ONE_NUMBER,
    "lora_path": NO_ADAPTER,
    "embed_overrides": NO_VECTORS,
    "embed_override_token_id": NO_VECTORS,
    "use_activation": refused("ask /classify or /pooling for a sigmoid", "vLLM 0.16"),
    "messages": refused("send messages to /classify or /pooling", "vLLM 0.10.2"),
    "request_id": no_effect("the answer has no id", "vLLM 0.10.2", str | None),
    "rid": no_effect("the answer has no id", PEER),
}
CLASSIFY_FIELDS = {
    "input": honoured("texts, or the token ids of one or several", PEER),
    "model": vllm.COMMON_FIELDS["model"],
    "rid": honoured("the end of the answer's id, where it is one", PEER),
    "user": vllm.COMMON_FIELDS["user"],
    "priority": vllm.COMMON_FIELDS["priority"],
}
SCORING_FIELDS = {
    "query": honoured("the prompt, as text or token ids", PEER),
    "items": honoured("the responses; token ids are joined to the query's", PEER),
    "model": vllm.COMMON_FIELDS["model"],
    "apply_softmax": refused("a softmax over one label is 1 for every response", PEER),
    "temperature": refused("it divides what a softmax is taken of", PEER, (None, 1)),
    "label_token_ids": refused("a reward model has one label and scores no tokens", PEER),
    "return_token_logprobs": ONLY_REWARD,
    "item_first": refused("a response follows its prompt", PEER),
    "return_pooled_hidden_states": ONLY_REWARD,
    "score_extraction_token": refused("the reward is read at the end of the response", PEER),
    "embed_override_token_id": NO_VECTORS,
    "query_embed_overrides": NO_VECTORS,
    "item_embed_overrides": NO_VECTORS,
}


class NativeRequest(RequestBody, fields=NATIVE_FIELDS, one_of=(("text",), ("input_ids",))):
    """SGLang's own form: a text or several, or token ids of one or several."""

    text: str | Texts | None = None
    input_ids: TokenIds | Annotated[list[TokenIds], Field(fail_fast=True)] | None = None
    rid: str | Texts | None = None

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


class EmbeddingsRequest(RequestBody, fields=EMBEDDINGS_FIELDS):
    """OpenAI's form."""

    input: Input
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    truncate_prompt_tokens: vllm.MaxTokens = None
    truncation_side: vllm.TruncationSide = None
    cache_salt: vllm.Salt = None


class ClassifyRequest(RequestBody, fields=CLASSIFY_FIELDS):
    """OpenAI's form, as SGLang has it: texts or token ids."""

    input: Input
    model: str | None = None
    rid: Annotated[str, Field(min_length=1, max_length=128)] | Texts | None = None


class ScoringRequest(RequestBody, fields=SCORING_FIELDS):
    """A prompt and the responses to it: all as texts, or all as token ids, which are joined."""

    query: str | TokenIds
    items: str | Texts | Annotated[list[TokenIds], Field(fail_fast=True)]
    model: str | None = None

    def forms(self) -> list[Form]:
        """Each response with the prompt."""
        if isinstance(self.query, str):
            responses = [self.items] if isinstance(self.items, str) else self.items
            if not all(isinstance(one, str) for one in responses):
                raise invalid("items: expected texts, as the query is; got token ids")
            return list(answers(self.query, [str(one) for one in responses]))
        if any(isinstance(one, str) for one in self.items):
            raise invalid("items: expected token ids, as the query is; got text")
        return [Ids([*self.query, *map(int, one)]) for one in self.items]


class ScoringAnswer(BaseModel):
    """`scores` holds a list of the one raw reward for each response."""

    scores: list[list[float]]
    model: str
    usage: Usage
    object: str = "scoring"


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
    """POST /v1/embeddings and /v1/classify."""
    routes = APIRouter(tags=["SGLang"])

    @routes.post("/v1/embeddings")
    async def embeddings(request: Request, body: EmbeddingsRequest) -> EmbeddingsAnswer:
        """The raw reward of each input, for clients of OpenAI's embeddings."""
        truncation = vllm.truncation(body.truncate_prompt_tokens, body.truncation_side)
        rewards = await service.rewards(
            request, forms(body.input), body.model, truncation, body.cache_salt
        )
        in_base64 = body.encoding_format == "base64"
        rows = [
            EmbeddingRow(index=i, embedding=packed(reward) if in_base64 else [reward])
            for i, reward in enumerate(rewards)
        ]
        _, _, model = answer_head(request, "embd")
        return EmbeddingsAnswer(data=rows, model=model, usage=usage(request))

    @routes.post("/v1/classify")
    async def openai_classify(request: Request, body: ClassifyRequest) -> vllm.Answer:
        """The raw reward, where SGLang itself answers 1: its softmax is over one label."""
        rewards = await service.rewards(request, forms(body.input), body.model)
        rows = [vllm.ClassRow(index=i, probs=[reward]) for i, reward in enumerate(rewards)]
        own_id = body.rid if isinstance(body.rid, str) else None
        return vllm.answer(request, "classify", rows, own_id)

    return routes


async def score(service: RewardService, request: Request, body: ScoringRequest) -> ScoringAnswer:
    """SGLang's /v1/score: raw, as the logits of a classifier are there."""
    rewards = await service.rewards(request, body.forms(), body.model)
    _, _, model = answer_head(request, "score")
    return ScoringAnswer(scores=[[reward] for reward in rewards], model=model, usage=usage(request))


async def classify(
    service: RewardService, request: Request, body: NativeRequest
) -> NativeRow | list[NativeRow]:
    """SGLang's /classify: a row for one input, a list for a list."""
    inputs = forms(body.given)
    names = body.names(len(inputs), answer_head(request, "classify")[0])
    scored = await service.score(request, inputs, truncation=Truncation(texts=False), complete=True)
    rows = [
        NativeRow(
            embedding=[one.reward or 0.0], meta_info={"id": name, "prompt_tokens": one.tokens}
        )
        for name, one in zip(names, scored, strict=True)
    ]
    return rows[0] if single(body.given) else rows
