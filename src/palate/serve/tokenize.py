"""From what a request says to tokens: conversations, texts that a template wrote, token ids."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus

from palate.data.transcript import read_conversation, read_prompt
from palate.model.packing import Tokens
from palate.model.tokenizer import TOO_LONG, ChatTokens, Encoded
from palate.serve.errors import RequestError, invalid, too_large
from palate.types import Message, PalateError

END = "\x00"  # Stands for a template that writes nothing before a response.
READ_TOGETHER = 16  # Then it is another request's turn with the tokenizer.


@dataclass(frozen=True, slots=True)
class Conversation:
    """A prompt as messages and one response, for the model's own template."""

    prompt: tuple[Message, ...]
    response: str

    @property
    def texts(self) -> tuple[str, ...]:
        """What the tokenizer has to read."""
        return (*(message.content for message in self.prompt), self.response)


@dataclass(frozen=True, slots=True)
class Templated:
    """A text that the client's template has written, special tokens included."""

    text: str


@dataclass(frozen=True, slots=True)
class Ids:
    """Token ids, made by the client."""

    ids: Sequence[int]


Form = Conversation | Templated | Ids
SafetyRule = Callable[[Sequence[Message]], bool]


@dataclass(frozen=True, slots=True)
class Read:
    """One conversation's tokens.

    `untemplated`: a text in which no response begins. `safety`: its prompt is about safety.
    `unframed`: ids that do not begin or end as the model's template writes a conversation.
    """

    ids: Tokens
    truncated: bool = False
    untemplated: bool = False
    safety: bool = False
    unframed: bool = False


@dataclass(frozen=True, slots=True)
class Truncation:
    """What is done with what is too long, as a request's own fields say.

    A text is cut at its oldest end, a conversation by the rule that the model was trained with,
    neither ever in its response; where `texts` or `conversations` is false, it is refused with
    `status`. Ids are refused. `max_tokens`, which the request's `field` sets, are kept, None for
    all that the model reads. What would cut a response is refused where it would come to it:
    `right` names the field that asks for the newest tokens to go, and a part of a pair may have no
    more tokens than `max_tokens_per_query` and `max_tokens_per_doc` allow.
    """

    texts: bool = True
    conversations: bool = True
    max_tokens: int | None = None
    field: str = "truncate_prompt_tokens"
    right: str = ""
    max_tokens_per_query: int | None = None
    max_tokens_per_doc: int | None = None
    status: int = HTTPStatus.BAD_REQUEST


class Reader:
    """A model's tokenizer, in a thread of its own: a Rust tokenizer cannot be used by two.

    Requests take turns of a few conversations, so that a large one does not hold up the others.
    """

    def __init__(
        self,
        chat: ChatTokens,
        vocabulary: int,
        max_characters: int,
        *,
        is_safety: SafetyRule | None = None,
        thread: ThreadPoolExecutor | None = None,
    ) -> None:
        """`is_safety` says it of a prompt; `thread` is of another reader with this `chat`."""
        self.chat = chat
        self._thread = thread or ThreadPoolExecutor(1, thread_name_prefix="palate-read")
        self._vocabulary = vocabulary
        self._max_characters = max_characters
        self._is_safety = is_safety

    def sharing(self, is_safety: SafetyRule | None) -> Reader:
        """A reader with the same tokenizer and thread, and a safety rule of its own."""
        return Reader(
            self.chat,
            self._vocabulary,
            self._max_characters,
            is_safety=is_safety,
            thread=self._thread,
        )

    async def read(self, forms: Sequence[Form], truncation: Truncation) -> list[Read | None]:
        """The tokens of each, in order; None where a response alone is too long.

        Raises:
            RequestError: a text over the limit where `truncation` refuses it, ids that the model
                does not have, turns that its template refuses, a limit that is none.
        """
        most = truncation.max_tokens
        if most is not None and not 0 < most <= self.chat.max_tokens:
            raise invalid(
                f"{truncation.field}: expected 1 to {self.chat.max_tokens}, as many as the "
                f"model reads, or -1 for these; got {most}"
            )
        loop = asyncio.get_running_loop()
        reads: list[Read | None] = []
        for start in range(0, len(forms), READ_TOGETHER):
            part = forms[start : start + READ_TOGETHER]
            reads += await loop.run_in_executor(self._thread, self._read, part, start, truncation)
        return reads

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(cancel_futures=True)

    def _read(self, forms: Sequence[Form], start: int, truncation: Truncation) -> list[Read | None]:
        return [self._one(form, number, truncation) for number, form in enumerate(forms, start)]

    def _one(self, form: Form, number: int, truncation: Truncation) -> Read | None:
        if isinstance(form, Ids):
            return self._ids(form, number, truncation)
        texts = (form.text,) if isinstance(form, Templated) else form.texts
        if (count := sum(map(len, texts))) > self._max_characters:
            raise too_large(
                f"conversation {number} has {count} characters; at most "
                f"{self._max_characters} are read"
            )
        try:
            "".join(texts).encode()
        except UnicodeEncodeError:  # JSON can hold it, UTF-8 and the tokenizer cannot.
            raise invalid(f"conversation {number} holds half a surrogate pair") from None
        if isinstance(form, Templated):
            encoded = self.chat.encode_text(form.text, most=truncation.max_tokens)
            allowed, safety = truncation.texts, self._is_safety_text(form.text)
            untemplated = (self.chat.opening or END) not in form.text
        else:
            encoded = self._conversation(form, number, truncation)
            allowed, safety = truncation.conversations, self._is_safety_prompt(form.prompt)
            untemplated = False
        if encoded is None:
            return None
        if encoded.truncated:
            if not allowed:
                raise self._too_long(number, encoded, truncation)
            if truncation.right:
                raise invalid(
                    f"{truncation.right}: conversation {number} is too long, and its newest tokens "
                    "are the response, which is never cut; send left, or leave it out"
                )
        if isinstance(form, Templated):  # A text may spell out a token of pictures.
            self._check_ids(encoded.ids, number)
        return Read(encoded.ids, encoded.truncated, untemplated, safety)

    def _conversation(
        self, form: Conversation, number: int, truncation: Truncation
    ) -> Encoded | None:
        sides = (
            ("max_tokens_per_query", truncation.max_tokens_per_query, form.texts[:-1]),
            ("max_tokens_per_doc", truncation.max_tokens_per_doc, form.texts[-1:]),
        )
        for field, limit, texts in sides:
            if not limit:
                continue
            count = partial(self.chat.tokenizer, add_special_tokens=False, verbose=False)
            tokens = sum(len(count(text)["input_ids"]) for text in texts)
            if tokens > limit:
                raise invalid(
                    f"{field}: conversation {number} has {tokens} tokens there, more than {limit}; "
                    "neither query nor response is cut at its end: cut it before, or raise it"
                )
        try:
            return self.chat.encode(form.prompt, form.response, most=truncation.max_tokens)
        except PalateError as error:
            # What a template says of its turns may quote them, so no more than its beginning.
            line = " ".join(str(error).split())[:120]
            raise invalid(f"conversation {number}: {line}") from None

    def _ids(self, form: Ids, number: int, truncation: Truncation) -> Read:
        self._check_ids(form.ids, number)
        try:
            encoded = self.chat.encode_ids(form.ids)
        except PalateError as error:
            raise invalid(f"conversation {number}: {error}") from None
        if len(encoded.ids) > (truncation.max_tokens or self.chat.max_tokens):
            raise self._too_long(number, encoded, truncation)
        safety = self._is_safety is not None and self._is_safety_text(
            self.chat.tokenizer.decode(form.ids)
        )
        return Read(encoded.ids, safety=safety, unframed=not self.chat.fits(encoded.ids))

    def _check_ids(self, ids: Sequence[int] | Tokens, number: int) -> None:
        """Refuse what the model has no row for."""
        if not 0 <= min(ids) <= max(ids) < self._vocabulary:
            raise invalid(f"conversation {number}: token ids must be in 0..{self._vocabulary - 1}")

    def _is_safety_prompt(self, prompt: Sequence[Message]) -> bool:
        return self._is_safety is not None and self._is_safety(prompt)

    def _is_safety_text(self, text: str) -> bool:
        """Whether the prompt in a conversation of one text is about safety.

        Of turns that are marked in it the user's count, as where they come as messages; of what
        has no such marks all before the response, and all of it where none begins in it.
        """
        if self._is_safety is None:
            return False
        before, opening, rest = text.rpartition(self.chat.opening or END)
        try:
            read = read_conversation(text)
            prompt = read[0] if read else read_prompt(before + opening or rest).turns
        except PalateError:  # A turn of a role that is not read.
            prompt = (Message("user", before or rest),)
        return self._is_safety(prompt)

    def _too_long(self, number: int, encoded: Encoded, truncation: Truncation) -> RequestError:
        limit = truncation.max_tokens or self.chat.max_tokens
        # What turns that were cut came to is not known.
        known = len(encoded.ids) + encoded.cut_tokens
        tokens = f"more than {limit}" if encoded.cut_turns else str(known)
        keeps = f"{truncation.field} keeps" if truncation.max_tokens else "the model reads"
        message = f"conversation {number} has {tokens} tokens; {keeps} {limit}"
        return RequestError(truncation.status, "too_long", message)


def require(reads: Sequence[Read | None], truncation: Truncation) -> list[Read]:
    """All of them; raises `RequestError` where one has no tokens, for shapes that cannot say so."""
    reason = TOO_LONG
    if most := truncation.max_tokens:
        reason = f"the response alone exceeds {truncation.field}, which is {most}"
    for number, read in enumerate(reads):
        if read is None:
            raise too_large(f"conversation {number}: {reason}")
    return [read for read in reads if read is not None]
