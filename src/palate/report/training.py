"""Held-out accuracy and loss by step: does a longer run over-fit?"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate import escape
from palate.report.table import DASH, Cell, Column, Row, Table, count, figure
from palate.stats import Estimate, wilson
from palate.types import digest


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One look at a held-out set during training; `n` is 0 where the log does not say it."""

    name: str
    step: int
    epoch: float | None
    accuracy: float
    loss: float | None
    n: int


@dataclass(frozen=True, slots=True)
class TrainingCurves:
    """The training of one model: figures of its steps in order, and its evaluations."""

    model: str
    steps: tuple[Mapping[str, Any], ...]
    evaluations: tuple[Evaluation, ...]
    problems: tuple[str, ...] = ()

    def watched(self) -> dict[str, list[Evaluation]]:
        """Evaluations by held-out set, in order of step."""
        found: dict[str, list[Evaluation]] = {}
        for evaluation in sorted(self.evaluations, key=lambda e: (e.name, e.step)):
            found.setdefault(evaluation.name, []).append(evaluation)
        return found


def read_courses(run_dir: Path) -> list[TrainingCurves]:
    """Read `train/*/metrics.jsonl` under a run, in order of name."""
    return [_course(path) for path in sorted((run_dir / "train").glob("*/metrics.jsonl"))]


def _course(path: Path) -> TrainingCurves:
    steps: dict[int, Mapping[str, Any]] = {}
    evaluations: dict[tuple[str, int], Evaluation] = {}
    bad = 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        record = _record(line)
        if record is None:
            bad += 1
        elif isinstance(record.get("eval"), dict):
            found = _evaluation(record)
            bad += found is None
            if found:
                evaluations[found.name, found.step] = found  # A resumed run says it again.
        else:
            steps[record["step"]] = record
    # The last line of a killed run may be cut; it costs one line and is said, not hidden.
    problems = (f"{path}: {bad} lines are not metrics and were left out",) if bad else ()
    ordered = tuple(steps[step] for step in sorted(steps))
    return TrainingCurves(path.parent.name, ordered, tuple(evaluations.values()), problems)


def _record(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    good = isinstance(record, dict) and type(record.get("step")) is int
    return record if good else None


def _evaluation(record: Mapping[str, Any]) -> Evaluation | None:
    said = record["eval"]
    accuracy = _number(said.get("accuracy"))
    if accuracy is None or not 0 <= accuracy <= 1:
        return None
    n = _number(said.get("n", said.get("pairs"))) or 0
    epoch = _number(record.get("epoch", said.get("epoch")))
    loss = _number(said.get("loss"))
    return Evaluation(str(said.get("name", "")), record["step"], epoch, accuracy, loss, int(n))


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


REMARK = (
    "Monitoring during training: independent pairs are assumed (Wilson), loss is the mean "
    "ranking loss without margin, rise its final value less the lowest. Judge a model by Table 7."
)


def training_summary(courses: Sequence[TrainingCurves]) -> Table | None:
    """The last evaluation against the best one, for every model and held-out set; or None."""
    rows = [
        Row(_summary(course, name, found), escape.name(course.model))
        for course in courses
        for name, found in course.watched().items()
    ]
    columns = (
        *(Column(name, figures=False) for name in ("Model", "Held-out set")),
        *(Column(name) for name in ("Steps", "Pairs", "Tokens", "n")),
        Column("Best accuracy (%)", estimates=True),
        Column("at step"),
        Column("Final accuracy (%)", estimates=True),
        *(Column(name) for name in ("Lowest loss", "at step ", "Final loss", "Rise")),
    )
    title = "Training: final against best on held-out data"
    return Table("training", title, columns, tuple(rows), (REMARK,)) if rows else None


def _summary(course: TrainingCurves, name: str, found: Sequence[Evaluation]) -> tuple[Cell, ...]:
    best, last = max(found, key=lambda e: (e.accuracy, -e.step)), found[-1]
    lossy = [e for e in found if e.loss is not None]
    lowest = min(lossy, key=lambda e: (e.loss, e.step)) if lossy else None
    rise = None
    if lowest and lowest.loss is not None and last.loss is not None:
        rise = last.loss - lowest.loss
    return (
        Cell(escape.name(course.model)),
        Cell(escape.name(name)),
        count(max([last.step, *(int(s["step"]) for s in course.steps[-1:])])),
        _total(course, "pairs"),
        _total(course, "tokens"),
        count(last.n),
        _accuracy(course, best),
        count(best.step),
        _accuracy(course, last),
        _loss(lowest.loss if lowest else None),
        count(lowest.step) if lowest else Cell(DASH),
        _loss(last.loss),
        Cell(DASH) if rise is None else Cell(f"{rise:+.4f}"),
    )


def training_curve(courses: Sequence[TrainingCurves]) -> Table | None:
    """Every evaluation by step; epochs are set apart."""
    rows = [
        Row(
            _point(course, e),
            f"{escape.name(course.model)}, {escape.name(name)}, epoch {_epoch(e)}",
        )
        for course in courses
        for name, found in course.watched().items()
        for e in found
    ]
    columns = (
        *(Column(name, figures=False) for name in ("Model", "Held-out set")),
        *(Column(name) for name in ("Step", "Epoch", "n")),
        Column("Accuracy (%)", estimates=True),
        Column("Loss"),
    )
    title = "Training: held-out accuracy and loss by step"
    return Table("training-curve", title, columns, tuple(rows), (REMARK,)) if rows else None


def _point(course: TrainingCurves, evaluation: Evaluation) -> tuple[Cell, ...]:
    epoch = evaluation.epoch
    return (
        Cell(escape.name(course.model)),
        Cell(escape.name(evaluation.name)),
        count(evaluation.step),
        Cell(DASH if epoch is None else f"{epoch:.2f}"),
        count(evaluation.n),
        _accuracy(course, evaluation),
        _loss(evaluation.loss),
    )


def _epoch(evaluation: Evaluation) -> int:
    """Which epoch led to this evaluation: the first ends at 1.0 and includes it."""
    return math.ceil(evaluation.epoch or 0)


def _accuracy(course: TrainingCurves, evaluation: Evaluation) -> Cell:
    note = "the log does not say on how many pairs: no figure"
    return figure(_estimate(course, evaluation), *(() if evaluation.n else (note,)))


def _estimate(course: TrainingCurves, evaluation: Evaluation) -> Estimate | None:
    if not evaluation.n:
        return None
    fingerprint = digest("monitoring", course.model, evaluation.name, evaluation.step, evaluation.n)
    return wilson(evaluation.accuracy * evaluation.n, evaluation.n, fingerprint=fingerprint)


def _loss(loss: float | None) -> Cell:
    return Cell(DASH if loss is None else f"{loss:.4f}")


def _total(course: TrainingCurves, key: str) -> Cell:
    values = list(_figures(course.steps, key))
    return count(round(sum(values))) if values else Cell(DASH)


def _figures(steps: Sequence[Mapping[str, Any]], key: str) -> Iterator[float]:
    return (value for step in steps if (value := _number(step.get(key))) is not None)
