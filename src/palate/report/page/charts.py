"""Charts of tables with accuracies: the numbers drawn are those of the tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import rankdata

from palate import escape
from palate.evaluate.metrics import JudgeResults
from palate.evaluate.results import BINS, Floats
from palate.report import llama2
from palate.report.accuracy import RATING_NAMES, RATINGS, judge_name
from palate.report.data import NONE, Contents
from palate.report.diagnostics import LENGTH, SOURCE, TURN
from palate.report.read import Judged
from palate.report.study import Curve, line
from palate.report.table import DASH, Cell, Table, percent
from palate.report.training import TrainingCurves
from palate.stats import Estimate
from palate.types import Bin

# A chart as a Vega-Lite specification, and the pieces that charts share.
#
# Colours are names of CSS variables, so that one chart serves light, dark and print. Texts for
# hover
# are written here, where numbers are formatted.

Spec = dict[str, Any]
Rows = list[dict[str, Any]]
SERIES = 7
# Told apart without colour.
SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "triangle-right")
QUIET = "var(--faint)"
TIP = {"field": "tip", "type": "nominal"}
# Unseen, as high as a label at the very top of an axis: titles over panels stand on one line.
STRUT: Spec = {
    "data": {"values": [{}]},
    "mark": {"type": "text", "text": "x", "opacity": 0, "fontSize": 14, "tooltip": None},
    "encoding": {"x": {"value": 0}, "y": {"value": 0}},
}


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
class Series:
    """The judges or models that charts tell apart, in order: one has the same colour in all."""

    names: tuple[str, ...]
    colours: Mapping[str, str] = field(default_factory=dict[str, str])

    @staticmethod
    def of(models: Iterable[str], quiet: Iterable[str] = ()) -> Series:
        """Models in colours; the quiet ones in grey."""
        strong = list(dict.fromkeys(models))
        grey = [name for name in dict.fromkeys(quiet) if name not in strong]
        colours = {name: f"var(--s{i % SERIES + 1})" for i, name in enumerate(strong)}
        return Series((*strong, *grey), colours | dict.fromkeys(grey, QUIET))

    def among(self, rows: Rows, key: str = "series") -> list[str]:
        """Those that stand in the rows, in order."""
        there = {row[key] for row in rows}
        return [name for name in self.names if name in there]

    def colour(self, rows: Rows, *, legend: bool = True, alone: bool = False) -> Spec:
        """The colour channel for the series in these rows; `alone`: with a legend even of one."""
        names = self.among(rows)
        scale = {"domain": names, "range": [self.colours[name] for name in names]}
        some = legend and len(names) > (0 if alone else 1)
        drawn = {"title": None, "orient": "top"} if some else None
        return {"field": "series", "type": "nominal", "scale": scale, "legend": drawn}

    def shape(self, rows: Rows, *, legend: bool = True) -> Spec:
        """The shape channel: the same legend again, so that the two are drawn as one."""
        names = self.among(rows)
        shapes = [SHAPES[self.names.index(name) % len(SHAPES)] for name in names]
        drawn = {"title": None, "orient": "top"} if legend and len(names) > 1 else None
        scale = {"domain": names, "range": shapes}
        return {"field": "series", "type": "nominal", "scale": scale, "legend": drawn}


def panels(
    rows: Rows, layers: Sequence[Spec], height: Any, *free: str, titled: bool = False
) -> Spec:
    """The same layers once for each `panel` of the rows, in order; `free` axes have own scales.

    `titled` leaves room for the title of an upright axis, which stands over it.
    """
    order = list(dict.fromkeys(row["panel"] for row in rows))
    spec: Spec = {
        "data": {"values": rows},
        "facet": {
            "field": "panel",
            "type": "nominal",
            "sort": order,
            "title": None,
            "header": {"labelPadding": 20 if titled and "y" not in free else 4},
        },
        "spec": {"height": height, "layer": [*layers, STRUT]},
    }
    if free:
        spec["resolve"] = {"scale": dict.fromkeys(free, "independent")}
    return spec


def axis(field: str, title: str | None, **more: Any) -> Spec:
    """A quantitative axis that need not begin at zero; no label stands at its very end."""
    scale = {"zero": False, "nice": False, "padding": 8}
    return {"field": field, "type": "quantitative", "title": title, "scale": scale, **more}


def records(table: Table) -> list[dict[str, Cell]]:
    """The rows of a table by column name, without those that only say n."""
    names = [column.name for column in table.columns]
    return [dict(zip(names, row.cells, strict=True)) for row in table.rows if not row.heading]


def interval(estimate: Estimate) -> dict[str, float]:
    """An estimate in percent as fields of a row: v, low, high."""
    return {"v": round(100 * estimate.value, 3), "low": round(100 * estimate.low, 3),
            "high": round(100 * estimate.high, 3)}  # fmt: skip


def told(name: str, estimate: Estimate, unit: str = " %") -> str:
    """An estimate for hover: `helpfulness: 64.0 % (62.0 to 66.0), n = 2,326`."""
    low, high = percent(estimate.low), percent(estimate.high)
    return f"{name}: {percent(estimate.value)}{unit} ({low} to {high}), n = {estimate.n:,}"


CHANCE: Spec = {
    "data": {"values": [{"chance": 50}]},
    "mark": {"type": "rule", "strokeDash": [3, 3], "color": "var(--faint)"},
    "encoding": {"x": {"field": "chance", "type": "quantitative"}},
}
LEAST = 10
OURS, PAPER = "measured", "printed in the paper"
PARTS = {
    LENGTH: ("Accuracy by difference in length", "Characters of the preferred response less those "
             "of the other, in fifths. A flat line is a judge that does not go by length."),
    TURN: ("Accuracy by turns of the prompt", "Longer conversations are cut more often."),
    SOURCE: ("Accuracy by source", "Test sets that are made of several sources."),
}  # fmt: skip


def overview(table: Table, series: Series) -> Chart | None:
    """Table 7 as intervals: a panel for each benchmark, a line for each judge."""
    rows: Rows = [
        row
        for column, head in list(enumerate(table.columns))[1:-2]
        for judge in table.rows
        for row in _standing(head.name, judge.cells[0].text, judge.cells[column])
    ]
    return _intervals(
        "overview", "Accuracy with 95 % intervals",
        "Filled: measured here. Hollow: printed in the paper, of other models. Grey: trivial "
        "judges and limits. Dashed: chance.",
        rows, [row.cells[0].text for row in table.rows], series, "table-7",
    )  # fmt: skip


def variants(table: Table, axes: int) -> Chart | None:
    """A study's accuracies as intervals: a line for each variant, which `axes` levels name.

    A colour for each level of the first axis. A panel for each rating where there is one test
    set, with the paper's figures; else one for each test set.
    """
    groups = {row.group for row in table.rows if not row.cells[0].paper}
    heads = [(column.name, i) for i, column in enumerate(table.columns) if column.estimates]
    rows: Rows = []
    names: list[str] = []
    colours: dict[str, bool] = {}
    for row in table.rows:
        if row.heading or (row.cells[0].paper and len(groups) > 1):
            continue
        levels = [cell.text for cell in row.cells[2 : 2 + axes]]
        limit = set(levels) == {DASH}
        names.append(row.cells[1].text if limit else ", ".join(levels))
        colour = names[-1] if limit else levels[0]
        colours[colour] = limit
        panels_of = heads if len(groups) == 1 else [(row.group, heads[-1][1])]
        for panel, i in panels_of:
            rows += _standing(panel, names[-1], row.cells[i], colour)
    series = Series.of(
        [name for name, limit in colours.items() if not limit],
        [name for name, limit in colours.items() if limit],
    )
    return _intervals(
        "variants", "Accuracy of variants with 95 % intervals",
        "Intervals cover other prompts and other seeds. Hollow: printed in the paper, of other "
        "items. Grey: the best possible judge, where it is known. Dashed: chance.",
        rows, names, series, table.name,
    )  # fmt: skip


def _standing(panel: str, name: str, cell: Cell, series: str = "") -> Rows:
    """A cell as a row of a chart of intervals; nothing where it is empty."""
    row = {"panel": panel, "judge": name, "series": series or name}
    if cell.estimate is not None:
        tip = told(name, cell.estimate)
        return [{**row, "kind": OURS, "tip": tip, **interval(cell.estimate)}]
    if cell.paper and cell.text != DASH:
        v = float(cell.text)
        tip = f"{name}, {llama2.SOURCE}: {v} % (neither n nor error is given)"
        return [{**row, "kind": PAPER, "tip": tip, "v": v, "low": v, "high": v}]
    return []


def _intervals(
    name: str,
    title: str,
    caption: str,
    rows: Rows,
    names: Sequence[str],
    series: Series,
    table: str,
) -> Chart | None:
    """Accuracies from left to right: a panel for each of the rows', a line for each name."""
    if not rows:
        return None
    order = list(dict.fromkeys(names))
    known = [row for row in rows if row["kind"] == OURS]
    judges: Spec = {"field": "judge", "type": "nominal", "sort": order, "title": None,
                    "axis": {"labelLimit": 148}}  # fmt: skip
    colour = series.colour(known, legend=False)
    layers = [
        CHANCE,
        _across(judges, colour, "accuracy (%)"),
        {"transform": [{"filter": f"datum.kind == '{OURS}'"}],
         "mark": {"type": "point", "filled": True, "size": 62, "opacity": 1},
         "encoding": {"y": judges, "x": axis("v", "accuracy (%)"), "color": colour,
                      "tooltip": TIP}},
        {"transform": [{"filter": f"datum.kind == '{PAPER}'"}],
         "mark": {"type": "point", "filled": False, "size": 46, "shape": "diamond",
                  "color": "var(--soft)", "opacity": 1},
         "encoding": {"y": judges, "x": axis("v", "accuracy (%)"), "tooltip": TIP}},
    ]  # fmt: skip
    longest = max(len(name) for name in order)
    return Chart(
        name, title, caption, panels(rows, layers, {"step": 19}), table, panel=210,
        left=min(160, 12 + round(6.4 * longest)), between=24, below=34,
    )  # fmt: skip


def _across(y: Spec, colour: Spec, title: str) -> Spec:
    """Intervals as lines from left to right."""
    return {
        "mark": {"type": "rule", "strokeWidth": 1.6},
        "encoding": {"y": y, "x": axis("low", title), "x2": {"field": "high"}, "color": colour,
                     "tooltip": TIP},
    }  # fmt: skip


def parts(table: Table, series: Series) -> Iterator[Chart]:
    """Accuracy by part, a chart for each way to split."""
    for by, (title, caption) in PARTS.items():
        rows: Rows = [
            {"panel": r["Benchmark"].text, "series": r["Judge"].text, "part": r["Part"].text,
             "tip": told(f"{r['Judge'].text}, {r['Part'].text}", e), **interval(e)}
            for r in records(table)
            if r["By"].text == by and (e := r["Accuracy"].estimate) is not None
        ]  # fmt: skip
        if rows:
            name = f"parts-{by.split()[0]}"
            yield Chart(name, title, caption, _dodged(rows, series, "part"), "parts",
                        left=_room(rows, "part"), between=_room(rows, "part") + 18)  # fmt: skip


def _room(rows: Rows, field: str) -> int:
    """Pixels for the longest label beside a panel."""
    return min(170, 14 + round(6.4 * max(len(row[field]) for row in rows)))


def _dodged(rows: Rows, series: Series, field: str) -> Spec:
    """Rows by `field` from top to bottom, series beside each other in each."""
    names = series.among(rows)
    order = list(dict.fromkeys(row[field] for row in rows))
    y: Spec = {"field": field, "type": "nominal", "sort": order, "title": None}
    beside: Spec = {"field": "series", "type": "nominal", "sort": names}
    colour = series.colour(rows)
    shared: dict[str, Any] = {"y": y, "yOffset": beside, "color": colour, "tooltip": TIP}
    layers: list[Spec] = [
        CHANCE,
        {"mark": {"type": "rule", "strokeWidth": 1.4},
         "encoding": shared | {"x": axis("low", "accuracy (%)"), "x2": {"field": "high"}}},
        {"mark": {"type": "point", "filled": True, "size": 44, "opacity": 1},
         "encoding": shared | {"x": axis("v", "accuracy (%)"), "shape": series.shape(rows)}},
    ]  # fmt: skip
    return panels(rows, layers, {"step": max(11, 22 // len(names)), "for": "offset"}, "y")


def reliability(table: Table, series: Series) -> Chart | None:
    """Accuracy by confidence: on the diagonal a judge is as sure as it is right."""
    rows: Rows = [
        {"panel": r["Benchmark"].text, "series": r["Judge"].text,
         "sure": float(r["Mean confidence"].text),
         "tip": told(f"{r['Judge'].text}, {r['Confidence'].text} % sure", e), **interval(e)}
        for r in records(table)
        if (e := r["Accuracy"].estimate) is not None and e.n >= LEAST
    ]  # fmt: skip
    if not rows:
        return None
    ends = [{"sure": end, "v": end} for end in (min(r["sure"] for r in rows), 100)]
    sure = axis("sure", "mean confidence (%)")
    diagonal: Spec = {
        "data": {"values": ends},
        "mark": {"type": "line", "strokeDash": [3, 3], "color": "var(--faint)"},
        "encoding": {"x": sure, "y": axis("v", "accuracy (%)")},
    }
    title = "Reliability: accuracy by confidence"
    caption = (
        "Dashed: as sure as right. Below it, a judge is surer than it should be; the table of "
        "calibration has the temperature that would mend it. Stretches of fewer than "
        f"{LEAST} items stand in the table alone."
    )
    layers = [diagonal, *_upright(rows, series, sure)]
    return Chart("reliability", title, caption, panels(rows, layers, 170, titled=True),
                 "reliability", between=44)  # fmt: skip


def _upright(rows: Rows, series: Series, x: Spec, y: str = "accuracy (%)") -> list[Spec]:
    """Points with upright intervals, joined by lines."""
    colour = series.colour(rows)
    return [
        {"mark": {"type": "line", "strokeWidth": 1, "opacity": 0.6},
         "encoding": {"x": x, "y": axis("v", y), "color": colour}},
        {"mark": {"type": "rule", "strokeWidth": 1.2},
         "encoding": {"x": x, "y": axis("low", y), "y2": {"field": "high"}, "color": colour,
                      "tooltip": TIP}},
        {"mark": {"type": "point", "filled": True, "size": 44, "opacity": 1},
         "encoding": {"x": x, "y": axis("v", y), "color": colour, "shape": series.shape(rows),
                      "tooltip": TIP}},
    ]  # fmt: skip


def best_of_n(table: Table, series: Series) -> Chart | None:
    """Quality of the best of n by each judge."""
    rows: Rows = [
        {"panel": r["Benchmark"].text, "series": r["Judge"].text, "n": int(head.split()[-1]),
         "tip": told(f"{r['Judge'].text}, {head.lower()}", e), **interval(e)}
        for r in records(table)
        for head, cell in r.items()
        if head.startswith("Best of") and (e := cell.estimate) is not None
    ]  # fmt: skip
    if not rows:
        return None
    sizes = sorted({row["n"] for row in rows})
    x: Spec = axis(
        "n",
        "responses to choose from (n)",
        axis={"values": sizes, "format": "d", "labelOverlap": False},
    )
    caption = (
        "Quality: the share of the other responses that people put below the one chosen. "
        "Accuracy on pairs is only weakly tied to it."
    )
    spec = panels(rows, _upright(rows, series, x, "quality (%)"), 170, titled=True)
    return Chart("best-of-n", "Best of n", caption, spec, "best-of-n", between=44)


def gaps(table: Table) -> Chart | None:
    """Mean score gap by rating: a judge that grades as people do rises."""
    rows: Rows = []
    for r in records(table):
        for head in list(r)[3:]:
            if (e := r[head].estimate) is not None:
                benchmark = r["Benchmark"].text
                tip = f"{benchmark}, {head.lower()}: {r[head].text}, n = {e.n:,}"
                rows.append({"panel": r["Judge"].text, "series": benchmark, "rating": head,
                             "v": e.value, "low": e.low, "high": e.high, "tip": tip})  # fmt: skip
    if not rows:
        return None
    series = Series.of(row["series"] for row in rows)
    order = [column.name for column in table.columns[3:]]
    y: Spec = {"field": "rating", "type": "nominal", "sort": order, "title": None,
               "axis": {"labelLimit": 150}}  # fmt: skip
    beside: Spec = {"field": "series", "type": "nominal", "sort": list(series.names)}
    shared: dict[str, Any] = {
        "y": y,
        "yOffset": beside,
        "color": series.colour(rows),
        "tooltip": TIP,
    }
    title = "chosen less rejected, in the judge's unit"
    layers: list[Spec] = [
        {"data": {"values": [{"zero": 0}]},
         "mark": {"type": "rule", "strokeDash": [3, 3], "color": "var(--faint)"},
         "encoding": {"x": {"field": "zero", "type": "quantitative"}}},
        {"mark": {"type": "rule", "strokeWidth": 1.4},
         "encoding": shared | {"x": axis("low", title), "x2": {"field": "high"}}},
        {"mark": {"type": "point", "filled": True, "size": 44, "opacity": 1},
         "encoding": shared | {"x": axis("v", title), "shape": series.shape(rows)}},
    ]  # fmt: skip
    step = {"step": max(9, 26 // len(series.names)), "for": "offset"}
    caption = "Where annotators were surer, a good judge is too: its gap grows from bottom to top."
    return Chart("gaps", "Score gap by rating", caption, panels(rows, layers, step, "x"), "gaps",
                 panel=260, left=150, between=30)  # fmt: skip


# A study's accuracy against the amount of data.


def scaling(of: Sequence[Sequence[Curve]]) -> Chart | None:
    """Accuracy over comparisons trained on, a panel for each test set.

    Dashed: the fitted trend. Dotted: the best possible judge, where it is known.
    """
    points: Rows = [row for curves in of for one in curves for row in _points(one)]
    if not points:
        return None
    trends: Rows = [row for curves in of for one in curves for row in _trend(one)]
    limits: Rows = [row for curves in of for row in _limit(curves[0])]
    series = Series.of(row["series"] for row in points)
    amounts = sorted({row["x"] for row in points})
    x: Spec = {"field": "x", "type": "quantitative", "title": "comparisons trained on",
               "scale": {"type": "log", "nice": False,
                         "domain": [amounts[0] * 0.9, amounts[-1] * 1.1]},
               "axis": {"values": amounts, "format": ",", "labelOverlap": True}}  # fmt: skip
    title, colour = "accuracy (%)", series.colour(points)
    only = {kind: [{"filter": f"datum.kind == '{kind}'"}] for kind in ("point", "trend", "limit")}
    y = axis("v", title)
    layers: list[Spec] = [
        {"transform": only["limit"],
         "mark": {"type": "rule", "strokeDash": [1, 3], "color": "var(--soft)"},
         "encoding": {"y": y, "tooltip": TIP}},
        {"transform": only["trend"],
         "mark": {"type": "line", "strokeDash": [5, 3], "strokeWidth": 1.2},
         "encoding": {"x": x, "y": y, "color": colour}},
        {"transform": only["point"], "mark": {"type": "rule", "strokeWidth": 1.3},
         "encoding": {"x": x, "y": axis("low", title), "y2": {"field": "high"}, "color": colour,
                      "tooltip": TIP}},
        {"transform": only["point"],
         "mark": {"type": "point", "filled": True, "size": 52, "opacity": 1},
         "encoding": {"x": x, "y": y, "color": colour, "shape": series.shape(points),
                      "tooltip": TIP}},
    ]  # fmt: skip
    caption = (
        "Intervals cover other prompts and other seeds. Dashed: the fitted trend. Dotted: the best "
        "possible judge, where it is known. Amounts are on a logarithmic scale."
    )
    spec = panels(points + trends + limits, layers, 220, "y", titled=True)
    return Chart("scaling", "Accuracy by amount of data", caption, spec, "scaling", panel=320,
                 columns=2, left=44, between=56, below=84)  # fmt: skip


def _panel(one: Curve) -> str:
    return f"{escape.name(one.sheet.model)} on {escape.name(one.sheet.benchmark)}"


def _points(one: Curve) -> Rows:
    name = escape.name(one.name)
    return [
        {"panel": _panel(one), "series": name, "kind": "point", "x": pairs, **interval(e),
         "tip": f"{pairs:,} comparisons, {told(name, e)}"}
        for pairs, e in zip(one.pairs, one.accuracies(), strict=True)
    ]  # fmt: skip


def _trend(one: Curve) -> Rows:
    fitted = line(one)
    if fitted is None:
        return []
    ends = zip(fitted[0].tolist(), fitted[1].tolist(), strict=True)
    return [
        {
            "panel": _panel(one),
            "series": escape.name(one.name),
            "kind": "trend",
            "x": x,
            "v": 100 * y,
        }
        for x, y in ends
    ]


def _limit(one: Curve) -> Rows:
    limit = one.sheet.limit
    if limit is None:
        return []
    value = limit.overall.value
    tip = f"{escape.name(limit.judge)}: {percent(value)} %"
    return [{"panel": _panel(one), "kind": "limit", "v": 100 * value, "tip": tip}]


# Charts of scores themselves: their distributions, and one judge's against another's.

MOST_BINS = 40
POINTS = 250  # A panel; more would be a blot, and a slow one.
SIDES = Series.of(("chosen", "rejected"))
LABELS = Series(
    ("safe", "unsafe", "chosen", "rejected"),
    {"safe": "var(--s1)", "unsafe": "var(--s2)", "chosen": "var(--s1)", "rejected": "var(--s2)"},
)
SAFE = {Bin.SAFE_UNSAFE: ("safe", "unsafe"), Bin.BOTH_SAFE: ("safe", "safe"),
        Bin.BOTH_UNSAFE: ("unsafe", "unsafe")}  # fmt: skip
MOST_PAIRS = 3


def scored(judged: Judged) -> Iterator[tuple[str, str, JudgeResults]]:
    """(benchmark, judge, tally) of every judge that gives scores and is not trivial."""
    for result, votes in judged.tallied():
        if result.kind != "trivial" and np.isfinite(votes.chosen_scores).any():
            yield escape.name(result.benchmark), judge_name(result.judge), votes


def distributions(judged: Judged) -> Chart | None:
    """How chosen and rejected responses are scored, a panel for each judge and benchmark."""
    rows: Rows = []
    for benchmark, judge, votes in sorted(scored(judged), key=lambda found: found[1]):
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
                rows.append({
                    "panel": f"{judge} on {benchmark}", "series": name,
                    "x": round(float(start + end) / 2, 4), "y": round(float(share), 3),
                    "tip": f"{name}: {share:.1f} % of scores from {start:.2f} to {end:.2f}",
                })  # fmt: skip
    if not rows:
        return None
    encoding = {
        "x": axis("x", None),
        "y": {"field": "y", "type": "quantitative", "title": None, "stack": None},
        "color": SIDES.colour(rows), "tooltip": TIP,
    }  # fmt: skip
    area = {"type": "area", "interpolate": "step", "opacity": 0.22, "line": {"strokeWidth": 1.2}}
    caption = (
        "The farther the two are apart, the more often the judge is right; where they overlap it "
        "guesses. Upright: share of the responses in percent, the outermost half percent left out."
    )
    spec = panels(rows, [{"mark": area, "encoding": encoding}], 100, "x", "y")
    return Chart("distributions", "Scores of chosen and rejected responses", caption, spec,
                 left=30, between=46, below=56)  # fmt: skip


def disagreements(judged: Judged) -> Iterator[Chart]:
    """One judge's scores against another's, response by response; of at most three pairs."""
    by: dict[str, dict[str, JudgeResults]] = {}
    for benchmark, judge, votes in scored(judged):
        by.setdefault(benchmark, {})[judge] = votes
    pairs = dict.fromkeys(
        (one, two)
        for found in by.values()
        for i, one in enumerate(found)
        for two in list(found)[i + 1 :]
        if found[one].items == found[two].items
    )
    for number, (one, two) in enumerate(list(pairs)[:MOST_PAIRS]):
        rows = [
            row
            for benchmark, found in by.items()
            if one in found and two in found and found[one].items == found[two].items
            for row in _against(benchmark, one, two, found[one], found[two])
        ]
        yield _disagreement(f"against-{number + 1}", one, two, rows)


def _disagreement(name: str, one: str, two: str, rows: Rows) -> Chart:
    mark = {"type": "point", "filled": True, "size": 16, "opacity": 0.5}
    encoding: dict[str, Any] = {
        "x": axis("x", f"score of {one}"), "y": axis("y", f"score of {two}"),
        "color": LABELS.colour(rows), "shape": LABELS.shape(rows), "tooltip": TIP,
    }  # fmt: skip
    title = f"{one} against {two}"
    caption = (
        f"Every point is a response; at most {POINTS} a panel, evenly taken. ρ: Spearman's rank "
        "correlation over all of them. Top left and bottom right the judges disagree."
    )
    spec = panels(rows, [{"mark": mark, "encoding": encoding}], 190, "x", "y", titled=True)
    return Chart(name, title, caption, spec, left=38, between=54, below=98)


def _against(
    benchmark: str, one: str, two: str, first: JudgeResults, second: JudgeResults
) -> Iterator[dict[str, Any]]:
    place = {name: i for i, name in enumerate(second.ids)}
    order = np.array([place[name] for name in first.ids])
    x = np.concatenate([first.chosen_scores, first.rejected_scores])
    y = np.concatenate([second.chosen_scores[order], second.rejected_scores[order]])
    labels = _labels(first)
    known = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    if known.size < 3:
        return
    correlation = f"{_correlation(x[known], y[known]):+.2f}".replace("-", "−")
    panel = f"{benchmark}, ρ = {correlation}"
    taken = known[np.linspace(0, known.size - 1, min(POINTS, known.size)).astype(int)]
    for i in taken.tolist():
        yield {
            "panel": panel, "series": labels[i],
            "x": round(float(x[i]), 4), "y": round(float(y[i]), 4),
            "tip": f"{labels[i]} response: {one} {x[i]:.2f}, {two} {y[i]:.2f}",
        }  # fmt: skip


def _labels(votes: JudgeResults) -> Sequence[str]:
    """What each response is called, chosen ones first: by safety where labels are known."""
    if (votes.bins < 0).any():
        return ["chosen"] * votes.ids.size + ["rejected"] * votes.ids.size
    sides = [SAFE[BINS[code]] for code in votes.bins]
    return [chosen for chosen, _ in sides] + [rejected for _, rejected in sides]


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
TRAIN, HELD = "training", "held out"


def training(courses: Sequence[TrainingCurves], series: Series) -> Chart | None:
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


def _rows(course: TrainingCurves, key: str) -> Iterator[dict[str, Any]]:
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


def _thinned(course: TrainingCurves, key: str) -> Iterator[tuple[int, float]]:
    """(step, figure), averaged over stretches of steps."""
    found = [
        (int(step["step"]), float(value))
        for step in course.steps
        if isinstance(value := step.get(key), int | float) and math.isfinite(value)
    ]
    width = max(1, math.ceil(len(found) / CURVE_POINTS))
    for start in range(0, len(found), width):
        held = found[start : start + width]
        yield held[len(held) // 2][0], math.fsum(value for _, value in held) / len(held)


def _short(value: float) -> float:
    return float(f"{value:.5g}")


# Charts of the data: shares of sources, ratings, batches over time, lengths.

STEPS = 30
UNRATED = "Unrated"
GRADES = ("var(--r4)", "var(--r3)", "var(--r2)", "var(--r1)", "var(--r0)")


def shares(table: Table) -> Chart | None:
    """Shares of each source in each mixture, in rows and in tokens."""
    rows: Rows = []
    asked: Rows = []
    for r in records(table):
        panel, source = r["Mixture"].text, r["Source"].text
        if source == "whole group":
            if r["Share asked (%)"].text != DASH:
                asked.append(
                    {"panel": panel, "text": f"{r['Group'].text} {r['Share asked (%)'].text} %"}
                )
            continue
        for unit, head in (("rows", "of rows (%)"), ("tokens", "of tokens (%)")):
            if r[head].text != DASH:
                share = float(r[head].text)
                rows.append({"panel": panel, "source": source, "series": unit, "v": share,
                             "tip": f"{source}: {share} % of {unit}"})  # fmt: skip
    if not rows:
        return None
    series = Series.of(("rows", "tokens"))
    encoding = {
        "y": {"field": "source", "type": "nominal", "title": None, "sort": None,
              "axis": {"labelLimit": 145}},
        "yOffset": {"field": "series", "type": "nominal", "sort": list(series.names)},
        "x": {"field": "v", "type": "quantitative", "title": "share (%)"},
        "color": series.colour(rows), "tooltip": TIP,
    }  # fmt: skip
    bars: list[Spec] = [{"mark": {"type": "bar", "height": {"band": 0.85}}, "encoding": encoding}]
    groups = "; ".join(f"{one['panel']}: {one['text']}" for one in asked)
    caption = f"Asked: {groups}." if groups else "Shares that the mixtures came to."
    return Chart("shares", "What the models were trained on", caption,
                 panels(rows, bars, {"step": 9, "for": "offset"}, "y"), "mixture",
                 panel=300, columns=2, left=150, between=170)  # fmt: skip


def ratings(contents: Sequence[Contents]) -> Chart | None:
    """How sure annotators were, in every mixture and benchmark."""
    names = [*(RATING_NAMES[rating] for rating in RATINGS), UNRATED]
    rows: Rows = []
    for one in contents:
        counts = [*(one.ratings[rating.label] for rating in RATINGS), one.ratings[NONE]]
        for place, (name, number) in enumerate(zip(names, counts, strict=True)):
            if number:
                share = 100 * number / one.rows
                of = f"{escape.name(one.name)} ({one.role})"
                tip = f"{of}: {name.lower()}, {number:,} of {one.rows:,} ({share:.1f} %)"
                rows.append({"data": of, "series": name, "v": number, "place": place, "tip": tip})
    if {row["series"] for row in rows} <= {UNRATED}:
        return None  # Bars of one shade, all as long.
    series = Series(tuple(names), dict(zip(names, GRADES, strict=True)))
    encoding: dict[str, Any] = {
        "y": {"field": "data", "type": "nominal", "sort": None, "title": None,
              "axis": {"labelLimit": 230}},
        "x": {"field": "v", "type": "quantitative", "stack": "normalize", "title": "share",
              "axis": {"format": "%"}},
        "color": series.colour(rows, alone=True), "order": {"field": "place"}, "tooltip": TIP,
    }  # fmt: skip
    spec: Spec = {"data": {"values": rows}, "height": {"step": 20},
                  "mark": {"type": "bar", "height": {"band": 0.8}},
                  "encoding": encoding}  # fmt: skip
    caption = "How much better annotators found the preferred response."
    return Chart("ratings", "Ratings", caption, spec, "contents", left=210)


def batches(contents: Sequence[Contents]) -> Chart | None:
    """Comparisons by annotation batch, in the order of their names, by rating."""
    names = [*(RATING_NAMES[rating] for rating in RATINGS), UNRATED]
    keys = dict(zip([*(rating.label for rating in RATINGS), NONE], names, strict=True))
    rows: Rows = []
    for one in contents:
        if one.role != "mixture" or len({batch for batch, _ in one.batches}) < 2:
            continue
        for (batch, rating), number in sorted(one.batches.items()):
            name = escape.name(batch)
            rows.append({"panel": escape.name(one.name), "batch": name, "series": keys[rating],
                         "v": number, "place": names.index(keys[rating]),
                         "tip": f"{name}: {number:,} {keys[rating].lower()}"})  # fmt: skip
    if not rows:
        return None
    rated = {row["series"] for row in rows} - {UNRATED}
    grades = GRADES if rated else [*GRADES[:-1], "var(--s1)"]  # Grey is for what is left over.
    series = Series(tuple(names), dict(zip(names, grades, strict=True)))
    encoding: dict[str, Any] = {
        "x": {"field": "batch", "type": "nominal", "title": "batch",
              "axis": {"labelAngle": -40, "labelLimit": 110}},
        "y": {"field": "v", "type": "quantitative", "title": "comparisons"},
        "color": series.colour(rows, alone=bool(rated)), "order": {"field": "place"},
        "tooltip": TIP,
    }  # fmt: skip
    spec = panels(rows, [{"mark": "bar", "encoding": encoding}], 140, "x", "y", titled=True)
    caption = "by batch and rating." if rated else "by batch; none has a rating."
    return Chart("batches", "Annotation batches over time", f"Comparisons {caption}",
                 spec, "batches", panel=320, columns=2, left=44, between=56, below=120)  # fmt: skip


def lengths(contents: Sequence[Contents]) -> Chart | None:
    """Lengths of the preferred and of the other response in each mixture."""
    rows = [row for one in contents if one.role == "mixture" for row in _lengths(one)]
    if not rows:
        return None
    series = Series.of(("chosen", "rejected"))
    encoding: dict[str, Any] = {
        "x": {"field": "x", "type": "quantitative", "title": "characters",
              "scale": {"type": "log", "nice": False},
              "axis": {"tickCount": 4, "format": "~s"}},
        "y": {"field": "y", "type": "quantitative", "title": "share (%)", "stack": None},
        "color": series.colour(rows), "tooltip": TIP,
    }  # fmt: skip
    area = {"type": "area", "interpolate": "step", "opacity": 0.22, "line": {"strokeWidth": 1.2}}
    spec = panels(rows, [{"mark": area, "encoding": encoding}], 110, "x", "y", titled=True)
    caption = "Where the two differ, length alone says something of the label."
    return Chart("lengths", "Lengths of responses", caption, spec, "contents",
                 panel=320, columns=2, left=30, between=46, below=96)  # fmt: skip


def _lengths(one: Contents) -> Iterator[dict[str, Any]]:
    if not one.rows:
        return
    known = np.maximum(one.lengths, 1)
    top = max(float(known.max()), 2.0)
    edges = np.geomspace(max(float(np.quantile(known, 0.002)), 1), top, STEPS + 1)
    for side, name in enumerate(("chosen", "rejected")):
        counts = np.histogram(known[:, side], edges)[0]
        for start, end, number in zip(edges, edges[1:], counts.tolist(), strict=False):
            share = 100 * number / one.rows
            yield {"panel": escape.name(one.name), "series": name, "y": round(share, 3),
                   "x": round(float(start * end) ** 0.5, 1),
                   "tip": f"{name}: {share:.1f} % have {start:,.0f} to {end:,.0f} characters",
                   }  # fmt: skip
