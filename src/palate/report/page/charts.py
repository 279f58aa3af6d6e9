"""The charts of a page, each a Vega-Lite specification; the numbers drawn are those of the tables.

A chart is a function here: it takes a table, or what tables were made of, and gives a `Chart`, or
None where there is nothing to draw. `palate.report.page` calls each, `page.html` places it by name.
A row of its data has `tip`, the text for hover, and `panel` where the chart has several. Colours
are names of CSS variables, so that one chart serves light, dark and print.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import rankdata

from palate import escape
from palate.evaluate.metrics import JudgeResults
from palate.evaluate.results import BINS, Floats
from palate.report import llama2
from palate.report.accuracy import RATING_NAMES, RATINGS, judge_name
from palate.report.data import RATING_LABELS, WHOLE_GROUP, Contents
from palate.report.diagnostics import CONFIDENCE, LENGTH, SOURCE, TURN, order_of
from palate.report.over_optimisation import TRUTH
from palate.report.read import Judged
from palate.report.render import percent, text
from palate.report.study import Curve
from palate.report.table import Cell, Column, Table, Unit
from palate.report.training import TrainingCurves
from palate.stats import Estimate, divergence
from palate.types import Bin

# What charts share.

Spec = dict[str, Any]
Rows = list[dict[str, Any]]
COLOURS = 7
# Told apart without colour.
SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "triangle-right")
GREY = "var(--faint)"
TIP = {"field": "tip", "type": "nominal"}


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart with its title and what to see in it; `table` names the table of its numbers.

    Where it has panels, as many stand in a row as fit when each is `panel` pixels wide, and at
    most `columns`. In pixels: `left` is kept for labels beside the first, `between` from one panel
    to the next, `below` from one row to the next.
    """

    name: str
    title: str
    caption: str
    spec: Spec
    table: str = ""
    panel: int = 240
    columns: int = 3
    left: int = 44
    between: int = 52
    below: int = 62


@dataclass(frozen=True, slots=True)
class Legend:
    """The judges or models that charts tell apart, in order: one has the same colour in all."""

    names: tuple[str, ...]
    colours: Mapping[str, str] = field(default_factory=dict[str, str])

    @staticmethod
    def of(models: Iterable[str], grey: Iterable[str] = ()) -> Legend:
        """Models in colours; the others in grey."""
        coloured = list(dict.fromkeys(models))
        rest = [name for name in dict.fromkeys(grey) if name not in coloured]
        colours = {name: f"var(--s{i % COLOURS + 1})" for i, name in enumerate(coloured)}
        return Legend((*coloured, *rest), colours | dict.fromkeys(rest, GREY))

    def among(self, rows: Rows) -> list[str]:
        """Those that stand in the rows as `series`, in order."""
        present = {row["series"] for row in rows}
        return [name for name in self.names if name in present]

    def colour(self, rows: Rows, *, legend: bool = True, alone: bool = False) -> Spec:
        """The colour channel for the series in these rows; `alone`: with a legend even of one."""
        names = self.among(rows)
        return _series(names, [self.colours[name] for name in names], legend, alone)

    def shape(self, rows: Rows) -> Spec:
        """The shape channel: the same legend again, so that the two are drawn as one."""
        names = self.among(rows)
        return _series(names, [SHAPES[self.names.index(name) % len(SHAPES)] for name in names])


def _series(
    names: Sequence[str], values: Sequence[str], legend: bool = True, alone: bool = False
) -> Spec:
    drawn = (
        {"title": None, "orient": "top"} if legend and len(names) > (0 if alone else 1) else None
    )
    scale = {"domain": names, "range": values}
    return {"field": "series", "type": "nominal", "scale": scale, "legend": drawn}


def nominal(field: str, sort: Sequence[str] | None = None, **more: Any) -> Spec:
    """A channel of names in order, without a title."""
    return {"field": field, "type": "nominal", "sort": sort, "title": None, **more}


def quantitative(field: str, title: str | None, **more: Any) -> Spec:
    """A channel of numbers."""
    return {"field": field, "type": "quantitative", "title": title, **more}


def axis(field: str, title: str | None, **more: Any) -> Spec:
    """A channel of numbers that need not begin at zero; no label stands at its very end."""
    scale = {"zero": False, "nice": False, "padding": 8}
    return quantitative(field, title, scale=scale, **more)


def layer(mark: str, encoding: Spec, kind: str = "", **style: Any) -> Spec:
    """A mark for every row, or for those of one `kind`."""
    spec: Spec = {"mark": {"type": mark, **style}, "encoding": encoding}
    return {"transform": [{"filter": f"datum.kind == '{kind}'"}], **spec} if kind else spec


def points(encoding: Spec, kind: str = "", *, size: int = 44, **style: Any) -> Spec:
    """A filled point for every row."""
    return layer("point", encoding, kind, **{"filled": True, "size": size, "opacity": 1, **style})


def whiskers(
    channel: str, title: str, shared: Spec, shape: Spec, kind: str = "", *, width: float, size: int
) -> list[Spec]:
    """Estimates along `channel` (x or y): the interval as a line and the value as a point."""
    ends = {channel: axis("low", title), f"{channel}2": {"field": "high"}}
    return [
        layer("rule", shared | ends, kind, strokeWidth=width),
        points(shared | {channel: axis("v", title)} | shape, kind, size=size),
    ]


def upright_line(x: float) -> Spec:
    """A dashed line across a panel, at a value that others are held against."""
    encoding = {"x": {"field": "at", "type": "quantitative"}}
    rule = layer("rule", encoding, strokeDash=[3, 3], color=GREY)
    return {"data": {"values": [{"at": x}]}, **rule}


def histogram(x: Spec, y_title: str | None, colour: Spec) -> list[Spec]:
    """Shares `y` of what lies around `x`, as areas that show through each other."""
    y = quantitative("y", y_title, stack=None)
    encoding = {"x": x, "y": y, "color": colour, "tooltip": TIP}
    line = {"strokeWidth": 1.2}
    return [layer("area", encoding, interpolate="step", opacity=0.22, line=line)]


def panels(
    rows: Rows, layers: Sequence[Spec], height: Any, *free: str, titled: bool = False
) -> Spec:
    """The same layers once for each `panel` of the rows, in order; `free` axes have own scales.

    `titled` leaves room for the title of an upright axis, which stands over it.
    """
    # Unseen, as high as a label at the very top of an axis: titles over panels stand on one line.
    strut: Spec = {
        "data": {"values": [{}]},
        "mark": {"type": "text", "text": "x", "opacity": 0, "fontSize": 14, "tooltip": None},
        "encoding": {"x": {"value": 0}, "y": {"value": 0}},
    }
    order = list(dict.fromkeys(row["panel"] for row in rows))
    header = {"labelPadding": 20 if titled and "y" not in free else 4}
    spec: Spec = {
        "data": {"values": rows},
        "facet": nominal("panel", order, header=header),
        "spec": {"height": height, "layer": [*layers, strut]},
    }
    if free:
        spec["resolve"] = {"scale": dict.fromkeys(free, "independent")}
    return spec


def interval(estimate: Estimate) -> dict[str, float]:
    """An estimate in percent as fields of a row: v, low, high."""
    ends = {"v": estimate.value, "low": estimate.low, "high": estimate.high}
    return {name: round(100 * share, 3) for name, share in ends.items()}


def tip(name: str, estimate: Estimate) -> str:
    """An estimate for hover: `helpfulness: 64.0 % (62.0 to 66.0), n = 2,326`."""
    low, high = percent(estimate.low), percent(estimate.high)
    return f"{name}: {percent(estimate.value)} % ({low} to {high}), n = {estimate.n:,}"


def minus(number: str) -> str:
    """A printed number with the minus sign of print."""
    return number.replace("-", "−")


def label_width(names: Iterable[str], least: int, most: int) -> int:
    """Pixels for the longest label beside a panel."""
    return min(most, least + round(6.4 * max(map(len, names))))


# Accuracies with their intervals, of judges and of a study's variants.

MEASURED, PRINTED = "measured", "printed in the paper"


def overview(table: Table | None, legend: Legend) -> Chart | None:
    """Table 7 as intervals: a panel for each benchmark, a line for each judge."""
    if table is None:
        return None
    names = [text(table.columns[0], row.cells[0]) for row in table.rows]
    rows: Rows = []
    for place, column in enumerate(table.columns):
        cells = [row.cells[place] for row in table.rows]
        if any(cell.behind for cell in cells):  # A benchmark, not an average over several.
            for name, cell in zip(names, cells, strict=True):
                rows += [
                    one | {"chance": 100 * column.chance}
                    for one in _accuracy(column.name, name, cell)
                ]
    return _accuracies(
        "overview", "Accuracy with 95 % intervals",
        "Filled: measured here. Hollow: printed in the paper, of other models. Grey: trivial "
        "judges and limits. Dashed: chance.",
        rows, names, legend, "table-7",
    )  # fmt: skip


def variants(table: Table | None, axes: int, chances: Mapping[str, float]) -> Chart | None:
    """A study's accuracies as intervals: a line for each variant, which `axes` levels name.

    `chances` are what random scores reach in each group of rows.

    A colour for each level of the first axis. A panel for each rating where there is one test
    set, with the paper's figures; else one for each test set.
    """
    if table is None:
        return None
    groups = {row.group for row in table.rows if not row.cells[0].paper}
    figures = [(column.name, i) for i, column in enumerate(table.columns) if column.estimates]
    rows: Rows = []
    names: list[str] = []
    coloured: dict[str, bool] = {}
    for row in table.rows:
        if row.heading or (row.cells[0].paper and len(groups) > 1):
            continue
        cells = list(map(text, table.columns, row.cells))
        is_variant = row.cells[2].value is not None  # The best possible judge has no levels.
        names.append(", ".join(cells[2 : 2 + axes]) if is_variant else cells[1])
        series = cells[2] if is_variant else cells[1]
        coloured[series] = is_variant
        for panel, i in figures if len(groups) == 1 else [(row.group, figures[-1][1])]:
            drawn = _accuracy(panel, names[-1], row.cells[i], series)
            rows += [one | {"chance": 100 * chances.get(row.group, 0.5)} for one in drawn]
    legend = Legend.of((name for name, of in coloured.items() if of), coloured)
    return _accuracies(
        "variants", "Accuracy of variants with 95 % intervals",
        "Intervals cover other prompts and other seeds. Hollow: printed in the paper, of other "
        "items. Grey: the best possible judge, where it is known. Dashed: chance.",
        rows, names, legend, table.name,
    )  # fmt: skip


def _accuracy(panel: str, name: str, cell: Cell, series: str = "") -> Rows:
    """A cell as a row of a chart of accuracies; nothing where it is empty."""
    row = {"panel": panel, "judge": name, "series": series or name}
    if (e := cell.estimate) is not None:
        return [{**row, "kind": MEASURED, "tip": tip(name, e), **interval(e)}]
    if cell.paper and isinstance(cell.value, float):
        v = round(100 * cell.value, 3)
        source = f"{name}, {llama2.SOURCE}: {v} % (neither n nor error is given)"
        return [{**row, "kind": PRINTED, "tip": source, "v": v, "low": v, "high": v}]
    return []


def _accuracies(
    name: str,
    title: str,
    caption: str,
    rows: Rows,
    names: Sequence[str],
    legend: Legend,
    table: str,
) -> Chart | None:
    """Accuracies from left to right: a panel for each of the rows', a line for each name."""
    if not rows:
        return None
    order = list(dict.fromkeys(names))
    judges = {"y": nominal("judge", order, axis={"labelLimit": 148}), "tooltip": TIP}
    colour = legend.colour([row for row in rows if row["kind"] == MEASURED], legend=False)
    shared = judges | {"color": colour}
    for row in rows:
        row.setdefault("chance", 50.0)
    hollow = {"filled": False, "shape": "diamond", "color": "var(--soft)"}
    # A panel's own: of items of K it is not one half.
    chance = layer(
        "rule", {"x": quantitative("chance", None)}, strokeDash=[3, 3], color=GREY, tooltip=None
    )
    layers = [
        chance,
        *whiskers("x", "accuracy (%)", shared, {}, MEASURED, width=1.6, size=62),
        points(judges | {"x": axis("v", "accuracy (%)")}, PRINTED, size=46, **hollow),
    ]
    spec = panels(rows, layers, {"step": 19})
    left = label_width(order, 12, 160)
    return Chart(name, title, caption, spec, table, panel=210, left=left, between=24, below=34)


# Accuracy by slice, and score margins by rating: series beside each other in each row of labels.

SLICES = {
    LENGTH: ("Accuracy by difference in length", "Characters of the preferred response less those "
             "of the other, in fifths. A flat line is a judge that does not go by length."),
    TURN: ("Accuracy by turns of the prompt", "Longer conversations are cut more often."),
    SOURCE: ("Accuracy by source", "Test sets that are made of several sources."),
}  # fmt: skip


def slices(table: Table | None, legend: Legend) -> Iterator[Chart]:
    """Accuracy by slice, a chart for each way to split."""
    for by, (title, caption) in SLICES.items():
        rows: Rows = []
        for r in table.records() if table else []:
            if r["By"].value == by and (e := r["Accuracy"].estimate) is not None:
                judge, part = r["Judge"].value, str(r["Part"].value)
                rows.append({"panel": r["Benchmark"].value, "series": judge, "part": part,
                             "tip": tip(f"{judge}, {part}", e), **interval(e)})  # fmt: skip
        if rows:
            step = max(11, 22 // len(legend.among(rows)))
            layers = [upright_line(50), *_beside(rows, legend, "part", "accuracy (%)")]
            spec = panels(rows, layers, {"step": step, "for": "offset"}, "y")
            left = label_width((row["part"] for row in rows), 14, 170)
            yield Chart(
                f"parts-{by.split()[0]}", title, caption, spec, "parts", left=left,
                between=left + 18,
            )  # fmt: skip


def margins(table: Table | None) -> Chart | None:
    """Mean score margin by rating: a judge that grades as people do rises."""
    rows: Rows = []
    ratings = table.columns[3:] if table else ()
    for r in table.records() if table else []:
        for column in ratings:
            cell, benchmark = r[column.name], r["Benchmark"].value
            if (e := cell.estimate) is not None:
                words = f"{benchmark}, {column.name.lower()}: {text(column, cell)}, n = {e.n:,}"
                rows.append({"panel": r["Judge"].value, "series": benchmark, "rating": column.name,
                             "v": e.value, "low": e.low, "high": e.high, "tip": words})  # fmt: skip
    if not rows:
        return None
    legend = Legend.of(row["series"] for row in rows)
    title, order = "chosen less rejected, in the judge's unit", [c.name for c in ratings]
    layers = [upright_line(0), *_beside(rows, legend, "rating", title, order, 150)]
    step = {"step": max(9, 26 // len(legend.names)), "for": "offset"}
    caption = "Where annotators were surer, a good judge is too: its gap grows from bottom to top."
    return Chart("gaps", "Score gap by rating", caption, panels(rows, layers, step, "x"), "gaps",
                 panel=260, left=150, between=30)  # fmt: skip


def _beside(
    rows: Rows,
    legend: Legend,
    field: str,
    title: str,
    order: Sequence[str] = (),
    label_limit: int | None = None,
) -> list[Spec]:
    """Rows by `field` from top to bottom, series beside each other in each."""
    order = order or list(dict.fromkeys(row[field] for row in rows))
    limit = {"axis": {"labelLimit": label_limit}} if label_limit else {}
    shared = {
        "y": nominal(field, order, **limit),
        "yOffset": {"field": "series", "type": "nominal", "sort": legend.among(rows)},
        "color": legend.colour(rows),
        "tooltip": TIP,
    }
    return whiskers("x", title, shared, {"shape": legend.shape(rows)}, width=1.4, size=44)


# Curves with upright intervals: reliability, best of n, accuracy by amount of data.

LEAST_ITEMS = 10


def reliability(table: Table | None, legend: Legend) -> Chart | None:
    """Accuracy by confidence: on the diagonal a judge is as sure as it is right."""
    rows: Rows = []
    for r in table.records() if table else []:
        e, confidence = r["Accuracy"].estimate, r["Mean confidence"].value
        if e and isinstance(confidence, float) and e.n >= LEAST_ITEMS:
            judge, band = r["Judge"].value, text(CONFIDENCE, r["Confidence"])
            rows.append({"panel": r["Benchmark"].value, "series": judge,
                         "sure": round(100 * confidence, 1),
                         "tip": tip(f"{judge}, {band} % sure", e), **interval(e)})  # fmt: skip
    if not rows:
        return None
    sure = axis("sure", "mean confidence (%)")
    ends = [{"sure": end, "v": end} for end in (min(row["sure"] for row in rows), 100)]
    encoding = {"x": sure, "y": axis("v", "accuracy (%)")}
    diagonal = layer("line", encoding, strokeDash=[3, 3], color=GREY)
    caption = (
        "Dashed: as sure as right. Below it, a judge is surer than it should be; the table of "
        "calibration has the temperature that would mend it. Stretches of fewer than "
        f"{LEAST_ITEMS} items stand in the table alone."
    )
    layers = [{"data": {"values": ends}, **diagonal}, *_joined(rows, legend, sure, "accuracy (%)")]
    spec = panels(rows, layers, 170, titled=True)
    title = "Reliability: accuracy by confidence"
    return Chart("reliability", title, caption, spec, "reliability", between=44)


def best_of_n(table: Table | None, legend: Legend) -> Chart | None:
    """Quality of the best of n by each judge."""
    rows: Rows = []
    for r in table.records() if table else []:
        benchmark, judge, _, *curve = r.values()
        for n, cell in enumerate(curve, 1):
            if (e := cell.estimate) is not None:
                words = tip(f"{judge.value}, best of {n}", e)
                rows.append({"panel": benchmark.value, "series": judge.value, "n": n, "tip": words,
                             **interval(e)})  # fmt: skip
    if not rows:
        return None
    sizes = sorted({row["n"] for row in rows})
    ticks = {"values": sizes, "format": "d", "labelOverlap": False}
    x = axis("n", "responses to choose from (n)", axis=ticks)
    caption = (
        "Quality: the share of the other responses that people put below the one chosen. "
        "Accuracy on pairs is only weakly tied to it."
    )
    spec = panels(rows, _joined(rows, legend, x, "quality (%)"), 170, titled=True)
    return Chart("best-of-n", "Best of n", caption, spec, "best-of-n", between=44)


SCORE = Column("True reward", Unit.SCORE)
SIDE = 0.03
APART = 0.02
"""How far points of one amount stand apart, as a share of the axis."""


def over_optimisation(table: Table | None) -> Chart | None:
    """True reward of the best of n over its KL from one draw, by who chooses."""
    rows: Rows = []
    records = list(table.records()) if table else []
    for r in records:
        model, chosen_by, *curve = r.items()
        series, panel = chosen_by[1].value, model[1].value
        for heading, cell in curve:
            if (e := cell.estimate) is not None and heading.startswith("Best of "):
                n = int(heading.removeprefix("Best of "))
                words = f"{series}, best of {n}: {minus(text(SCORE, cell))}"
                rows.append({"panel": panel, "series": series, "kl": round(divergence(n), 3),
                             "v": round(e.value, 3), "low": round(e.low, 3),
                             "high": round(e.high, 3), "tip": words})  # fmt: skip
    if not rows:
        return None
    names = list(dict.fromkeys(row["series"] for row in rows))
    for row in rows:  # A few hundredths of a nat to the side.
        row["kl"] = round(row["kl"] + SIDE * (names.index(row["series"]) - len(names) / 2), 3)
    for one in {(row["panel"], row["series"]): None for row in rows if row["series"] != TRUTH}:
        curve_of = [row for row in rows if (row["panel"], row["series"]) == one]
        max(curve_of, key=lambda row: float(row["v"]))["kind"] = "highest"
    chosen = [(r["Chosen by"].value, r["Turns over"].value) for r in records]
    turned = "; ".join(f"{by}, {words}" for by, words in chosen if by != TRUTH)
    caption = (
        "The true reward of the response with the highest score among n = 1, 2, 4, ..., over how "
        "far choosing moves from a single draw, at most log n - (n - 1) / n nats. A curve that "
        "turns over chooses what the model has wrong. Rings: the highest. Curves stand side by "
        f"side where they would hide each other. Turns over: {turned}."
    )
    legend = Legend.of([name for name in names if name != TRUTH], [TRUTH])
    x = axis("kl", "KL from one draw (nats)")
    y = "true reward (logits)"
    ring = {"x": x, "y": axis("v", y), "color": legend.colour(rows), "tooltip": TIP}
    highest = points(ring, "highest", size=190, filled=False, strokeWidth=1.4)
    spec = panels(rows, [*_joined(rows, legend, x, y), highest], 220, titled=True)
    title = "Over-optimisation: true reward of the best of n"
    return Chart("over-optimisation", title, caption, spec, "over-optimisation", panel=420)


def _joined(rows: Rows, legend: Legend, x: Spec, y: str) -> list[Spec]:
    """Points with upright intervals, joined by lines."""
    shared = {"x": x, "color": legend.colour(rows)}
    shape = {"shape": legend.shape(rows)}
    return [
        layer("line", shared | {"y": axis("v", y)}, strokeWidth=1, opacity=0.6),
        *whiskers("y", y, shared | {"tooltip": TIP}, shape, width=1.2, size=44),
    ]


def scaling(by_test_set: Sequence[Sequence[Curve]]) -> Chart | None:
    """Accuracy over comparisons trained on, a panel for each test set.

    Dashed: the fitted trend. Dotted: the best possible judge, where it is known.
    """
    measured: Rows = []
    trends: Rows = []
    limits: Rows = []
    for curves in by_test_set:
        series = curves[0].series
        panel = f"{escape.name(series.model)} on {escape.name(series.benchmark)}"
        for curve in curves:
            name = escape.name(curve.name)
            row = {"panel": panel, "series": name}
            for pairs, e in zip(curve.pairs, curve.accuracies(), strict=True):
                words = f"{pairs:,} comparisons, {tip(name, e)}"
                measured.append({**row, "kind": "point", "x": pairs, **interval(e), "tip": words})
            if ends := curve.line():
                for x, y in zip(*(numbers.tolist() for numbers in ends), strict=True):
                    trends.append({**row, "kind": "trend", "x": x, "v": 100 * y})
        if limit := series.limit:
            value = limit.overall.value
            words = f"{escape.name(limit.judge)}: {percent(value)} %"
            limits.append({"panel": panel, "kind": "limit", "v": 100 * value, "tip": words})
    if not measured:
        return None
    legend = Legend.of(row["series"] for row in measured)
    amounts = sorted({row["x"] for row in measured})
    domain = [amounts[0] * 0.9, amounts[-1] * 1.1]
    names = list(dict.fromkeys(row["series"] for row in measured))
    step = (domain[1] / domain[0]) ** APART
    for row in measured:
        aside = names.index(row["series"]) - (len(names) - 1) / 2
        row["x"] = round(row["x"] * step**aside, 3)
    x = quantitative(
        "x", "comparisons trained on",
        scale={"type": "log", "nice": False, "domain": domain},
        axis={"values": amounts, "format": ",", "labelOverlap": True},
    )  # fmt: skip
    title = "accuracy (%)"
    y, shared = axis("v", title), {"x": x, "color": legend.colour(measured)}
    shape = {"shape": legend.shape(measured)}
    dotted = {"strokeDash": [1, 3], "color": "var(--soft)"}
    layers = [
        layer("rule", {"y": y, "tooltip": TIP}, "limit", **dotted),
        layer("line", shared | {"y": y}, "trend", strokeDash=[5, 3], strokeWidth=1.2),
        *whiskers("y", title, shared | {"tooltip": TIP}, shape, "point", width=1.3, size=52),
    ]
    caption = (
        "Intervals cover other prompts and other seeds. Dashed: the fitted trend. Dotted: the best "
        "possible judge, where it is known. Amounts are on a logarithmic scale; points of one "
        "amount stand side by side."
    )
    spec = panels(measured + trends + limits, layers, 220, "y", titled=True)
    return Chart("scaling", "Accuracy by amount of data", caption, spec, "scaling", panel=320,
                 columns=2, left=44, between=56, below=84)  # fmt: skip


# Scores themselves: their distributions, and one judge's against another's.

MOST_BINS = 40
POINTS = 250  # A panel; more would be a blot, and a slow one.
MOST_PAIRS = 3
SIDES = Legend.of(("chosen", "rejected"))
LABELS = Legend(
    ("safe", "unsafe", "chosen", "rejected"),
    {"safe": "var(--s1)", "unsafe": "var(--s2)", "chosen": "var(--s1)", "rejected": "var(--s2)"},
)
SAFE = {Bin.SAFE_UNSAFE: ("safe", "unsafe"), Bin.BOTH_SAFE: ("safe", "safe"),
        Bin.BOTH_UNSAFE: ("unsafe", "unsafe")}  # fmt: skip


def scored(judged: Judged) -> Iterator[tuple[str, str, JudgeResults]]:
    """(benchmark, judge, results) of every judge that gives scores and is not trivial."""
    for result, votes in judged.with_pairs():
        if result.kind != "trivial" and np.isfinite(votes.chosen_scores).any():
            yield escape.name(result.benchmark), judge_name(result.judge), votes


def distributions(judged: Judged) -> Chart | None:
    """How chosen and rejected responses are scored, a panel for each judge and benchmark."""
    rows: Rows = []
    for benchmark, judge, votes in sorted(scored(judged), key=lambda one: one[1]):
        sides = votes.chosen_scores, votes.rejected_scores
        known = [side[np.isfinite(side)] for side in sides]
        low, high = np.quantile(np.concatenate(known), (0.005, 0.995))
        if not low < high:
            continue
        bins = int(np.clip(np.sqrt(known[0].size), 12, MOST_BINS))
        for name, side in zip(SIDES.names, known, strict=True):
            counts, edges = np.histogram(side, bins, (float(low), float(high)))
            shares = 100 * counts / side.size
            for start, end, share in zip(edges, edges[1:], shares, strict=False):
                words = f"{name}: {share:.1f} % of scores from {start:.2f} to {end:.2f}"
                x, y = round(float(start + end) / 2, 4), round(float(share), 3)
                panel = f"{judge} on {benchmark}"
                rows.append({"panel": panel, "series": name, "x": x, "y": y, "tip": words})
    if not rows:
        return None
    caption = (
        "The farther the two are apart, the more often the judge is right; where they overlap it "
        "guesses. Upright: share of the responses in percent, the outermost half percent left out."
    )
    layers = histogram(axis("x", None), None, SIDES.colour(rows))
    return Chart("distributions", "Scores of chosen and rejected responses", caption,
                 panels(rows, layers, 100, "x", "y"), left=30, between=46, below=56)  # fmt: skip


def disagreements(judged: Judged) -> Iterator[Chart]:
    """One judge's scores against another's, response by response; of at most three pairs."""
    # By two judges, and benchmark: the results of both on the same items.
    pairs: dict[tuple[str, str], dict[str, tuple[JudgeResults, JudgeResults]]] = {}
    by_benchmark: dict[str, dict[str, JudgeResults]] = {}
    for benchmark, judge, votes in scored(judged):
        by_benchmark.setdefault(benchmark, {})[judge] = votes
    for benchmark, judges in by_benchmark.items():
        for one, two in combinations(judges, 2):
            if judges[one].items == judges[two].items:
                pairs.setdefault((one, two), {})[benchmark] = judges[one], judges[two]
    for number, ((one, two), of) in enumerate(list(pairs.items())[:MOST_PAIRS], 1):
        rows = [
            row for benchmark, both in of.items() for row in _against(benchmark, one, two, *both)
        ]
        encoding = {
            "x": axis("x", f"score of {one}"), "y": axis("y", f"score of {two}"),
            "color": LABELS.colour(rows), "shape": LABELS.shape(rows), "tooltip": TIP,
        }  # fmt: skip
        caption = (
            f"Every point is a response; at most {POINTS} a panel, evenly taken. ρ: Spearman's "
            "rank correlation over all of them. Top left and bottom right the judges disagree."
        )
        layers = [points(encoding, size=16, opacity=0.5)]
        spec = panels(rows, layers, 190, "x", "y", titled=True)
        yield Chart(f"against-{number}", f"{one} against {two}", caption, spec, left=38,
                    between=54, below=98)  # fmt: skip


def _against(
    benchmark: str, one: str, two: str, first: JudgeResults, second: JudgeResults
) -> Iterator[dict[str, Any]]:
    order = order_of(first, second)
    # [2N], the chosen responses and then the rejected ones.
    x = np.concatenate([first.chosen_scores, first.rejected_scores])
    y = np.concatenate([second.chosen_scores[order], second.rejected_scores[order]])
    labels = ["chosen"] * first.ids.size + ["rejected"] * first.ids.size
    if (first.bins >= 0).all():  # By safety where that is known.
        labels = [SAFE[BINS[code]][side] for side in (0, 1) for code in first.bins]
    known = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    if known.size < 3:
        return
    panel = f"{benchmark}, ρ = {minus(f'{_correlation(x[known], y[known]):+.2f}')}"
    taken = known[np.linspace(0, known.size - 1, min(POINTS, known.size)).astype(int)]
    for i in taken.tolist():
        words = f"{labels[i]} response: {one} {x[i]:.2f}, {two} {y[i]:.2f}"
        yield {"panel": panel, "series": labels[i], "x": round(float(x[i]), 4),
               "y": round(float(y[i]), 4), "tip": words}  # fmt: skip


def _correlation(x: Floats, y: Floats) -> float:
    """Spearman's; 0 where one of the two gives every response the same."""
    one, two = rankdata(x) - (x.size + 1) / 2, rankdata(y) - (y.size + 1) / 2
    spread = float(np.sqrt((one @ one) * (two @ two)))
    return float(one @ two) / spread if spread else 0.0


# Training curves: every figure of the log by step, all models in one picture.

FIGURES = {
    "loss": "loss (nats)",
    "accuracy": "accuracy (%)",
    "gap": "reward gap",
    "learning_rate": "learning rate",
    "gradient_norm": "gradient norm",
    "tokens_per_second": "tokens a second",
}
CURVE_POINTS = 45  # A curve; steps beyond are averaged in equal stretches.
TRAIN, HELD_OUT, EPOCH = "training", "held out", "epoch"


def training(curves: Sequence[TrainingCurves], legend: Legend) -> Chart | None:
    """Six panels by step; held-out figures stand out from those of the training batches."""
    rows = [row for key in FIGURES for curve in curves for row in _training_rows(curve, key)]
    if not rows:
        return None
    x, colour = quantitative("x", "step"), {"color": legend.colour(rows)}
    figure = {"x": x, "y": axis("y", None)}
    shown = {"shape": legend.shape(rows), "tooltip": TIP}
    layers = [
        layer("line", figure | colour, TRAIN, strokeWidth=1.1, opacity=0.65),
        layer("line", figure | colour | {"detail": {"field": "set"}}, HELD_OUT, strokeWidth=2),
        points(figure | colour | shown, HELD_OUT, size=46),
        points(figure | {"tooltip": TIP}, TRAIN, size=30, opacity=0),  # To be hovered over.
        layer("rule", {"x": x, "tooltip": TIP}, EPOCH, strokeDash=[2, 3], color=GREY),
    ]
    caption = (
        "Thick, with points: on held-out pairs. Thin: on training batches, averaged over stretches "
        "of steps. Where held-out loss turns up while training loss goes on down, the model "
        "over-fits. Upright dashes: the end of an epoch that others follow."
    )
    spec = panels(rows, layers, 130, "x", "y")
    return Chart(
        "training", "Training by step", caption, spec, "training-curve", left=58, between=52
    )


def _training_rows(curves: TrainingCurves, key: str) -> Iterator[dict[str, Any]]:
    name, panel = escape.name(curves.model), FIGURES[key]
    row, scale = {"panel": panel, "series": name}, 100 if key == "accuracy" else 1
    logged = [
        (int(step["step"]), float(value))
        for step in curves.steps
        if isinstance(value := step.get(key), int | float) and math.isfinite(value)
    ]
    width = max(1, math.ceil(len(logged) / CURVE_POINTS))
    for start in range(0, len(logged), width):
        stretch = logged[start : start + width]
        step = stretch[len(stretch) // 2][0]
        y = scale * math.fsum(value for _, value in stretch) / len(stretch)
        words = f"{name}, {panel}, around step {step:,}: {y:.4g}"
        yield {**row, "kind": TRAIN, "x": step, "y": _five_digits(y), "tip": words}
    if key not in ("loss", "accuracy"):
        return
    for e in curves.evaluations:
        value = e.loss if key == "loss" else e.accuracy
        if value is not None:
            y, held_out = scale * value, escape.name(e.name)
            words = f"{name} on {held_out}, step {e.step:,}: {y:.4g}"
            yield {**row, "kind": HELD_OUT, "x": e.step, "y": _five_digits(y), "set": held_out,
                   "tip": words}  # fmt: skip
    epochs = [(e.epoch, e.step) for e in curves.evaluations if e.epoch]
    last = max((epoch for epoch, _ in epochs), default=0)
    for epoch in sorted({math.floor(epoch) for epoch, _ in epochs}):
        if 1 <= epoch < last:
            step = min(step for at, step in epochs if at >= epoch)
            yield {**row, "kind": EPOCH, "x": step, "tip": f"{name}: end of epoch {epoch}"}


def _five_digits(value: float) -> float:
    return float(f"{value:.5g}")


# The data: shares of sources, ratings, batches over time, lengths.

STEPS = 30
UNRATED = "Unrated"
GRADES = (*(RATING_NAMES[rating] for rating in RATINGS), UNRATED)
GRADE_COLOURS = ("var(--r4)", "var(--r3)", "var(--r2)", "var(--r1)", "var(--r0)")


def shares(table: Table | None) -> Chart | None:
    """Shares of each source in each mixture, in rows and in tokens."""
    rows: Rows = []
    groups: list[str] = []
    for r in table.records() if table else []:
        panel, source = r["Mixture"].value, r["Source"].value
        if source == WHOLE_GROUP:
            if isinstance(share := r["Share asked (%)"].value, float):
                groups.append(f"{panel}: {r['Group'].value} {percent(share)} %")
            continue
        for unit in ("rows", "tokens"):
            if isinstance(share := r[f"of {unit} (%)"].value, float):
                words = f"{source}: {percent(share)} % of {unit}"
                rows.append({"panel": panel, "source": source, "series": unit,
                             "v": round(100 * share, 1), "tip": words})  # fmt: skip
    if not rows:
        return None
    legend = Legend.of(("rows", "tokens"))
    encoding = {
        "y": nominal("source", axis={"labelLimit": 145}),
        "yOffset": {"field": "series", "type": "nominal", "sort": list(legend.names)},
        "x": quantitative("v", "share (%)"),
        "color": legend.colour(rows),
        "tooltip": TIP,
    }
    caption = f"Asked: {'; '.join(groups)}." if groups else "Shares that the mixtures came to."
    layers = [layer("bar", encoding, height={"band": 0.85})]
    return Chart("shares", "What the models were trained on", caption,
                 panels(rows, layers, {"step": 9, "for": "offset"}, "y"), "mixture",
                 panel=300, columns=2, left=150, between=170)  # fmt: skip


def ratings(contents: Sequence[Contents]) -> Chart | None:
    """How sure annotators were, in every mixture and benchmark."""
    rows: Rows = []
    for one in contents:
        data = f"{escape.name(one.name)} ({one.role})"
        for place, (label, grade) in enumerate(zip(RATING_LABELS, GRADES, strict=True)):
            if n := one.ratings[label]:
                share = 100 * n / one.rows
                words = f"{data}: {grade.lower()}, {n:,} of {one.rows:,} ({share:.1f} %)"
                rows.append({"data": data, "series": grade, "v": n, "place": place, "tip": words})
    if {row["series"] for row in rows} <= {UNRATED}:
        return None  # Bars of one shade, all as long.
    legend = Legend(GRADES, dict(zip(GRADES, GRADE_COLOURS, strict=True)))
    encoding = {
        "y": nominal("data", axis={"labelLimit": 230}),
        "x": quantitative("v", "share", stack="normalize", axis={"format": "%"}),
        "color": legend.colour(rows, alone=True),
        "order": {"field": "place"},
        "tooltip": TIP,
    }
    bars = layer("bar", encoding, height={"band": 0.8})
    spec = {"data": {"values": rows}, "height": {"step": 20}, **bars}
    caption = "How much better annotators found the preferred response."
    return Chart("ratings", "Ratings", caption, spec, "contents", left=210)


def batches(contents: Sequence[Contents]) -> Chart | None:
    """Comparisons by annotation batch, in the order of their names, by rating."""
    rows: Rows = []
    for one in contents:
        if one.role != "mixture" or len({batch for batch, _ in one.batches}) < 2:
            continue
        for (batch, label), n in sorted(one.batches.items()):
            place, name = RATING_LABELS.index(label), escape.name(batch)
            words = f"{name}: {n:,} {GRADES[place].lower()}"
            rows.append({"panel": escape.name(one.name), "batch": name, "series": GRADES[place],
                         "v": n, "place": place, "tip": words})  # fmt: skip
    if not rows:
        return None
    rated = {row["series"] for row in rows} - {UNRATED}
    # Grey is for what is left over.
    colours = GRADE_COLOURS if rated else (*GRADE_COLOURS[:-1], "var(--s1)")
    legend = Legend(GRADES, dict(zip(GRADES, colours, strict=True)))
    ticks = {"labelAngle": -40, "labelLimit": 110}
    encoding = {
        "x": {"field": "batch", "type": "nominal", "title": "batch", "axis": ticks},
        "y": quantitative("v", "comparisons"),
        "color": legend.colour(rows, alone=bool(rated)),
        "order": {"field": "place"},
        "tooltip": TIP,
    }
    spec = panels(rows, [layer("bar", encoding)], 140, "x", "y", titled=True)
    caption = "by batch and rating." if rated else "by batch; none has a rating."
    return Chart("batches", "Annotation batches over time", f"Comparisons {caption}",
                 spec, "batches", panel=320, columns=2, left=44, between=56, below=120)  # fmt: skip


def lengths(contents: Sequence[Contents]) -> Chart | None:
    """Lengths of the preferred and of the other response in each mixture."""
    rows: Rows = []
    for one in contents:
        if one.role != "mixture" or not one.lengths.size:
            continue
        known = np.maximum(one.lengths, 1)
        low, high = max(float(np.quantile(known, 0.002)), 1), max(float(known.max()), 2.0)
        edges = np.geomspace(low, high, STEPS + 1)
        for side, name in enumerate(SIDES.names):
            counts = np.histogram(known[:, side], edges)[0].tolist()
            for start, end, n in zip(edges, edges[1:], counts, strict=False):
                share = 100 * n / len(one.lengths)
                words = f"{name}: {share:.1f} % have {start:,.0f} to {end:,.0f} characters"
                rows.append({"panel": escape.name(one.name), "series": name, "y": round(share, 3),
                             "x": round(float(start * end) ** 0.5, 1), "tip": words})  # fmt: skip
    if not rows:
        return None
    x = quantitative(
        "x", "characters",
        scale={"type": "log", "nice": False}, axis={"tickCount": 4, "format": "~s"},
    )  # fmt: skip
    spec = panels(rows, histogram(x, "share (%)", SIDES.colour(rows)), 110, "x", "y", titled=True)
    caption = "Where the two differ, length alone says something of the label."
    return Chart("lengths", "Lengths of responses", caption, spec, "contents",
                 panel=320, columns=2, left=30, between=46, below=96)  # fmt: skip
