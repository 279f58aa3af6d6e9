"""Judges that read nothing: the floor that every table shows under a model's figure.

Each answers pairs, and scores the responses of an item of K.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from palate.types import Candidates, Pair, Preference, Score, digest, in_words


@dataclass(frozen=True, slots=True)
class RandomChoice:
    """Chooses by a coin that is a hash of (seed, pair), so the order of asking changes nothing."""

    seed: int = 0

    @property
    def name(self) -> str:
        return "random"

    @property
    def protocol(self) -> Mapping[str, Any]:
        return {"judge": "random", "seed": self.seed}

    def judge(self, pairs: Sequence[Pair]) -> Iterator[Preference]:
        for pair in pairs:
            # The first text is part of the hash so that the two orders of a pair are two throws.
            heads = int(digest("coin", self.seed, pair.id, pair.first)[-1], 16) % 2
            yield Preference(pair.id, "second" if heads else "first")

    def score(self, candidates: Iterable[Candidates]) -> Iterator[tuple[Score, ...]]:
        for shown in candidates:
            turns = [[turn.role, turn.content] for turn in shown.prompt]
            yield tuple(
                # 48 bits: two responses that are not equal have hardly ever equal scores.
                Score(int(digest("score", self.seed, turns, text, place)[:12], 16) / 16**12)
                for place, text in enumerate(shown.responses)
            )


@dataclass(frozen=True, slots=True)
class LengthChoice:
    """Chooses by the number of characters; equal numbers are a tie."""

    longer: bool = True

    @property
    def name(self) -> str:
        return "longer" if self.longer else "shorter"

    @property
    def protocol(self) -> Mapping[str, Any]:
        return {"judge": self.name, "length": "characters", "equal": "tie"}

    def judge(self, pairs: Sequence[Pair]) -> Iterator[Preference]:
        sign = 1.0 if self.longer else -1.0
        for pair in pairs:
            first, second = (sign * len(in_words(one)) for one in (pair.first, pair.second))
            yield Preference(pair.id, better(first, second), first, second)

    def score(self, candidates: Iterable[Candidates]) -> Iterator[tuple[Score, ...]]:
        sign = 1.0 if self.longer else -1.0
        for shown in candidates:
            yield tuple(Score(sign * len(in_words(text))) for text in shown.responses)


@dataclass(frozen=True, slots=True)
class FirstPosition:
    """Always chooses the first response: what position bias alone is worth."""

    @property
    def name(self) -> str:
        return "first"

    @property
    def protocol(self) -> Mapping[str, Any]:
        return {"judge": "first"}

    def judge(self, pairs: Sequence[Pair]) -> Iterator[Preference]:
        for pair in pairs:
            yield Preference(pair.id, "first")

    def score(self, candidates: Iterable[Candidates]) -> Iterator[tuple[Score, ...]]:
        for shown in candidates:
            yield tuple(Score(-float(place)) for place in range(len(shown.responses)))


def better(first: float, second: float) -> Literal["first", "second", "tie"]:
    """The side with the higher score; only exactly equal scores tie (pitfall 25)."""
    if first == second:
        return "tie"
    return "first" if first > second else "second"


TRIVIAL: Mapping[str, Callable[[], RandomChoice | LengthChoice | FirstPosition]] = {
    "random": RandomChoice,
    "longer": LengthChoice,
    "shorter": lambda: LengthChoice(longer=False),
    "first": FirstPosition,
}
