"""What came back for one request, and the preference it amounts to.

Reasoning before the answer is not read. Logprobs come first: of the first token's likeliest, those
that are A or B but for white space. Else the words, strictly: A or B alone, or in the forms that
`LETTER` tolerates. Anything else is unparsed, which is unscored: it is never guessed at and never
counted as half right.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Literal

from palate.types import Preference

UNPARSED = "unparsed"
# `A`, ` b`: no. `A`, `A.`, `(B)`, `B)`, `[A]`, `"B"`, `**A**`, `Answer: B`, `answer A`: yes.
LETTER = re.compile(r"[\s\"'`*(\[]*(?i:answer\s*:?)?[\s\"'`*(\[]*(?P<letter>[AB])[\s\"'`*)\].]*")
# What open models that reason in their answer write around it; the end alone where the template
# has written the beginning.
REASONED = re.compile(r"\s*(?:<think(?:ing)?>)?.*?</think(?:ing)?>", re.S | re.I)
REASONS = re.compile(r"\s*<think(?:ing)?>", re.I)
LONGEST = 40  # Characters; no tolerated form is longer, and matching stays cheap.
PARSER = "first-token logprobs of A and B, else exactly one letter A or B; version 2"

TopTokens = tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer: its words, why it ended, and its first token's likeliest, if given."""

    text: str
    finish: str
    top: TopTokens
    seconds: float
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The endpoint will not answer this one question; asking again would not help."""

    reason: str
    seconds: float


def preference(pair_id: str, reply: Answer | Refused) -> Preference:
    """The preference that a reply amounts to, with its words and its seconds."""
    if isinstance(reply, Refused):
        return Preference(pair_id, None, reason=reply.reason, seconds=reply.seconds)
    words, reasoned = _without_reasoning(reply.text)
    if not reasoned and (found := first_token(reply.top)):
        choice, share = found
        read = Preference(pair_id, choice, share, 1.0 - share)
    elif letter := parse(words):
        read = Preference(pair_id, "first" if letter == "A" else "second")
    else:
        read = Preference(pair_id, None, reason=_why(reply, words))
    return replace(read, answer=reply.text, seconds=reply.seconds)


def parse(text: str) -> Literal["A", "B"] | None:
    """The letter that an answer consists of, or None."""
    found = LETTER.fullmatch(text) if len(text) <= LONGEST else None
    if found is None:
        return None
    return "A" if found["letter"] == "A" else "B"


def first_token(top: TopTokens) -> tuple[Literal["first", "second", "tie"], float] | None:
    """The choice among A and B by the first token, and A's share P(A) / (P(A) + P(B)).

    A letter that is not among the likeliest is no likelier than the least of them: the other is
    chosen, and that bound is its probability. None where neither is there.
    """
    a, b = _log_probability("A", top), _log_probability("B", top)
    if a is None and b is None:
        return None
    least = min(value for _, value in top)
    share = _sigmoid((least if a is None else a) - (least if b is None else b))
    if a is None or b is None:
        return ("second" if a is None else "first"), share
    return ("tie" if a == b else "first" if a > b else "second"), share


def _log_probability(letter: str, top: TopTokens) -> float | None:
    values = [value for token, value in top if token.strip() == letter]
    if not values:
        return None
    most = max(values)
    return most + math.log(sum(math.exp(value - most) for value in values))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _without_reasoning(text: str) -> tuple[str, bool]:
    """The answer proper, and whether reasoning stood before it.

    Its first token then is one of the reasoning, and the likeliest beside that say nothing.
    """
    if block := REASONED.match(text):
        return text[block.end() :], True
    return ("", True) if REASONS.match(text) else (text, False)


def _why(answer: Answer, words: str) -> str:
    if answer.finish == "content_filter":
        return f"{UNPARSED}: content filter"
    if not words.strip():
        if answer.finish == "length":
            return f"{UNPARSED}: no token was left for the answer; raise reasoning_tokens"
        return f"{UNPARSED}: empty"
    return UNPARSED
