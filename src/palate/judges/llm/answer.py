"""A chat model's answer, and what it amounts to: a letter, a rating, or a rating a criterion.

Reasoning before the answer is not read, nor an explanation where one is asked for. For a letter
logprobs come first: of the first token's likeliest, those that are one but for white space. Else
the words, strictly: a letter or a number alone, or in the forms that `LETTER` and `NUMBER`
tolerate. Anything else is unparsed, which is unscored: it is never guessed at and never counted as
half right.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from palate.judges.baselines import better
from palate.judges.options import Criterion
from palate.types import Preference, Score

UNPARSED = "unparsed"
# `A`, ` b`: no. `A`, `A.`, `(B)`, `B)`, `[A]`, `"B"`, `**A**`, `Answer: B`, `answer A`: yes.
LETTER = re.compile(r"[\s\"'`*(\[]*(?i:answer\s*:?)?[\s\"'`*(\[]*(?P<letter>[A-Z])[\s\"'`*)\].]*")
# `7`, `7.`, `**7**`, `7/10` of a scale to 10, `Rating: 7`: yes. `7.5`, `7 or 8`, `seven`: no.
NUMBER = re.compile(
    r"[\s\"'`*(\[]*(?i:(?:rating|score)\s*:?)?[\s\"'`*(\[]*(?P<number>\d{1,3})"
    r"(?:\s*/\s*(?P<of>\d{1,3}))?[\s\"'`*)\].]*"
)
# Around a line of a rubric and around its name: `- **truth**: 4`, a table's row `| truth | 4 |`.
MARKS = " \t\r|*-`\"'"
# What open models that reason in their answer write around it; the end alone where the template
# has written the beginning: tags of Qwen, DeepSeek and others; Mistral's; gpt-oss's channels.
REASONED = re.compile(
    r"\s*(?:(?:<think(?:ing)?>)?.*?</think(?:ing)?>|(?:\[THINK\])?.*?\[/THINK\]"
    r"|<\|channel\|>.*?<\|channel\|>final<\|message\|>)",
    re.S | re.I,
)
REASONS = re.compile(r"\s*(?:<think(?:ing)?>|\[THINK\]|<\|channel\|>(?!final))", re.I)
MAX_CHARACTERS = 40  # No tolerated form is longer, and matching stays cheap.
DECLINED = ("refusal", "content_filter")  # Why an answer ended that is none, whatever it says.
PARSER = "first-token logprobs of A and B, else exactly one letter A or B; version 3"
LAST_LINE = "exactly one letter in the last line; version 1"
BEST_PARSER = "first-token logprobs of the letters, else exactly one letter; version 1"
RATING_PARSER = "exactly one whole number on the scale; version 1"
RUBRIC_PARSER = "of each criterion exactly one whole number on the scale; version 1"

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


# One letter: of two responses, or of K.


@dataclass(frozen=True, slots=True)
class Letter:
    """What a reply says of K responses: a number each, higher for the better, or no numbers.

    They are probabilities where `known`; else 1 for the response named and 0 for the others.
    """

    values: tuple[float, ...] = ()
    known: bool = False
    reason: str = ""


def preference(pair_id: str, reply: Answer | Refused, *, last_line: bool = False) -> Preference:
    """The preference that a reply amounts to, with its words and its seconds."""
    read = letter_of(reply, "AB", last_line=last_line)
    if not read.values:
        result = Preference(pair_id, None, reason=read.reason)
    else:
        share, rest = read.values
        result = Preference(pair_id, better(share, rest))
        if read.known:
            result = replace(result, first_score=share, second_score=1.0 - share)
    words = "" if isinstance(reply, Refused) else reply.text
    return replace(result, answer=words, seconds=reply.seconds)


def letter_of(reply: Answer | Refused, letters: str, *, last_line: bool = False) -> Letter:
    """What a reply says of the responses that these letters name.

    With `last_line` all lines before the last are an explanation, and the first token is its.
    """
    if isinstance(reply, Refused):
        return Letter(reason=reply.reason)
    words, reasoned = _without_reasoning(reply.text)
    said = _last_lines(words, 1)[0] if last_line else words
    letter = parse(said, letters)
    # Of "**B**" or "Answer: B" the first token is no letter: what is likely beside it is not the
    # answer ("A" may be the beginning of "Answer").
    likeliest = max(reply.top, key=lambda one: one[1])[0].strip() if reply.top else ""
    beside = letter is not None and likeliest not in tuple(letters)
    if reply.finish in DECLINED:
        return Letter(reason=_why_none(reply, words))
    if not (reasoned or beside or last_line) and (first := first_token(reply.top, letters)):
        return first
    # A last line that was cut may be the beginning of another.
    if letter is None or (last_line and reply.finish == "length"):
        return Letter(reason=_why_none(reply, words))
    return Letter(tuple(float(one == letter) for one in letters))


def parse(text: str, letters: str = "AB") -> str | None:
    """The letter that an answer consists of, or None."""
    match = LETTER.fullmatch(text) if len(text) <= MAX_CHARACTERS else None
    return match["letter"] if match is not None and match["letter"] in letters else None


def first_token(top: TopTokens, letters: str = "AB") -> Letter | None:
    """The shares of the letters' probabilities by the first token, P(A) / (P(A) + P(B) + ...).

    A letter that is not among the likeliest is no likelier than the least of them, nor than what
    all of them leave: that bound is its probability. Where the bound says nothing (one token
    listed, at 0.4) the likeliest letter is chosen without shares. None where no letter is there.
    """
    listed = {
        letter: value for letter in letters if (value := _log_probability(letter, top)) is not None
    }
    if not listed:
        return None
    most = max(listed.values())
    # The highest log-probability that a token outside the list can have.
    left = 1.0 - math.fsum(math.exp(min(value, 0.0)) for _, value in top)
    least = min(value for _, value in top)
    bound = min(least, math.log(left)) if left > 0 else least
    if len(listed) < len(letters) and bound >= most:
        return Letter(tuple(float(listed.get(letter) == most) for letter in letters))
    weights = [math.exp(listed.get(letter, bound) - most) for letter in letters]
    whole = math.fsum(weights)
    return Letter(tuple(weight / whole for weight in weights), known=True)


def _log_probability(letter: str, top: TopTokens) -> float | None:
    values = [value for token, value in top if token.strip() == letter]
    if not values:
        return None
    most = max(values)
    return most + math.log(sum(math.exp(value - most) for value in values))


# A rating, and a rating by each criterion of a rubric.


def rating_of(reply: Answer | Refused, scale: tuple[int, int], *, last_line: bool = False) -> Score:
    """The rating that a reply amounts to: one whole number on the scale."""
    if isinstance(reply, Refused):
        return Score(None, reply.reason)
    words, _ = _without_reasoning(reply.text)
    said = _last_lines(words, 1)[0] if last_line else words
    value = _whole_number(said, scale)
    # "1" that was cut may be the beginning of "10".
    if value is None or reply.finish in (*DECLINED, "length"):
        return Score(None, _why_none(reply, words))
    return Score(float(value))


def rubric_of(
    reply: Answer | Refused,
    scale: tuple[int, int],
    criteria: Mapping[str, Criterion],
    *,
    last_line: bool = False,
) -> Score:
    """The weighted mean of the ratings by each criterion, and these as the score's attributes.

    Each line says one criterion's name and number, each criterion in one line. A reply that leaves
    one out, says one twice or has a line that is none is unparsed as a whole.
    """
    if isinstance(reply, Refused):
        return Score(None, reply.reason)
    words, _ = _without_reasoning(reply.text)
    found: dict[str, int] = {}
    known = {name.casefold(): name for name in criteria}
    lines = _last_lines(words, len(criteria)) if last_line else words.splitlines()
    for line in lines:
        if not line.strip(f"{MARKS}:"):  # The rule of a table, a fence around the whole.
            continue
        said, _, rest = line.strip(MARKS).replace("|", ":").partition(":")
        name, value = known.get(said.strip(MARKS).casefold()), _whole_number(rest, scale)
        if name is None or value is None or name in found:
            return Score(None, _why_none(reply, words))
        found[name] = value
    if len(found) < len(criteria) or reply.finish in (*DECLINED, "length"):
        return Score(None, _why_none(reply, words))
    # Exactly, so that equal means tie: 0.1 + 0.2 is not 0.3 in floating point.
    weights = {name: Fraction(str(one.weight)) for name, one in criteria.items()}
    mean = sum(weights[name] * value for name, value in found.items()) / sum(weights.values())
    return Score(float(mean), attributes={name: float(found[name]) for name in criteria})


def _whole_number(text: str, scale: tuple[int, int]) -> int | None:
    match = NUMBER.fullmatch(text) if len(text) <= MAX_CHARACTERS else None
    if match is None or (match["of"] and int(match["of"]) != scale[1]):
        return None
    value = int(match["number"])
    return value if scale[0] <= value <= scale[1] else None


# What all answers have in common: reasoning before them, and why there is none.


def _without_reasoning(text: str) -> tuple[str, bool]:
    """The words after the reasoning, and whether there was any.

    Where reasoning stands before the answer the first token is one of it, and the likeliest beside
    that say nothing.
    """
    if block := REASONED.match(text):
        return text[block.end() :], True
    reasons = REASONS.match(text) is not None  # It never came to an end.
    return ("" if reasons else text), reasons


def _last_lines(words: str, count: int) -> list[str]:
    lines = [line for line in words.splitlines() if line.strip()]
    return lines[-count:] or [""]


def _why_none(reply: Answer, words: str) -> str:
    """Why a complete reply is no answer; tables count the reasons."""
    if reply.finish == "refusal":
        return "refused: the model declines to answer"
    if reply.finish == "content_filter":
        return f"{UNPARSED}: content filter"
    if reply.finish == "length":
        if not words.strip():
            return f"{UNPARSED}: no token was left for the answer; raise reasoning_tokens"
        return f"{UNPARSED}: the answer is cut; raise max_tokens"
    return UNPARSED if words.strip() else f"{UNPARSED}: empty"
