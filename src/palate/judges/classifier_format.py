"""From a conversation to the tokens a foreign reward model was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from palate.judges.spec import SequenceClassifierSpec
from palate.judges.turns import labelled, question, without_oldest
from palate.model.markers import breaking, broken, markers
from palate.model.templates import RefusedTurnsError, render, tell_unwritten
from palate.types import Message, PalateError, digest

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
        self._template = _template(tokenizer) if spec.format == "chat" else ""
        self.limit = limit
        self._variables = {"date_string": spec.date}
        if self._template:
            tell_unwritten(spec.model, tokenizer, self._template, self._variables)
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
        try:
            whole = self._tokens(prompt, response)
            if len(whole.ids) <= self.limit:
                return whole if whole.ids else Refused("no tokens")
            cut = self._cut(prompt, response) if self._spec.over_limit == "cut-oldest" else None
        except RefusedTurnsError as refusal:
            return Refused(f"template refuses: {refusal.said}")
        return cut or Refused(TOO_LONG, len(whole.ids))

    def _cut(self, prompt: Sequence[Message], response: str) -> Encoded | None:
        """The longest end of the conversation that fits; None where the response alone does not.

        A leading system turn stays; what is kept starts at a user turn, as templates require.
        """
        system = tuple(prompt[:1]) if prompt and prompt[0].role == "system" else ()
        turns = tuple(prompt[len(system) :])
        while len(turns) > 1:
            turns = without_oldest(turns)
            kept = self._tokens((*system, *turns), response)
            if len(kept.ids) <= self.limit:
                return replace(kept, truncated=True)
        return self._cut_characters(system, turns[0], response) if turns else None

    def _cut_characters(
        self, system: tuple[Message, ...], turn: Message, response: str
    ) -> Encoded | None:
        best, low, high = None, 1, len(turn.content)
        while low <= high:
            start = (low + high) // 2
            rest = Message(turn.role, turn.content[start:])
            kept = self._tokens((*system, rest), response)
            if len(kept.ids) <= self.limit:
                best, high = kept, start - 1
            else:
                low = start + 1
        return replace(best, truncated=True) if best else None

    def _tokens(self, prompt: Sequence[Message], response: str) -> Encoded:
        clean = [Message(m.role, broken(m.content, self.markers)) for m in prompt]
        answer = broken(response, self.markers)
        texts, special = self._texts(clean, answer)
        # No truncation here, ever: `verbose` only silences advice about long texts.
        out = self._tokenizer(*texts, add_special_tokens=special, truncation=False, verbose=False)
        types = out.get("token_type_ids")
        encoded = Encoded(tuple(out["input_ids"]), None if types is None else tuple(types), texts)
        self._check_bos(encoded.ids)
        return encoded

    def _texts(self, prompt: list[Message], answer: str) -> tuple[tuple[str, ...], bool]:
        match self._spec.format:
            case "chat":
                # The template writes the special tokens itself (pitfall 4).
                return (self._chat([*prompt, Message("assistant", answer)]),), False
            case "pair":
                return (question(prompt, self._spec.prefixes), answer), True
            case "plain":
                turns = [*prompt, Message("assistant", answer)]
                return (labelled(turns, self._spec.prefixes) + self._spec.suffix,), True

    def _chat(self, turns: list[Message]) -> str:
        said = [{"role": m.role, "content": m.content} for m in turns]
        return render(self._tokenizer, self._template, said, self._variables)

    def _check_bos(self, ids: tuple[int, ...]) -> None:
        bos = self._tokenizer.bos_token_id
        if bos is not None and ids[:2] == (bos, bos):
            raise PalateError(
                f"{self._spec.model}: the conversation starts with two BOS tokens; the chat "
                "template or the prefix must not write the one that the tokenizer adds"
            )


def _template(tokenizer: PreTrainedTokenizerBase) -> str:
    text = str(tokenizer.get_chat_template())
    return PINNED_CLOCK + text if "strftime_now" in text else text


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """What pins a tokenizer: its whole backend, or its vocabulary."""
    if getattr(tokenizer, "is_fast", False):
        return digest(tokenizer.backend_tokenizer.to_str())
    return digest(sorted(tokenizer.get_vocab().items()))
