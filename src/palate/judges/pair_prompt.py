"""SteamSHP's question, word for word, and what is cut where it is too long for the model.

The source is the model card (stanfordnlp/SteamSHP-flan-t5-xl): one line of context, two responses
of one line, 512 tokens, and where they do not fit, "truncating the context as much as possible
and leaving the responses as untouched as possible".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from palate.judges.classifier_format import TOO_LONG, Encoded, Refused, tokenizer_digest
from palate.judges.turns import question, without_oldest
from palate.model.markers import breaking, broken, markers
from palate.types import Message, Role, digest

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
        turns = tuple(prompt)
        whole = kept = self._tokens(question(turns, self._prefixes), first, second)
        while len(kept.ids) > self._limit and len(turns) > 1:
            turns = without_oldest(turns)
            kept = self._tokens(question(turns, self._prefixes), first, second)
        if len(kept.ids) > self._limit:
            return self._cut(question(turns, self._prefixes), first, second) or Refused(
                TOO_LONG, len(whole.ids)
            )
        return replace(kept, truncated=kept is not whole)

    def _cut(self, context: str, first: str, second: str) -> Encoded | None:
        """The question with as many leading words of `context` as fit; None where none does."""
        ends = [word.end() for word in re.finditer(r"\S+", context)]
        best, low, high = None, 1, len(ends) - 1
        while low <= high:
            words = (low + high) // 2
            kept = self._tokens(context[: ends[words - 1]], first, second)
            if len(kept.ids) <= self._limit:
                best, low = kept, words + 1
            else:
                high = words - 1
        return replace(best, truncated=True) if best else None

    def _tokens(self, context: str, first: str, second: str) -> Encoded:
        text = self._text(context, first, second)
        # No truncation here, ever: `verbose` only silences advice about long texts.
        ids = self._tokenizer(text, truncation=False, verbose=False)["input_ids"]
        return Encoded(tuple(ids), None, (text,))

    def _text(self, context: str, first: str, second: str) -> str:
        clean = {
            name: broken(_one_line(text), self._markers)
            for name, text in (("context", context), ("first", first), ("second", second))
        }
        return PROMPT.format(**clean)


def _one_line(text: str) -> str:
    return re.sub(r"[\r\n]+", " ", text)
