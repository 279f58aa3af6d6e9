"""What became of every item, and whether a model beats the best trivial judge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from palate.evaluate.metrics import Result
from palate.report import escape
from palate.report.accuracy import judge_name
from palate.report.groups import FAMILY, Tests
from palate.report.read import Judged
from palate.report.tables import (
    HOLM_INTERVAL,
    HOLM_METHOD,
    Cell,
    Column,
    Row,
    Table,
    count,
    figure,
    p_value,
    percent,
)
from palate.stats import detectable

ONE_ORDER = "in the seeded order alone: one of the two was not asked in both"


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


def differences(judged: Judged, tests: Mapping[str, Tests]) -> Table | None:
    """Each model less the best trivial judge on the same items; None where no two can be.

    `tests` are those of `groups.tests_of`: these comparisons are among those of the verdict.
    """
    rows = [row for name in judged.benchmarks() for row in _against_best(judged, name, tests[name])]
    columns = (
        Column("Benchmark", figures=False),
        Column("Model", figures=False),
        Column("Best trivial judge", figures=False),
        Column("Difference (points)", HOLM_INTERVAL, estimates=True),
        Column("n"),
        Column("p (Holm)"),
        Column("Detectable (points)"),
        Column("Test", figures=False),
    )
    remarks = (
        f"{FAMILY} {HOLM_METHOD}",
        "Detectable: the smallest true difference that this comparison would find with a power of "
        "80 %.",
    )
    title = "Models against the best trivial judge: paired difference in accuracy"
    return Table("differences", title, columns, tuple(rows), remarks) if rows else None


def _against_best(judged: Judged, name: str, tests: Tests) -> Iterator[Row]:
    best = judged.best_trivial(name)
    for model in judged.of(name):
        # Trivial judges stand first in the pairs.
        if best is None or model.kind == "trivial" or (best.judge, model.judge) not in tests:
            continue
        difference = tests[best.judge, model.judge].turned()
        both = [judged.tallies[judge, name].both for judge in (model.judge, best.judge)]
        estimate = difference.estimate
        cells = (
            Cell(escape.name(name)),
            Cell(judge_name(model.judge)),
            Cell(judge_name(best.judge)),
            figure(estimate, *([ONE_ORDER] if both[0] != both[1] else []), signed=True),
            count(estimate.n),
            Cell(p_value(difference.p_value)),
            Cell(percent(detectable(estimate))),
            Cell(difference.test),
        )
        yield Row(cells, escape.name(name))
