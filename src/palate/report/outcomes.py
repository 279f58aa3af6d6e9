"""What became of every item, and whether a model beats the best trivial judge."""

from __future__ import annotations

import numpy as np

from palate.evaluate.alike import on_equal_terms, unlike
from palate.evaluate.metrics import Result, compare
from palate.report import escape
from palate.report.accuracy import judge_name
from palate.report.read import Judged
from palate.report.tables import Cell, Column, Row, Table, count, figure, p_value, percent
from palate.stats import PairedDifference, holm, minimum_detectable_difference

Against = tuple[Result, Result, PairedDifference, tuple[str, ...]]
"""(model, best trivial judge, difference, footnotes)."""
ONE_ORDER = "in the seeded order alone: one of the two was not asked in both"
SEED = 0  # Of the permutation test; fixed so that a report made again is the same bytes.


def outcomes(judged: Judged) -> Table:
    """Correct, wrong, tie, unscored with reasons, truncated, and the bounds they leave."""
    columns = (
        Column("Benchmark", figures=False),
        Column("Judge", figures=False),
        *(Column(name) for name in ("Items", "Correct", "Wrong", "Tie", "Unscored")),
        Column("Reasons", figures=False),
        Column("Truncated"),
        Column("Worst (%)"),
        Column("Accuracy (%)", estimates=True),
        Column("Best (%)"),
    )
    remarks = (
        "Worst and best: accuracy if every tie and every unscored item were wrong, or right. "
        "Truncated items are scored, and counted among the others.",
    )
    rows = tuple(row for result in judged.all() if (row := _outcome_row(result)))
    return Table("outcomes", "Outcomes: what became of every item", columns, rows, remarks)


def _outcome_row(result: Result) -> Row | None:
    counts, bounds = result.counts, result.bounds
    if counts is None or bounds is None:
        return None
    unscored = sum(counts.unscored.values())
    reasons = ", ".join(f"{escape.name(why)}: {n:,}" for why, n in counts.unscored.items())
    numbers = (counts.items, counts.correct, counts.wrong, counts.tie, unscored)
    cells = (
        Cell(escape.name(result.benchmark)),
        Cell(judge_name(result.judge)),
        *map(count, numbers),
        Cell(escape.plain(reasons, 400)),
        count(counts.truncated),
        Cell(percent(bounds.worst)),
        figure(result.overall),
        Cell(percent(bounds.best)),
    )
    return Row(cells, cells[0].text)


def differences(judged: Judged) -> Table | None:
    """Each model less the best trivial judge on the same items; None where no two can be."""
    found = [pair for name in judged.benchmarks() for pair in _against_best(judged, name)]
    if not found:
        return None
    adjusted = holm([difference.p_value for _, _, difference, _ in found])
    columns = (
        Column("Benchmark", figures=False),
        Column("Model", figures=False),
        Column("Best trivial judge", figures=False),
        Column("Difference (points)", estimates=True),
        Column("n"),
        Column("p (Holm)"),
        Column("Detectable (points)"),
        Column("Test", figures=False),
    )
    rows = tuple(
        Row(
            (
                Cell(escape.name(model.benchmark)),
                Cell(judge_name(model.judge)),
                Cell(judge_name(rival.judge)),
                figure(difference.estimate, *notes, signed=True),
                count(difference.estimate.n),
                Cell(p_value(p)),
                Cell(_detectable(difference)),
                Cell(difference.test),
            ),
            escape.name(model.benchmark),
        )
        for (model, rival, difference, notes), p in zip(found, adjusted, strict=True)
    )
    remarks = (
        "Paired on the items that both scored, clustered by prompt. Detectable: the smallest "
        "true difference that this comparison would find with a power of 80 %.",
    )
    title = "Models against the best trivial judge: paired difference in accuracy"
    return Table("differences", title, columns, rows, remarks)


def _against_best(judged: Judged, name: str) -> list[Against]:
    rival = judged.best_trivial(name)
    if rival is None:
        return []
    pairs: list[Against] = []
    for model in judged.of(name):
        theirs = judged.tallies.get((model.judge, name))
        if model.kind not in ("foreign", "ours") or theirs is None:
            continue
        best = judged.tallies[rival.judge, name]
        first, second = on_equal_terms(theirs, best)
        # What was not asked alike is not compared (pitfall 28): Table 7 carries the note.
        if not unlike(first, second):
            difference = compare(first, second, np.random.default_rng(SEED))
            if difference.estimate.n_clusters > 1:
                notes = () if theirs.both == best.both else (ONE_ORDER,)
                pairs.append((model, rival, difference, notes))
    return pairs


def _detectable(difference: PairedDifference) -> str:
    estimate = difference.estimate
    return percent(minimum_detectable_difference(1, estimate.error**2))
