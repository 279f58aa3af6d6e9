"""Training curves: every figure of the log by step, all models in one picture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from palate.report import escape
from palate.report.page.chart import TIP, Chart, Series, Spec, axis, panels
from palate.report.training import Course

FIGURES = {
    "loss": "loss (nats)",
    "accuracy": "accuracy (%)",
    "gap": "reward gap",
    "learning_rate": "learning rate",
    "gradient_norm": "gradient norm",
    "tokens_per_second": "tokens a second",
}
POINTS = 45  # A curve; steps beyond are averaged in equal stretches.
TRAIN, HELD = "training", "held out"


def training(courses: Sequence[Course], series: Series) -> Chart | None:
    """Six panels by step; held-out figures stand out from those of the training batches."""
    rows = [row for key in FIGURES for course in courses for row in _rows(course, key)]
    if not rows:
        return None
    colour = series.colour(rows)
    x: Spec = {"field": "x", "type": "quantitative", "title": "step"}
    y = axis("y", None)
    layers: list[Spec] = [
        {"transform": [{"filter": f"datum.kind == '{TRAIN}'"}],
         "mark": {"type": "line", "strokeWidth": 1.1, "opacity": 0.65},
         "encoding": {"x": x, "y": y, "color": colour}},
        {"transform": [{"filter": f"datum.kind == '{HELD}'"}],
         "mark": {"type": "line", "strokeWidth": 2},
         "encoding": {"x": x, "y": y, "color": colour, "detail": {"field": "set"}}},
        {"transform": [{"filter": f"datum.kind == '{HELD}'"}],
         "mark": {"type": "point", "filled": True, "size": 46, "opacity": 1},
         "encoding": {"x": x, "y": y, "color": colour, "shape": series.shape(rows),
                      "tooltip": TIP}},
        {"transform": [{"filter": f"datum.kind == '{TRAIN}'"}],
         "mark": {"type": "point", "size": 30, "opacity": 0, "filled": True},
         "encoding": {"x": x, "y": y, "tooltip": TIP}},
        {"transform": [{"filter": "datum.kind == 'epoch'"}],
         "mark": {"type": "rule", "strokeDash": [2, 3], "color": "var(--faint)"},
         "encoding": {"x": x, "tooltip": TIP}},
    ]  # fmt: skip
    caption = (
        "Thick, with points: on held-out pairs. Thin: on training batches, averaged over stretches "
        "of steps. Where held-out loss turns up while training loss goes on down, the model "
        "over-fits. Upright dashes: the end of an epoch that others follow."
    )
    spec = panels(rows, layers, 130, "x", "y")
    return Chart(
        "training", "Training by step", caption, spec, "training-curve", left=58, between=52
    )


def _rows(course: Course, key: str) -> Iterator[dict[str, Any]]:
    name, panel = escape.name(course.model), FIGURES[key]
    scale = 100 if key == "accuracy" else 1
    for step, value in _thinned(course, key):
        y = scale * value
        yield {"panel": panel, "series": name, "kind": TRAIN, "x": step, "y": _short(y),
               "tip": f"{name}, {panel}, around step {step:,}: {y:.4g}"}  # fmt: skip
    epochs: set[int] = set()
    for evaluation in course.evaluations:
        seen = {"loss": evaluation.loss, "accuracy": evaluation.accuracy}.get(key)
        if seen is not None:
            y, held = scale * seen, escape.name(evaluation.name)
            yield {"panel": panel, "series": name, "kind": HELD, "x": evaluation.step,
                   "y": _short(y), "set": held,
                   "tip": f"{name} on {held}, step {evaluation.step:,}: {y:.4g}"}  # fmt: skip
        if key in ("loss", "accuracy") and evaluation.epoch:
            epochs.add(math.floor(evaluation.epoch))
    last = max((e.epoch or 0 for e in course.evaluations), default=0)
    for epoch in sorted(epochs):
        steps = [e.step for e in course.evaluations if e.epoch and e.epoch >= epoch]
        if 1 <= epoch < last and steps:
            yield {"panel": panel, "series": name, "kind": "epoch", "x": min(steps),
                   "tip": f"{name}: end of epoch {epoch}"}  # fmt: skip


def _thinned(course: Course, key: str) -> Iterator[tuple[int, float]]:
    """(step, figure), averaged over stretches of steps."""
    found = [
        (int(step["step"]), float(value))
        for step in course.steps
        if isinstance(value := step.get(key), int | float) and math.isfinite(value)
    ]
    width = max(1, math.ceil(len(found) / POINTS))
    for start in range(0, len(found), width):
        held = found[start : start + width]
        yield held[len(held) // 2][0], math.fsum(value for _, value in held) / len(held)


def _short(value: float) -> float:
    return float(f"{value:.5g}")
