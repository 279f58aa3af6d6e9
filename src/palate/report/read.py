"""What a run left behind: verdict files, computed figures; broken files are named, not fatal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from palate.evaluate.metrics import (
    JudgeResults,
    Kind,
    Result,
    read_judge_results,
    read_results,
    summarise,
)
from palate.evaluate.results import Codes
from palate.evaluate.run import read_skipped
from palate.records import read_columns, read_header
from palate.report import llama2
from palate.types import PalateError

TRIVIAL = {
    "random": "Random",
    "longer": "Longer wins",
    "shorter": "Shorter wins",
    "first": "First position",
}
"""Trivial judges in the order of tables, with the names they have there."""
OURS = "reward-model"

Key = tuple[str, str]
"""(judge, benchmark)."""


@dataclass(frozen=True, slots=True)
class Judged:
    """All verdicts of a run: figures and tallies by (judge, benchmark), and what went wrong.

    `absent` has the reason of each judge that could not be asked, or not on every benchmark.
    """

    results: Mapping[Key, Result]
    tallies: Mapping[Key, JudgeResults]
    problems: tuple[str, ...] = ()
    absent: Mapping[str, str] = field(default_factory=dict[str, str])

    def kinds(self) -> dict[str, Kind]:
        """Every judge with its kind; of one that was never asked no more is known than foreign."""
        unknown: dict[str, Kind] = dict.fromkeys(self.absent, "foreign")
        return unknown | {result.judge: result.kind for result in self.results.values()}

    def judges(self) -> list[str]:
        """Trivial first, then foreign, ours, limits; by name within, trivial in a fixed order."""
        kinds = self.kinds()
        places: dict[Kind, int] = {"trivial": 0, "foreign": 1, "ours": 2, "limit": 3}
        trivial = list(TRIVIAL)
        return sorted(
            kinds,
            key=lambda judge: (
                places[kinds[judge]],
                trivial.index(judge) if judge in trivial else len(trivial),
                judge,
            ),
        )

    def benchmarks(self) -> list[str]:
        """Sets the paper has not by name, then the paper's in the order of its Table 7."""
        columns = {r.benchmark: llama2.column(r.paper_column) for r in self.results.values()}
        place = {c: i + 1 for i, c in enumerate(llama2.COLUMNS)}
        order = {b: place[c] if c else 0 for b, c in columns.items()}
        return sorted(order, key=lambda b: (order[b], b))

    def of(self, benchmark: str) -> list[Result]:
        """The results on one benchmark in the order of judges."""
        found = (self.results.get((judge, benchmark)) for judge in self.judges())
        return [result for result in found if result is not None]

    def best_trivial(self, benchmark: str) -> Result | None:
        """The most accurate trivial judge there: who beats it beats them all."""
        trivial = [r for r in self.of(benchmark) if r.kind == "trivial" and r.overall.n]
        return max(trivial, key=lambda r: r.overall.value, default=None)

    def all(self) -> list[Result]:
        """All results, benchmark by benchmark."""
        return [result for name in self.benchmarks() for result in self.of(name)]

    def tallied(self) -> list[tuple[Result, JudgeResults]]:
        """Results that were made from verdicts, benchmark by benchmark, with their tallies."""
        found = ((r, self.tallies.get((r.judge, r.benchmark))) for r in self.all())
        return [(result, votes) for result, votes in found if votes is not None]


def read_judged(run_dir: Path) -> Judged:
    """Read `verdicts/` (`*.parquet`, `absent.json`) and `results/*.json` under a run.

    A file that is cut, foreign or a double becomes a problem, and the rest is kept.
    """
    results: dict[Key, Result] = {}
    tallies: dict[Key, JudgeResults] = {}
    problems: list[str] = []
    models = {path.name for path in (run_dir / "train").glob("*/")}
    for path in sorted((run_dir / "verdicts").glob("*.parquet")):
        try:
            votes = read_judge_results(path)
            key = (votes.judge, votes.benchmark)
            _refuse_double(results, key, path)
            results[key] = _summary(votes, read_header(path).details, models)
            tallies[key] = votes
        except PalateError as error:
            problems.append(str(error))
    for path in sorted((run_dir / "results").glob("*.json")):
        try:
            for result in read_results(path):
                key = (result.judge, result.benchmark)
                _refuse_double(results, key, path)
                results[key] = result
        except PalateError as error:
            problems.append(str(error))
    absent: dict[str, str] = {}
    try:
        absent = read_skipped(run_dir / "verdicts")
    except PalateError as error:
        problems.append(str(error))
    return Judged(results, tallies, tuple(problems), absent)


def _summary(votes: JudgeResults, details: Mapping[str, Any], models: set[str]) -> Result:
    protocol = details.get("protocol") or {}
    return summarise(
        votes,
        kind=judge_kind(votes.judge, protocol, models),
        paper_column=details.get("paper_column"),
        protocol=protocol,
    )


def judge_kind(judge: str, protocol: Mapping[str, Any], models: set[str]) -> Kind:
    """What sort of judge this is: said by its protocol, else by its name or a trained model's."""
    said = protocol.get("judge")
    kind = said.get("judge") if isinstance(said, Mapping) else said
    if kind in TRIVIAL or (not kind and judge in TRIVIAL):
        return "trivial"
    return "ours" if kind == OURS or judge in models else "foreign"


def _refuse_double(results: Mapping[Key, Result], key: Key, path: Path) -> None:
    if key in results:
        raise PalateError(
            f"{path}: {key[0]!r} on {key[1]!r} stands in another file too; remove one of them"
        )


def column_notes(results: Sequence[Result]) -> dict[str, tuple[str, ...]]:
    """Footnotes by judge where its items or protocol differ from most others' in a column."""
    notes: dict[str, list[str]] = {}
    for what, say in _DIFFERENCES.items():
        found = {r.judge: _said(r, what) for r in results}
        known = Counter(value for value in found.values() if value)
        if len(known) < 2:
            continue
        usual = min(known, key=lambda value: (-known[value], value))
        for judge, value in found.items():
            if value and value != usual:
                notes.setdefault(judge, []).append(say.format(value, usual))
    return {judge: tuple(found) for judge, found in notes.items()}


_DIFFERENCES = {
    "items": "judged on other items than most of its column: do not compare",
    "benchmark": "judged on another version of the benchmark's data: do not compare",
    "order": "order of sides {0}, most of the column {1}",
    "seed": "sides seeded with {0}, most of the column with {1}",
    "tie_rule": "another tie rule than most of the column: {0}",
}


def _said(result: Result, what: str) -> str:
    if what == "items":
        return result.items
    value = result.protocol.get(what)
    return "" if value is None else str(value)


# The comparisons behind verdicts, by column: tables of parts and examples need more of them.


@dataclass(frozen=True, slots=True, eq=False)
class Items:
    """A benchmark's comparisons; arrays are [N] in the order of the file at `path`.

    `turns` counts the messages of each prompt.
    """

    path: Path
    ids: pa.Array
    sources: NDArray[Any]
    turns: Codes

    def places(self, ids: NDArray[Any]) -> Codes:
        """Where each of `ids` [M] stands in the file; -1 where it does not."""
        found = pc.index_in(pa.array(ids, pa.string()), value_set=self.ids)
        return np.asarray(pc.fill_null(found, -1).to_numpy(), dtype=np.int64)


def read_items(runs: Sequence[Path], judged: Judged) -> tuple[dict[str, Items], list[str]]:
    """The comparisons of each benchmark that are still in the runs' folders, and what is broken.

    A file belongs to verdicts that name its fingerprint; by name alone where they name none.
    """
    by_print: dict[str, Path] = {}
    by_name: dict[str, Path] = {}
    problems: list[str] = []
    for path in _benchmark_files(runs):
        try:
            by_print.setdefault(read_header(path, "comparisons").fingerprint, path)
            by_name.setdefault(path.stem, path)
        except PalateError as error:
            problems.append(str(error))
    items = {}
    for name in judged.benchmarks():
        data = {t.terms.data for (_, b), t in judged.tallies.items() if b == name}
        paths = [by_print[one] for one in sorted(data) if one in by_print]
        if not any(data) and name in by_name:
            paths.append(by_name[name])
        if paths:
            items[name] = _items(paths[0])
    return items, problems


def _benchmark_files(runs: Sequence[Path]) -> Iterator[Path]:
    return (path for run in runs for path in sorted((run / "benchmarks").glob("*.parquet")))


def _items(path: Path) -> Items:
    table = read_columns(path, ["id", "source", "prompt"], "comparisons").combine_chunks()
    ids = table["id"].combine_chunks()
    return Items(
        path=path,
        ids=ids,
        sources=table["source"].to_numpy().astype(object),
        turns=pc.list_value_length(table["prompt"]).to_numpy().astype(np.int64),
    )
