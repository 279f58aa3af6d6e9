"""Where two responses differ, word by word."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher

# SequenceMatcher is quadratic in the worst case: 1,500 words a side take 0.1 s at most.
MAX_WORDS = 1_500
MIN_SHARED_WORDS = 3  # A shorter run is chance: "of the", "it is".
MIN_SHARED_SHARE = 0.25  # Below it nearly everything differs, and to say so is to mark nothing.
_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a response; `only` where the other response does not have it."""

    text: str
    only: bool


Pieces = tuple[Piece, ...]


def differences(first: str, second: str) -> tuple[Pieces, Pieces] | None:
    """Both texts in pieces that are shared or not; None where too little is shared to say."""
    words = [list(_WORD.finditer(text)) for text in (first, second)]
    counts = [len(found) for found in words]
    if min(counts) == 0 or max(counts) > MAX_WORDS:
        return None
    one, two = ([word[0] for word in found] for found in words)
    matcher = SequenceMatcher(None, one, two, autojunk=False)
    shared = [block for block in matcher.get_matching_blocks() if block.size >= MIN_SHARED_WORDS]
    if sum(block.size for block in shared) < MIN_SHARED_SHARE * max(counts):
        return None
    runs = [[(b.a, b.a + b.size) for b in shared], [(b.b, b.b + b.size) for b in shared]]
    return _cut(first, words[0], runs[0]), _cut(second, words[1], runs[1])


def _cut(text: str, words: list[re.Match[str]], shared: list[tuple[int, int]]) -> Pieces:
    """The text in shared stretches and what is between them; white space is everybody's."""
    pieces, end = list[Piece](), 0
    for first, after in shared:
        start, stop = words[first].start(), words[after - 1].end()
        pieces += [*_own(text[end:start]), Piece(text[start:stop], only=False)]
        end = stop
    pieces += _own(text[end:])
    return tuple(piece for piece in pieces if piece.text)


def _own(text: str) -> list[Piece]:
    inner = text.strip()
    if not inner:
        return [Piece(text, only=False)]
    before, _, after = text.partition(inner)
    return [Piece(before, only=False), Piece(inner, only=True), Piece(after, only=False)]
