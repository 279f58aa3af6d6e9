"""A benchmark: comparisons to judge, with labels hidden and sides in a seeded order."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar, get_args

from palate.data.benchmarks import BENCHMARKS, NAMED
from palate.data.prompts import prompt_key
from palate.records import (
    Header,
    read_batches,
    read_benchmark_items,
    read_comparisons,
    read_header,
)
from palate.types import (
    SELECTION,
    BenchmarkItem,
    Candidates,
    Comparison,
    Judge,
    Pair,
    PalateError,
    digest,
)

Order = Literal["seeded", "both"]
OrderPlan = Literal["auto", "seeded", "both"]
Row = TypeVar("Row", Comparison, BenchmarkItem)


@dataclass(frozen=True, slots=True)
class Item:
    """A comparison, the pair that hides its label, and which side the chosen response is on."""

    comparison: Comparison
    pair: Pair
    chosen_first: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """An item of K responses, and the order in which a judge is shown them.

    `shown` [K] are the numbers of the responses in that order. `rated` as in `Candidates`.
    """

    id: str
    item: BenchmarkItem
    shown: tuple[int, ...]
    rated: bool = False

    def candidates(self) -> Iterator[Candidates]:
        """What a scorer sees: all responses to one prompt, or each with the turns of its own."""
        return candidates_of(self.item, self.shown, rated=self.rated)


def candidates_of(
    row: Comparison | BenchmarkItem, shown: Sequence[int] | None = None, *, rated: bool = False
) -> Iterator[Candidates]:
    """The responses of a row for a scorer, each once: all to one prompt, or each with turns of its
    own before it. `shown` are the numbers of an item's responses in the order wanted; `rated` as in
    `Candidates`."""
    if isinstance(row, Comparison):
        yield Candidates(row.prompt, (row.chosen, row.rejected))
        return
    numbers = range(len(row.responses)) if shown is None else shown
    if not row.turns:
        yield Candidates(row.prompt, tuple(row.responses[n] for n in numbers), rated)
        return
    turns = row.conversations()
    for number in numbers:
        yield Candidates(turns[number], (row.responses[number],), rated=True)


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A named file of comparisons, or of items of K responses.

    `paper_column` names the column of the paper's Table 7 that holds the same benchmark, or is
    None where the paper has no figure for it.
    """

    name: str
    path: Path
    paper_column: str | None = None

    @property
    def header(self) -> Header:
        """The file's header; raises `PalateError` where it is not whole."""
        header = read_header(self.path)
        if header.kind not in ("comparisons", "items"):
            raise PalateError(f"{self.path}: holds {header.kind}, expected comparisons or items")
        return header

    @property
    def of_items(self) -> bool:
        """Whether it holds items of K responses, and not comparisons."""
        return self.header.kind == "items"

    @property
    def fingerprint(self) -> str:
        """Digest of the ordered comparisons, from the file's header."""
        return self.header.fingerprint

    @property
    def named(self) -> Mapping[str, str]:
        """The benchmark of the field that the file holds, as its header says; or nothing."""
        return {key: value for key, value in self.header.details.items() if key == NAMED}

    @property
    def rows(self) -> int:
        """How many comparisons there are; raises `PalateError` where there is none."""
        rows = self.header.rows
        if not rows:
            raise PalateError(
                f"benchmark {self.name}: {self.path} holds no comparisons; "
                "import its source again or leave it out"
            )
        return rows

    def items(self, seed: int = 0, order: Order = "seeded") -> Iterator[Item]:
        """Each comparison once, or in both orders one after the other; in bounded memory.

        Raises:
            PalateError: the same comparison id stands twice, so verdicts could not be told apart.
        """
        for comparison in map(majority_first, self._each_once(read_comparisons(self.path))):
            chosen_first = seeded_side(seed, comparison.id)
            yield hide(comparison, seed, chosen_first)
            if order == "both":
                yield hide(comparison, seed, not chosen_first)

    def choices(self, seed: int = 0) -> Iterator[Choice]:
        """Each item of K once, its responses in a seeded order; in bounded memory.

        Raises as `items` does.
        """
        named = BENCHMARKS.get(self.named.get(NAMED, ""))
        rated = named.rated if named else ()
        for item in self._each_once(read_benchmark_items(self.path)):
            places = ((digest("place", seed, item.id, n), n) for n in range(len(item.responses)))
            shown = tuple(number for _, number in sorted(places))
            by_itself = bool(item.pairs) or item.source in rated
            yield Choice(digest("choice", seed, item.id), item, shown, by_itself)

    def _each_once(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows of the file; raises where an id stands in two of them."""
        seen: dict[str, int] = {}
        for number, row in enumerate(rows, 1):
            first = seen.setdefault(row.id, number)
            if first != number:
                raise PalateError(
                    f"{self.path}: rows {first:,} and {number:,} have one id, {row.id}; lint the "
                    "source and import it again"
                )
            yield row

    def pairs(self, seed: int = 0, order: Order = "seeded") -> Iterator[Pair]:
        """What a judge sees."""
        return (item.pair for item in self.items(seed, order))


def majority_first(comparison: Comparison) -> Comparison:
    """The comparison with the response that most annotators preferred as the chosen one."""
    if comparison.judgement.decides != "rejected":
        return comparison
    judgement, ranks = comparison.judgement, comparison.ranks
    return replace(
        comparison,
        chosen=comparison.rejected,
        rejected=comparison.chosen,
        chosen_safe=comparison.rejected_safe,
        rejected_safe=comparison.chosen_safe,
        chosen_attributes=comparison.rejected_attributes,
        rejected_attributes=comparison.chosen_attributes,
        judgement=replace(judgement, chosen=judgement.rejected, rejected=judgement.chosen),
        # A ranking and its votes that contradict each other leave no places.
        ranks=None if ranks is None or ranks.chosen != ranks.rejected else ranks,
    )


def order_for(judge: Judge, plan: OrderPlan) -> Order:
    """The order of sides in which a judge is asked.

    `auto` is both orders for a judge that reads both responses at once, as its `sees_both` says,
    and one seeded order for any other: it answers the same in either (pitfall 26).

    Raises:
        PalateError: there is no such plan.
    """
    if plan not in get_args(OrderPlan):
        raise PalateError(f"order: expected auto, seeded or both, got {plan!r}")
    if plan == "auto":
        return "both" if getattr(judge, "sees_both", False) else "seeded"
    return plan


def selection_probabilities(path: Path) -> dict[str, float]:
    """The probability with which each comparison of a file was chosen to be labelled, by its id.

    Empty where one of them does not say: what all of them stand for is then not known.
    """
    if read_header(path).kind != "comparisons":
        return {}
    chances: dict[str, float] = {}
    for batch in read_batches(path, ["id", "meta"], "comparisons"):
        for row in batch.to_pylist():
            if f'"{SELECTION}"' not in (row["meta"] or ""):
                return {}
            chosen = json.loads(row["meta"]).get(SELECTION)
            if not isinstance(chosen, dict) or not 0 < chosen.get("probability", 0) <= 1:
                return {}
            chances[row["id"]] = chosen["probability"]
    return chances


def seeded_side(seed: int, comparison_id: str) -> bool:
    """Whether the chosen response stands first: a hash, so other rows change nothing."""
    return int(digest("side", seed, comparison_id)[-1], 16) % 2 == 0


def hide(comparison: Comparison, seed: int, chosen_first: bool) -> Item:
    """The item that shows a comparison with its chosen response first, or second.

    The pair's id is a digest: a comparison's own id may be made of (chosen, rejected) in that
    order, from which a judge could tell the two.
    """
    chosen, rejected = comparison.chosen, comparison.rejected
    first, second = (chosen, rejected) if chosen_first else (rejected, chosen)
    pair_id = digest("pair", seed, comparison.id, chosen_first)
    return Item(comparison, Pair(pair_id, comparison.prompt, first, second), chosen_first)


def rows_of(path: Path) -> Iterator[Comparison | BenchmarkItem]:
    """The rows of a benchmark's file in order: comparisons, or items of K responses."""
    if read_header(path).kind == "items":
        return read_benchmark_items(path)
    return read_comparisons(path)


def forbid_training_overlap(
    benchmark: Benchmark,
    *,
    ids: AbstractSet[str] = frozenset(),
    prompts: AbstractSet[int] = frozenset(),
) -> None:
    """Refuse a benchmark whose comparisons or prompts were trained on (pitfall 22).

    `ids` are comparison ids of the training set, `prompts` its `palate.data.prompts.prompt_key`s.

    Raises:
        PalateError: names how many comparisons and prompts are shared.
    """
    shared_ids, shared_prompts, total = 0, 0, 0
    for row in rows_of(benchmark.path):
        total += 1
        shared_ids += row.id in ids
        shared_prompts += prompt_key(row.prompt) in prompts
    if shared_ids or shared_prompts:
        kind = benchmark.header.kind
        raise PalateError(
            f"benchmark {benchmark.name}: of {total} {kind} {shared_ids} were trained on and "
            f"{shared_prompts} have a prompt that was trained on; exclude the overlap from the "
            "mixture and train again"
        )


def training_keys(path: Path) -> tuple[set[str], set[int]]:
    """Ids and prompt keys of a training file, for `forbid_training_overlap`."""
    ids: set[str] = set()
    prompts: set[int] = set()
    for comparison in read_comparisons(path):
        ids.add(comparison.id)
        prompts.add(prompt_key(comparison.prompt))
    return ids, prompts
