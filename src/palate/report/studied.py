"""What a study left behind: its runs, and every model's verdicts item by item and seed by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from palate.evaluate.metrics import Result, Tally
from palate.records import read_header, write_json
from palate.report.read import read_judged
from palate.types import PalateError, digest

INDEX, TOOK = "study.json", "took.json"
Floats = NDArray[np.float64]
Levels = tuple[str, ...]
"""The level of each axis, in the order of the axes: a variant."""


class StudyRun(BaseModel, frozen=True, extra="forbid"):
    """One variant trained with one seed; `folder` is that of its run, below the study's.

    `experiment` is a digest of the run's recipe and data, `mixtures` are model to mixture.
    """

    levels: dict[str, str]
    seed: int
    folder: str
    experiment: str
    mixtures: dict[str, str]


class Took(BaseModel, frozen=True, extra="forbid"):
    """How far a run of a study has come, of which experiment, and how long it took."""

    experiment: str = ""
    stage: Literal["", "train", "evaluate", "report"] = ""
    seconds: float = 0.0

    def reached(self, run: StudyRun, stage: str) -> bool:
        """Whether that run is finished up to a stage; what was made of another recipe is not."""
        return self.experiment == run.experiment and _STAGES[self.stage] >= _STAGES[stage]


_STAGES = {"": 0, "train": 1, "evaluate": 2, "report": 3}


class StudyIndex(BaseModel, frozen=True, extra="forbid"):
    """What a study is made of, kept beside its runs so that its tables need nothing else.

    `axes` are axis to levels; `data_axis` is the axis whose levels are amounts of data.
    """

    version: Literal[1] = 1
    name: str
    axes: dict[str, tuple[str, ...]]
    baseline: dict[str, str]
    data_axis: str | None
    paper: str | None
    models: tuple[str, ...]
    runs: tuple[StudyRun, ...]

    def levels(self, of: Mapping[str, str]) -> Levels:
        """The levels in the order of the axes."""
        return tuple(of[axis] for axis in self.axes)

    def variants(self) -> list[Levels]:
        """Every variant once, in order."""
        return list(dict.fromkeys(self.levels(run.levels) for run in self.runs))


def is_study(run_dir: Path) -> bool:
    """Whether the folder is a study's."""
    return (run_dir / INDEX).is_file()


def write_index(run_dir: Path, index: StudyIndex) -> None:
    """Say what the study in this folder is made of."""
    write_json(run_dir / INDEX, index.model_dump(mode="json"))


def forget_index(run_dir: Path) -> None:
    """What runs in this folder is no study any more."""
    (run_dir / INDEX).unlink(missing_ok=True)


def read_index(run_dir: Path) -> StudyIndex:
    """Read what `write_index` wrote.

    Raises:
        PalateError: the file is not such an index.
    """
    path = run_dir / INDEX
    try:
        return StudyIndex.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "file"
        raise PalateError(
            f"{path}: {place}: {first['msg']}; `palate run` of its recipe writes it again"
        ) from None


def write_took(folder: Path, took: Took) -> None:
    """Keep in a run's folder how far it has come."""
    write_json(folder / TOOK, took.model_dump(mode="json"))


def read_took(folder: Path) -> Took:
    """Read what `write_took` wrote; of a run that never began, or whose file is broken, nothing."""
    try:
        return Took.model_validate_json((folder / TOOK).read_bytes())
    except (OSError, ValidationError):
        return Took()


@dataclass(slots=True)
class Sheet:
    """One model on one benchmark in every run: `votes` by (variant, seed), each [N] by item.

    `ids`, `clusters` and `ratings` [N] are the items'; values as in `Tally`. `limit` is what the
    best possible judge would score, where it is known.
    """

    model: str
    benchmark: str
    ids: NDArray[Any]
    clusters: NDArray[np.int64]
    ratings: NDArray[np.int64]
    items: str
    paper_column: str | None = None
    limit: Result | None = None
    votes: dict[tuple[Levels, int], Floats] = field(default_factory=dict)
    prints: dict[tuple[Levels, int], str] = field(default_factory=dict)

    def seeds(self, *variants: Levels) -> list[int]:
        """The seeds with which all these variants were judged, in order."""
        found = (seed for levels, seed in self.votes if levels == variants[0])
        return sorted(s for s in found if all((v, s) in self.votes for v in variants))

    def table(self, variant: Levels, seeds: Sequence[int]) -> Floats:
        """[S, N], one row a seed."""
        return np.stack([self.votes[variant, seed] for seed in seeds])

    def fingerprint(self, seeds: Sequence[int], *variants: Levels) -> str:
        """Of a figure made of these variants with these seeds."""
        return digest(*(self.prints[v, s] for v in variants for s in seeds))


@dataclass(frozen=True, slots=True)
class Studied:
    """All verdicts of a study, how many comparisons each model saw, and what went wrong."""

    index: StudyIndex
    sheets: tuple[Sheet, ...]
    pairs: Mapping[tuple[Levels, str], int]
    finished: int
    problems: tuple[str, ...]


def read_study(run_dir: Path) -> Studied:
    """Read the verdicts of every finished run of a study; the others are left out.

    A run is finished when it was judged as the study now stands: what an earlier recipe or other
    data left in its folder is not mixed with the rest.

    Raises:
        PalateError: the study's index is broken.
    """
    index = read_index(run_dir)
    sheets: dict[tuple[str, str], Sheet] = {}
    pairs: dict[tuple[Levels, str], int] = {}
    problems: list[str] = []
    finished = 0
    for run in index.runs:
        folder, levels = run_dir / run.folder, index.levels(run.levels)
        if not read_took(folder).reached(run, "evaluate"):
            continue
        finished += 1
        judged = read_judged(folder)
        problems += judged.problems
        votes = {key: v for key, v in judged.tallies.items() if key[0] in index.models}
        for (model, benchmark), tally in sorted(votes.items()):
            sheet = sheets.setdefault((model, benchmark), _sheet(tally))
            result = judged.results[model, benchmark]
            sheet.paper_column = result.paper_column
            limits = (r for r in judged.of(benchmark) if r.kind == "limit")
            sheet.limit = sheet.limit or next(limits, None)
            problems += _add(sheet, tally, (levels, run.seed), folder)
            pairs[levels, model] = _pairs(folder / "mixtures" / f"{run.mixtures[model]}.parquet")
    ordered = sorted(sheets.values(), key=lambda s: (index.models.index(s.model), s.benchmark))
    return Studied(index, tuple(ordered), pairs, finished, tuple(problems))


def _order(tally: Tally) -> NDArray[np.int64]:
    return np.argsort(tally.ids.astype(str), kind="stable")


def _sheet(tally: Tally) -> Sheet:
    order = _order(tally)
    return Sheet(
        model=tally.judge,
        benchmark=tally.benchmark,
        ids=tally.ids[order],
        clusters=tally.clusters[order],
        ratings=tally.ratings[order],
        items=tally.items,
    )


def _add(sheet: Sheet, tally: Tally, key: tuple[Levels, int], folder: Path) -> list[str]:
    """Add a run's verdicts to the sheet, or say why they do not belong to it (pitfall 28)."""
    if tally.items != sheet.items:
        return [
            f"{folder}: {tally.judge!r} was judged on other items of {tally.benchmark!r} than the "
            "study's first run; run the study again"
        ]
    sheet.votes[key] = tally.values[_order(tally)]
    sheet.prints[key] = tally.fingerprint
    return []


def _pairs(mixture: Path) -> int:
    return read_header(mixture, "comparisons").rows if mixture.is_file() else 0
