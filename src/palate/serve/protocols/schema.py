"""What several protocols' requests and answers are made of: tables of fields, messages, numbers."""

from __future__ import annotations

import base64
import difflib
import math
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    PrivateAttr,
    model_validator,
)
from pydantic_core import core_schema
from starlette.requests import Request

from palate.data.messages import as_message, as_tools, unread
from palate.data.transcript import read_prompt
from palate.serve.errors import invalid
from palate.serve.service import STATS
from palate.serve.tokenize import Conversation, Form, Ids, Templated
from palate.types import Message, PalateError, parts_of

TokenId = Annotated[int, Field(ge=0, lt=2**31, strict=True)]
# Lists stop at their first mistake: a million wrong elements would be a million errors in memory.
Texts = Annotated[list[str], Field(fail_fast=True)]
TokenIds = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]
Input = str | Texts | TokenIds | Annotated[list[TokenIds], Field(fail_fast=True)]
KEY_SHOWN = 40  # Characters of a key that no shape has which an error repeats.
SIMILAR = 0.8  # `top_k` for `top_n`, `use_activaton`, `document`; not `texts` for `text_1`.

NOTHING: tuple[Any, ...] = (None, False, "", [], {})
"""Values by which a request asks for nothing."""


@dataclass(frozen=True, slots=True)
class Support:
    """What becomes of a field of a request: one row of its protocol's table.

    It is what the OpenAPI document and the table of `docs/serve.md` say of the field. One that is
    refused is so by name, with `text` as the cure, but for the values in `harmless`. `since` is
    the oldest release looked at whose own requests have the field. `type` is that of a field that
    no code reads.
    """

    word: Literal["honoured", "no effect", "refused"]
    text: str
    since: str = ""
    harmless: tuple[Any, ...] = NOTHING
    type: Any = Any

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
            return {"enum": [*self.harmless], "description": f"Refused: {self.text}."}
        return {**handler(schema), "description": f"{self.word.capitalize()}: {self.text}."}

    def _refuse(self, value: Any) -> Any:
        if value not in self.harmless:
            raise ValueError(f"not done here: {self.text}")
        return value


def honoured(text: str, since: str = "") -> Support:
    """A field that does what its protocol says it does."""
    return Support("honoured", text, since)


def no_effect(text: str, since: str = "", type: Any = Any) -> Support:
    """A field that is read and changes no reward; `text` says why it need not."""
    return Support("no effect", text, since, type=type)


def refused(cure: str, since: str = "", harmless: tuple[Any, ...] = NOTHING) -> Support:
    """A field that would change the answer and is not done here."""
    return Support("refused", cure, since, harmless)


class RequestBody(BaseModel):
    """A request's body by the table of its fields: `class Mine(RequestBody, fields=TABLE)`.

    Every field of the protocol is a row of `fields`. The class declares, with type and default,
    those that code reads; the others are made from their rows, absent by default. Of the groups of
    keys in `one_of` exactly one must be there. A key that is no field is refused by its name, but
    for null, which asks for nothing. The protocols' own servers drop it, and a client that
    misspells an option, or has one of a later release, never learns that it was not heard.
    """

    model_config = ConfigDict(extra="forbid")

    support: ClassVar[Mapping[str, Support]] = {}
    one_of: ClassVar[tuple[tuple[str, ...], ...]] = ()

    # Runs before pydantic collects the fields, so it can still add to them.
    def __init_subclass__(
        cls,
        *,
        fields: Mapping[str, Support],
        one_of: tuple[tuple[str, ...], ...] = (),
        **config: Any,
    ) -> None:
        super().__init_subclass__(**config)
        declared = cls.__annotations__
        if without := declared.keys() - fields.keys():
            raise TypeError(f"{cls.__name__}: no row for {', '.join(sorted(without))}")
        cls.support, cls.one_of = {**cls.support, **fields}, one_of
        cls.__annotations__ = {
            name: Annotated[declared.get(name, row.type), row] for name, row in fields.items()
        }
        for name in fields.keys() - declared.keys():
            setattr(cls, name, None)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        document = handler(schema)
        if cls.one_of:
            required = [{"required": [*keys]} for keys in cls.one_of]
            handler.resolve_ref_schema(document)["oneOf"] = required
        return document

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        known = {key: value for key, value in body.items() if key in cls.support}
        unknown = (key for key, value in body.items() if key not in known and value is not None)
        for key in unknown:
            names = [name for name, row in cls.support.items() if row.word == "honoured"]
            similar = difflib.get_close_matches(key[:KEY_SHOWN], names, 1, SIMILAR)
            cure = f"did you mean {similar[0]!r}?" if similar else f"known are {', '.join(names)}"
            if key == "model":
                cure = "this shape has none; name a model in the address: ?model=NAME"
            raise ValueError(f"{key[:KEY_SHOWN]!r}: no such key; {cure}")
        return known

    @model_validator(mode="after")
    def _one_group(self) -> Self:
        groups = {frozenset(keys) for keys in self.one_of}
        given = {key for keys in groups for key in keys if getattr(self, key) is not None}
        if groups and given not in groups:
            choices = ", ".join(" and ".join(keys) for keys in self.one_of)
            got = " and ".join(sorted(given)) or "none of them"
            raise ValueError(f"expected one of {choices}; got {got}")
        return self


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("expected a number")
    return value


NUMBER = BeforeValidator(_no_bool)
"""For a field that is a number: pydantic would read true as 1."""


class Part(BaseModel):
    """A piece of a turn's content, in OpenAI's form."""

    type: Literal["text", "input_text", "output_text"]
    text: str


class Turn(BaseModel):
    """One message of a conversation, as `palate.data.messages` reads it."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[Part], Field(fail_fast=True)] | None = None
    reasoning: Annotated[str | None, Field(description="The assistant's.")] = None
    reasoning_content: Annotated[str | None, Field(description="As reasoning.")] = None
    tool_calls: Annotated[list[dict[str, Any]] | None, Field(description="The assistant's.")] = None
    tool_call_id: Annotated[str | None, Field(description="A tool's: which call it answers.")] = (
        None
    )
    name: Annotated[str | None, Field(description="A tool's.")] = None
    _message: Message = PrivateAttr()

    @model_validator(mode="wrap")
    @classmethod
    def _nothing_unread(cls, value: Any, read: ModelWrapValidatorHandler[Self]) -> Self:
        """Refuse what would be dropped: images, documents, what is no field of a message."""
        if isinstance(value, dict) and (reason := unread(value)):
            raise ValueError(reason)
        turn = read(value)
        try:
            turn._message = as_message(
                value if isinstance(value, dict) else turn.model_dump(exclude_none=True), "message"
            )
        except PalateError as error:
            raise ValueError(str(error)) from None
        return turn

    def message(self) -> Message:
        """As the model's template takes it."""
        return self._message


Turns = Annotated[list[Turn], Field(min_length=1, max_length=4096, fail_fast=True)]


class Usage(BaseModel):
    """Tokens that a request came to."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = 0


def conversation(turns: Sequence[Turn], tools: Sequence[Any] | None = None) -> Conversation:
    """Messages that end in the response; raises `RequestError` where they do not.

    `tools` are those that the model was given, in OpenAI's form.
    """
    try:
        given = as_tools({"tools": tools})
    except PalateError as error:
        raise invalid(str(error)) from None
    *prompt, last = (turn.message() for turn in turns)
    if last.role != "assistant":
        raise invalid(f"messages: expected an assistant's turn at the end, got {last.role}'s")
    return Conversation((*given, *prompt), last.content)


def answered(prompt: str, response: str) -> Conversation:
    """A prompt in text and its response."""
    (one,) = answers(prompt, [response])
    return one


def answers(prompt: str | Sequence[Turn], responses: Sequence[str]) -> list[Conversation]:
    """A prompt and each response to it.

    Text with its turns marked inside (a transcript, what a chat template writes) is read as these
    turns, and the responses as that form writes them; any other text is one user's turn.

    Raises:
        RequestError: a turn in it has content that is not read.
    """
    if any(
        parts_of(text)[1] for text in (*responses, *([prompt] if isinstance(prompt, str) else ()))
    ):
        raise invalid("expected text, got Palate's own form of a message; send it in messages")
    if not isinstance(prompt, str):
        turns = tuple(turn.message() for turn in prompt)
        return [Conversation(turns, response) for response in responses]
    try:
        read = read_prompt(prompt)
    except PalateError as error:
        raise invalid(f"prompt: {error}") from None
    return [Conversation(read.turns, read.reply(response)) for response in responses]


def forms(given: Input) -> list[Form]:
    """Texts or token ids, one or many; raises `RequestError` where one says nothing."""
    many: Sequence[Any] = [given] if single(given) else given
    if not many or not all(many):
        raise invalid("input: expected a text or token ids, got nothing")
    return [Templated(one) if isinstance(one, str) else Ids(one) for one in many]


def single(given: Input) -> bool:
    """Whether it is one text or one list of ids, and not a list of those."""
    return isinstance(given, str) or (bool(given) and isinstance(given[0], int))


def usage(request: Request) -> Usage:
    """Of what was read so far."""
    tokens = request.scope[STATS].tokens
    return Usage(prompt_tokens=tokens, total_tokens=tokens)


def answer_head(request: Request, kind: str, own_id: str | None = None) -> tuple[str, int, str]:
    """An answer's id, its time in seconds since 1970, and the name of the model.

    The id ends in the header `x-request-id`, else in the body's `own_id`.
    """
    by_header = own_id is None or "x-request-id" in request.headers
    suffix = request.state.request_id if by_header else own_id
    return f"{kind}-{suffix}", int(time.time()), request.scope[STATS].model


def sigmoid(reward: float) -> float:
    """1 / (1 + exp(-reward)), without overflow."""
    if reward >= 0:
        return 1.0 / (1.0 + math.exp(-reward))
    odds = math.exp(reward)
    return odds / (1.0 + odds)


def activated(rewards: Iterable[float], *, raw: bool) -> list[float]:
    """The rewards, through a sigmoid unless `raw`."""
    return [reward if raw else sigmoid(reward) for reward in rewards]


def packed(reward: float) -> str:
    """A reward as OpenAI's clients ask for it: its four bytes, the lowest first, in base64."""
    return base64.b64encode(struct.pack("<f", reward)).decode()


def ranking(scores: Sequence[float]) -> list[int]:
    """Indices, the highest score first; of equals, the earlier."""
    return sorted(range(len(scores)), key=lambda index: -scores[index])
