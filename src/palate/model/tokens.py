"""From a conversation to tokens: the only place that tokenises.

A reward is a pure function of (prompt, response): whatever else is in the batch, and whether it
is trained, evaluated or served, one response gets the same tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from palate.model.batch import Tokens
from palate.model.options import BaseOptions
from palate.model.templates import choose_template
from palate.types import Message, PalateError, digest

TOO_LONG = "the response alone exceeds max_tokens"


@dataclass(frozen=True, slots=True)
class Encoded:
    """A conversation as tokens, ending in the terminal token; what was cut from its prompt."""

    ids: Tokens
    cut_turns: int = 0
    cut_tokens: int = 0

    @property
    def truncated(self) -> bool:
        """Whether any of the prompt was cut."""
        return bool(self.cut_turns or self.cut_tokens)


class ChatTokens:
    """A tokenizer, its chat template, its terminal token and a limit, as one fixed rule."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, options: BaseOptions) -> None:
        """Fix the rule; raises `PalateError` where the template cannot give a stable reward."""
        self.tokenizer = tokenizer
        self.max_tokens = options.max_tokens
        self.template = choose_template(tokenizer.chat_template, options)
        # Special tokens written out in data would be read as turns of the conversation.
        self._special = sorted(
            {str(t) for t in tokenizer.get_added_vocab()} | set(tokenizer.all_special_tokens),
            key=len,
            reverse=True,
        )
        self.terminal = self._find_terminal()
        self.terminal_id = int(tokenizer.convert_tokens_to_ids(self.terminal))
        self.pad_id = self._find_pad()

    @property
    def fingerprint(self) -> str:
        """Digest of everything that decides the tokens of a conversation."""
        sample = self.tokenizer("The 21 quick\n\nfoxes — naïve?", add_special_tokens=False)
        return digest(self.template, self.terminal, self.max_tokens, list(sample["input_ids"]))

    def encode(self, prompt: Sequence[Message], response: str) -> Encoded | None:
        """Tokens of the conversation, cut to `max_tokens` at its oldest end.

        Whole oldest turns go first (a leading system turn stays), then the oldest tokens of the
        first kept turn; never the response or its terminal token. None where the response alone
        is too long.
        """
        ids = self._ids(prompt, response)
        if len(ids) <= self.max_tokens:
            return Encoded(ids)
        system, turns = _split_system(prompt)
        cut_turns = 0
        while len(turns) > 1 and len(ids) > self.max_tokens:
            turns = _drop_oldest(turns)
            cut_turns = len(prompt) - len(system) - len(turns)
            ids = self._ids((*system, *turns), response)
        if len(ids) <= self.max_tokens:
            return Encoded(ids, cut_turns)
        return self._cut_oldest_tokens(system, turns, response, cut_turns)

    def render(self, prompt: Sequence[Message], response: str) -> str:
        """The conversation as the template writes it, ending in the terminal token."""
        turns = [{"role": m.role, "content": self._defuse(m.content)} for m in prompt]
        turns.append({"role": "assistant", "content": self._defuse(response)})
        text = self._apply(turns)
        end = text.rfind(self.terminal)
        return text[: end + len(self.terminal)] if end >= 0 else text + self.terminal

    def _ids(self, prompt: Sequence[Message], response: str) -> Tokens:
        text = self.render(prompt, response)
        # verbose: no warning about lengths, which are cut to max_tokens here and not by the model.
        encoded = self.tokenizer(text, add_special_tokens=False, verbose=False)
        ids = np.asarray(encoded["input_ids"], np.int32)
        bos = self.tokenizer.bos_token_id
        if len(ids) > 1 and bos is not None and ids[0] == ids[1] == bos:
            raise PalateError("the template and the tokenizer both write a BOS token")
        if ids[-1] != self.terminal_id:
            raise PalateError(f"a conversation must end in {self.terminal!r}; check the template")
        return ids

    def _apply(self, turns: list[dict[str, str]]) -> str:
        try:
            text = self.tokenizer.apply_chat_template(
                turns, chat_template=self.template, tokenize=False
            )
        except Exception as error:  # Jinja templates raise whatever their author wrote.
            roles = "/".join(turn["role"] for turn in turns)
            raise PalateError(f"the chat template refuses turns {roles}: {error}") from None
        return str(text)

    def _defuse(self, content: str) -> str:
        """Break special tokens spelled out in untrusted text with a zero-width space."""
        for token in self._special:
            if token in content:
                content = content.replace(token, f"{token[0]}\u200b{token[1:]}")
        return content

    def _find_terminal(self) -> str:
        """The special token that ends the template's assistant turn, else the EOS token."""
        turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "\x00"}]
        tail = self._apply(turns).rpartition("\x00")[2]
        found = [t for t in self._special if t in tail]
        if found:
            return min(found, key=tail.find)
        if self.tokenizer.eos_token is None:
            raise PalateError("neither the template nor the tokenizer has an end-of-turn token")
        return str(self.tokenizer.eos_token)

    def _find_pad(self) -> int:
        """A padding id that differs from the terminal token (pitfall 3)."""
        named = [self.tokenizer.pad_token_id, self.tokenizer.unk_token_id]
        others = self.tokenizer.convert_tokens_to_ids(sorted(self._special))
        for candidate in [*named, *others]:
            if candidate is not None and candidate != self.terminal_id:
                return int(candidate)
        raise PalateError("the tokenizer has no special token left to pad with; add one")

    def _cut_oldest_tokens(
        self,
        system: tuple[Message, ...],
        turns: tuple[Message, ...],
        response: str,
        cut_turns: int,
    ) -> Encoded | None:
        if not turns:
            return None
        first, rest = turns[0], turns[1:]
        offsets = self.tokenizer(
            first.content, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )["offset_mapping"]
        cut = 0
        while cut < len(offsets):
            # At the seam a cut may cost a token more, so repeat until it fits.
            excess = len(self._ids((*system, _tail(first, offsets, cut), *rest), response))
            if excess <= self.max_tokens:
                break
            cut = min(len(offsets), cut + excess - self.max_tokens)
        ids = self._ids((*system, _tail(first, offsets, cut), *rest), response)
        return Encoded(ids, cut_turns, cut) if len(ids) <= self.max_tokens else None


def _split_system(prompt: Sequence[Message]) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    count = 1 if prompt and prompt[0].role == "system" else 0
    return tuple(prompt[:count]), tuple(prompt[count:])


def _drop_oldest(turns: tuple[Message, ...]) -> tuple[Message, ...]:
    """Without the oldest turn, and on to the next user message, where templates start."""
    turns = turns[1:]
    while len(turns) > 1 and turns[0].role != "user":
        turns = turns[1:]
    return turns


def _tail(message: Message, offsets: Sequence[tuple[int, int]], cut: int) -> Message:
    start = offsets[cut][0] if cut < len(offsets) else len(message.content)
    return Message(message.role, message.content[start:])
