"""Verdicts of one judge on one benchmark as columns, one row an item."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from palate import stats
from palate.records import VERDICT_SCHEMA, read_header, verdict_to_row
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
_RATINGS = {rating.label: int(rating) for rating in Rating} | {None: 0}
_BINS: dict[str | None, int] = {bin.value: code for code, bin in enumerate(BINS)} | {None: -1}


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """What one judge made of one benchmark; every array is [N], one entry an item.

    `values` is 1 correct, 0 wrong, 0.5 tie, NaN unscored. An item judged in both orders is one
    entry: the mean over its scored orders. `clusters` numbers prompts, `ratings` is 0 where
    there is none, `bins` indexes `BINS` and is -1 where there is none. `items` is a digest of
    the items' ids: two judges with unequal digests were not asked the same questions.
    """

    judge: str
    benchmark: str
    protocol: str
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

    @property
    def fingerprint(self) -> str:
        """Protocol and items in one digest: what a figure made of this tally depends on."""
        return digest(self.judge, self.benchmark, self.protocol, self.items)


def tally(verdicts: Iterable[Verdict]) -> Tally:
    """Tally verdicts of one judge on one benchmark.

    An item asked twice in the same order counts once, the first time it was asked.

    Raises:
        PalateError: no verdicts, or more than one judge, benchmark or protocol among them.
    """
    rows = [verdict_to_row(verdict) for verdict in verdicts]
    return _tally({name: [row[name] for row in rows] for name in VERDICT_SCHEMA.names}, "verdicts")


def read_tally(path: Path) -> Tally:
    """Tally a verdict file; the same as `tally(read_verdicts(path))` and several times as fast."""
    read_header(path, "verdicts")
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise PalateError(f"{path}: not a whole Parquet file ({reason}); remake it") from None
    return _tally({name: table[name].to_pylist() for name in VERDICT_SCHEMA.names}, str(path))


def items_digest(ids: Iterable[str]) -> str:
    """The digest of a set of comparison ids, whatever their order."""
    return digest(sorted(set(ids)))


def _tally(columns: Mapping[str, list[Any]], where: str) -> Tally:
    judge, benchmark, protocol = (
        _only(columns[name], name, where) for name in ("judge", "benchmark", "protocol")
    )
    item = stats.cluster_codes(columns["comparison_id"])
    asked = _first_of_each(item * 2 + np.array(columns["chosen_first"], dtype=np.int64))
    item, values = item[asked], np.array([VALUES[o] for o in columns["outcome"]])[asked]
    first = asked[_first_of_each(item)]
    ids = _objects(columns["comparison_id"])[first]
    return Tally(
        judge=judge,
        benchmark=benchmark,
        protocol=protocol,
        items=items_digest(ids),
        ids=ids,
        values=_mean_of_scored(item, values),
        clusters=stats.cluster_codes(columns["cluster"])[first],
        ratings=np.array([_RATINGS[r] for r in columns["rating"]], dtype=np.int64)[first],
        bins=np.array([_BINS[b] for b in columns["bin"]], dtype=np.int64)[first],
        reasons=_objects(columns["reason"])[first],
        truncated=np.bincount(item, np.array(columns["truncated"], dtype=float)[asked]) > 0,
        chosen_scores=_floats(columns["chosen_score"])[first],
        rejected_scores=_floats(columns["rejected_score"])[first],
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


def _mean_of_scored(item: Codes, values: Floats) -> Floats:
    scored = ~np.isnan(values)
    count = np.bincount(item, scored)
    total = np.bincount(item, np.where(scored, values, 0.0))
    return np.divide(total, count, out=np.full(count.size, np.nan), where=count > 0)


def _objects(values: list[Any]) -> NDArray[Any]:
    return np.array(values, dtype=object)


def _floats(values: list[float | None]) -> Floats:
    return np.array(values, dtype=np.float64)
