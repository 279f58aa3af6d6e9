"""What a benchmark of the field is: where its items are, and how it scores a judge's answers.

From top to bottom: `Answers`, which a score is made of; `Part`, a figure that the benchmark states;
the rules that several benchmarks share; `NamedBenchmark`, and `read`, which reads its items.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from palate.data.messages import shown
from palate.data.sources.base import BadRow, InvalidRecord, Record, Records, Request
from palate.data.sources.files import (
    ending,
    find_files,
    is_hub_id,
    read_file,
    resolve,
    stem,
    stream,
    those_of,
)
from palate.stats import Term
from palate.types import BenchmarkItem, Comparison, PalateError

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Flags = NDArray[np.bool_]
Row = Comparison | BenchmarkItem | BadRow


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What one judge said of N items with M responses in all, labels put back.

    `starts` [N + 1] say where the responses of each item begin in `scores` and `places` [M]; scores
    are NaN where there is none. Of a pair the chosen response comes first. `by_order` [N, 2] are
    the judge's choices, 1 right, 0 wrong, 0.5 a tie, NaN unscored, in the seeded order and in its
    reverse, all NaN where it was not asked in that; `values` [N] those of both orders together.
    `votes` [N, 3] are people's for the first response, a tie and the second. `sources` are the
    parts of the benchmark, `clusters` number the prompts.
    """

    ids: NDArray[Any]
    sources: NDArray[Any]
    clusters: Codes
    values: Floats
    by_order: Floats
    starts: Codes
    scores: Floats
    places: Codes
    votes: Floats

    @property
    def size(self) -> int:
        """N."""
        return self.values.size

    @property
    def counts(self) -> Codes:
        """K of each item, [N]."""
        return np.diff(self.starts)

    @property
    def scored(self) -> bool:
        """Whether the judge gives scores, and not choices alone."""
        return not bool(np.isnan(self.scores).all())

    @property
    def both(self) -> bool:
        """Whether it was asked in both orders of the sides."""
        return not bool(np.isnan(self.by_order[:, 1]).all())

    def within(self, *names: str) -> Flags:
        """Which items are of a part of one of these names, or of one below it: `math/...`, [N]."""
        known = {
            source: any(source == name or source.startswith(f"{name}/") for name in names)
            for source in set(self.sources.tolist())
        }
        return np.array([known[source] for source in self.sources.tolist()], dtype=np.bool_)

    def parts(self) -> list[str]:
        """The names of the parts that there are, in order of appearance."""
        return list(dict.fromkeys(self.sources.tolist()))

    def per_item(self, values: NDArray[Any]) -> NDArray[Any]:
        """The sum of values of responses [M] over each item, [N]."""
        sums: NDArray[Any] = np.add.reduceat(values, self.starts[:-1])
        return sums

    def table(self, count: int) -> Floats:
        """The scores of items that all have `count` responses, [N, count]."""
        return self.scores.reshape(-1, count)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One figure that a benchmark states: a sum of means over the items, see `stats.composite`."""

    name: str
    terms: tuple[Term, ...]

    @property
    def chance(self) -> float:
        """What it is expected to be where scores are random."""
        return math.fsum(term.weight * term.chance for term in self.terms)


def mean_of(
    name: str, values: Floats, rows: Flags, chance: float | Floats, amounts: Floats | None = None
) -> Part:
    """The mean of some items' values, and of their chances."""
    if isinstance(chance, np.ndarray):
        weights = None if amounts is None else amounts[rows]
        chance = float(np.average(chance[rows], weights=weights)) if rows.any() else math.nan
    return Part(name, (Term(1.0, np.where(rows, values, np.nan), chance, amounts),))


def sum_of(name: str, parts: Iterable[tuple[float, Part]]) -> Part:
    """The weighted sum of parts."""
    return Part(
        name,
        tuple(
            Term(weight * term.weight, term.values, term.chance, term.amounts)
            for weight, part in parts
            for term in part.terms
        ),
    )


def average_of(name: str, parts: Sequence[Part]) -> Part:
    """The mean of parts, each of which counts the same."""
    return sum_of(name, [(1 / len(parts), part) for part in parts])


# Rules that several benchmarks share. What has no score is wrong in all of them, as in the code of
# the benchmarks, in which a comparison with NaN is false.


def best_of_k(answers: Answers) -> Floats:
    """The share of right responses among those with the highest score of their item, [N].

    RewardBench 2's: one over the number of responses at the top, if the right one is among them.
    """
    # NaN passes through a maximum, and nothing equals it.
    top = np.maximum.reduceat(answers.scores, answers.starts[:-1])
    at_top = answers.scores == np.repeat(top, answers.counts)
    right = answers.per_item(at_top & (answers.places == 0))
    return np.asarray(right / np.maximum(answers.per_item(at_top.astype(np.int64)), 1))


def strictly_best(answers: Answers) -> Floats:
    """1 where the lowest score of a right response is above every other's, else 0, [N]."""
    right = answers.places == 0
    lowest = np.minimum.reduceat(np.where(right, answers.scores, np.inf), answers.starts[:-1])
    highest = np.maximum.reduceat(np.where(right, -np.inf, answers.scores), answers.starts[:-1])
    return (lowest > highest).astype(np.float64)


def chance_of_best(answers: Answers) -> Floats:
    """The share of right responses of each item, [N]: `best_of_k` of random scores."""
    return np.asarray(answers.per_item(answers.places == 0) / answers.counts)


def strictly_preferred(answers: Answers) -> Floats:
    """1 where the judge prefers the chosen response of a pair, 0 for a tie and for no answer, [N].

    The rule for scores; of both orders together their mean.
    """
    return (np.nan_to_num(answers.values, nan=0.0) > 0.5).astype(np.float64)


# Reading the items of a benchmark.

SizeRule = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class NamedBenchmark:
    """A benchmark of the field: how its items are read and how it scores them.

    `rows` makes items of one record; `together` of all of them, where an item is in several.
    `hub_ids` are read in turn, each in its `splits`; of local folders the files that match one of
    `patterns`. `sizes` are the items of each part as published, so that what is missing is seen;
    `rule` says in a sentence how the score is made; `parts` makes it, the first is the score.
    `rated` are the sources whose responses are rated one by one, also by a judge that would rather
    name the best.
    """

    name: str
    title: str
    licence: str
    url: str
    rule: str
    kind: Literal["pairs", "items"]
    parts: Callable[[Answers], list[Part]]
    tried_on: str
    rows: Callable[[Record], Iterator[Comparison | BenchmarkItem]] | None = None
    together: Callable[[Records], Iterator[Row]] | None = None
    hub_ids: tuple[str, ...] = ()
    splits: tuple[str, ...] = ("test",)
    subsets: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    folder: str | None = None
    rated: tuple[str, ...] = ()
    sizes: SizeRule = field(default_factory=dict[str, int])
    notes: str = ""


def read(
    benchmark: NamedBenchmark, request: Request, *, partial: bool = False
) -> Iterator[Comparison | BenchmarkItem]:
    """The items of a benchmark, all of them or none.

    Args:
        benchmark: which.
        request: where, and which `subset` (a configuration, such as a language) and `split`.
        partial: take what is there, though parts have fewer items than were published.

    Raises:
        PalateError: nothing there, a row that cannot be read, an item twice, a part that is not
            whole; one line that names the place.
    """
    seen: dict[str, str] = {}
    found: Counter[str] = Counter()
    files: dict[str, str] = {}
    for row in _items(benchmark, _named(_records(benchmark, request), files)):
        if isinstance(row, BadRow):
            if row.kind == "left out":
                continue
            cure = "fetch it again" if benchmark.url else "mend the row"
            raise PalateError(f"{benchmark.name}: {row}; a benchmark is scored whole: {cure}")
        where = f"{files[row.meta['file']]}:{row.meta['row']}"
        if first := seen.get(row.id):
            raise PalateError(
                f"{benchmark.name}: {where}: item {row.id} stands in {first} too; remove one, or "
                "give each an id of its own"
            )
        seen[row.id] = where
        found[row.source] += 1
        yield row
    if not found:
        raise PalateError(f"{benchmark.name}: no items at {_where(benchmark, request)}")
    for part, size in benchmark.sizes.items():
        if not partial and found[part] and found[part] != size:
            raise PalateError(
                f"{benchmark.name}: {part} has {found[part]:,} of {size:,} items: cut or another "
                "version; fetch it again, or say `partial` to judge what is there"
            )


def _named(records: Records, files: dict[str, str]) -> Records:
    """The records; `files` gets the file of each part, as the user knows it."""
    for record in records:
        if isinstance(record, Record):
            files[record.part] = record.file
        yield record


def _items(benchmark: NamedBenchmark, records: Records) -> Iterator[Row]:
    if benchmark.together is not None:
        yield from benchmark.together(records)
        return
    assert benchmark.rows is not None
    for record in records:
        if isinstance(record, BadRow):
            yield record
            continue
        try:
            for row in benchmark.rows(record):
                # One that was published so is scored by its rule all the same; an audit counts it.
                if isinstance(row, BenchmarkItem) and not benchmark.url:
                    _refuse_contradiction(row)
                yield row
        except InvalidRecord as invalid:
            yield record.bad(invalid)
        except PalateError as error:  # An item whose truth contradicts itself.
            yield record.bad(InvalidRecord(str(error)))


def _refuse_contradiction(item: BenchmarkItem) -> None:
    """Raise `InvalidRecord` where one and the same response stands at two places."""
    places: dict[tuple[Any, str], int] = {}
    for turns, text, place in zip(item.conversations(), item.responses, item.places, strict=True):
        first = places.setdefault((turns, text), place)
        if first != place:
            ends = f"at places {first} and {place}" if max(item.places) > 1 else "right and wrong"
            raise InvalidRecord(
                f"responses: expected each text at one place, got {shown(text)} both {ends}; "
                "remove one of the two"
            )


def _records(benchmark: NamedBenchmark, request: Request) -> Records:
    if request.location is None:
        locations: Sequence[str | Path] = benchmark.hub_ids
        if not locations:
            where = f"its folder, {benchmark.name}=FOLDER, from {benchmark.url}"
            if not benchmark.url:
                where = f"your file, {benchmark.name}=FILE"
            raise PalateError(f"{benchmark.name}: is on no hub; give {where}")
    elif isinstance(request.location, str) and not Path(request.location).expanduser().exists():
        if not is_hub_id(request.location):
            raise PalateError(f"{benchmark.name}: {request.location}: no such file or folder")
        locations = [request.location]
    else:
        locations = [resolve(request, None)]
    for location in locations:
        if isinstance(location, str):
            for subset in [request.subset] if request.subset else benchmark.subsets or (None,):
                for split in [request.split] if request.split else benchmark.splits:
                    yield from stream(location, split=split, name=subset)
            continue
        for path in own_files(benchmark, location, request):
            above = path.relative_to(location).parent.parts if location.is_dir() else ()
            yield from read_file(path, "/".join((*above, stem(path))))


def own_files(benchmark: NamedBenchmark, location: Path, request: Request) -> list[Path]:
    """The benchmark's own files in a folder, which may be a clone of its repository."""
    if location.is_file():
        return [location]
    files = [path for path in location.rglob("*") if path.is_file() and ending(path)]
    for pattern in benchmark.patterns:
        own = [path for path in files if fnmatch(str(path.relative_to(location)), pattern)]
        if own:
            return those_of(sorted(own), location, request.split, request.subset)
    if benchmark.patterns and files:
        raise PalateError(
            f"{benchmark.name}: {location}: expected {' or '.join(benchmark.patterns)}, found "
            f"{', '.join(sorted(str(path.relative_to(location)) for path in files)[:4])}"
        )
    return find_files(location, request.split, request.subset)


def _where(benchmark: NamedBenchmark, request: Request) -> str:
    return str(request.location or ", ".join(benchmark.hub_ids))
