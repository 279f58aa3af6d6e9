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
from palate.data.messages import as_chat
from palate.evaluate.metrics import JudgeResults, compare, values_of
from palate.evaluate.results import Flags, on_equal_terms
from palate.records import read_header
from palate.stats import TIE_VALUE, Estimate, PairedDifference
from palate.types import (
    Bin,
    Comparison,
    Message,
    PalateError,
    Rating,
    digest,
    in_words,
    is_text,
)

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
    second_values = values_of(second, first.ids)  # [N], in the order of the first.

    def part(by: str, level: str, rows: Flags, difference: PairedDifference) -> Part:
        theirs = stats.accuracy(
            second_values[rows], first.clusters[rows], fingerprint=second.fingerprint
        )
        return Part(by, level, first.accuracy(rows), theirs, difference)

    # Every part of every way to split. Ratings and bins come in the order of the tables, the
    # strongest first, other parts in that of their names.
    by_id = {comparison.id: facts(comparison) for comparison in comparisons}
    of_items = [by_id.get(name, {}) for name in first.ids]
    parts = []
    for by in dict.fromkeys(key for item in of_items for key in item):
        levels = np.array([item.get(by, "") for item in of_items])
        if np.all(levels == levels[0]):
            continue  # All items together: the same as the whole.
        ordered = sorted(
            {*levels.tolist()} - {""}, key=lambda level: (_ORDER.get(level, len(_ORDER)), level)
        )
        for level in ordered:
            rows = levels == level
            difference = stats.paired_difference(
                first.values[rows],
                second_values[rows],
                first.clusters[rows],
                rng,
                fingerprint=digest(first.fingerprint, second.fingerprint),
            )
            parts.append(part(by, level, rows, difference))
    family = stats.holm_family([part.difference for part in parts])
    split = [replace(part, difference=one) for part, one in zip(parts, family, strict=True)]
    whole = part("all", "all items", np.ones(first.ids.size, dtype=np.bool_), overall)

    sides = (map(preferred, values) for values in (first.values, second_values))
    flips = [
        Flip(str(name), one, two)
        for name, one, two in zip(first.ids, *sides, strict=True)
        if one != two
    ]
    return Compared(first.benchmark, first.judge, second.judge, (whole, *split), tuple(flips))


def preferred(value: float) -> Preferred:
    """The side that a result's value of an item stands for: 1 the chosen one, 0 the rejected."""
    if np.isnan(value):
        return "unscored"
    if value == TIE_VALUE:
        return "tie"
    return "chosen" if value > TIE_VALUE else "rejected"


_ORDER = {name: i for i, name in enumerate([*(r.label for r in reversed(Rating)), *Bin])}


def facts(comparison: Comparison) -> Facts:
    """The part that a comparison falls in, by each way to split that applies to it."""
    turns, (first, second, third) = len(comparison.prompt), TURNS
    chosen, rejected = (len(in_words(c)) for c in (comparison.chosen, comparison.rejected))
    # The longer response: whether a judge of length would be right.
    longer = "chosen is longer" if chosen > rejected else "rejected is longer"
    levels = {
        "rating": comparison.rating.label if comparison.rating else "",
        "safety bin": comparison.bin.value if comparison.bin else "",
        "source": comparison.source,
        "turns of the prompt": (
            "1" if turns <= first else
            f"{first + 1} to {second}" if turns <= second else
            f"{second + 1} to {third}" if turns <= third else f"more than {third}"
        ),
        "length": "as long" if chosen == rejected else longer,
    }  # fmt: skip
    return {by: level for by, level in levels.items() if level}


def flipped_rows(compared: Compared, comparisons: Iterable[Comparison]) -> Iterator[dict[str, Any]]:
    """The flipped items with their texts, as rows of a JSON Lines file."""
    flips = {flip.id: flip for flip in compared.flips}
    for comparison in comparisons:
        if flip := flips.get(comparison.id):
            yield {
                "id": flip.id,
                f"preferred_by_{compared.first}": flip.first,
                f"preferred_by_{compared.second}": flip.second,
                **_texts(comparison),
                **facts(comparison),
            }


def _texts(comparison: Comparison) -> dict[str, Any]:
    """Prompt and responses as `palate data import` reads them, tools beside them."""
    sides = {"chosen": comparison.chosen, "rejected": comparison.rejected}
    chats = {name: as_chat([Message("assistant", text)]) for name, text in sides.items()}
    prompt = as_chat(comparison.prompt)
    return {
        "prompt": prompt.pop("messages"),
        **prompt,
        **{n: t if is_text((), t) else chats[n]["messages"] for n, t in sides.items()},
    }


def verdict_files(run: Path, judges: Sequence[str], benchmark: str | None) -> list[Path]:
    """The verdict files of `judges` in a run, in their order, all on one benchmark.

    Raises:
        PalateError: there are none; says which judges and benchmarks there are.
    """
    files: dict[tuple[str, str], Path] = {}
    for path in sorted((run / "verdicts").glob("*.parquet")):
        details = read_header(path, "verdicts").details
        files[str(details.get("judge")), str(details.get("benchmark"))] = path
    if not files:
        raise PalateError(f"{run}: holds no verdicts; make them with `palate evaluate`")
    benchmarks = sorted({name for judge, name in files if judge in judges})
    chosen = benchmark or (benchmarks[0] if len(benchmarks) == 1 else None)
    for judge in judges:
        if (judge, chosen) not in files:
            known = ", ".join(f"{j!r} on {b!r}" for j, b in files)
            raise PalateError(
                f"{run}: no verdicts of {judge!r} on {chosen!r}; "
                f"choose A, B and --benchmark of: {known}"
            )
    return [files[judge, str(chosen)] for judge in judges]
