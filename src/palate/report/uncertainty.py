"""Whether an ensemble knows where it is wrong: error and coverage by how far its members differ."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from palate import stats
from palate.evaluate.metrics import Result
from palate.evaluate.results import JudgeResults
from palate.report.accuracy import NAMES, names
from palate.report.read import Judged
from palate.report.table import Column, Table, Unit, Values, columns, make_table
from palate.types import digest

SEED = 0  # Of the halves; fixed so that a report made again is the same.
QUARTERS = ("all", "surest quarter", "second", "third", "least sure quarter")
REMARKS = (
    "Of ensembles, over decided items. Items are sorted by p, the chance of the other label by the "
    "members' mean difference d and its standard deviation s: 1 - sigmoid(|d| / sqrt(1 + pi s^2 / "
    "8)). Predicted: the mean of p; wrong: how many labels were the other one, ties one half. "
    "Covered: the interval d ± k s reaches the side of the label, k found on the prompts of the "
    "other half so that 90 % are. Over all items it is 90 % whatever the model, unless fewer than "
    "10 % are wrong; by quarter it says where intervals are too wide or too narrow.",
)


def uncertainty(judged: Judged) -> Table | None:
    """Five rows an ensemble on each benchmark: all items, and quarters by how sure it is."""
    rows = [row for result, votes in judged.with_pairs() for row in _rows(result, votes)]
    heads = [
        *NAMES,
        Column("Items by sureness"),
        *columns(Unit.COUNT, "Items"),
        *columns(Unit.PERCENT, "Predicted wrong"),
        *columns(Unit.SHARE, "Wrong", "Covered, of 90"),
        *columns(Unit.THRESHOLD, "k"),
    ]
    title = "Uncertainty: predicted and observed errors (%) of ensembles"
    return make_table("uncertainty", title, heads, rows, REMARKS, group_by=1)


def _rows(result: Result, votes: JudgeResults) -> Iterator[Values]:
    gaps, spreads = votes.chosen_scores - votes.rejected_scores, votes.spreads
    fingerprint = digest("uncertainty", votes.fingerprint)
    covered = stats.conformal_coverage(
        gaps, spreads, votes.clusters, np.random.default_rng(SEED), fingerprint=fingerprint
    )
    if covered is None:
        return
    _, inside, scale = covered
    wrong, predicted = 1 - votes.values, stats.error_probabilities(gaps, spreads)
    known = np.isfinite(predicted) & np.isfinite(wrong)
    edges = np.quantile(predicted[known], (0.25, 0.5, 0.75))
    quarter = np.searchsorted(edges, predicted, side="right") + 1
    for number, name in enumerate(QUARTERS):
        of = known & (quarter == number) if number else known
        if not of.any():
            continue
        shares = [
            stats.clustered_mean(
                values[of], votes.clusters[of], limits=(0.0, 1.0), fingerprint=fingerprint
            )
            for values in (wrong, inside)
        ]
        shown = None if number or not np.isfinite(scale) else scale
        yield (*names(result), name, int(of.sum()), float(predicted[of].mean()), *shares, shown)
