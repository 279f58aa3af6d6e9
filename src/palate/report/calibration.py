"""Whether judges with scores are as sure as they are right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from palate import stats
from palate.evaluate.metrics import Result, Tally
from palate.evaluate.results import Floats
from palate.report import escape
from palate.report.accuracy import judge_name
from palate.report.read import Judged
from palate.report.tables import (
    DASH,
    Cell,
    Column,
    Row,
    Table,
    count,
    figure,
    percent,
    quantity,
)
from palate.stats import Calibration

SEED = 0  # Of the draws for the ECE's interval; fixed so that a report made again is the same.
REMARKS = (
    "Of sigmoid(chosen score - rejected score), the probability that a judge gives the chosen "
    "response. ECE: mean distance of confidence and accuracy over ten bins of confidence. By "
    "luck: the ECE that a perfectly calibrated judge would show on as many items. Brier: mean "
    "squared error of the probability, 25 for a judge that always says one half.",
    "Temperature: above one, the scores are too sure. Held out: every fifth of the prompts with "
    "the temperature that the other four fifths ask for.",
)


Calibrated = tuple[Result, Tally, Calibration]


def calibration(judged: Judged) -> tuple[Table, ...]:
    """Figures of every judge with scores, and their reliability; none where there are no scores."""
    found = list(_calibrated(judged))
    return (_figures(found), _reliability(found)) if found else ()


def _figures(found: Sequence[Calibrated]) -> Table:
    """ECE, Brier and temperature."""
    rows = tuple(_row(result, votes, made) for result, votes, made in found)
    columns = (
        Column("Benchmark", figures=False),
        Column("Judge", figures=False),
        Column("Items"),
        Column("ECE", estimates=True),
        Column("ECE by luck"),
        Column("Brier", estimates=True),
        Column("Temperature"),
        Column("ECE, held out", estimates=True),
        Column("Brier, held out", estimates=True),
    )
    title = "Calibration: is a judge as sure as it is right? (ECE and Brier x 100)"
    return Table("calibration", title, columns, rows, REMARKS)


def _calibrated(judged: Judged) -> Iterator[Calibrated]:
    for result, votes in judged.tallied():
        if result.kind == "trivial":
            continue
        if made := _measured(votes, votes.orders.log_odds):
            yield result, votes, made


def _measured(votes: Tally, log_odds: Floats) -> Calibration | None:
    rng = np.random.default_rng(SEED)
    return stats.measure_calibration(log_odds, votes.clusters, rng, fingerprint=votes.fingerprint)


def _row(result: Result, votes: Tally, made: Calibration) -> Row:
    odds = votes.orders.log_odds
    heat = stats.temperature(odds, votes.clusters, fingerprint=votes.fingerprint)
    cooled = stats.held_out_differences(odds, votes.clusters)
    held = None if cooled is None else _measured(votes, cooled)
    cells = (
        Cell(escape.name(result.benchmark)),
        Cell(judge_name(result.judge)),
        count(made.ece.n),
        figure(made.ece),
        Cell(percent(made.ece_by_luck)),
        figure(made.brier),
        Cell(DASH) if heat is None else quantity(heat),
        figure(held.ece if held else None),
        figure(held.brier if held else None),
    )
    return Row(cells, cells[0].text)


def _reliability(found: Sequence[Calibrated]) -> Table:
    """The reliability diagram as a table: accuracy by confidence."""
    rows = [
        Row(
            (
                Cell(escape.name(result.benchmark)),
                Cell(judge_name(result.judge)),
                Cell(f"{percent(part.low)} to {percent(part.high)}"),
                count(part.accuracy.n),
                Cell(percent(part.confidence)),
                figure(part.accuracy),
            ),
            f"{escape.name(result.benchmark)}, {judge_name(result.judge)}",
        )
        for result, _, made in found
        for part in made.bins
    ]
    columns = (
        Column("Benchmark", figures=False),
        Column("Judge", figures=False),
        *(Column(name) for name in ("Confidence", "Items", "Mean confidence")),
        Column("Accuracy", estimates=True),
    )
    title = "Reliability: accuracy (%) by confidence"
    return Table("reliability", title, columns, tuple(rows))
