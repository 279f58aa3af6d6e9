"""From what a request says to tokens: conversations, texts that a template wrote, token ids."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
class Written:
    """A text that the client's template has written, special tokens included."""

    text: str

    @property
    def texts(self) -> tuple[str, ...]:
        """What the tokenizer has to read."""
        return (self.text,)


@dataclass(frozen=True, slots=True)
class Ids:
    """Token ids, made by the client."""

    ids: Sequence[int]

    @property
    def texts(self) -> tuple[str, ...]:
        """Nothing is left to read."""
        return ()


Form = Conversation | Written | Ids
Tags = Callable[[Sequence[Message]], bool]


@dataclass(frozen=True, slots=True)
class Read:
    """One conversation's tokens.

    `untemplated`: a text in which no response begins. `unframed`: ids that do not begin or end as
    the model's template writes a conversation. `tagged`: its prompt is about safety.
    """

    ids: Tokens
    truncated: bool = False
    untemplated: bool = False
    tagged: bool = False
    unframed: bool = False


@dataclass(frozen=True, slots=True)
class Cutting:
    """What is done with what is too long, as a request's own fields say.

    A text is cut at its oldest end, a conversation by the rule that the model was trained with,
    neither ever in its response; where `texts` or `conversations` is false, it is refused with
    `status`. Ids are refused. `most` is how many tokens are kept, None for all that the model
    reads. What would cut a response is refused where it would come to it: `newest` names the
    field that asks for the newest tokens to go, and a part of a pair may have no more tokens than
    `max_tokens_per_query` and `max_tokens_per_doc` allow.
    """

    texts: bool = True
    conversations: bool = True
    most: int | None = None
    newest: str = ""
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
        most_characters: int,
        *,
        tags: Tags | None = None,
        thread: ThreadPoolExecutor | None = None,
    ) -> None:
        """`tags` says whether a prompt is about safety; `thread` is of another with this `chat`."""
        self.chat = chat
        self._thread = thread or ThreadPoolExecutor(1, thread_name_prefix="palate-read")
        self._vocabulary = vocabulary
        self._most_characters = most_characters
        self._tags = tags

    def sharing(self, tags: Tags | None) -> Reader:
        """A reader with the same tokenizer and thread, which tags prompts its own way."""
        return Reader(
            self.chat, self._vocabulary, self._most_characters, tags=tags, thread=self._thread
        )

    async def read(self, forms: Sequence[Form], cutting: Cutting) -> list[Read | None]:
        """The tokens of each, in order; None where a response alone is too long for the model.

        Raises:
            Fault: a text over the limit where `cutting` refuses it, ids that the model does not
                have, turns that its template refuses, a limit that is none.
        """
        if cutting.most is not None and not 0 < cutting.most <= self.chat.max_tokens:
            raise invalid(
                f"truncate_prompt_tokens: expected 1 to {self.chat.max_tokens}, as many as the "
                f"model reads, or -1 for these; got {cutting.most}"
            )
        loop = asyncio.get_running_loop()
        found: list[Read | None] = []
        for start in range(0, len(forms), READ_TOGETHER):
            part = forms[start : start + READ_TOGETHER]
            found += await loop.run_in_executor(self._thread, self._read, part, start, cutting)
        return found

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(cancel_futures=True)

    def _read(self, forms: Sequence[Form], start: int, cutting: Cutting) -> list[Read | None]:
        return [self._one(form, start + i, cutting) for i, form in enumerate(forms)]

    def _one(self, form: Form, number: int, cutting: Cutting) -> Read | None:
        self._check(form.texts, number)
        match form:
            case Conversation():
                return self._conversation(form, number, cutting)
            case Written():
                encoded = self.chat.encode_text(form.text, most=cutting.most)
                if encoded is not None and encoded.truncated:
                    self._cut(number, encoded, cutting, cutting.texts)
                if encoded is not None:
                    self._check_ids(encoded.ids, number)
                return _read(
                    encoded,
                    untemplated=(self.chat.opening or END) not in form.text,
                    tagged=self._tagged_text(form.text),
                )
            case Ids():
                return self._ids(form, number, cutting)

    def _check(self, texts: Sequence[str], number: int) -> None:
        if (count := sum(map(len, texts))) > self._most_characters:
            raise too_large(
                f"conversation {number} has {count} characters; at most "
                f"{self._most_characters} are read"
            )
        try:
            "".join(texts).encode()
        except UnicodeEncodeError:  # JSON can hold it, UTF-8 and the tokenizer cannot.
            raise invalid(f"conversation {number} holds half a surrogate pair") from None

    def _check_ids(self, ids: Sequence[int] | Tokens, number: int) -> None:
        """Refuse what the model has no row for; a text may spell out a token of pictures."""
        if not 0 <= min(ids) <= max(ids) < self._vocabulary:
            raise invalid(f"conversation {number}: token ids must be in 0..{self._vocabulary - 1}")

    def _conversation(self, form: Conversation, number: int, cutting: Cutting) -> Read | None:
        self._check_parts(form, number, cutting)
        try:
            encoded = self.chat.encode(form.prompt, form.response, most=cutting.most)
        except PalateError as error:
            raise invalid(f"conversation {number}: {_first_line(error)}") from None
        if encoded is not None and encoded.truncated:
            self._cut(number, encoded, cutting, cutting.conversations)
        return _read(encoded, tagged=self._tags is not None and self._tags(form.prompt))

    def _tagged_text(self, text: str) -> bool:
        """Whether the prompt in a conversation of one text is about safety.

        Of turns that are marked in it the user's count, as where they come as messages; of what
        has no such marks all before the response, and all of it where none begins in it.
        """
        if self._tags is None:
            return False
        before, opening, rest = text.rpartition(self.chat.opening or END)
        try:
            read = read_conversation(text)
            prompt = read[0] if read else read_prompt(before + opening or rest).turns
        except PalateError:  # A turn of a role that is not read.
            prompt = (Message("user", before or rest),)
        return self._tags(prompt)

    def _check_parts(self, form: Conversation, number: int, cutting: Cutting) -> None:
        """Refuse a pair of which a limit of the client's would cut one side in its end."""
        sides = (
            ("max_tokens_per_query", cutting.max_tokens_per_query, form.texts[:-1]),
            ("max_tokens_per_doc", cutting.max_tokens_per_doc, form.texts[-1:]),
        )
        for field, most, said in sides:
            tokens = sum(map(self._count, said)) if most else 0
            if most and tokens > most:
                raise invalid(
                    f"{field}: conversation {number} has {tokens} tokens there, more than {most}; "
                    "neither query nor response is cut at its end: cut it before, or raise it"
                )

    def _count(self, text: str) -> int:
        return len(self.chat.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _ids(self, form: Ids, number: int, cutting: Cutting) -> Read:
        self._check_ids(form.ids, number)
        try:
            encoded = self.chat.encode_ids(form.ids)
        except PalateError as error:
            raise invalid(f"conversation {number}: {error}") from None
        if len(encoded.ids) > (cutting.most or self.chat.max_tokens):
            raise self._too_long(number, encoded, cutting)
        tagged = self._tags is not None and self._tagged_text(self.chat.tokenizer.decode(form.ids))
        return Read(encoded.ids, tagged=tagged, unframed=not self.chat.fits(encoded.ids))

    def _cut(self, number: int, encoded: Encoded, cutting: Cutting, allowed: bool) -> None:
        """Nothing where a cut is what was asked for; raises `RequestError` where it is not."""
        if not allowed:
            raise self._too_long(number, encoded, cutting)
        if cutting.newest:
            raise invalid(
                f"{cutting.newest}: conversation {number} is too long, and its newest tokens are "
                "the response, which is never cut; send left, or leave it out"
            )

    def _too_long(self, number: int, encoded: Encoded, cutting: Cutting) -> RequestError:
        limit = cutting.most or self.chat.max_tokens
        # What turns that were cut came to is not known.
        known = len(encoded.ids) + encoded.cut_tokens
        tokens = f"more than {limit}" if encoded.cut_turns else str(known)
        reads = "truncate_prompt_tokens keeps" if cutting.most else "the model reads"
        message = f"conversation {number} has {tokens} tokens; {reads} {limit}"
        return RequestError(cutting.status, "too_long", message)


def require(reads: Sequence[Read | None]) -> list[Read]:
    """All of them; raises `RequestError` where one has no tokens, for shapes that cannot say so."""
    for number, read in enumerate(reads):
        if read is None:
            raise too_large(f"conversation {number}: {TOO_LONG}")
    return [read for read in reads if read is not None]


def _read(
    encoded: Encoded | None, *, untemplated: bool = False, tagged: bool = False
) -> Read | None:
    return None if encoded is None else Read(encoded.ids, encoded.truncated, untemplated, tagged)


def _first_line(error: Exception) -> str:
    """What a template says of its turns may quote them, so no more than its beginning."""
    return " ".join(str(error).split())[:120]
