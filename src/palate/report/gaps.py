"""How far apart a judge's scores of the two responses are, by rating."""

from __future__ import annotations

import numpy as np

from palate import stats
from palate.evaluate.metrics import Result, Tally
from palate.evaluate.results import Flags, Floats
from palate.report import escape
from palate.report.accuracy import RATING_NAMES, RATINGS, judge_name
from palate.report.read import Judged
from palate.report.tables import DASH, Cell, Column, Row, Table, quantity

REMARKS = (
    "Mean of chosen score - rejected score with its 95 % interval, clustered by prompt. Scores "
    "are in each judge's own unit: compare along a row, not down a column.",
)


def gaps(judged: Judged) -> Table | None:
    """The mean gap of every judge with scores, over all items and by rating; or None."""
    rows = [
        Row(_cells(result, votes, gap), escape.name(result.benchmark))
        for result, votes in judged.tallied()
        if result.kind != "trivial"
        and not np.isnan(gap := votes.chosen_scores - votes.rejected_scores).all()
    ]
    columns = (
        *(Column(name, figures=False) for name in ("Benchmark", "Judge")),
        Column("All"),
        *(Column(RATING_NAMES[rating]) for rating in RATINGS),
    )
    title = "Score gap: chosen less rejected, by rating"
    return Table("gaps", title, columns, tuple(rows), REMARKS) if rows else None


def _cells(result: Result, votes: Tally, gap: Floats) -> tuple[Cell, ...]:
    return (
        Cell(escape.name(result.benchmark)),
        Cell(judge_name(result.judge)),
        _mean(votes, gap, np.ones(gap.size, dtype=np.bool_)),
        *(_mean(votes, gap, votes.ratings == rating) for rating in RATINGS),
    )


def _mean(votes: Tally, gap: Floats, rows: Flags) -> Cell:
    found = stats.clustered_mean(gap[rows], votes.clusters[rows], fingerprint=votes.fingerprint)
    # One prompt alone says nothing of others.
    return quantity(found) if found.n_clusters > 1 and found.error > 0 else Cell(DASH)
