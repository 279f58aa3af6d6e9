"""Two judges on the same items: by how much one is better, on which part, and which items flipped.

Parts are read off the comparisons: rating, safety bin, source, turns of the prompt, and which
response is the longer one. They are one family of tests; the overall one stands alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from palate import stats
from palate.evaluate.metrics import JudgeResults, compare, values_of
from palate.evaluate.results import Flags, Floats, on_equal_terms
from palate.records import read_header
from palate.stats import TIE_VALUE, Estimate, PairedDifference
from palate.types import Bin, Comparison, PalateError, Rating, digest

Preferred = Literal["chosen", "rejected", "tie", "unscored"]
Facts = Mapping[str, str]
"""Of one item: the name of each way to split, and the part it falls in."""

TURNS = (1, 3, 5)  # Turns of a prompt, so 1, 2-3, 4-5 and more: a question, and follow-ups to it.


@dataclass(frozen=True, slots=True)
class Part:
    """Both judges on one part of the items; `by` and `level` say which, "all" for all of them.

    p and interval of the `difference` are those of a family of tests (`stats.holm_family`) of all
    parts but the whole, which is a family of its own.
    """

    by: str
    level: str
    first: Estimate
    second: Estimate
    difference: PairedDifference


@dataclass(frozen=True, slots=True)
class Flip:
    """An item on which the judges do not agree: what each preferred."""

    id: str
    first: Preferred
    second: Preferred


@dataclass(frozen=True, slots=True)
class Compared:
    """Two judges on one benchmark."""

    benchmark: str
    first: str
    second: str
    parts: tuple[Part, ...]
    flips: tuple[Flip, ...]

    @property
    def whole(self) -> Part:
        """All items."""
        return self.parts[0]


def compare_judges(
    first: JudgeResults,
    second: JudgeResults,
    comparisons: Iterable[Comparison],
    rng: np.random.Generator,
) -> Compared:
    """The paired difference of two judges, first minus second, overall and by part.

    Args:
        comparisons: those of the benchmark; give the parts. Empty: no parts but the whole.
        rng: draws the sign flips of the permutation tests.

    Raises:
        PalateError: the judges were not asked the same items, or not alike.
    """
    first, second = on_equal_terms(first, second)
    overall = compare(first, second, rng)
    pair = _Aligned(first, second, values_of(second, first.ids))
    parts = pair.parts(_facts(comparisons), rng)
    family = stats.holm_family([part.difference for part in parts])
    split = [replace(part, difference=one) for part, one in zip(parts, family, strict=True)]
    whole = pair.part("all", "all items", np.ones(first.ids.size, dtype=np.bool_), overall)
    return Compared(
        first.benchmark, first.judge, second.judge, (whole, *split), tuple(pair.flips())
    )


@dataclass(frozen=True, slots=True)
class _Aligned:
    """Two tallies of the same items, and the values [N] of the second in the first's order."""

    first: JudgeResults
    second: JudgeResults
    theirs: Floats

    def parts(self, facts: Mapping[str, Facts], rng: np.random.Generator) -> list[Part]:
        """Every part of every way to split, in the order of the facts.

        A way that leaves all items together says nothing that the whole does not. Ratings and
        bins have the order of the tables, the strongest first, other parts that of their names.
        """
        known = [facts.get(name, {}) for name in self.first.ids]
        found = []
        for by in dict.fromkeys(key for item in known for key in item):
            levels = np.array([item.get(by, "") for item in known])
            if np.all(levels == levels[0]):
                continue
            for level in sorted({*levels.tolist()} - {""}, key=_place):
                held = levels == level
                found.append(self.part(by, level, held, self._difference(held, rng)))
        return found

    def part(self, by: str, level: str, held: Flags, difference: PairedDifference) -> Part:
        """The items that `held` [N] marks."""
        second = stats.accuracy(
            self.theirs[held], self.first.clusters[held], fingerprint=self.second.fingerprint
        )
        return Part(by, level, self.first.accuracy(held), second, difference)

    def _difference(self, held: Flags, rng: np.random.Generator) -> PairedDifference:
        return stats.paired_difference(
            self.first.values[held],
            self.theirs[held],
            self.first.clusters[held],
            rng,
            fingerprint=digest(self.first.fingerprint, self.second.fingerprint),
        )

    def flips(self) -> Iterator[Flip]:
        """Items that the judges answered differently, in the order of the first."""
        values = zip(self.first.values, self.theirs, strict=True)
        for name, (one, two) in zip(self.first.ids, values, strict=True):
            first, second = preferred(one), preferred(two)
            if first != second:
                yield Flip(str(name), first, second)


def preferred(value: float) -> Preferred:
    """What a result's value of an item says: 1 the chosen response, 0 the rejected one."""
    if np.isnan(value):
        return "unscored"
    if value == TIE_VALUE:
        return "tie"
    return "chosen" if value > TIE_VALUE else "rejected"


_ORDER = {name: i for i, name in enumerate([*(r.label for r in reversed(Rating)), *Bin])}


def _place(level: str) -> tuple[int, str]:
    return _ORDER.get(level, len(_ORDER)), level


def _facts(comparisons: Iterable[Comparison]) -> dict[str, Facts]:
    return {comparison.id: facts(comparison) for comparison in comparisons}


def facts(comparison: Comparison) -> Facts:
    """The part that a comparison falls in, by each way to split that applies to it."""
    found = {
        "rating": comparison.rating.label if comparison.rating else "",
        "safety bin": comparison.bin.value if comparison.bin else "",
        "source": comparison.source,
        "turns of the prompt": _turns(len(comparison.prompt)),
        "length": _longer(len(comparison.chosen), len(comparison.rejected)),
    }
    return {by: level for by, level in found.items() if level}


def _turns(count: int) -> str:
    first, second, third = TURNS
    if count <= first:
        return "1"
    if count <= second:
        return f"{first + 1} to {second}"
    return f"{second + 1} to {third}" if count <= third else f"more than {third}"


def _longer(chosen: int, rejected: int) -> str:
    """Which response has more characters: whether a judge of length would be right."""
    if chosen == rejected:
        return "as long"
    return "chosen is longer" if chosen > rejected else "rejected is longer"


def flipped_rows(compared: Compared, comparisons: Iterable[Comparison]) -> Iterator[dict[str, Any]]:
    """The flipped items with their texts, as rows of a JSON Lines file."""
    flips = {flip.id: flip for flip in compared.flips}
    for comparison in comparisons:
        if flip := flips.get(comparison.id):
            yield {
                "id": flip.id,
                f"preferred_by_{compared.first}": flip.first,
                f"preferred_by_{compared.second}": flip.second,
                "prompt": [{"role": m.role, "content": m.content} for m in comparison.prompt],
                "chosen": comparison.chosen,
                "rejected": comparison.rejected,
                **facts(comparison),
            }


def verdict_files(run: Path, judges: Sequence[str], benchmark: str | None) -> list[Path]:
    """The verdict files of `judges` in a run, in their order, all on one benchmark.

    Raises:
        PalateError: there are none; says which judges and benchmarks there are.
    """
    found: dict[tuple[str, str], Path] = {}
    for path in sorted((run / "verdicts").glob("*.parquet")):
        details = read_header(path, "verdicts").details
        found[str(details.get("judge")), str(details.get("benchmark"))] = path
    if not found:
        raise PalateError(f"{run}: holds no verdicts; make them with `palate evaluate`")
    benchmarks = sorted({name for judge, name in found if judge in judges})
    chosen = benchmark or (benchmarks[0] if len(benchmarks) == 1 else None)
    for judge in judges:
        if (judge, chosen) not in found:
            known = ", ".join(f"{j!r} on {b!r}" for j, b in found)
            raise PalateError(
                f"{run}: no verdicts of {judge!r} on {chosen!r}; "
                f"choose A, B and --benchmark of: {known}"
            )
    return [found[judge, str(chosen)] for judge in judges]
