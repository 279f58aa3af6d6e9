"""What is read of a run: verdicts, computed figures, the comparisons behind them.

A file that is broken is named among the problems, and the rest is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from palate.evaluate.benchmark import Benchmark, selection_probabilities
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
from palate.evaluate.scores import BenchmarkScore, read_score
from palate.records import read_columns, read_header, verdict_paths
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
KIND_ORDER: tuple[Kind, ...] = ("trivial", "foreign", "ours", "limit")

Key = tuple[str, str]
"""(judge, benchmark)."""


@dataclass(frozen=True, slots=True)
class Judged:
    """All verdicts of a run: figures and votes by (judge, benchmark), and what went wrong.

    `votes` are the verdicts item by item, of figures that were made from verdicts. `scores` are
    those that benchmarks of the field define themselves. `skipped` has the reason of each judge
    that could not be asked, or not on every benchmark. `files` are those that verdicts are in.
    """

    results: Mapping[Key, Result]
    votes: Mapping[Key, JudgeResults]
    problems: tuple[str, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict[str, str])
    scores: Mapping[Key, BenchmarkScore] = field(default_factory=dict[Key, BenchmarkScore])
    files: Mapping[Key, Path] = field(default_factory=dict[Key, Path])

    def kinds(self) -> dict[str, Kind]:
        """Every judge with its kind; of one that was never asked no more is known than foreign."""
        unknown: dict[str, Kind] = dict.fromkeys(self.skipped, "foreign")
        return unknown | {result.judge: result.kind for result in self.results.values()}

    def judges(self) -> list[str]:
        """Trivial first, then foreign, ours, limits; by name within, trivial in a fixed order."""
        kinds, trivial = self.kinds(), list(TRIVIAL)

        def place(judge: str) -> tuple[int, int, str]:
            number = trivial.index(judge) if judge in trivial else len(trivial)
            return KIND_ORDER.index(kinds[judge]), number, judge

        return sorted(kinds, key=place)

    def benchmarks(self) -> list[str]:
        """Sets the paper has not by name, then the paper's in the order of its Table 7."""
        place = {column: number for number, column in enumerate(llama2.COLUMNS, 1)}
        order = {
            result.benchmark: place.get(llama2.column(result.paper_column) or "", 0)
            for result in self.results.values()
        }
        return sorted(order, key=lambda benchmark: (order[benchmark], benchmark))

    def of(self, benchmark: str) -> list[Result]:
        """The results on one benchmark in the order of judges."""
        keys = ((judge, benchmark) for judge in self.judges())
        return [self.results[key] for key in keys if key in self.results]

    def best_trivial(self, benchmark: str) -> Result | None:
        """The most accurate trivial judge there: who beats it beats them all."""
        trivial = [r for r in self.of(benchmark) if r.kind == "trivial" and r.overall.n]
        return max(trivial, key=lambda r: r.overall.value, default=None)

    def all(self) -> list[Result]:
        """All results, benchmark by benchmark."""
        return [result for name in self.benchmarks() for result in self.of(name)]

    def with_votes(self) -> list[tuple[Result, JudgeResults]]:
        """Results that were made from verdicts, benchmark by benchmark, with their votes."""
        keys = ((result, (result.judge, result.benchmark)) for result in self.all())
        return [(result, self.votes[key]) for result, key in keys if key in self.votes]

    def with_pairs(self) -> list[tuple[Result, JudgeResults]]:
        """Those of `with_votes` whose items all have two responses."""
        return [(result, votes) for result, votes in self.with_votes() if votes.of_pairs]

    def of_many(self) -> list[str]:
        """The benchmarks with items of more than two responses."""
        return list(dict.fromkeys(r.benchmark for r in self.all() if r.responses > 2))


def read_judged(run_dir: Path) -> Judged:
    """Read `verdicts/` (`*.parquet`, `absent.json`) and `results/*.json` under a run.

    Of a folder that `palate judge` filled its verdicts. A file that is cut, foreign or a double
    becomes a problem, and the rest is kept.
    """
    results: dict[Key, Result] = {}
    votes: dict[Key, JudgeResults] = {}
    scores: dict[Key, BenchmarkScore] = {}
    files: dict[Key, Path] = {}
    problems: list[str] = []

    def add(result: Result, path: Path) -> Key:
        key = (result.judge, result.benchmark)
        if key in results:
            raise PalateError(
                f"{path}: {key[0]!r} on {key[1]!r} stands in another file too; remove one of them"
            )
        results[key] = result
        return key

    models = {path.name for path in (run_dir / "train").glob("*/")}
    chances = _probabilities(run_dir)
    for path in verdict_paths(run_dir):
        try:
            judged = read_judge_results(path)
            details = read_header(path).details
            protocol = details.get("protocol") or {}
            result = summarise(
                judged,
                kind=judge_kind(judged.judge, protocol, models),
                paper_column=details.get("paper_column"),
                protocol=protocol,
                probabilities=chances.get(judged.terms.data),
            )
            key = add(result, path)
            votes[key], files[key] = judged, path
            if (score := read_score(path)) is not None:
                scores[key] = score
        except PalateError as error:
            problems.append(str(error))
    for path in sorted((run_dir / "results").glob("*.json")):
        try:
            for result in read_results(path):
                add(result, path)
        except PalateError as error:
            problems.append(str(error))
    skipped: dict[str, str] = {}
    try:
        skipped = read_skipped(run_dir / "verdicts")
    except PalateError as error:
        problems.append(str(error))
    return Judged(results, votes, tuple(problems), skipped, scores, files)


def _probabilities(run_dir: Path) -> dict[str, dict[str, float]]:
    """Of benchmarks whose items were chosen with known probabilities these, by fingerprint."""
    found = {}
    for path in sorted((run_dir / "benchmarks").glob("*.parquet")):
        with suppress(PalateError):  # Said where its comparisons are read.
            found[read_header(path).fingerprint] = selection_probabilities(path)
    return found


def judge_kind(judge: str, protocol: Mapping[str, Any], models: set[str]) -> Kind:
    """What sort of judge this is: by its protocol, else by its name or a trained model's."""
    config = protocol.get("judge")
    kind = config.get("judge") if isinstance(config, Mapping) else config
    if kind in TRIVIAL or (not kind and judge in TRIVIAL):
        return "trivial"
    return "ours" if kind == OURS or judge in models else "foreign"


_DIFFERENCES = {
    "items": "judged on other items than most of its column: do not compare",
    "benchmark": "judged on another version of the benchmark's data: do not compare",
    "order": "order of sides {0}, most of the column {1}",
    "seed": "sides seeded with {0}, most of the column with {1}",
    "tie_rule": "another tie rule than most of the column: {0}",
}


def column_notes(results: Sequence[Result]) -> dict[str, tuple[str, ...]]:
    """Footnotes by judge where its items or protocol differ from most others' in a column."""
    notes: dict[str, tuple[str, ...]] = {}
    for key, note in _DIFFERENCES.items():
        protocols = {r.judge: {**r.protocol, "items": r.items} for r in results}
        known = ((judge, protocol.get(key)) for judge, protocol in protocols.items())
        values = {judge: "" if value is None else str(value) for judge, value in known}
        counts = Counter(filter(None, values.values()))
        usual = min(counts, key=lambda value: (-counts[value], value), default="")
        for judge, value in values.items():
            if value and value != usual:
                notes[judge] = (*notes.get(judge, ()), note.format(value, usual))
    return notes


# The rows behind verdicts, by column: tables of slices and examples need more of them.


@dataclass(frozen=True, slots=True, eq=False)
class Items:
    """A benchmark's comparisons or items of K (`of_items`), N in the order of the file at `path`.

    Arrays are [N]; `turns` counts the messages of each prompt.
    """

    path: Path
    ids: pa.Array
    sources: NDArray[Any]
    turns: Codes
    of_items: bool = False

    def places(self, ids: NDArray[Any]) -> Codes:
        """Where each of `ids` [M] stands in the file; -1 where it does not."""
        places = pc.index_in(pa.array(ids, pa.string()), value_set=self.ids)
        return np.asarray(pc.fill_null(places, -1).to_numpy(), dtype=np.int64)


def read_items(runs: Sequence[Path], judged: Judged) -> tuple[dict[str, Items], list[str]]:
    """What is still in the runs' folders of each benchmark, and what is broken.

    A file belongs to verdicts that name its fingerprint; by name alone where they name none.
    """
    by_fingerprint: dict[str, Benchmark] = {}
    by_name: dict[str, Benchmark] = {}
    problems: list[str] = []
    for path in (path for run in runs for path in sorted((run / "benchmarks").glob("*.parquet"))):
        try:
            benchmark = Benchmark(path.stem, path)
            by_fingerprint.setdefault(benchmark.fingerprint, benchmark)
            by_name.setdefault(path.stem, benchmark)
        except PalateError as error:
            problems.append(str(error))
    items = {}
    for name in judged.benchmarks():
        fingerprints = {v.terms.data for (_, b), v in judged.votes.items() if b == name}
        found = [by_fingerprint[one] for one in sorted(fingerprints) if one in by_fingerprint]
        if not any(fingerprints) and name in by_name:
            found.append(by_name[name])
        if found:
            path, header = found[0].path, found[0].header
            table = read_columns(path, ["id", "source", "prompt"], header.kind).combine_chunks()
            items[name] = Items(
                path=path,
                ids=table["id"].combine_chunks(),
                sources=table["source"].to_numpy().astype(object),
                turns=pc.list_value_length(table["prompt"]).to_numpy().astype(np.int64),
                of_items=header.kind == "items",
            )
    return items, problems
