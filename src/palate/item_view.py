"""One item as a page shows it: the prompt, its responses, what each judge made of them.

The report's failures page and the explorer build their views of an item here. They differ in how
much of a text they show and in how their templates write hidden characters (`palate.escape`).

Responses are compared word by word with difflib's SequenceMatcher (Ratcliff and Obershelp), and
what one of them has alone is marked. It is quadratic in the worst case: 1,500 words a side take
0.1 s at most, and longer responses are not compared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

from markupsafe import Markup

from palate.types import UNLABELLED, BenchmarkItem, Comparison, Message, in_words

MAX_WORDS = 1_500
MIN_SHARED_WORDS = 3  # A shorter run is chance: "of the", "it is".
MIN_SHARED_SHARE = 0.25  # Below it nearly everything differs, and to say so is to mark nothing.
_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


Label = Literal["chosen", "rejected", ""]
LABELS: tuple[Label, Label] = ("chosen", "rejected")


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a response; `only` where the other response does not have it."""

    text: str
    only: bool


Pieces = tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn of the prompt, maybe cut; `characters` counts all of it."""

    role: str
    text: str
    characters: int

    @property
    def left_out(self) -> int:
        """How many characters are not shown."""
        return self.characters - len(self.text)


@dataclass(frozen=True, slots=True)
class Side:
    """A response, maybe cut; `characters` counts all of it.

    `label` is empty where it is hidden, and where people tied or said nothing.
    """

    title: str
    label: Label
    pieces: Pieces
    characters: int
    safe: bool | None

    @property
    def left_out(self) -> int:
        """How many characters are not shown."""
        return self.characters - sum(len(piece.text) for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class ItemView:
    """A prompt of which `earlier` turns come before those shown at first, and both responses.

    `compared` says that what differs is marked; otherwise each response is one piece.
    """

    turns: tuple[Turn, ...]
    earlier: int
    sides: tuple[Side, Side]
    compared: bool


@dataclass(frozen=True, slots=True)
class ItemVerdict:
    """What one judge made of an item, in one order of the sides.

    `preferred` is its answer where people tied: `chosen` the first response, `rejected` the second.
    """

    judge: str
    outcome: str
    chosen_score: float | None
    rejected_score: float | None
    chosen_first: bool = True
    reason: str = ""
    truncated: bool = False
    answer: str = ""
    preferred: str | None = None

    @property
    def margin(self) -> float | None:
        """Chosen minus rejected score."""
        if self.chosen_score is None or self.rejected_score is None:
            return None
        return self.chosen_score - self.rejected_score


def item_view(
    comparison: Comparison,
    *,
    last_turns: int,
    turn_characters: int | None = None,
    response_characters: int | None = None,
    compare_whole: bool = True,
) -> ItemView:
    """The view of a comparison, its texts cut at so many characters; None shows all of them.

    `compare_whole` compares responses before they are cut, and a cut one is then not marked.
    Otherwise what is shown is compared: a page of some hundred items is made in bounded time.
    """
    texts = (in_words(comparison.chosen), in_words(comparison.rejected))
    shown = tuple(text[:response_characters] for text in texts)
    compared = differences(*(texts if compare_whole else shown))
    pieces: list[Pieces] = [(Piece(text, only=False),) for text in shown]
    if compared is not None:
        pieces = [
            marked if sum(len(piece.text) for piece in marked) == len(text) else unmarked
            for marked, unmarked, text in zip(compared, pieces, shown, strict=True)
        ]
    turns = turn_views(comparison.prompt, turn_characters)
    chosen, rejected = (len(text) for text in texts)
    titles, labels = ("Chosen", "Rejected"), LABELS
    if comparison.judgement.decides == "tie":
        titles, labels = ("First, a tie", "Second, a tie"), ("", "")
    if comparison.judgement == UNLABELLED:
        titles = ("First", "Second")
    return ItemView(
        turns=turns,
        earlier=max(0, len(turns) - last_turns),
        sides=(
            Side(titles[0], labels[0], pieces[0], chosen, comparison.chosen_safe),
            Side(titles[1], labels[1], pieces[1], rejected, comparison.rejected_safe),
        ),
        compared=compared is not None,
    )


class ScoreCell(NamedTuple):
    """What a judge scored of a response; `top` where no other response has more."""

    score: float | None
    top: bool


@dataclass(frozen=True, slots=True)
class ResponseView:
    """One of K responses, by its `number` on the page: the turns of its own, its text, its scores.

    `side` has the word for its place in the truth as its title; `label` names it (a model).
    """

    number: int
    side: Side
    label: str
    turns: tuple[Turn, ...]
    scores: tuple[ScoreCell, ...]


@dataclass(frozen=True, slots=True)
class ChoiceView:
    """An item of K: the prompt, of which `earlier` turns are not open, and its responses.

    `scores` of a response are in the order of `judges`.
    """

    turns: tuple[Turn, ...]
    earlier: int
    responses: tuple[ResponseView, ...]
    judges: tuple[str, ...]
    compared: bool = False


def choice_view(
    item: BenchmarkItem,
    scores: Mapping[str, Sequence[float | None]],
    *,
    last_turns: int,
    turn_characters: int | None = None,
    response_characters: int | None = None,
    blind: Sequence[int] | None = None,
) -> ChoiceView:
    """The view of an item of K in its own order, its texts cut as in `item_view`.

    `scores` are by judge those of all responses. Where `blind` is given it is the order in which
    they stand, and neither truth, labels nor scores are in the view.
    """
    judges = () if blind is not None else tuple(scores)
    tops = {
        judge: max((score for score in scores[judge] if score is not None), default=None)
        for judge in judges
    }
    hidden = blind is not None or item.undecided
    titles = ["" for _ in item.places] if hidden else _places_in_words(item)
    responses = []
    for shown, number in enumerate(range(len(item.responses)) if blind is None else blind, 1):
        text, title = in_words(item.responses[number]), titles[number]
        label = LABELS[item.places[number] != 0]
        pieces = (Piece(text[:response_characters], only=False),)
        cells = tuple(
            ScoreCell(score, score is not None and score == tops[judge])
            for judge in judges
            for score in (scores[judge][number],)
        )
        responses.append(
            ResponseView(
                shown,
                Side(title, label if title else "", pieces, len(text), None),
                "" if blind is not None or not item.labels else item.labels[number],
                turn_views(item.turns[number], turn_characters) if item.turns else (),
                cells,
            )
        )
    turns = turn_views(item.prompt, turn_characters)
    return ChoiceView(turns, max(0, len(turns) - last_turns), tuple(responses), judges)


def _places_in_words(item: BenchmarkItem) -> list[str]:
    """Right and wrong; of a ranking the place of each."""
    if max(item.places) == 1:
        return ["Right" if place == 0 else "Wrong" for place in item.places]
    return ["Best" if place == 0 else f"Place {place + 1}" for place in item.places]


def turn_views(turns: Iterable[Message], characters: int | None = None) -> tuple[Turn, ...]:
    """Turns as a page shows them, cut at so many characters; None shows all of them."""
    said = ((turn.role, in_words(turn.content)) for turn in turns)
    return tuple(Turn(role, text[:characters], len(text)) for role, text in said)


def differences(first: str, second: str) -> tuple[Pieces, Pieces] | None:
    """Both texts in pieces that are shared or not; None where too little is shared to say."""
    words = [list(_WORD.finditer(text)) for text in (first, second)]
    counts = [len(matches) for matches in words]
    if min(counts) == 0 or max(counts) > MAX_WORDS:
        return None
    one, two = ([word[0] for word in matches] for matches in words)
    matcher = SequenceMatcher(None, one, two, autojunk=False)
    shared = [block for block in matcher.get_matching_blocks() if block.size >= MIN_SHARED_WORDS]
    if sum(block.size for block in shared) < MIN_SHARED_SHARE * max(counts):
        return None
    return (
        _pieces(first, words[0], [(block.a, block.a + block.size) for block in shared]),
        _pieces(second, words[1], [(block.b, block.b + block.size) for block in shared]),
    )


def _pieces(text: str, words: Sequence[re.Match[str]], shared: Iterable[tuple[int, int]]) -> Pieces:
    """The text in shared runs of words and what is between them, whose white space is shared."""
    spans = [(words[first].start(), words[after - 1].end()) for first, after in shared]
    pieces, end = list[Piece](), 0
    for start, stop in (*spans, (len(text), len(text))):
        between = text[end:start]
        own = between.strip()
        at = len(between) - len(between.lstrip())
        pieces += [
            Piece(between[:at], only=False),
            Piece(own, only=True),
            Piece(between[at + len(own) :], only=False),
            Piece(text[start:stop], only=False),
        ]
        end = stop
    return tuple(piece for piece in pieces if piece.text)


def marked_html(pieces: Pieces, text: Callable[[str], str] = str) -> Markup:
    """A response as HTML, its own stretches in `<mark>`; `text` shows hidden characters.

    What `text` returns is escaped unless it is Markup.
    """
    return Markup("").join(
        Markup("<mark>{}</mark>").format(text(piece.text)) if piece.only else text(piece.text)
        for piece in pieces
    )


def decimal(value: float | None, digits: int = 2, sign: str = "") -> str:
    """A score with so many decimals and a true minus; "" where there is none."""
    if value is None or value != value:
        return ""
    rounded = round(value, digits) + 0.0  # No zero below zero.
    return f"{rounded:{sign}.{digits}f}".replace("-", "\u2212")
