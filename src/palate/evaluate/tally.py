"""Verdicts of one judge on one benchmark as columns, one row an item."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate import stats
from palate.records import VERDICT_SCHEMA, read_columns, read_header, verdict_to_row
from palate.stats import TIE_VALUE
from palate.types import Bin, Outcome, PalateError, Rating, Verdict, digest

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Flags = NDArray[np.bool_]

VALUES = {
    Outcome.CORRECT.value: 1.0,
    Outcome.WRONG.value: 0.0,
    Outcome.TIE.value: TIE_VALUE,
    Outcome.UNSCORED.value: np.nan,
}
BINS = tuple(Bin)
COLUMNS = [name for name in VERDICT_SCHEMA.names if name not in ("answer", "seconds")]
_RATINGS = {rating.label: int(rating) for rating in Rating} | {None: 0}
_BINS: dict[str | None, int] = {bin.value: code for code, bin in enumerate(BINS)} | {None: -1}


@dataclass(frozen=True, slots=True)
class Terms:
    """How a benchmark was put to a judge; "" is not known.

    `data` is the fingerprint of the benchmark's comparisons, `order` whether each item was shown
    in one seeded order (`seeded`) or in both.
    """

    order: str
    data: str = ""
    seed: str = ""
    tie_rule: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Orders:
    """What a judge said in each order of the sides; every array but the last is [N, 2].

    Column 0 is the seeded order, column 1 its reverse: NaN (or False) where it was not asked.
    `values` and scores are as in `Tally`. `chosen_first` [N] is whether the chosen response
    stood first in the seeded order.
    """

    values: Floats
    chosen_scores: Floats
    rejected_scores: Floats
    truncated: Flags
    chosen_first: Flags

    @property
    def leans(self) -> Floats:
        """How far the judge leans to the chosen response: 2 P(chosen) - 1; NaN without scores.

        Two scores that add up to 1 are the shares of the two sides. Others are logits:
        P = sigmoid(chosen - rejected), so that the lean is tanh of half the difference.
        """
        with np.errstate(over="ignore"):  # An infinite difference leans all the way.
            difference = self.chosen_scores - self.rejected_scores
            shares = np.abs(self.chosen_scores + self.rejected_scores - 1) < 1e-6
        return np.where(shares, difference, np.tanh(difference / 2))

    def read_both(self) -> Floats:
        """The value of each item over both orders, [N].

        Where both have scores, P(chosen) is averaged: above one half is correct, below wrong,
        exactly one half a tie. Otherwise the mean of the values that are scored.
        """
        lean = self.leans.sum(axis=1)
        decided = np.where(lean == 0, TIE_VALUE, (lean > 0).astype(np.float64))
        known = ~np.isnan(lean) & ~np.isnan(self.values).any(axis=1)
        return np.where(known, decided, _mean_of_scored(self.values))


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """What one judge made of one benchmark; every array is [N], one entry an item.

    `values` is 1 correct, 0 wrong, 0.5 tie, NaN unscored. An item judged in both orders is one
    entry (`Orders.read_both`; its scores are means); `orders` keeps what was said in each.
    `clusters` numbers prompts, `ratings` is 0 where there is none, `bins` indexes `BINS` and is
    -1 where there is none. `items` is a digest of the items' ids: two judges with unequal digests
    were not asked the same questions.
    """

    judge: str
    benchmark: str
    protocol: str
    terms: Terms
    items: str
    ids: NDArray[Any]
    values: Floats
    clusters: Codes
    ratings: Codes
    bins: Codes
    reasons: NDArray[Any]
    truncated: Flags
    chosen_scores: Floats
    rejected_scores: Floats
    orders: Orders

    @property
    def fingerprint(self) -> str:
        """Protocol and items in one digest: what a figure made of this tally depends on."""
        return digest(self.judge, self.benchmark, self.protocol, self.items)

    @property
    def both(self) -> bool:
        """Whether this reads both orders of the sides."""
        return self.terms.order == "both"

    def one_order(self) -> Tally:
        """The same judge as if it had been asked in the seeded order alone."""
        if not self.both:
            return self
        return replace(
            self,
            protocol=digest(self.protocol, "seeded order"),
            terms=replace(self.terms, order="seeded"),
            values=self.orders.values[:, 0],
            truncated=self.orders.truncated[:, 0],
            chosen_scores=self.orders.chosen_scores[:, 0],
            rejected_scores=self.orders.rejected_scores[:, 0],
        )


def tally(verdicts: Iterable[Verdict], protocol: Mapping[str, Any] | None = None) -> Tally:
    """Tally verdicts of one judge on one benchmark, asked under `protocol` where it is known.

    An item asked twice in the same order counts once, the first time it was asked; its first
    verdict of all stands for the seeded order.

    Raises:
        PalateError: no verdicts, or more than one judge, benchmark or protocol among them.
    """
    rows = [verdict_to_row(verdict) for verdict in verdicts]
    columns = {name: [row[name] for row in rows] for name in COLUMNS}
    return _tally(columns, protocol or {}, "verdicts")


def read_tally(path: Path) -> Tally:
    """Tally a verdict file; the same as `tally(read_verdicts(path))` and several times as fast."""
    columns = read_columns(path, COLUMNS, "verdicts")
    return _tally(columns, read_header(path).details.get("protocol") or {}, str(path))


def items_digest(ids: Iterable[str]) -> str:
    """The digest of a set of comparison ids, whatever their order."""
    return digest(sorted(set(ids)))


def _tally(columns: Mapping[str, list[Any]], said: Mapping[str, Any], where: str) -> Tally:
    judge, benchmark, protocol = (
        _only(columns[name], name, where) for name in ("judge", "benchmark", "protocol")
    )
    item = stats.cluster_codes(columns["comparison_id"])
    asked = _first_of_each(item * 2 + np.array(columns["chosen_first"], dtype=np.int64))
    first = asked[_first_of_each(item[asked])]
    orders = _orders(columns, item, asked, first)
    both = asked.size > first.size
    ids = _objects(columns["comparison_id"])[first]
    return Tally(
        judge=judge,
        benchmark=benchmark,
        protocol=protocol,
        terms=_terms("both" if both else "seeded", said),
        items=items_digest(ids),
        ids=ids,
        values=orders.read_both() if both else orders.values[:, 0],
        clusters=stats.cluster_codes(columns["cluster"])[first],
        ratings=np.array([_RATINGS[r] for r in columns["rating"]], dtype=np.int64)[first],
        bins=np.array([_BINS[b] for b in columns["bin"]], dtype=np.int64)[first],
        reasons=_objects(columns["reason"])[first],
        truncated=np.logical_or(*orders.truncated.T),
        chosen_scores=_mean_of_scored(orders.chosen_scores),
        rejected_scores=_mean_of_scored(orders.rejected_scores),
        orders=orders,
    )


def _terms(order: str, protocol: Mapping[str, Any]) -> Terms:
    data, seed, tie_rule = (protocol.get(key) for key in ("benchmark", "seed", "tie_rule"))
    return Terms(order, *("" if value is None else str(value) for value in (data, seed, tie_rule)))


def _orders(columns: Mapping[str, list[Any]], item: Codes, asked: Codes, first: Codes) -> Orders:
    """Rows [M] laid out by item and order [N, 2]; `asked` are the rows that count."""
    place = item[asked], (~np.isin(asked, first)).astype(np.int64)

    def laid(column: NDArray[Any], empty: float | bool) -> NDArray[Any]:
        table = np.full((first.size, 2), empty, dtype=column.dtype)
        table[place] = column[asked]
        return table

    return Orders(
        values=laid(np.array([VALUES[o] for o in columns["outcome"]]), np.nan),
        chosen_scores=laid(_floats(columns["chosen_score"]), np.nan),
        rejected_scores=laid(_floats(columns["rejected_score"]), np.nan),
        truncated=laid(np.array(columns["truncated"], dtype=np.bool_), False),
        chosen_first=np.array(columns["chosen_first"], dtype=np.bool_)[first],
    )


def _only(values: Sequence[str], name: str, where: str) -> str:
    found = sorted(set(values))
    if len(found) != 1:
        shown = ", ".join(repr(value) for value in found[:3]) or "none"
        raise PalateError(
            f"{where}: expected verdicts of one {name}, got {len(found)} ({shown}); "
            "remake the file with `palate evaluate`"
        )
    return found[0]


def _first_of_each(codes: Codes) -> Codes:
    """Where each code appears first, in order of appearance."""
    return np.sort(np.unique(codes, return_index=True)[1])


def _mean_of_scored(table: Floats) -> Floats:
    """The mean of each row [N, 2] over what is not NaN; NaN where nothing is."""
    scored = ~np.isnan(table)
    count = scored.sum(axis=1)
    total = np.where(scored, table, 0.0).sum(axis=1)
    return np.divide(total, count, out=np.full(len(table), np.nan), where=count > 0)


def _objects(values: list[Any]) -> NDArray[Any]:
    return np.array(values, dtype=object)


def _floats(values: list[float | None]) -> Floats:
    return np.array(values, dtype=np.float64)
