"""The scaling curves as one HTML page that asks nothing of the network."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from palate.report import escape
from palate.report.scaling import Curve, line
from palate.report.tables import percent

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Okabe and Ito's colours, told apart by all eyes; and shapes, told apart without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SHAPES = ("circle", "square", "diamond", "triangle-up", "x", "star", "cross")
LIMIT = "#888888"


def scaling_page(of: Sequence[Sequence[Curve]], title: str) -> str:
    """Accuracy with its interval over comparisons trained on, a panel for each test set.

    Dashed: the fitted trend. Dotted: the best possible judge, where it is known. The same curves
    give the same bytes.
    """
    from plotly.subplots import make_subplots

    names = [_safe(f"{found[0].sheet.model} on {found[0].sheet.benchmark}") for found in of]
    page = make_subplots(rows=len(of), cols=1, subplot_titles=names)
    for row, found in enumerate(of, 1):
        for number, one in enumerate(found):
            _add(page, one, number, row)
        _finish(page, found, row)
    page.update_layout(
        title=_safe(title), template="plotly_white", height=120 + 400 * len(of), legend_title="",
        font_family="system-ui, sans-serif",
    )  # fmt: skip
    made: str = page.to_html(include_plotlyjs=True, full_html=True, div_id="scaling")
    return made


def _add(page: Figure, one: Curve, number: int, row: int) -> None:
    found = one.accuracies()
    colour, shape = COLOURS[number % len(COLOURS)], SHAPES[number % len(SHAPES)]
    shared: dict[str, Any] = {"name": _safe(one.name), "legendgroup": one.name}
    page.add_scatter(
        x=one.pairs, y=[100 * e.value for e in found], mode="markers", row=row, col=1,
        marker={"color": colour, "symbol": shape, "size": 9}, showlegend=row == 1,
        error_y={
            "type": "data", "symmetric": False, "color": colour,
            "array": [100 * (e.high - e.value) for e in found],
            "arrayminus": [100 * (e.value - e.low) for e in found],
        },
        text=[f"{percent(e.value)} % ({percent(e.low)} to {percent(e.high)})" for e in found],
        hovertemplate="%{x:,} comparisons: %{text}", **shared,
    )  # fmt: skip
    if (fitted := line(one)) is not None:
        page.add_scatter(
            x=fitted[0].tolist(), y=(100 * fitted[1]).tolist(), mode="lines", row=row, col=1,
            line={"color": colour, "dash": "dash"}, hoverinfo="skip", showlegend=False, **shared,
        )  # fmt: skip


def _finish(page: Figure, found: Sequence[Curve], row: int) -> None:
    amounts = sorted({n for one in found for n in one.pairs})
    ticks = {"tickvals": amounts, "ticktext": [f"{n:,}" for n in amounts]}
    page.update_xaxes(type="log", title="comparisons trained on", row=row, col=1, **ticks)
    page.update_yaxes(title="accuracy (%)", row=row, col=1)
    if (limit := found[0].sheet.limit) is not None:
        best = 100 * limit.overall.value
        said = f"{_safe(limit.judge)} {percent(limit.overall.value)} %"
        page.add_hline(
            best, line={"dash": "dot", "color": LIMIT}, annotation_text=said, row=row, col=1
        )


def _safe(text: str) -> str:
    """A name from a file; plotly reads tags in text as markup."""
    return html.escape(escape.name(text))
