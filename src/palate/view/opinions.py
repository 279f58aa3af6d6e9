"""What the judges of a run made of its items: verdict files as columns, one entry an item."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
from numpy.typing import NDArray

from palate.judges.baselines import TRIVIAL
from palate.records import Header, read_header
from palate.types import PalateError

Floats = NDArray[np.float32]

NOT_ASKED, CORRECT, WRONG, TIE, UNSCORED = range(5)
OUTCOMES = ("not asked", "correct", "wrong", "tie", "unscored")

_SAID = """
WITH said AS (
  SELECT comparison_id, list_position($1, filename)::SMALLINT - 1 AS file,
    (chosen_score - rejected_score)::FLOAT AS margin,
    CASE WHEN abs(chosen_score + rejected_score - 1) < 1e-6 THEN chosen_score - rejected_score
      ELSE tanh((chosen_score - rejected_score) / 2) END AS lean,
    CASE outcome WHEN 'correct' THEN 1.0::FLOAT WHEN 'wrong' THEN 0.0::FLOAT
      WHEN 'tie' THEN 0.5::FLOAT END AS value
  FROM read_parquet($1, filename = true)
)
"""
_ONE_ORDER = f"""{_SAID}
SELECT file, item, margin, coalesce(value, -1)::FLOAT AS value
FROM said JOIN items ON id = comparison_id WHERE part = $2
"""
# As `evaluate.tally` reads them: where both orders have scores P(chosen) is averaged, otherwise
# the values of those that were scored. Grouping takes three times as long as all the rest.
_BOTH_ORDERS = f"""{_SAID}
SELECT file, item, avg(margin)::FLOAT AS margin,
  coalesce(CASE WHEN count(*) > 1 AND count(lean) = count(*) AND count(value) = count(*)
    THEN (sign(sum(lean)) + 1) / 2 ELSE avg(value) END, -1)::FLOAT AS value
FROM said JOIN items ON id = comparison_id WHERE part = $2 GROUP BY file, item
"""


@dataclass(frozen=True, slots=True)
class VerdictFile:
    """A judge's verdicts on one benchmark, in `both` orders or one; `trivial` ones read none."""

    judge: str
    benchmark: str
    path: Path
    trivial: bool
    both: bool


@dataclass(frozen=True, slots=True, eq=False)
class Opinions:
    """What one judge made of every item, [N]: outcome codes, and chosen minus rejected score."""

    judge: str
    trivial: bool
    outcomes: NDArray[np.int8]
    margins: Floats

    @property
    def scored(self) -> bool:
        """Whether this judge gives scores at all."""
        return not bool(np.isnan(self.margins).all())

    def reach(self) -> float:
        """A margin that few exceed: what fills the bar of one."""
        sizes = np.abs(self.margins[~np.isnan(self.margins)])
        return float(np.quantile(sizes, 0.98)) if sizes.size else 0.0


def verdict_files(
    folder: Path, benchmarks: Container[str], problems: list[str]
) -> list[VerdictFile]:
    """The verdicts on benchmarks that are here, trivial judges last; why others are left out.

    Of any format: no figure is made of them.
    """
    found: dict[tuple[str, str], VerdictFile] = {}
    for path in sorted((folder / "verdicts").glob("*.parquet")):
        try:
            file = _verdict_file(path, read_header(path, "verdicts", older=True))
        except PalateError as error:
            problems.append(str(error))
            continue
        key = (file.judge, file.benchmark)
        if file.benchmark not in benchmarks:
            problems.append(f"{path}: no comparisons of {file.benchmark!r} under benchmarks/")
        elif key in found:
            problems.append(f"{path}: {file.judge!r} on {file.benchmark!r} is in another file too")
        else:
            found[key] = file
    return sorted(found.values(), key=lambda f: (f.trivial, f.judge, f.benchmark))


def _verdict_file(path: Path, header: Header) -> VerdictFile:
    details = header.details
    protocol = details.get("protocol") or {}
    said = protocol.get("judge")
    kind = said.get("judge") if isinstance(said, Mapping) else said
    judge = str(details.get("judge", ""))
    trivial = kind in TRIVIAL or (not kind and judge in TRIVIAL)
    both = protocol.get("order") == "both"
    return VerdictFile(judge, str(details.get("benchmark", "")), path, trivial, both)


def read_opinions(
    database: duckdb.DuckDBPyConnection,
    benchmarks: Mapping[str, int],
    size: int,
    files: Sequence[VerdictFile],
    problems: list[str],
) -> dict[str, Opinions]:
    """What every judge made of each of `size` items; `benchmarks` gives the number of the part."""
    made = {file.judge: _unasked(file, size) for file in files}
    for benchmark, part in benchmarks.items():
        asked = [file for file in files if file.benchmark == benchmark]
        both = [file for file in asked if file.both]
        once = [file for file in asked if not file.both]
        problems += _read(database, _ONE_ORDER, part, once, made)
        problems += _read(database, _BOTH_ORDERS, part, both, made)
    return {judge: opinions for judge, opinions in made.items() if opinions.outcomes.any()}


def _read(
    database: duckdb.DuckDBPyConnection,
    query: str,
    part: int,
    files: Sequence[VerdictFile],
    into: Mapping[str, Opinions],
) -> list[str]:
    """Read verdicts on one benchmark, all files at once; returns why a file could not be read."""
    if not files:
        return []
    try:
        read = database.execute(query, [[str(f.path) for f in files], part]).fetchnumpy()
    except duckdb.Error as error:
        if len(files) == 1:
            return [one_line(files[0].path, error)]
        return [why for file in files for why in _read(database, query, part, [file], into)]
    outcomes, margins = _outcome(np.asarray(read["value"])), np.ma.filled(read["margin"], np.nan)
    for number, file in enumerate(files):
        rows = read["file"] == number
        into[file.judge].outcomes[read["item"][rows]] = outcomes[rows]
        into[file.judge].margins[read["item"][rows]] = margins[rows]
    return []


def _unasked(file: VerdictFile, size: int) -> Opinions:
    empty = np.full(size, np.nan, dtype=np.float32)
    return Opinions(file.judge, file.trivial, np.zeros(size, dtype=np.int8), empty)


def _outcome(values: Floats) -> NDArray[np.int8]:
    """Codes of values: 1 correct, 0 wrong, 0.5 tie, -1 unscored; a mean goes to its nearer side."""
    cases = [values < 0, values > 0.5, values < 0.5]
    return np.select(cases, [UNSCORED, CORRECT, WRONG], TIE).astype(np.int8)


def one_line(path: Path, error: Exception) -> str:
    """What is wrong with a file, and which file it is."""
    text = str(error).splitlines()[0]
    return text if str(path) in text else f"{path}: {text}"
