"""The failures that a page shows: a bounded choice of wrong verdicts and of disagreements."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from palate.evaluate.metrics import Result, Tally
from palate.evaluate.results import Codes, Floats
from palate.records import COMPARISON_SCHEMA, comparison_from_row, read_batches
from palate.report.items import Items
from palate.report.page.clusters import clusters
from palate.report.read import Judged
from palate.stats import TIE_VALUE
from palate.types import Comparison

MOST = 320
ABOUT = 400
SURE, APART = "sure and wrong", "judges disagree"
EACH_PART = 2  # Of every rating and bin, so that each cell of Tables 8 and 29 has items behind it.


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one judge made of an item; `standing` is correct, wrong, tie or unscored."""

    judge: str
    standing: str
    chosen: float | None
    rejected: float | None

    @property
    def gap(self) -> float | None:
        """By how much the chosen response is ahead."""
        known = self.chosen is not None and self.rejected is not None
        return self.chosen - self.rejected if known else None  # type: ignore[operator]


@dataclass(frozen=True, slots=True)
class Failure:
    """An item that a judge got wrong with confidence, or on which judges disagree.

    `blamed` are the judges for which it was chosen; `cluster` names its like.
    """

    benchmark: str
    comparison: Comparison
    reasons: tuple[str, ...]
    blamed: tuple[str, ...]
    opinions: tuple[Opinion, ...]
    cluster: str = ""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The failures shown, and how many wrong verdicts and disagreements there are in all."""

    failures: tuple[Failure, ...]
    wrong: int
    apart: int


@dataclass(frozen=True, slots=True, eq=False)
class _Sheet:
    """The judges of one benchmark on the same items, in the order of the first; arrays are [N]."""

    benchmark: str
    ids: NDArray[np.object_]
    ratings: Codes
    bins: Codes
    judges: tuple[Result, ...]
    values: tuple[Floats, ...]
    sure: tuple[Floats, ...]
    scores: tuple[tuple[Floats, Floats], ...]


_Pick = tuple[int, str, str, str]
"""(place in the sheet, reason, judge blamed, benchmark), in a list by rank."""


def choose(judged: Judged, items: Mapping[str, Items]) -> Chosen:
    """The surest wrong verdicts of every judge that is not trivial, and the starkest disagreements.

    At most `MOST` items; every judge, benchmark, rating and bin has its own.
    """
    sheets = [s for name in judged.benchmarks() if name in items and (s := _sheet(judged, name))]
    lists = [ranked for sheet in sheets for ranked in _lists(sheet)]
    taken: dict[tuple[str, int], list[_Pick]] = {}
    for pick in _in_turn(lists):
        key = pick[3], pick[0]
        if key in taken or len(taken) < MOST:
            taken.setdefault(key, []).append(pick)
    by_sheet = {sheet.benchmark: sheet for sheet in sheets}
    found = list(_failures(taken, by_sheet, items))
    names = clusters([_about(failure) for failure in found])
    clustered = tuple(replace(f, cluster=name) for f, name in zip(found, names, strict=True))
    wrong = sum(int((v < TIE_VALUE).sum()) for s in sheets for v in s.values)
    apart = sum(
        int(_apart(one, two).sum()) for s in sheets for one, two in combinations(s.values, 2)
    )
    return Chosen(clustered, wrong, apart)


def _sheet(judged: Judged, benchmark: str) -> _Sheet | None:
    found = [
        (result, votes)
        for result in judged.of(benchmark)
        if result.kind != "trivial" and (votes := judged.tallies.get((result.judge, benchmark)))
    ]
    if not found:
        return None
    first = found[0][1]
    alike = [(result, votes) for result, votes in found if votes.items == first.items]
    orders = [_order(first, votes) for _, votes in alike]
    laid = list(zip(alike, orders, strict=True))
    return _Sheet(
        benchmark,
        first.ids,
        first.ratings,
        first.bins,
        tuple(result for result, _ in alike),
        tuple(votes.values[order] for (_, votes), order in laid),
        tuple(_sureness(votes)[order] for (_, votes), order in laid),
        tuple((v.chosen_scores[order], v.rejected_scores[order]) for (_, v), order in laid),
    )


def _order(first: Tally, votes: Tally) -> Codes:
    if np.array_equal(first.ids, votes.ids):
        return np.arange(first.ids.size)
    place = {name: number for number, name in enumerate(votes.ids)}
    return np.array([place[name] for name in first.ids])


def _sureness(votes: Tally) -> Floats:
    """How sure a judge is of each item among its own, 0 to 1: units differ between judges."""
    odds = np.abs(votes.orders.log_odds)
    ranks = np.argsort(np.argsort(np.nan_to_num(odds, nan=-1.0), kind="stable"), kind="stable")
    return np.where(np.isnan(odds), 0.0, (ranks + 1) / max(odds.size, 1))


def _apart(one: Floats, two: Floats) -> NDArray[np.bool_]:
    """Where one judge is right and the other wrong."""
    return (one - TIE_VALUE) * (two - TIE_VALUE) < 0


def _lists(sheet: _Sheet) -> Iterator[list[_Pick]]:
    """Items by rank: for each judge over all items and over each part, for each two judges."""
    parts = [sheet.ratings == r for r in np.unique(sheet.ratings) if r > 0]
    parts += [sheet.bins == b for b in np.unique(sheet.bins) if b >= 0]
    for result, values, sure in zip(sheet.judges, sheet.values, sheet.sure, strict=True):
        wrong = values < TIE_VALUE
        yield _ranked(sheet, wrong, sure, SURE, result.judge)
        for part in parts:
            yield _ranked(sheet, wrong & part, sure, SURE, result.judge)[:EACH_PART]
    for i, j in combinations(range(len(sheet.judges)), 2):
        apart = _apart(sheet.values[i], sheet.values[j])
        both = np.minimum(sheet.sure[i], sheet.sure[j])
        yield _ranked(sheet, apart, both, APART, "")


def _ranked(
    sheet: _Sheet, held: NDArray[np.bool_], sure: Floats, reason: str, judge: str
) -> list[_Pick]:
    places = np.flatnonzero(held)
    best = places[np.argsort(-sure[places], kind="stable")][:MOST]
    return [(int(place), reason, judge, sheet.benchmark) for place in best]


def _in_turn(lists: Sequence[Sequence[_Pick]]) -> Iterator[_Pick]:
    """The first of every list, then the second of every list, and so on."""
    for rank in range(max(map(len, lists), default=0)):
        yield from (ranked[rank] for ranked in lists if rank < len(ranked))


def _failures(
    taken: Mapping[tuple[str, int], Sequence[_Pick]],
    sheets: Mapping[str, _Sheet],
    items: Mapping[str, Items],
) -> Iterator[Failure]:
    """In the order in which they were taken."""
    wanted: dict[str, set[str]] = {}
    for name, place in taken:
        wanted.setdefault(name, set()).add(str(sheets[name].ids[place]))
    texts = {name: _texts(items[name], ids) for name, ids in wanted.items()}
    for (name, place), picks in taken.items():
        sheet = sheets[name]
        comparison = texts[name].get(str(sheet.ids[place]))
        if comparison is not None:
            yield Failure(
                name,
                comparison,
                tuple(dict.fromkeys(reason for _, reason, _, _ in picks)),
                tuple(dict.fromkeys(judge for _, _, judge, _ in picks if judge)),
                tuple(_opinions(sheet, place)),
            )


def _texts(items: Items, ids: Iterable[str]) -> dict[str, Comparison]:
    wanted, found = pa.array(sorted(ids)), {}
    for batch in read_batches(items.path, COMPARISON_SCHEMA.names, "comparisons"):
        for row in batch.filter(pc.is_in(batch.column("id"), wanted)).to_pylist():
            found[row["id"]] = comparison_from_row(row)
    return found


def _opinions(sheet: _Sheet, place: int) -> Iterator[Opinion]:
    for result, values, scores in zip(sheet.judges, sheet.values, sheet.scores, strict=True):
        chosen, rejected = (_known(side[place]) for side in scores)
        yield Opinion(result.judge, standing(float(values[place])), chosen, rejected)


def standing(value: float) -> str:
    """What a tally's value says of a verdict."""
    if np.isnan(value):
        return "unscored"
    return "tie" if value == TIE_VALUE else "correct" if value > TIE_VALUE else "wrong"


def _known(score: float) -> float | None:
    return float(score) if np.isfinite(score) else None


def _about(failure: Failure) -> str:
    """What a failure is about: the questions, and the beginning of the answers."""
    c = failure.comparison
    asked = [turn.content for turn in c.prompt if turn.role == "user"][-2:]
    return " ".join((*asked, c.chosen[:ABOUT], c.rejected[:ABOUT]))
