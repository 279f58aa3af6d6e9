"""The question that a judge which speaks is asked: a reviewed text file with places for the data.

A file is a header of `key: value` lines, a line `---`, and the text of one user message. Its places
say what is asked, each once:

    {conversation} {answer_a} {answer_b}     which of two responses is better: A or B
    {conversation} {answers} {letters}       which of K responses is best: A, B, C, ...
    {conversation} {answer}                  a rating of one response
    {conversation} {answer} {criteria}       a rating of one response by each criterion of a rubric

There is no template language: places are filled in one pass, so nothing in the data is ever read as
a place, let alone run. Of the header three keys are read: `scale: 1 to 10` of a rating; `answer:
last line` where the text asks for an explanation first; `answer_tokens: 1024`, the room for an
answer. Two more are for people: `about` and `reviewed`. There are no others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from palate.judges.options import LETTER_TOKENS, Criterion
from palate.model.markers import BREAK, broken, untokenised_markers
from palate.types import Message, Pair, PalateError, digest, in_words
from palate.validation import did_you_mean

Asks = Literal["pair", "best", "rating", "rubric"]
FOLDER = Path(__file__).with_name("prompts")
PLACES: Mapping[Asks, tuple[str, ...]] = {
    "pair": ("conversation", "answer_a", "answer_b"),
    "best": ("conversation", "answers", "letters"),
    "rating": ("conversation", "answer"),
    "rubric": ("conversation", "answer", "criteria"),
}
PLACE = {asks: re.compile(r"\{(" + "|".join(of) + r")\}") for asks, of in PLACES.items()}
KEYS = ("about", "reviewed", "scale", "answer", "answer_tokens")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # Of the responses, as they are shown.
SCALE = re.compile(r"(\d{1,3}) to (\d{1,3})")
CRITERION_TOKENS = 16  # Room for a criterion's line.
# What delimits data, in any case and spacing; data that spells it out gets a zero-width space.
TAG = re.compile(r"<(?=\s*/?\s*(?:conversation|system|user|assistant|answer_[ab])\b)", re.I)
# The same where turns of tools stand among the data, which had no such turns before.
TOOL_TAG = re.compile(TAG.pattern.replace("system|", "system|tools?|"), re.I)
# The same of the other questions, which have other tags.
ANY_TAG = re.compile(TOOL_TAG.pattern.replace("answer_[ab]", "answer|answer_[a-z]|criteria"), re.I)
LAYOUT = 2  # Raise it when the same file and pair would give another message.


@dataclass(frozen=True, slots=True)
class Prompt:
    """A named question; `fingerprint` changes with what is asked and with the layout of data.

    `scale` are the least and the highest rating, of one response or of each criterion. With
    `explained` the answer stands in the last lines of the reply, and all before them is not read.
    """

    name: str
    text: str
    asks: Asks = "pair"
    scale: tuple[int, int] = (1, 10)
    explained: bool = False
    tokens: int = LETTER_TOKENS
    criteria: Mapping[str, Criterion] = field(default_factory=dict[str, Criterion])

    @property
    def fingerprint(self) -> str:
        if self.asks == "pair" and not self.explained:
            return digest("prompt", LAYOUT, self.text)
        criteria = [[name, one.text, one.weight] for name, one in self.criteria.items()]
        reading = [self.explained, list(self.scale), criteria]
        return digest("prompt", LAYOUT, self.text, self.asks, *reading)

    @property
    def answer_tokens(self) -> int:
        """The room for an answer, where a judge's options do not say."""
        return max(self.tokens, CRITERION_TOKENS * len(self.criteria))

    def by(self, criteria: Mapping[str, Criterion]) -> Prompt:
        """The prompt with a rubric's criteria.

        Raises:
            PalateError: criteria without a place for them, or a place without criteria.
        """
        if self.asks == "rubric" and not criteria:
            raise PalateError(
                f"preset {self.name}: rates by criteria, and none is given; "
                "criteria: {NAME: WHAT IS ASKED}"
            )
        if criteria and self.asks != "rubric":
            raise PalateError(
                f"preset {self.name}: has no place for criteria; set preset to rubric, or put "
                "{criteria} into a file of your own"
            )
        return replace(self, criteria=criteria)

    def ask(self, pair: Pair, markers: Sequence[str] = ()) -> str:
        """The message for one pair; see `message`."""
        return self.message(pair.prompt, (pair.first, pair.second), markers)

    def message(
        self, conversation: Sequence[Message], responses: Sequence[str], markers: Sequence[str] = ()
    ) -> str:
        """The message about these responses, each text between tags that no text can close.

        `markers` are what its reader's tokenizer would read as more than text.
        """
        tag = ANY_TAG
        if self.asks == "pair":
            tools = any(turn.role in ("tool", "tools") for turn in conversation)
            tag = TOOL_TAG if tools else TAG
        inert = partial(_inert, markers=markers, tag=tag)
        turns = [_tagged(turn.role, inert(turn.content)) for turn in conversation]
        values = {"conversation": _tagged("conversation", "\n".join(turns))}
        shown = list(map(inert, responses))
        if self.asks in ("rating", "rubric"):
            (response,) = shown
            values["answer"] = _tagged("answer", response)
            lines = [f"{name}: {one.text}" for name, one in self.criteria.items()]
            values["criteria"] = _tagged("criteria", "\n".join(lines))
        else:
            named = dict(zip(LETTERS, shown, strict=False))
            blocks = [_tagged(f"answer_{letter}", text) for letter, text in named.items()]
            values["answer_a"], values["answer_b"] = blocks[:2]
            values["answers"] = "\n\n".join(blocks)
            values["letters"] = " or ".join(filter(None, (", ".join([*named][:-1]), [*named][-1])))
        return PLACE[self.asks].sub(lambda place: values[place[1]], self.text)


def load_prompt(preset: str) -> Prompt:
    """The prompt of that name under `judges/prompts`, or in a file of the user's own.

    Raises:
        PalateError: no such name or file, no `---` under a header, a place missing or twice, a
            line of the header that says what it cannot, or has another key than `KEYS`.
    """
    built_in = FOLDER / f"{preset}.txt"
    path = built_in if built_in.parent == FOLDER and built_in.is_file() else Path(preset)
    if not path.is_file():
        known = ", ".join(presets())
        raise PalateError(f"preset {preset!r}: expected one of {known}, or a prompt file")
    try:
        head, rule, text = path.read_text(encoding="utf-8-sig").partition("\n---\n")
    except UnicodeDecodeError as error:
        raise PalateError(f"{path}: expected a prompt as UTF-8 text ({error.reason})") from None
    if not rule:
        raise PalateError(f"{path}: expected a header of `key: value` lines, `---`, then the text")
    asks: Asks = "pair"
    if "{answers}" in text:
        asks = "best"
    elif "{answer}" in text:
        asks = "rubric" if "{criteria}" in text else "rating"
    for place in PLACES[asks]:
        if (count := text.count(f"{{{place}}}")) != 1:
            raise PalateError(f"{path}: expected {{{place}}} once, found it {count} times")
    header: dict[str, str] = {}
    for number, line in enumerate(head.splitlines(), 1):
        key, colon, value = (part.strip() for part in line.partition(":"))
        if not line.strip():
            continue
        if not colon:
            raise PalateError(f"{path}:{number}: expected `key: value`, got {line[:80]!r}")
        if key not in KEYS:
            raise PalateError(f"{path}:{number}: no key {key!r}; {did_you_mean(key, KEYS)}")
        if key in header:
            raise PalateError(f"{path}:{number}: {key!r} is given twice; keep one")
        header[key] = value
    scale = SCALE.fullmatch(header.get("scale", "1 to 10"))
    if scale is None or int(scale[1]) >= int(scale[2]):
        raise PalateError(f"{path}: scale: expected such as 1 to 10, got {header['scale']!r}")
    if (reading := header.get("answer", "all")) not in ("all", "last line"):
        raise PalateError(f"{path}: answer: expected all or last line, got {reading!r}")
    tokens = header.get("answer_tokens", str(LETTER_TOKENS))
    if not tokens.isdecimal() or int(tokens) < 1:
        raise PalateError(f"{path}: answer_tokens: expected a number, got {tokens!r}")
    return Prompt(
        path.stem,
        text.strip(),
        asks,
        (int(scale[1]), int(scale[2])),
        reading == "last line",
        int(tokens),
    )


def presets(*asks: Asks) -> list[str]:
    """The names of the prompts that Palate brings; of those that ask one of these, if any."""
    names = sorted(path.stem for path in FOLDER.glob("*.txt"))
    return [name for name in names if not asks or load_prompt(name).asks in asks]


def _tagged(tag: str, text: str) -> str:
    return f"<{tag}>\n{text}\n</{tag}>"


def _inert(text: str, markers: Sequence[str], tag: re.Pattern[str]) -> str:
    """Text that neither closes a tag nor forges a turn, which some servers read in text as well.

    A message's fields are lines of it.
    """
    text = tag.sub(f"<{BREAK}", in_words(text))
    return broken(text, (*markers, *untokenised_markers(text)))
