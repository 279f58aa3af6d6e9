"""Trainers that send finished texts: OpenRLHF, LLaMA-Factory, slime. Always the raw reward.

Fields are those of OpenRLHF 0.11.2, LLaMA-Factory 0.9.5 (`ScoreEvaluationRequest`) and slime
0.3.1 (`remote_rm`).
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from palate.serve.protocols.schema import (
    NUMBER,
    RequestBody,
    Texts,
    Turns,
    answer_head,
    honoured,
    no_effect,
)
from palate.serve.service import RewardService
from palate.serve.tokenize import Conversation, Form, Templated, Truncation

OPENRLHF, LLAMA_FACTORY, SLIME = "OpenRLHF 0.11.2", "LLaMA-Factory 0.9.5", "slime 0.3.1"

OPENRLHF_FIELDS = {
    "query": honoured("prompt and response as one text, or several", OPENRLHF),
    "prompts": no_effect("they begin the query's texts", OPENRLHF),
    "labels": no_effect("a reward model knows no right answer", OPENRLHF),
}
LLAMA_FACTORY_FIELDS = {
    "messages": honoured("finished texts", LLAMA_FACTORY),
    # A fixed word in LLaMA-Factory's own client, so the default model answers.
    "model": no_effect(
        "its client always sends `model`; name one by ?model=", LLAMA_FACTORY, str | None
    ),
    "max_length": honoured(
        "how many tokens are kept, the newest; at most what the model reads", LLAMA_FACTORY
    ),
}
SLIME_FIELDS = {
    "prompt": honoured("a text that a template wrote, or messages", SLIME),
    "response": honoured("the text after it", SLIME),
    "label": no_effect("a reward model knows no right answer", SLIME),
}


class OpenRlhfRequest(RequestBody, fields=OPENRLHF_FIELDS):
    """`query` is prompt and response as one text; `prompts` and `labels` are not needed."""

    query: str | Texts


class OpenRlhfAnswer(BaseModel):
    """`scores` is what OpenRLHF filters prompts by."""

    rewards: list[float]
    scores: list[float]
    extra_logs: dict[str, list[float]] = {}


class LlamaFactoryRequest(RequestBody, fields=LLAMA_FACTORY_FIELDS):
    """`model` is a fixed word in LLaMA-Factory's own client, so the default model answers."""

    messages: Texts
    max_length: Annotated[int | None, Field(ge=1), NUMBER] = None


class LlamaFactoryAnswer(BaseModel):
    """In the order asked."""

    id: str
    object: str = "score.evaluation"
    model: str
    scores: list[float]


class SlimeRequest(RequestBody, fields=SLIME_FIELDS):
    """`prompt` is the text that slime's template wrote, or messages where it wrote none."""

    prompt: str | Turns
    response: str


def router(service: RewardService) -> APIRouter:
    """POST /get_reward, /v1/score/evaluation and /slime."""
    routes = APIRouter(tags=["trainers that send text"])

    @routes.post("/get_reward")
    async def openrlhf(request: Request, body: OpenRlhfRequest) -> OpenRlhfAnswer:
        """OpenRLHF's `--reward.remote_url`; an empty `query` is answered with no rewards."""
        texts = [body.query] if isinstance(body.query, str) else body.query
        rewards = (
            await service.rewards(request, [Templated(text) for text in texts]) if texts else []
        )
        return OpenRlhfAnswer(rewards=rewards, scores=rewards)

    @routes.post("/v1/score/evaluation")
    async def llama_factory(request: Request, body: LlamaFactoryRequest) -> LlamaFactoryAnswer:
        """LLaMA-Factory's `--reward_model_type api`."""
        limit = service.served(request, None).reader.chat.max_tokens
        most = body.max_length and min(body.max_length, limit)
        truncation = Truncation(max_tokens=most, field="max_length")
        texts = [Templated(text) for text in body.messages]
        scores = await service.rewards(request, texts, truncation=truncation)
        id_, _, model = answer_head(request, "scoreval")
        return LlamaFactoryAnswer(id=id_, model=model, scores=scores)

    @routes.post("/slime")
    async def slime(request: Request, body: SlimeRequest) -> float:
        """slime's `--rm-type remote_rm --rm-url`: the reward is the whole answer."""
        if isinstance(body.prompt, str):
            form: Form = Templated(body.prompt + body.response)
        else:
            # slime's response is decoded with the special token that ended it.
            end = service.served(request, None).reader.chat.terminal
            prompt = tuple(turn.message() for turn in body.prompt)
            form = Conversation(prompt, body.response.rstrip().removesuffix(end))
        (reward,) = await service.rewards(request, [form])
        return reward

    return routes
