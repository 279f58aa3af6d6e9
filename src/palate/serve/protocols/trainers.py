"""Trainers that send finished texts: OpenRLHF, LLaMA-Factory, slime. Always the raw reward.

Fields are those of OpenRLHF 0.11.2, LLaMA-Factory 0.9.5 (`ScoreEvaluationRequest`) and slime's
`remote_rm`.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, model_validator

from palate.serve.protocols.schema import Texts, Turns, honoured, made, no_effect, spelled
from palate.serve.service import RewardService
from palate.serve.tokenize import Conversation, Cutting, Form, Written

OPENRLHF, LLAMA_FACTORY, SLIME = "OpenRLHF 0.11.2", "LLaMA-Factory 0.9.5", "slime"


class OpenRlhfRequest(BaseModel):
    """`query` is prompt and response as one text; `prompts` and `labels` are not needed."""

    query: Annotated[str | Texts, honoured("prompt and response as one text, or several", OPENRLHF)]
    prompts: Annotated[Any, no_effect("they begin the query's texts", OPENRLHF)] = None
    labels: Annotated[Any, no_effect("a reward model knows no right answer", OPENRLHF)] = None

    _spelled = model_validator(mode="before")(spelled)


class OpenRlhfAnswer(BaseModel):
    """`scores` is what OpenRLHF filters prompts by."""

    rewards: list[float]
    scores: list[float]
    extra_logs: dict[str, list[float]] = {}


class LlamaFactoryRequest(BaseModel):
    """`model` is a fixed word in LLaMA-Factory's own client, so the default model answers."""

    messages: Annotated[Texts, honoured("finished texts", LLAMA_FACTORY)]
    model: Annotated[
        str | None, no_effect("its client always sends `model`; name one by ?model=", LLAMA_FACTORY)
    ] = None
    max_length: Annotated[
        int | None,
        Field(ge=1),
        honoured("how many tokens are kept, the newest; at most what the model reads",
                 LLAMA_FACTORY),
    ] = None  # fmt: skip

    _spelled = model_validator(mode="before")(spelled)


class LlamaFactoryAnswer(BaseModel):
    """In the order asked."""

    id: str
    object: str = "score.evaluation"
    model: str
    scores: list[float]


class SlimeRequest(BaseModel):
    """`prompt` is the text that slime's template wrote, or messages where it wrote none."""

    prompt: Annotated[str | Turns, honoured("a text that a template wrote, or messages", SLIME)]
    response: Annotated[str, honoured("the text after it", SLIME)]
    label: Annotated[Any, no_effect("a reward model knows no right answer", SLIME)] = None

    _spelled = model_validator(mode="before")(spelled)


def router(service: RewardService) -> APIRouter:
    """POST /get_reward, /v1/score/evaluation and /slime."""
    routes = APIRouter(tags=["trainers that send text"])

    @routes.post("/get_reward")
    async def openrlhf(request: Request, body: OpenRlhfRequest) -> OpenRlhfAnswer:
        """OpenRLHF's `--reward.remote_url`; an empty `query` is answered with no rewards."""
        texts = [body.query] if isinstance(body.query, str) else body.query
        rewards = await service.rewards(request, [Written(text) for text in texts]) if texts else []
        return OpenRlhfAnswer(rewards=rewards, scores=rewards)

    @routes.post("/v1/score/evaluation")
    async def llama_factory(request: Request, body: LlamaFactoryRequest) -> LlamaFactoryAnswer:
        """LLaMA-Factory's `--reward_model_type api`."""
        reads = service.served(request, None).reader.chat.max_tokens
        cutting = Cutting(most=min(body.max_length or reads, reads))
        texts = [Written(text) for text in body.messages]
        scores = await service.rewards(request, texts, cutting=cutting)
        number, _, model = made(request, "scoreval")
        return LlamaFactoryAnswer(id=number, model=model, scores=scores)

    @routes.post("/slime")
    async def slime(request: Request, body: SlimeRequest) -> float:
        """slime's `--rm-type remote_rm --rm-url`: the reward is the whole answer."""
        (reward,) = await service.rewards(request, [_slime_form(request, body, service)])
        return reward

    return routes


def _slime_form(request: Request, body: SlimeRequest, service: RewardService) -> Form:
    if isinstance(body.prompt, str):
        return Written(body.prompt + body.response)
    # slime's response is decoded with the special token that ended it.
    end = service.served(request, None).reader.chat.terminal
    prompt = tuple(turn.message() for turn in body.prompt)
    return Conversation(prompt, body.response.rstrip().removesuffix(end))
