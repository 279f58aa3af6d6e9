"""Charts of scores themselves: their distributions, and one judge's against another's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from palate.evaluate.metrics import Tally
from palate.evaluate.results import BINS, Floats
from palate.report import escape
from palate.report.accuracy import judge_name
from palate.report.page.chart import TIP, Chart, Rows, Series, axis, panels
from palate.report.read import Judged
from palate.types import Bin

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


def scored(judged: Judged) -> Iterator[tuple[str, str, Tally]]:
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
    by: dict[str, dict[str, Tally]] = {}
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
    benchmark: str, one: str, two: str, first: Tally, second: Tally
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


def _labels(votes: Tally) -> Sequence[str]:
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
