"""Heads of rated attributes on held-out responses: how far they are from what people rated."""

from __future__ import annotations

import numpy as np

from palate import stats
from palate.evaluate.metrics import Result
from palate.evaluate.results import RatedResponses
from palate.report.accuracy import NAMES, names
from palate.report.read import Judged
from palate.report.table import Column, Table, Unit, Values, columns, make_table
from palate.stats import Estimate
from palate.types import digest

REMARKS = (
    "Of each response that people rated and the model has a head for, once. Error: mean absolute "
    "difference between head and rating, in the units of the rating; beside it that of a head that "
    "always says the mean of these ratings. Correlations are over responses of all prompts. "
    "Intervals are clustered by prompt: Student's t of the errors, a jackknife of groups of "
    "prompts, on Fisher's scale, of the correlations.",
)


def attributes(judged: Judged) -> Table | None:
    """One row a head of each model on each benchmark where people rated what it says."""
    rows: list[Values] = []
    for benchmark in judged.benchmarks():
        for result in judged.of(benchmark):
            votes = judged.votes.get((result.judge, benchmark))
            for name, rated in sorted(votes.attributes.items()) if votes else ():
                fingerprint = digest("attribute", name, votes.fingerprint if votes else "")
                rows.append(_row(result, name, rated, fingerprint))
    heads = [
        *NAMES,
        Column("Attribute"),
        *columns(Unit.COUNT, "Responses"),
        *columns(Unit.SCORE, "Error"),
        *columns(Unit.PLAIN_SCORE, "Error of the mean"),
        *columns(Unit.SCORE, "Pearson", "Spearman"),
    ]
    title = "Attributes: heads beside the reward, and what people rated"
    return make_table("attributes", title, heads, rows, REMARKS, group_by=1)


def _row(result: Result, name: str, rated: RatedResponses, fingerprint: str) -> Values:
    said, ratings, clusters = rated.predicted, rated.rated, rated.clusters
    error = stats.clustered_mean(
        np.abs(said - ratings), clusters, limits=(0.0, np.inf), fingerprint=fingerprint
    )
    pearson, spearman = (
        stats.correlation(said, ratings, clusters, ranks=ranks, fingerprint=fingerprint)
        for ranks in (False, True)
    )
    mean = float(np.abs(ratings - ratings.mean()).mean())
    return (
        *names(result), name, ratings.size, _known(error), mean, _known(pearson), _known(spearman),
    )  # fmt: skip


def _known(estimate: Estimate) -> Estimate | None:
    """The estimate where its error is known: one prompt, or equal ratings, tell nothing."""
    return estimate if np.isfinite(estimate.error) else None
