"""Two judges on the same items: by how much one is better, on which part, and which items flipped.

Parts are read off the comparisons: rating, safety bin, source, turns of the prompt, and which
response is the longer one; off items of K too, how many responses there are and how many of them
are right. They are one family of tests; the overall one stands alone, and so does the score that a
benchmark of the field defines.
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
from palate.evaluate.scores import BenchmarkScore
from palate.evaluate.scores import difference as score_difference
from palate.records import read_header, verdict_paths
from palate.stats import TIE_VALUE, Estimate, PairedDifference
from palate.types import (
    BenchmarkItem,
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
Credit = Literal["right", "wrong", "partly right", "unscored"]
"""What became of an item of K: all, nothing or a share of what there is to be right about."""
Facts = Mapping[str, str]
"""Of one item: the name of each way to split, and the part it falls in."""

CHANCE = "chance"
"""The name under which a judge is compared with what random scores reach."""
SCORE = "its own score"
"""`Part.by` of what a benchmark of the field defines itself."""
TURNS = (1, 3, 5)  # Turns of a prompt, so 1, 2-3, 4-5 and more: a question, and follow-ups to it.
RESPONSES = (1, 2, 3, 4, 8)  # Of an item, so 2, 3, 4, 5-8 and more.


@dataclass(frozen=True, slots=True)
class Part:
    """Both judges on one part of the items; `by` and `level` say which, "all" for all of them.

    p and interval of the `difference` are those of a family of tests (`stats.holm_family`) of all
    parts but the whole and a benchmark's own score, which are families of their own. `chance` is
    what random scores reach there.
    """

    by: str
    level: str
    first: Estimate
    second: Estimate
    difference: PairedDifference
    chance: float = TIE_VALUE

    @property
    def alone(self) -> bool:
        """Whether it is a question asked beforehand, which no family adjusts."""
        return self.by in ("all", SCORE)


@dataclass(frozen=True, slots=True)
class Flip:
    """An item on which the judges do not agree: what each preferred, or of K got right.

    `lead` is the value of the first less that of the second, NaN where one has no score.
    """

    id: str
    first: Preferred | Credit
    second: Preferred | Credit
    lead: float


@dataclass(frozen=True, slots=True)
class Compared:
    """Two judges on one benchmark, of pairs or of items of K (`of_items`).

    `unscored` are the items that the first and the second judge gave no score to.
    """

    benchmark: str
    first: str
    second: str
    parts: tuple[Part, ...]
    flips: tuple[Flip, ...]
    of_items: bool = False
    unscored: tuple[int, int] = (0, 0)

    @property
    def whole(self) -> Part:
        """All items."""
        return self.parts[0]


def compare_judges(
    first: JudgeResults,
    second: JudgeResults,
    comparisons: Iterable[Comparison | BenchmarkItem],
    rng: np.random.Generator,
    scores: tuple[BenchmarkScore, BenchmarkScore] | None = None,
) -> Compared:
    """The paired difference of two judges, first minus second, overall and by part.

    The value of an item of K is `Verdict.value`, a share in [0, 1].

    Args:
        comparisons: those of the benchmark, or its items; give the parts. Empty: no parts but the
            whole.
        rng: draws the sign flips of the permutation tests.
        scores: both judges' by the benchmark's own rule; a part beside the whole.

    Raises:
        PalateError: the judges were not asked the same items, or not alike; or an item is not among
            the comparisons.
    """
    first, second = on_equal_terms(first, second)
    overall = compare(first, second, rng)
    second_values = values_of(second, first.ids)  # [N], in the order of the first.

    def part(by: str, level: str, rows: Flags, difference: PairedDifference) -> Part:
        theirs = stats.accuracy(
            second_values[rows], first.clusters[rows], fingerprint=second.fingerprint
        )
        chance = float(first.chance[rows].mean())
        return Part(by, level, first.accuracy(rows), theirs, difference, chance)

    # Every part of every way to split. Ratings and bins come in the order of the tables, the
    # strongest first, other parts in that of their names.
    by_id = {comparison.id: facts(comparison) for comparison in comparisons}
    known = sum(name in by_id for name in first.ids)
    if by_id and known < first.ids.size:
        raise PalateError(
            f"the comparisons hold {known:,} of the {first.ids.size:,} items that {first.judge!r} "
            f"was asked on {first.benchmark!r}; give the file that was judged"
        )
    of_each = [by_id.get(name, {}) for name in first.ids]
    parts = []
    for by in dict.fromkeys(key for item in of_each for key in item):
        levels = np.array([item.get(by, "") for item in of_each])
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
    before = [part("all", "all items", np.ones(first.ids.size, dtype=np.bool_), overall)]
    if scores is not None:
        before.append(_own_score(*scores, rng))

    said = credit if first.of_items else preferred
    flips = [
        Flip(str(name), said(one), said(two), float(one - two))
        for name, one, two in zip(first.ids, first.values, second_values, strict=True)
        if (one != two if first.of_items else said(one) != said(two))
        and not (np.isnan(one) and np.isnan(two))
    ]
    unscored = tuple(int(np.isnan(values).sum()) for values in (first.values, second_values))
    return Compared(
        first.benchmark, first.judge, second.judge, (*before, *split), tuple(flips),
        first.of_items, (unscored[0], unscored[1]),
    )  # fmt: skip


def _own_score(first: BenchmarkScore, second: BenchmarkScore, rng: np.random.Generator) -> Part:
    """Both judges by the benchmark's own rule, in which an item without a score is wrong."""
    (ours, *_), (theirs, *_) = first.parts, second.parts
    return Part(
        SCORE, ours.name, first.estimate(ours), second.estimate(theirs),
        score_difference(first, second, rng), ours.chance,
    )  # fmt: skip


def by_chance(results: JudgeResults) -> JudgeResults:
    """What random scores reach on each item that a judge was asked, as a judge to compare with.

    One half of a pair; of an item of K the share of its right responses.
    """
    return replace(
        results,
        judge=CHANCE,
        protocol=digest(CHANCE, results.terms.data),
        values=results.chance.copy(),
        judgements=None,
    )


def score_by_chance(score: BenchmarkScore) -> BenchmarkScore:
    """What random scores are expected to reach in every mean of a benchmark's own score."""
    parts = tuple(
        replace(
            part,
            terms=tuple(
                replace(term, values=np.where(np.isnan(term.values), np.nan, term.chance))
                for term in part.terms
            ),
        )
        for part in score.parts
    )
    unscored = np.zeros_like(score.unscored)
    fingerprint = digest(CHANCE, score.named, score.ids.tolist())
    return replace(score, judge=CHANCE, parts=parts, unscored=unscored, fingerprint=fingerprint)


def preferred(value: float) -> Preferred:
    """The side that a result's value of an item stands for: 1 the chosen one, 0 the rejected."""
    if np.isnan(value):
        return "unscored"
    if value == TIE_VALUE:
        return "tie"
    return "chosen" if value > TIE_VALUE else "rejected"


def credit(value: float) -> Credit:
    """What a value of an item of K in [0, 1] stands for; NaN has no score."""
    if np.isnan(value):
        return "unscored"
    if value == 1:
        return "right"
    return "wrong" if value == 0 else "partly right"


_ORDER = {name: i for i, name in enumerate([*(r.label for r in reversed(Rating)), *Bin])}


def facts(comparison: Comparison | BenchmarkItem) -> Facts:
    """The part that a comparison or an item falls in, by each way to split that applies to it."""
    if isinstance(comparison, BenchmarkItem):
        return _item_facts(comparison)
    chosen, rejected = (len(in_words(c)) for c in (comparison.chosen, comparison.rejected))
    # The longer response: whether a judge of length would be right.
    longer = "chosen is longer" if chosen > rejected else "rejected is longer"
    levels = {
        "rating": comparison.rating.label if comparison.rating else "",
        "safety bin": comparison.bin.value if comparison.bin else "",
        "source": comparison.source,
        "turns of the prompt": _up_to(len(comparison.prompt), TURNS),
        "length": "as long" if chosen == rejected else longer,
    }
    return {by: level for by, level in levels.items() if level}


def _item_facts(item: BenchmarkItem) -> Facts:
    lengths = [len(in_words(text)) for text in item.responses]
    longest = {item.places[n] == 0 for n, size in enumerate(lengths) if size == max(lengths)}
    right = item.places.count(0)
    return {
        "source": item.source,
        "number of responses": _up_to(len(item.responses), RESPONSES),
        "right responses": "one" if right == 1 else "several",
        "turns of the prompt": _up_to(len(item.conversations()[0]), TURNS),
        # Whether a judge of length would be right.
        "length": "right and wrong are as long" if len(longest) > 1 else
        "a right one is longest" if True in longest else "a wrong one is longest",
    }  # fmt: skip


def _up_to(count: int, bounds: Sequence[int]) -> str:
    """The range that a count is in: `1`, `2 to 3`, `more than 5`."""
    below = 0
    for bound in bounds:
        if count <= bound:
            return str(bound) if bound <= below + 1 else f"{below + 1} to {bound}"
        below = bound
    return f"more than {below}"


def flipped_rows(
    compared: Compared,
    comparisons: Iterable[Comparison | BenchmarkItem],
    scores: Sequence[Mapping[str, Sequence[float | None]]] = (),
) -> Iterator[dict[str, Any]]:
    """The flipped items with their texts, as rows of a JSON Lines file.

    `scores` of K responses by item, of the first judge and the second, stand beside them.
    """
    flips = {flip.id: flip for flip in compared.flips}
    names = compared.first, compared.second
    for comparison in comparisons:
        if not (flip := flips.get(comparison.id)):
            continue
        said = dict(zip(names, (flip.first, flip.second), strict=True))
        if isinstance(comparison, Comparison):
            answers = {f"preferred_by_{name}": one for name, one in said.items()}
            texts = _texts(comparison)
        else:
            answers = {f"answer_of_{name}": one for name, one in said.items()}
            texts = _item_texts(comparison)
            texts |= {
                f"scores_of_{name}": of[flip.id]
                for name, of in zip(names, scores, strict=False)
                if flip.id in of
            }
        yield {"id": flip.id, **answers, **texts, **facts(comparison)}


def _texts(comparison: Comparison) -> dict[str, Any]:
    """Prompt and responses as `palate data import` reads them, tools beside them."""
    sides = {"chosen": comparison.chosen, "rejected": comparison.rejected}
    return {**_prompt(comparison.prompt), **{n: _answer(text) for n, text in sides.items()}}


def _item_texts(item: BenchmarkItem) -> dict[str, Any]:
    """Prompt, responses and their places, as an item of one's own is written."""
    own = {"turns": [as_chat(turns)["messages"] for turns in item.turns]} if item.turns else {}
    return {
        **_prompt(item.prompt),
        "responses": [_answer(text) for text in item.responses],
        "places": list(item.places),
        **own,
    }


def _prompt(turns: Sequence[Message]) -> dict[str, Any]:
    prompt = as_chat(turns)
    return {"prompt": prompt.pop("messages"), **prompt}


def _answer(text: str) -> Any:
    return text if is_text((), text) else as_chat([Message("assistant", text)])["messages"]


def verdict_files(run: Path, judges: Sequence[str], benchmark: str | None) -> list[Path]:
    """The verdict files of `judges` in a run, in their order, all on one benchmark.

    Raises:
        PalateError: there are none; says which judges and benchmarks there are.
    """
    if not run.is_dir():
        raise PalateError(f"{run}: no such folder of a run")
    files: dict[tuple[str, str], Path] = {}
    for path in verdict_paths(run):
        details = read_header(path, "verdicts").details
        files[str(details.get("judge")), str(details.get("benchmark"))] = path
    if not files:
        runs = sorted(path.parent for path in run.glob("variants/*/*/verdicts"))
        raise PalateError(
            f"{run}: is a study; name one of its runs, such as {runs[0]}"
            if runs
            else f"{run}: holds no verdicts; `palate judge JUDGE FILES --out {run}` makes them, or "
            "`palate run` of a recipe"
        )
    known = ", ".join(f"{j!r} on {b!r}" for j, b in files)
    for judge in judges:
        if not any(judge == one for one, _ in files):
            raise PalateError(f"{run}: no verdicts of {judge!r}; it has {known}")
    if benchmark is None:
        shared = [
            b for b in dict.fromkeys(b for _, b in files) if all((j, b) in files for j in judges)
        ]
        if not shared:
            both = " and ".join(map(repr, judges))
            raise PalateError(f"{run}: {both} have no benchmark in common; it has {known}")
        if len(shared) > 1:
            raise PalateError(f"{run}: expected --benchmark, one of {', '.join(shared)}")
        benchmark = shared[0]
    for judge in judges:
        if (judge, benchmark) not in files:
            raise PalateError(f"{run}: no verdicts of {judge!r} on {benchmark!r}; it has {known}")
    return [files[judge, benchmark] for judge in judges]
