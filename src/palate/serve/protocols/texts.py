"""Trainers that send finished texts: OpenRLHF, LLaMA-Factory, slime. Always the raw reward."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel

from palate.serve.desk import Desk
from palate.serve.protocols.wire import Texts, Turns, made
from palate.serve.reading import Conversation, Form, Written


class OpenRlhfRequest(BaseModel):
    """`query` is prompt and response as one text; `prompts` and `labels` are not needed."""

    query: str | Texts
    prompts: Any = None
    labels: Any = None


class OpenRlhfAnswer(BaseModel):
    """`scores` is what OpenRLHF filters prompts by."""

    rewards: list[float]
    scores: list[float]
    extra_logs: dict[str, list[float]] = {}


class LlamaFactoryRequest(BaseModel):
    """`model` is a fixed word in LLaMA-Factory's own client, so the default model answers."""

    messages: Texts
    model: str | None = None


class LlamaFactoryAnswer(BaseModel):
    """In the order asked."""

    id: str
    object: str = "score.evaluation"
    model: str
    scores: list[float]


class SlimeRequest(BaseModel):
    """`prompt` is the text that slime's template wrote, or messages where it wrote none."""

    prompt: str | Turns
    response: str
    label: Any = None


def router(desk: Desk) -> APIRouter:
    """POST /get_reward, /v1/score/evaluation and /slime."""
    routes = APIRouter(tags=["trainers that send text"])

    @routes.post("/get_reward")
    async def openrlhf(request: Request, body: OpenRlhfRequest) -> OpenRlhfAnswer:
        """OpenRLHF's `--reward.remote_url`; an empty `query` is answered with no rewards."""
        texts = [body.query] if isinstance(body.query, str) else body.query
        rewards = await desk.rewards(request, [Written(text) for text in texts]) if texts else []
        return OpenRlhfAnswer(rewards=rewards, scores=rewards)

    @routes.post("/v1/score/evaluation")
    async def llama_factory(request: Request, body: LlamaFactoryRequest) -> LlamaFactoryAnswer:
        """LLaMA-Factory's `--reward_model_type api`."""
        scores = await desk.rewards(request, [Written(text) for text in body.messages])
        number, _, model = made(request, "scoreval")
        return LlamaFactoryAnswer(id=number, model=model, scores=scores)

    @routes.post("/slime")
    async def slime(request: Request, body: SlimeRequest) -> float:
        """slime's `--rm-type remote_rm --rm-url`: the reward is the whole answer."""
        (reward,) = await desk.rewards(request, [_slime_form(body, desk)])
        return reward

    return routes


def _slime_form(body: SlimeRequest, desk: Desk) -> Form:
    if isinstance(body.prompt, str):
        return Written(body.prompt + body.response)
    # slime's response is decoded with the special token that ended it.
    end = desk.models.get(None).reader.chat.terminal
    prompt = tuple(turn.message() for turn in body.prompt)
    return Conversation(prompt, body.response.rstrip().removesuffix(end))
