"""Palate's own shapes: rewards with what is known of them, comparisons, and the models served."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from palate.model.tokenizer import TOO_LONG
from palate.serve.protocols.schema import (
    Texts,
    Turns,
    Usage,
    answers,
    conversation,
    honoured,
    made,
    one_of,
    sigmoid,
    spelled,
    usage,
)
from palate.serve.service import RewardService, Scored
from palate.serve.tokenize import Conversation

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
A_PROMPT = honoured("messages, or text: one user's, or with its turns marked")
Prompt = Annotated[str | Turns, A_PROMPT]
Name = Annotated[str | None, honoured("which model, where several are served")]
Deadline = Annotated[Seconds | None, honoured("how long the client waits at most")]
Safety = Annotated[
    bool | None, honoured("whether the prompt is about safety, which the combined reward goes by")
]
Response = Annotated[str, honoured("a response to the prompt")]
# Nobody else's shape, so a key that is not known is a mistake.
STRICT = ConfigDict(extra="forbid")


class Item(BaseModel):
    """A conversation in `messages`, or a `prompt` and the responses to it.

    `reference` is what the reward is compared with: a response to the same prompt, or a reward.
    """

    model_config = one_of(("messages",), ("prompt", "responses")) | STRICT

    messages: Annotated[Turns | None, honoured("a conversation, which ends in the response")] = None
    prompt: Annotated[str | Turns | None, A_PROMPT] = None
    responses: Annotated[
        Annotated[Texts, Field(min_length=1)] | None, honoured("responses to the prompt")
    ] = None
    reference: Annotated[
        str | Annotated[float, Field(allow_inf_nan=False)] | None,
        honoured("a response to the same prompt, or a reward: what probability is over"),
    ] = None
    safety_prompt: Safety = None

    _spelled = model_validator(mode="before")(spelled)

    @model_validator(mode="after")
    def _one_form(self) -> Item:
        if (self.messages is None) == (self.prompt is None or self.responses is None):
            raise ValueError("expected either messages, or prompt and responses")
        return self

    def conversations(self) -> list[Conversation]:
        """One for each response, and for a reference that is one too."""
        if self.messages is not None:
            said = conversation(self.messages)
            return [said, *(Conversation(said.prompt, text) for text in self._beside)]
        return answers(self.prompt or "", [*(self.responses or ()), *self._beside])

    @property
    def _beside(self) -> list[str]:
        return [self.reference] if isinstance(self.reference, str) else []


class RewardRequest(BaseModel):
    """Several items; where there is one, its keys may stand here instead of `items`."""

    model_config = STRICT

    items: Annotated[
        Annotated[list[Item], Field(min_length=1, fail_fast=True)],
        honoured("several of what may stand here once: messages, or prompt and responses"),
    ]
    model: Name = None
    deadline_seconds: Deadline = None

    _spelled = model_validator(mode="before")(spelled)

    # Of validators before the fields the last is called first.
    @model_validator(mode="before")
    @classmethod
    def _lone_item(cls, body: Any) -> Any:
        if not isinstance(body, dict) or "items" in body:
            return body
        whole = {key: value for key, value in body.items() if key in cls.model_fields}
        lone = {key: value for key, value in body.items() if key not in cls.model_fields}
        return {**whole, "items": [lone]}


class RewardRow(BaseModel):
    """One response's raw reward, or why it has none.

    `probability` is that of being preferred to the item's `reference`: sigmoid(reward - its
    reward). Null without a reference, since a reward by itself has no zero.
    """

    item: int
    response: int
    reward: float | None
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


class Pair(BaseModel):
    """Two responses to one prompt."""

    model_config = STRICT

    prompt: Prompt
    first: Response
    second: Response
    safety_prompt: Safety = None

    _spelled = model_validator(mode="before")(spelled)


class CompareRequest(BaseModel):
    """Pairs to compare."""

    model_config = STRICT

    pairs: Annotated[
        Annotated[list[Pair], Field(min_length=1, fail_fast=True)],
        honoured("prompts with two responses each"),
    ]
    model: Name = None
    deadline_seconds: Deadline = None

    _spelled = model_validator(mode="before")(spelled)


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

    @routes.post("/v1/reward")
    async def reward(request: Request, body: RewardRequest) -> RewardAnswer:
        """Rewards of responses, each with its tokens and whether its prompt was cut."""
        held = [item.conversations() for item in body.items]
        flags = [(i.safety_prompt, len(c)) for i, c in zip(body.items, held, strict=True)]
        scored = await _score(service, request, held, body.model, flags, body.deadline_seconds)
        rows = [
            row
            for number, (item, values) in enumerate(zip(body.items, scored, strict=True))
            for row in _rows(number, item, values)
        ]
        number, created, model = made(request, "reward")
        served = service.models.get(model)
        return RewardAnswer(
            id=number,
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
        held = [answers(pair.prompt, [pair.first, pair.second]) for pair in body.pairs]
        flags = [(pair.safety_prompt, 2) for pair in body.pairs]
        scored = await _score(service, request, held, body.model, flags, body.deadline_seconds)
        number, created, model = made(request, "compare")
        return CompareAnswer(
            id=number,
            created=created,
            model=model,
            fingerprint=service.models.get(model).fingerprint,
            data=[_compared(i, *values) for i, values in enumerate(scored)],
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


async def _score(
    service: RewardService,
    request: Request,
    held: list[list[Conversation]],
    model: str | None,
    flags: list[tuple[bool | None, int]],
    deadline_seconds: float | None,
) -> list[list[Scored]]:
    """Scores in the shape of `held`; each of `flags` holds for so many conversations."""
    flat = iter(
        await service.score(
            request,
            [one for some in held for one in some],
            model,
            safety=[flag for flag, count in flags for _ in range(count)],
            deadline_seconds=deadline_seconds,
        )
    )
    return [[next(flat) for _ in some] for some in held]


def _rows(number: int, item: Item, scored: list[Scored]) -> list[RewardRow]:
    reference = item.reference
    if isinstance(reference, str):
        *scored, beside = scored
        reference = beside.reward
    return [_row(number, i, one, reference) for i, one in enumerate(scored)]


def _row(item: int, response: int, one: Scored, reference: float | None = None) -> RewardRow:
    known = one.reward is not None and reference is not None
    return RewardRow(
        item=item,
        response=response,
        reward=one.reward,
        probability=sigmoid(one.reward - reference) if known else None,  # type: ignore[operator]
        tokens=one.tokens,
        truncated=one.truncated,
        reason="" if one.reward is not None else TOO_LONG,
    )


def _compared(number: int, first: Scored, second: Scored) -> CompareRow:
    rows = _row(number, 0, first, second.reward), _row(number, 1, second, first.reward)
    choice = None
    if first.reward is not None and second.reward is not None:
        choice = "tie" if first.reward == second.reward else "second"
        choice = "first" if first.reward > second.reward else choice
    return CompareRow(choice=choice, probability=rows[0].probability, first=rows[0], second=rows[1])
