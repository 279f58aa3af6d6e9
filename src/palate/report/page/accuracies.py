"""Charts of tables with accuracies: the numbers drawn are those of the tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from palate.report import paper
from palate.report.page.chart import (
    TIP,
    Chart,
    Rows,
    Series,
    Spec,
    axis,
    interval,
    panels,
    records,
    told,
)
from palate.report.parts import LENGTH, SOURCE, TURN
from palate.report.tables import DASH, Cell, Table

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
        tip = f"{name}, {paper.SOURCE}: {v} % (neither n nor error is given)"
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
