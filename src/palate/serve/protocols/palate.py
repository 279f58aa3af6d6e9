"""Palate's own shapes: rewards with what is known of them, comparisons, and the models served."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, model_validator

from palate.model.tokenizer import TOO_LONG
from palate.serve.errors import invalid
from palate.serve.protocols.schema import (
    NUMBER,
    RequestBody,
    Texts,
    Turns,
    Usage,
    answer_head,
    answers,
    conversation,
    honoured,
    sigmoid,
    usage,
)
from palate.serve.service import RewardService, Scored
from palate.serve.tokenize import Conversation

Finite = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[float | None, Field(gt=0, allow_inf_nan=False), NUMBER]

PROMPT = honoured("messages, or text: one user's, or with its turns marked")
SAFETY = honoured("whether the prompt is about safety, which the combined reward goes by")
OPTIONS = {
    "model": honoured("which model, where several are served"),
    "deadline_seconds": honoured("how long the client waits at most"),
}
ITEM_FIELDS = {
    "messages": honoured("a conversation, which ends in the response"),
    "tools": honoured("functions that the model was given; beside `messages` alone"),
    "prompt": PROMPT,
    "responses": honoured("responses to the prompt"),
    "reference": honoured("a response to the same prompt, or a reward: what probability is over"),
    "safety_prompt": SAFETY,
}
REWARD_FIELDS = {
    "items": honoured("several of what may stand here once: messages, or prompt and responses"),
    **OPTIONS,
}
PAIR_FIELDS = {
    "prompt": PROMPT,
    "first": honoured("a response to the prompt"),
    "second": honoured("a response to the prompt"),
    "safety_prompt": SAFETY,
}
COMPARE_FIELDS = {"pairs": honoured("prompts with two responses each"), **OPTIONS}


class Item(RequestBody, fields=ITEM_FIELDS, one_of=(("messages",), ("prompt", "responses"))):
    """A conversation in `messages`, or a `prompt` and the responses to it.

    `reference` is what the reward is compared with: a response to the same prompt, or a reward.
    """

    messages: Turns | None = None
    tools: list[dict[str, Any]] | None = None
    prompt: str | Turns | None = None
    responses: Annotated[Texts, Field(min_length=1)] | None = None
    reference: Annotated[str | Finite | None, NUMBER] = None
    safety_prompt: bool | None = None

    def conversations(self) -> list[Conversation]:
        """One for each response, and for a reference that is one too."""
        reference = [self.reference] if isinstance(self.reference, str) else []
        if self.tools and self.messages is None:
            raise invalid("tools: only messages are given tools; leave it out")
        if self.messages is None:
            return answers(self.prompt or "", [*(self.responses or ()), *reference])
        given = conversation(self.messages, self.tools)
        others = answers("", reference)
        return [given, *(Conversation(given.prompt, other.response) for other in others)]


class RewardRequest(RequestBody, fields=REWARD_FIELDS):
    """Several items; where there is one, its keys may stand here instead of `items`."""

    items: Annotated[list[Item], Field(min_length=1, fail_fast=True)]
    model: str | None = None
    deadline_seconds: Seconds = None

    # Of validators before the fields the last is called first.
    @model_validator(mode="before")
    @classmethod
    def _lone_item(cls, body: Any) -> Any:
        if not isinstance(body, dict) or "items" in body:
            return body
        item = {key: value for key, value in body.items() if key not in cls.support}
        options = {key: value for key, value in body.items() if key in cls.support}
        return {**options, "items": [item]}


class RewardRow(BaseModel):
    """One response's raw reward, or why it has none.

    `probability` is that of being preferred to the item's `reference`: sigmoid(reward - its
    reward). Null without a reference, since a reward by itself has no zero. `std` is the standard
    deviation of an ensemble's members; null of a single model.
    """

    item: int
    response: int
    reward: float | None
    std: float | None = None
    probability: float | None = None
    tokens: int
    truncated: bool
    reason: str = ""


class RewardAnswer(BaseModel):
    """Rows in the order of items and of responses in them.

    `reward_read_at` says at which token of a conversation this model's reward is read.
    """

    id: str
    object: str = "palate.rewards"
    created: int
    model: str
    fingerprint: str
    reward_read_at: str
    data: list[RewardRow]
    usage: Usage


class Pair(RequestBody, fields=PAIR_FIELDS):
    """Two responses to one prompt."""

    prompt: str | Turns
    first: str
    second: str
    safety_prompt: bool | None = None


class CompareRequest(RequestBody, fields=COMPARE_FIELDS):
    """Pairs to compare."""

    pairs: Annotated[list[Pair], Field(min_length=1, fail_fast=True)]
    model: str | None = None
    deadline_seconds: Seconds = None


class CompareRow(BaseModel):
    """`choice` is first, second or tie; `probability` is that of the first being preferred."""

    choice: str | None
    probability: float | None
    first: RewardRow
    second: RewardRow


class CompareAnswer(BaseModel):
    """Rows in the order of the pairs."""

    id: str
    object: str = "palate.comparisons"
    created: int
    model: str
    fingerprint: str
    data: list[CompareRow]
    usage: Usage


def router(service: RewardService) -> APIRouter:
    """POST /v1/reward and /v1/compare, GET /v1/models."""
    routes = APIRouter(tags=["Palate"])

    async def score(
        request: Request,
        body: RewardRequest | CompareRequest,
        items: Sequence[tuple[list[Conversation], bool | None]],
    ) -> list[list[Scored]]:
        """Scores of each item: its conversations, and whether its prompt is about safety."""
        scored = iter(
            await service.score(
                request,
                [one for conversations, _ in items for one in conversations],
                body.model,
                safety=[safety for conversations, safety in items for _ in conversations],
                deadline_seconds=body.deadline_seconds,
            )
        )
        return [[next(scored) for _ in conversations] for conversations, _ in items]

    @routes.post("/v1/reward")
    async def reward(request: Request, body: RewardRequest) -> RewardAnswer:
        """Rewards of responses, each with its tokens and whether its prompt was cut."""
        items = [(item.conversations(), item.safety_prompt) for item in body.items]
        rows = []
        for number, scored in enumerate(await score(request, body, items)):
            reference = body.items[number].reference
            if isinstance(reference, str):  # It was scored last.
                reference = scored.pop().reward
            rows += [_row(number, i, one, reference) for i, one in enumerate(scored)]
        id_, created, model = answer_head(request, "reward")
        served = service.models.get(model)
        return RewardAnswer(
            id=id_,
            created=created,
            model=model,
            fingerprint=served.fingerprint,
            reward_read_at=str(served.facts.get("reward_read_at", "")),
            data=rows,
            usage=usage(request),
        )

    @routes.post("/v1/compare")
    async def compare(request: Request, body: CompareRequest) -> CompareAnswer:
        """Which of two responses is better, and how probable that is."""
        items = [(answers(p.prompt, [p.first, p.second]), p.safety_prompt) for p in body.pairs]
        scored = await score(request, body, items)
        id_, created, model = answer_head(request, "compare")
        return CompareAnswer(
            id=id_,
            created=created,
            model=model,
            fingerprint=service.models.get(model).fingerprint,
            data=[_compared(i, *pair) for i, pair in enumerate(scored)],
            usage=usage(request),
        )

    @routes.get("/v1/models")
    async def models() -> dict[str, Any]:
        """What is served: names, fingerprints, limits."""
        rows = [
            {
                "id": served.name,
                "object": "model",
                "created": served.created,
                "owned_by": "palate",
                "max_model_len": served.reader.chat.max_tokens,
                "fingerprint": served.fingerprint,
                **served.facts,
            }
            for served in service.models
        ]
        return {"object": "list", "data": rows}

    return routes


def _row(item: int, response: int, one: Scored, reference: float | None = None) -> RewardRow:
    known = one.reward is not None and reference is not None
    return RewardRow(
        item=item,
        response=response,
        reward=one.reward,
        std=one.std,
        probability=sigmoid(one.reward - reference) if known else None,  # type: ignore[operator]
        tokens=one.tokens,
        truncated=one.truncated,
        reason="" if one.reward is not None else TOO_LONG,
    )


def _compared(number: int, first: Scored, second: Scored) -> CompareRow:
    rows = _row(number, 0, first, second.reward), _row(number, 1, second, first.reward)
    choice = None
    if first.reward is not None and second.reward is not None:
        gap = first.reward - second.reward
        choice = "first" if gap > 0 else "second" if gap < 0 else "tie"
    return CompareRow(choice=choice, probability=rows[0].probability, first=rows[0], second=rows[1])
