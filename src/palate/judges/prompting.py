"""What a foreign reward model is shown: its tokens, by the rule of its own input format."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from transformers import PreTrainedTokenizerBase

from palate.judges.options import SequenceClassifierSpec
from palate.model.markers import breaking, broken, markers
from palate.model.templates import RefusedTurnsError, render_messages, unwritten_parts
from palate.types import Message, PalateError, Role, digest, in_words

# A conversation as plain text: turns under prefixes.

# Where a checkpoint's own prefixes have none: no foreign format in plain text knows such turns.
TOOL_PREFIXES: Mapping[Role, str] = {"tool": "\n\nTool: ", "tools": "\n\nTools: "}


def labelled(turns: Sequence[Message], prefixes: Mapping[Role, str]) -> str:
    """Every turn under its prefix, its fields in lines of text."""
    return "".join(
        prefixes.get(turn.role, TOOL_PREFIXES.get(turn.role, "")) + in_words(turn.content)
        for turn in turns
    )


def question(prompt: Sequence[Message], prefixes: Mapping[Role, str]) -> str:
    """A lone turn as it stands; several turns each under its prefix."""
    if len(prompt) == 1:
        return in_words(prompt[0].content)
    return labelled(prompt, prefixes).strip()


TOO_LONG = "too long"
NO_LIMIT = 1 << 30  # Tokenizers without a limit say 1e30.
# transformers renders plain data only, so a function cannot be passed in; a macro of the same
# name hides the clock from the template.
PINNED_CLOCK = "{%- macro strftime_now(format) -%}{{ date_string }}{%- endmacro -%}"


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of one conversation, token types where the tokenizer gives them, and its text."""

    ids: tuple[int, ...]
    types: tuple[int, ...] | None
    texts: tuple[str, ...] = ()
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a conversation has no tokens."""

    reason: str
    tokens: int = 0


Cut = Callable[[str, Callable[[str], bool]], str | None]
"""From a text and whether a part of it fits to the longest part that does, or None."""


def fit(
    turns: Sequence[Message],
    encode: Callable[[Sequence[Message]], Encoded],
    max_tokens: int,
    cut: Cut | None,
) -> Encoded | Refused:
    """The tokens of `turns`; where they are too many, of what is left without the oldest.

    Whole oldest turns go first, so that what is left starts at a user turn, as templates require;
    then `cut` shortens the turn that remains. Without `cut` nothing is shortened. What does not
    fit all the same is refused with the length of the whole.
    """
    whole = encode(turns)
    if len(whole.ids) <= max_tokens:
        return whole
    refused = Refused(TOO_LONG, len(whole.ids))
    if cut is None:
        return refused
    while len(turns) > 1:
        turns = turns[1:]
        while len(turns) > 1 and turns[0].role != "user":
            turns = turns[1:]
        shorter = encode(turns)
        if len(shorter.ids) <= max_tokens:
            return replace(shorter, truncated=True)
    if turns and not turns[0].fields:
        role, text = turns[0].role, turns[0].content
        part = cut(text, lambda part: len(encode([Message(role, part)]).ids) <= max_tokens)
        if part is not None:
            return replace(encode([Message(role, part)]), truncated=True)
    return refused


def cut_oldest_characters(text: str, fits: Callable[[str], bool]) -> str | None:
    """The longest end of `text` that fits and is shorter than all of it."""
    starts = range(len(text), 0, -1)  # The shortest end first.
    fitting = bisect_left(starts, True, key=lambda start: not fits(text[start:]))
    return text[starts[fitting - 1] :] if fitting else None


def cut_last_words(text: str, fits: Callable[[str], bool]) -> str | None:
    """As many words from the beginning of `text` as fit, at least one and not all."""
    ends = [word.end() for word in re.finditer(r"\S+", text)][-2::-1]  # The longest part first.
    too_long = bisect_left(ends, True, key=lambda end: fits(text[:end]))
    return text[: ends[too_long]] if too_long < len(ends) else None


class InputFormat:
    """One checkpoint's rule from (prompt, response) to tokens; see `SequenceClassifierSpec`."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, spec: SequenceClassifierSpec, limit: int
    ) -> None:
        """Fix the rule; raises `PalateError` where `chat` is asked and there is no template."""
        if spec.format == "chat" and not tokenizer.chat_template:
            raise PalateError(
                f"{spec.model}: the tokenizer has no chat template; set format to pair or plain"
            )
        self._tokenizer = tokenizer
        self._spec = spec
        self._template = str(tokenizer.get_chat_template()) if spec.format == "chat" else ""
        if "strftime_now" in self._template:
            self._template = PINNED_CLOCK + self._template
        self.limit = limit
        self._variables = {"date_string": spec.date}
        if self._template:
            unwritten_parts(spec.model, tokenizer, self._template, self._variables)
        self.markers = markers(
            tokenizer,
            self._template or None,
            variables=self._variables,
            prefixes=() if spec.format == "chat" else (*spec.prefixes.values(), spec.suffix),
        )

    @property
    def protocol(self) -> Mapping[str, Any]:
        """What decides the tokens, as JSON values."""
        spec = self._spec
        template = {
            "chat": [self._template, spec.date],
            "pair": [dict(spec.prefixes)],
            "plain": [dict(spec.prefixes), spec.suffix],
        }[spec.format]
        return {
            "format": spec.format,
            "template": digest(template),
            "tokenizer": tokenizer_digest(self._tokenizer),
            "max_tokens": self.limit,
            "over_limit": spec.over_limit,
            "special_tokens_in_text": breaking(self._tokenizer, self.markers),
        }

    @property
    def sample(self) -> tuple[int, ...]:
        """The tokens of a short conversation: those that the format writes itself are in it."""
        encoded = self.encode([Message("user", "x")], "y")
        return encoded.ids if isinstance(encoded, Encoded) else ()

    def encode(self, prompt: Sequence[Message], response: str) -> Encoded | Refused:
        """The tokens of a conversation, or the reason why it has none."""
        # Tools and a leading system turn stay, whatever is cut.
        system = tuple(takewhile(lambda turn: turn.role in ("tools", "system"), prompt[:2]))
        try:
            encoded = fit(
                prompt[len(system) :],
                lambda turns: self._tokens((*system, *turns), response),
                self.limit,
                cut_oldest_characters if self._spec.over_limit == "cut-oldest" else None,
            )
        except RefusedTurnsError as refusal:
            return Refused(f"template refuses: {refusal.reason}")
        if isinstance(encoded, Encoded) and not encoded.ids:
            return Refused("no tokens")
        return encoded

    def _tokens(self, prompt: Sequence[Message], response: str) -> Encoded:
        spec, turns = self._spec, [*prompt, Message("assistant", response)]
        if spec.format != "chat":
            turns = [Message(m.role, broken(in_words(m.content), self.markers)) for m in turns]
        texts: tuple[str, ...]
        match spec.format:
            case "chat":
                texts = (
                    render_messages(
                        self._tokenizer,
                        self._template,
                        turns,
                        self.markers,
                        self._variables,
                        name=spec.model,
                    ),
                )
            case "pair":
                texts = question(turns[:-1], spec.prefixes), turns[-1].content
            case "plain":
                texts = (labelled(turns, spec.prefixes) + spec.suffix,)
        # A template writes the special tokens itself (pitfall 4). No truncation here, ever:
        # `verbose` only silences advice about long texts.
        special = spec.format != "chat"
        out = self._tokenizer(*texts, add_special_tokens=special, truncation=False, verbose=False)
        ids, types = tuple(out["input_ids"]), out.get("token_type_ids")
        bos = self._tokenizer.bos_token_id
        if bos is not None and ids[:2] == (bos, bos):
            raise PalateError(
                f"{spec.model}: the conversation starts with two BOS tokens; the chat template or "
                "the prefix must not write the one that the tokenizer adds"
            )
        return Encoded(ids, None if types is None else tuple(types), texts)


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """What pins a tokenizer: its whole backend, or its vocabulary."""
    if getattr(tokenizer, "is_fast", False):
        return digest(tokenizer.backend_tokenizer.to_str())
    return digest(sorted(tokenizer.get_vocab().items()))


# SteamSHP's question, word for word, and what is cut where it is too long for the model.
#
# The source is the model card (stanfordnlp/SteamSHP-flan-t5-xl): one line of context, two responses
# of one line, 512 tokens, and where they do not fit, "truncating the context as much as possible
# and leaving the responses as untouched as possible".

PROMPT = (
    "POST: {context} \n\n RESPONSE A: {first}\n\n RESPONSE B: {second}\n\n "
    "Which response is better? RESPONSE"
)
NOTHING = "."  # The card's response B where one response is scored alone.


class PairPrompt:
    """From a prompt and two responses to the tokens of the question.

    A lone turn is the context as it stands; several turns stand one after the other, each under
    its prefix. Line breaks become spaces, since the card asks for texts without any.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, max_tokens: int, prefixes: Mapping[Role, str]
    ) -> None:
        self._tokenizer = tokenizer
        self._limit = max_tokens
        self._prefixes = prefixes
        self._markers = markers(tokenizer, prefixes=prefixes.values())

    @property
    def protocol(self) -> Mapping[str, Any]:
        """What decides the tokens, as JSON values."""
        return {
            "template": digest(PROMPT, dict(self._prefixes)),
            "tokenizer": tokenizer_digest(self._tokenizer),
            "max_tokens": self._limit,
            "truncation": "oldest turns of the context, then its last words; never a response",
            "line_breaks": "a space",
            "special_tokens_in_text": breaking(self._tokenizer, self._markers),
        }

    def text(self, prompt: Sequence[Message], first: str, second: str) -> str:
        """The question as it is asked."""
        return self._text(question(prompt, self._prefixes), first, second)

    def encode(self, prompt: Sequence[Message], first: str, second: str) -> Encoded | Refused:
        """The tokens of the question; where they are too many, of one with a shorter context.

        Whole oldest turns go first, then the last words of the turn that is left: the card keeps
        what fits from the beginning of a post. One word stays; else the question is refused.
        """
        return fit(
            prompt,
            lambda turns: self._tokens(question(turns, self._prefixes), first, second),
            self._limit,
            cut_last_words,
        )

    def _tokens(self, context: str, first: str, second: str) -> Encoded:
        text = self._text(context, first, second)
        # No truncation here, ever: `verbose` only silences advice about long texts.
        ids = self._tokenizer(text, truncation=False, verbose=False)["input_ids"]
        return Encoded(tuple(ids), None, (text,))

    def _text(self, context: str, first: str, second: str) -> str:
        texts = {"context": context, "first": in_words(first), "second": in_words(second)}
        one_line = {name: re.sub(r"[\r\n]+", " ", text) for name, text in texts.items()}
        return PROMPT.format(**{k: broken(v, self._markers) for k, v in one_line.items()})
