"""A chart as a Vega-Lite specification, and the pieces that charts share.

Colours are names of CSS variables, so that one chart serves light, dark and print. Texts for hover
are written here, where numbers are formatted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from palate.report.tables import Cell, Table, percent
from palate.stats import Estimate

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
