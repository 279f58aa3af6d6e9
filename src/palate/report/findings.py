"""One conclusion in words, with its evidence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from palate.report import escape
from palate.stats import Estimate

NAME = "\0"  # Begins a name among words; names have no control characters (`escape.name`).

Kind = Literal["shown", "open", "caution"]
Words = tuple[str, ...]
"""A sentence in pieces; every second one is a name."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One conclusion and its evidence: a paired difference where it is one of two judges.

    `benchmark` is the name of the test set it holds for, as it is shown; empty for all.
    """

    kind: Kind
    words: Words
    benchmark: str = ""
    difference: Estimate | None = None
    p_value: float | None = None

    @property
    def sentence(self) -> str:
        """The sentence as plain text."""
        said = "".join(self.words)
        return f"On {self.benchmark}, {said}" if self.benchmark else said


def clause(start: str, names: Sequence[str]) -> list[str]:
    """`start` and the names in words; nothing where there are none."""
    words = [start] if names else []
    for number, name in enumerate(names):
        left = len(names) - number - 1
        words += [NAME + escape.name(name), "" if left == 0 else " and " if left == 1 else ", "]
    return words


def joined(clauses: Sequence[Sequence[str]]) -> list[str]:
    """Clauses that are there, with `and` between them."""
    found = [words for words in clauses if words]
    return [word for i, words in enumerate(found) for word in ([" and "] if i else []) + [*words]]


def merged(words: Sequence[str]) -> Iterator[str]:
    """Plain text and names in turn: `clause` puts names between marks that are taken away."""
    plain = ""
    for word in words:
        if word.startswith(NAME):
            yield plain
            yield word.removeprefix(NAME)
            plain = ""
        else:
            plain += word
    yield plain
