"""Where two responses differ, word by word."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

Piece = tuple[str, bool]
"""A stretch of text, and whether the other response does not have it."""

_WORDS = re.compile(r"\w+|\s+|[^\w\s]")
ALIKE = 0.35  # Below it almost everything would be marked, which says nothing.
MOST_WORDS = 1_200  # Matching takes time by the square.


def differing(first: str, second: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts in pieces, marked where they differ; whole and unmarked where little is alike."""
    one, two = _WORDS.findall(first), _WORDS.findall(second)
    whole = [(first, False)], [(second, False)]
    if max(len(one), len(two)) > MOST_WORDS:
        return whole
    matcher = SequenceMatcher(None, one, two, autojunk=False)
    if matcher.real_quick_ratio() < ALIKE or matcher.quick_ratio() < ALIKE:
        return whole
    blocks = matcher.get_matching_blocks()
    shared = sum(_count(one[b.a : b.a + b.size]) for b in blocks)
    if 2 * shared < ALIKE * (_count(one) + _count(two)):
        return whole
    return (
        list(_pieces(one, [(b.a, b.a + b.size) for b in blocks])),
        list(_pieces(two, [(b.b, b.b + b.size) for b in blocks])),
    )


def _count(words: Sequence[str]) -> int:
    return sum(not word.isspace() for word in words)


def _pieces(words: Sequence[str], shared: Sequence[tuple[int, int]]) -> Iterator[Piece]:
    """The words joined; shared stretches that are nothing but space count with what is around."""
    done = 0
    for start, end in shared:
        if start < end and not "".join(words[start:end]).strip() and done < start:
            continue
        if done < start:
            yield "".join(words[done:start]), True
        if start < end:
            yield "".join(words[start:end]), False
        done = end
