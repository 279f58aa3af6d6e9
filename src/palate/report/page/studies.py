"""A study's accuracy against the amount of data."""

from __future__ import annotations

from collections.abc import Sequence

from palate.report import escape
from palate.report.page.chart import (
    TIP,
    Chart,
    Rows,
    Series,
    Spec,
    axis,
    interval,
    panels,
    told,
)
from palate.report.scaling import Curve, line
from palate.report.tables import percent


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
