"""Held-out accuracy and loss by step, from the logs of training: does a longer run over-fit?"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate import escape
from palate.report.table import Cell, Column, Table, Unit, Values, columns, figure, make_table, row
from palate.stats import wilson
from palate.types import digest


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation on a held-out set during training; `n` is 0 where it is not in the log."""

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

    def by_set(self) -> dict[str, list[Evaluation]]:
        """Evaluations by held-out set, in order of step."""
        by_set: dict[str, list[Evaluation]] = {}
        for evaluation in sorted(self.evaluations, key=lambda e: (e.name, e.step)):
            by_set.setdefault(evaluation.name, []).append(evaluation)
        return by_set


def read_curves(run_dir: Path) -> list[TrainingCurves]:
    """Read `train/*/metrics.jsonl` under a run, in order of name."""
    return [_curves(path) for path in sorted((run_dir / "train").glob("*/metrics.jsonl"))]


def _curves(path: Path) -> TrainingCurves:
    steps: dict[int, Mapping[str, Any]] = {}
    evaluations: dict[tuple[str, int], Evaluation] = {}
    bad = 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict) or type(record.get("step")) is not int:
            bad += 1
        elif not isinstance(record.get("eval"), dict):
            steps[record["step"]] = record
        elif evaluation := _evaluation(record):
            # A resumed run writes the same one again.
            evaluations[evaluation.name, evaluation.step] = evaluation
        else:
            bad += 1
    # The last line of a killed run may be cut: it costs one line, and is counted.
    problems = (f"{path}: {bad} lines are not metrics and were left out",) if bad else ()
    ordered = tuple(steps[step] for step in sorted(steps))
    return TrainingCurves(path.parent.name, ordered, tuple(evaluations.values()), problems)


def _evaluation(record: Mapping[str, Any]) -> Evaluation | None:
    logged = record["eval"]
    accuracy = _number(logged.get("accuracy"))
    if accuracy is None or not 0 <= accuracy <= 1:
        return None
    return Evaluation(
        name=str(logged.get("name", "")),
        step=record["step"],
        epoch=_number(record.get("epoch", logged.get("epoch"))),
        accuracy=accuracy,
        loss=_number(logged.get("loss")),
        n=int(_number(logged.get("n", logged.get("pairs"))) or 0),
    )


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


REMARK = (
    "Monitoring during training: independent pairs are assumed (Wilson), loss is the mean "
    "ranking loss without margin, rise its final value less the lowest. Judge a model by Table 7."
)


def training_summary(curves: Sequence[TrainingCurves]) -> Table | None:
    """The last evaluation against the best one, for every model and held-out set; or None."""
    rows: list[Values] = []
    for curve in curves:
        totals = []
        for key in ("pairs", "tokens"):
            values = [
                value for step in curve.steps if (value := _number(step.get(key))) is not None
            ]
            totals.append(round(sum(values)) if values else None)
        for name, evaluations in curve.by_set().items():
            best, last = max(evaluations, key=lambda e: (e.accuracy, -e.step)), evaluations[-1]
            losses = [(e.loss, e.step) for e in evaluations if e.loss is not None]
            lowest, lowest_step = min(losses, default=(None, None))
            rise = None if lowest is None or last.loss is None else last.loss - lowest
            steps = max([last.step, *(int(step["step"]) for step in curve.steps[-1:])])
            rows.append(
                (
                    escape.name(curve.model), escape.name(name), steps, *totals, last.n,
                    _accuracy(curve, best), best.step, _accuracy(curve, last),
                    lowest, lowest_step, last.loss, rise,
                )
            )  # fmt: skip
    heads = [
        *columns(Unit.TEXT, "Model", "Held-out set"),
        *columns(Unit.COUNT, "Steps", "Pairs", "Tokens", "n"),
        Column("Best accuracy (%)", Unit.SHARE),
        Column("at step", Unit.COUNT),
        Column("Final accuracy (%)", Unit.SHARE),
        Column("Lowest loss", Unit.LOSS),
        Column("at step ", Unit.COUNT),
        Column("Final loss", Unit.LOSS),
        Column("Rise", Unit.LOSS_CHANGE),
    ]
    title = "Training: final against best on held-out data"
    return make_table("training", title, heads, rows, (REMARK,), group_by=1)


def training_curve(curves: Sequence[TrainingCurves]) -> Table | None:
    """Every evaluation by step; epochs are set apart."""
    rows = []
    for curve in curves:
        for name, evaluations in curve.by_set().items():
            names = escape.name(curve.model), escape.name(name)
            for e in evaluations:
                # The epoch that led to it: the first ends at 1.0 and includes it.
                group = f"{', '.join(names)}, epoch {math.ceil(e.epoch or 0)}"
                rows.append(
                    row(*names, e.step, e.epoch, e.n, _accuracy(curve, e), e.loss, group=group)
                )
    heads = [
        *columns(Unit.TEXT, "Model", "Held-out set"),
        Column("Step", Unit.COUNT),
        Column("Epoch", Unit.EPOCH),
        Column("n", Unit.COUNT),
        Column("Accuracy (%)", Unit.SHARE),
        Column("Loss", Unit.LOSS),
    ]
    title = "Training: held-out accuracy and loss by step"
    return make_table("training-curve", title, heads, rows, (REMARK,))


def _accuracy(curve: TrainingCurves, evaluation: Evaluation) -> Cell:
    if not evaluation.n:
        return figure(None, "the log does not say on how many pairs: no figure")
    fingerprint = digest("monitoring", curve.model, evaluation.name, evaluation.step, evaluation.n)
    right = evaluation.accuracy * evaluation.n
    return figure(wilson(right, evaluation.n, fingerprint=fingerprint))
