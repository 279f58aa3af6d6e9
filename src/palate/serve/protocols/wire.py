"""What several protocols' requests and answers are made of."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.requests import Request

from palate.data.messages import unread
from palate.data.transcript import read_prompt
from palate.serve.desk import TALLY
from palate.serve.faults import invalid
from palate.serve.reading import Conversation, Form, Ids, Written
from palate.types import Message, PalateError

TokenId = Annotated[int, Field(ge=0, lt=2**31, strict=True)]
# Lists stop at their first mistake: a million wrong elements would be a million errors in memory.
Texts = Annotated[list[str], Field(fail_fast=True)]
TokenIds = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]
Input = str | Texts | TokenIds | Annotated[list[TokenIds], Field(fail_fast=True)]


# Keys that no shape names are other servers' options and ignored, as pydantic does by default.


class Part(BaseModel):
    """A piece of a turn's content, in OpenAI's form."""

    type: Literal["text"]
    text: str


class Turn(BaseModel):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[Part], Field(fail_fast=True)]

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, value: Any) -> Any:
        """Refuse what would be dropped: calls of tools, reasoning in a field of its own, images."""
        if isinstance(value, dict) and (reason := unread(value)):
            raise ValueError(reason)
        return value

    def message(self) -> Message:
        """As the model's template takes it."""
        role = "system" if self.role == "developer" else self.role
        content = self.content
        return Message(
            role, content if isinstance(content, str) else "".join(p.text for p in content)
        )


Turns = Annotated[list[Turn], Field(min_length=1, max_length=4096, fail_fast=True)]


def one_of(*keys: tuple[str, ...]) -> ConfigDict:
    """For the OpenAPI document: the keys of one of these are there."""
    return ConfigDict(json_schema_extra={"oneOf": [{"required": [*some]} for some in keys]})


class Usage(BaseModel):
    """Tokens that a request came to."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = 0


def conversation(turns: Sequence[Turn]) -> Conversation:
    """Messages that end in the response; raises `Fault` where they do not."""
    *prompt, last = (turn.message() for turn in turns)
    if last.role != "assistant":
        raise invalid(f"messages: expected an assistant's turn at the end, got {last.role}'s")
    return Conversation(tuple(prompt), last.content)


def answered(prompt: str, response: str) -> Conversation:
    """A prompt in text and its response."""
    (one,) = answers(prompt, [response])
    return one


def answers(prompt: str | Sequence[Turn], responses: Sequence[str]) -> list[Conversation]:
    """A prompt and each response to it.

    Text with its turns marked inside (a transcript, what a chat template writes) is read as these
    turns, and the responses as that form writes them; any other text is one user's turn.

    Raises:
        Fault: a turn in it has content that is not read.
    """
    if not isinstance(prompt, str):
        turns = tuple(turn.message() for turn in prompt)
        return [Conversation(turns, response) for response in responses]
    try:
        read = read_prompt(prompt)
    except PalateError as error:
        raise invalid(f"prompt: {error}") from None
    return [Conversation(read.turns, read.reply(response)) for response in responses]


def forms(given: Input) -> list[Form]:
    """Texts or token ids, one or many."""
    if not given:
        raise invalid("input: expected a text or token ids, got nothing")
    if isinstance(given, str):
        return [Written(given)]
    if all(isinstance(one, int) for one in given):
        return [Ids([one for one in given if isinstance(one, int)])]
    return [
        Written(one) if isinstance(one, str) else Ids(one)
        for one in given
        if not isinstance(one, int)
    ]


def single(given: Input) -> bool:
    """Whether it is one text or one list of ids, and not a list of those."""
    return isinstance(given, str) or (bool(given) and isinstance(given[0], int))


def usage(request: Request) -> Usage:
    """Of what was read so far."""
    tokens = request.scope[TALLY].tokens
    return Usage(prompt_tokens=tokens, total_tokens=tokens)


def made(request: Request, kind: str) -> tuple[str, int, str]:
    """An answer's id, its time in seconds since 1970, and the name of the model."""
    tally = request.scope[TALLY]
    return f"{kind}-{request.state.request_id}", int(time.time()), tally.model


def sigmoid(reward: float) -> float:
    """1 / (1 + exp(-reward)), without overflow."""
    if reward >= 0:
        return 1.0 / (1.0 + math.exp(-reward))
    grown = math.exp(reward)
    return grown / (1.0 + grown)


def activated(rewards: Iterable[float], *, raw: bool) -> list[float]:
    """The rewards, through a sigmoid unless they are wanted raw."""
    return [reward if raw else sigmoid(reward) for reward in rewards]


def ranking(scores: Sequence[float]) -> list[int]:
    """Indices, the highest score first; of equals, the earlier."""
    return sorted(range(len(scores)), key=lambda index: -scores[index])
