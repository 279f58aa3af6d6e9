"""Charts of the data: shares of sources, ratings, batches over time, lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from palate.report import escape
from palate.report.accuracy import RATING_NAMES, RATINGS
from palate.report.corpus import NONE, Contents
from palate.report.page.chart import TIP, Chart, Rows, Series, Spec, panels, records
from palate.report.tables import DASH, Table

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
