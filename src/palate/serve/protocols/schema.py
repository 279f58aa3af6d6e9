"""What several protocols' requests and answers are made of."""

from __future__ import annotations

import base64
import difflib
import math
import struct
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic_core import core_schema
from starlette.requests import Request

from palate.data.messages import unread
from palate.data.transcript import read_prompt
from palate.serve.errors import invalid
from palate.serve.service import TALLY
from palate.serve.tokenize import Conversation, Form, Ids, Written
from palate.types import Message, PalateError

TokenId = Annotated[int, Field(ge=0, lt=2**31, strict=True)]
# Lists stop at their first mistake: a million wrong elements would be a million errors in memory.
Texts = Annotated[list[str], Field(fail_fast=True)]
TokenIds = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]
Input = str | Texts | TokenIds | Annotated[list[TokenIds], Field(fail_fast=True)]
UNKNOWN_LOOKED_AT = 32  # Keys of a body, of which each is compared with all of the shape's.
SHOWN = 40  # Characters of such a key that are said back.
ALIKE = 0.8  # `top_k` for `top_n`, `use_activaton`, `document`; not `texts` for `text_1`.

NOTHING: tuple[Any, ...] = (None, False, "", [], {})
"""Values by which a request asks for nothing."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a field of a request, said beside it.

    It is what the OpenAPI document and the table of `docs/serve.md` say of the field. One that is
    refused is so by name, with `says` as the cure, but for the values in `harmless`. `since` is
    the oldest release looked at whose own requests have the field.
    """

    word: Literal["honoured", "no effect", "refused"]
    says: str
    since: str = ""
    harmless: tuple[Any, ...] = NOTHING

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        schema = handler(source)
        if self.word != "refused":
            return schema
        return core_schema.no_info_after_validator_function(self._refuse, schema)

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        if self.word == "refused":
            return {"enum": [*self.harmless], "description": f"Refused: {self.says}."}
        said = f"{self.word.capitalize()}: {self.says}."
        return {**handler(schema), "description": said}

    def _refuse(self, value: Any) -> Any:
        if value not in self.harmless:
            raise ValueError(f"not done here: {self.says}")
        return value


def honoured(says: str, since: str = "") -> Fate:
    """A field that does what its protocol says it does."""
    return Fate("honoured", says, since)


def no_effect(says: str, since: str = "") -> Fate:
    """A field that is read and changes no reward; `says` why it need not."""
    return Fate("no effect", says, since)


def refused(cure: str, since: str = "", harmless: tuple[Any, ...] = NOTHING) -> Fate:
    """A field that would change the answer and is not done here."""
    return Fate("refused", cure, since, harmless)


def fate(model: type[BaseModel], field: str) -> Fate:
    """What becomes of a field of a request; every one says so."""
    stated = (one for one in model.model_fields[field].metadata if isinstance(one, Fate))
    return next(stated)


def spelled(cls: type[BaseModel], body: Any) -> Any:
    """A model's validator of keys that it has not.

    One that looks like a misspelling of a field that matters is refused, and every one where the
    shape forbids others (`extra="forbid"`). The rest is ignored, as the shape's own server does.
    """
    unknown = (key for key in body if key not in cls.model_fields) if isinstance(body, dict) else ()
    # No more than some: comparing a million keys of a client's would take its time from others.
    for key in islice(unknown, UNKNOWN_LOOKED_AT):
        matter = [name for name in cls.model_fields if fate(cls, name).word != "no effect"]
        near = difflib.get_close_matches(key[:SHOWN], matter, 1, ALIKE)
        if near or cls.model_config.get("extra") == "forbid":
            cure = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(matter)}"
            raise ValueError(f"{key[:SHOWN]!r}: no such key; {cure}")
    return body


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


def made(request: Request, kind: str, wanted: str | None = None) -> tuple[str, int, str]:
    """An answer's id, its time in seconds since 1970, and the name of the model.

    The id is of the header `x-request-id`, else what the body's own key `wanted`.
    """
    tally = request.scope[TALLY]
    by_header = wanted is None or "x-request-id" in request.headers
    number = request.state.request_id if by_header else wanted
    return f"{kind}-{number}", int(time.time()), tally.model


def sigmoid(reward: float) -> float:
    """1 / (1 + exp(-reward)), without overflow."""
    if reward >= 0:
        return 1.0 / (1.0 + math.exp(-reward))
    grown = math.exp(reward)
    return grown / (1.0 + grown)


def activated(rewards: Iterable[float], *, raw: bool) -> list[float]:
    """The rewards, through a sigmoid unless they are wanted raw."""
    return [reward if raw else sigmoid(reward) for reward in rewards]


def packed(reward: float) -> str:
    """A reward as OpenAI's clients ask for it: its four bytes, the lowest first, in base64."""
    return base64.b64encode(struct.pack("<f", reward)).decode()


def ranking(scores: Sequence[float]) -> list[int]:
    """Indices, the highest score first; of equals, the earlier."""
    return sorted(range(len(scores)), key=lambda index: -scores[index])
