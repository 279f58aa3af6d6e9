"""A chat model's answer, and the preference that it amounts to.

Reasoning before the answer is not read. Logprobs come first: of the first token's likeliest,
those that are A or B but for white space. Else the words, strictly: A or B alone, or in the forms
that `LETTER` tolerates. Anything else is unparsed, which is unscored: it is never guessed at and
never counted as half right.
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
# has written the beginning: tags of Qwen, DeepSeek and others; Mistral's; gpt-oss's channels.
REASONED = re.compile(
    r"\s*(?:(?:<think(?:ing)?>)?.*?</think(?:ing)?>|(?:\[THINK\])?.*?\[/THINK\]"
    r"|<\|channel\|>.*?<\|channel\|>final<\|message\|>)",
    re.S | re.I,
)
REASONS = re.compile(r"\s*(?:<think(?:ing)?>|\[THINK\]|<\|channel\|>(?!final))", re.I)
MAX_CHARACTERS = 40  # No tolerated form is longer, and matching stays cheap.
PARSER = "first-token logprobs of A and B, else exactly one letter A or B; version 3"

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
    # Where reasoning stands before the answer the first token is one of it, and the likeliest
    # beside that say nothing.
    if block := REASONED.match(reply.text):
        words, reasoned = reply.text[block.end() :], True
    else:
        reasoned = REASONS.match(reply.text) is not None  # It never came to an end.
        words = "" if reasoned else reply.text
    letter = parse(words)
    # Of "**B**" or "Answer: B" the first token is no letter: what is likely beside it is not the
    # answer ("A" may be the beginning of "Answer").
    likeliest = max(reply.top, key=lambda one: one[1])[0].strip() if reply.top else ""
    beside = letter is not None and likeliest not in ("A", "B")
    if not reasoned and not beside and (first := first_token(reply.top)):
        choice, share = first
        rest = None if share is None else 1.0 - share
        result = Preference(pair_id, choice, share, rest)
    elif letter:
        result = Preference(pair_id, "first" if letter == "A" else "second")
    else:
        reason = UNPARSED
        if reply.finish == "content_filter":
            reason += ": content filter"
        elif not words.strip() and reply.finish == "length":
            reason += ": no token was left for the answer; raise reasoning_tokens"
        elif not words.strip():
            reason += ": empty"
        result = Preference(pair_id, None, reason=reason)
    return replace(result, answer=reply.text, seconds=reply.seconds)


def parse(text: str) -> Literal["A", "B"] | None:
    """The letter that an answer consists of, or None."""
    match = LETTER.fullmatch(text) if len(text) <= MAX_CHARACTERS else None
    if match is None:
        return None
    return "A" if match["letter"] == "A" else "B"


def first_token(top: TopTokens) -> tuple[Literal["first", "second", "tie"], float | None] | None:
    """The choice among A and B by the first token, and A's share P(A) / (P(A) + P(B)).

    A letter that is not among the likeliest is no likelier than the least of them, nor than what
    all of them leave: the other is chosen, and that bound is the letter's probability. Where the
    bound says nothing (one token listed, at 0.4) there is a choice without a share. None where
    neither letter is there.
    """
    a, b = _log_probability("A", top), _log_probability("B", top)
    if a is None and b is None:
        return None
    if a is not None and b is not None:
        return ("tie" if a == b else "first" if a > b else "second"), _sigmoid(a - b)
    # The highest log-probability that a token outside the list can have.
    left = 1.0 - math.fsum(math.exp(min(value, 0.0)) for _, value in top)
    least = min(value for _, value in top)
    bound = min(least, math.log(left)) if left > 0 else least
    if b is None:
        return "first", None if a is None or bound >= a else _sigmoid(a - bound)
    return "second", None if bound >= b else _sigmoid(bound - b)


def _log_probability(letter: str, top: TopTokens) -> float | None:
    values = [value for token, value in top if token.strip() == letter]
    if not values:
        return None
    most = max(values)
    return most + math.log(sum(math.exp(value - most) for value in values))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
