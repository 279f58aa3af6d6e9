"""Best of n by a model against the true reward, which a simulated campaign knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from palate import escape, stats
from palate.evaluate.results import Floats
from palate.records import read_columns, read_header
from palate.report.table import Column, Table, Unit, Values, columns, make_table
from palate.stats import Turnover
from palate.types import PalateError, digest

TRUTH = "The truth"
ONE, MEAN, BOUND = "One member", "Mean of members", "Lower bound"
LOST = "Lost after it"
AVERAGE = "Average of weights"
MEAN_OF_HEADS = "Mean, average"
ALONE = "The model"
REMARKS = (
    "Of new prompts of the simulated campaign: the mean true reward, in logits of the annotators' "
    "preference, of the response with the highest score among n, over all draws of n of the "
    "responses scored. The average of weights is one model; heads are linear, so of an ensemble of "
    "heads it chooses as the mean of members does, and stands with it. The lower bound is the mean "
    "less one standard deviation of the members, each less its mean over the prompt's responses. "
    "Highest at: the n of the highest mean, with its interval (bootstrap of prompts). Lost after "
    "it: what the largest n gives less than that, paired over prompts, with an interval for one of "
    "as many as there are sizes (Bonferroni). A curve turns over where that interval is below 0. "
    "Intervals of rewards are t over prompts.",
)


def over_optimisation(runs: Sequence[Path]) -> Table | None:
    """A row for each way to choose, with the true reward by n; None where no run has any."""
    curves = [curve for run in runs for curve in _curves(run)]
    if not curves:
        return None
    sizes = sorted({n for *_, by_size in curves for n in by_size})
    rows: list[Values] = [
        (model, chosen_by, *_turned(turned), *(by_size.get(n) for n in sizes))
        for model, chosen_by, turned, by_size in curves
    ]
    heads = [
        Column("Model"),
        Column("Chosen by"),
        Column("Turns over"),
        Column("Highest at"),
        Column(LOST, Unit.SCORE),
        *columns(Unit.SCORE, *(f"Best of {n}" for n in sizes)),
    ]
    title = "Over-optimisation: true reward of the best of n"
    return make_table("over-optimisation", title, heads, rows, REMARKS, group_by=1)


def _curves(run: Path) -> Iterator[tuple[str, str, Turnover, dict[int, stats.Estimate]]]:
    for path in sorted((run / "over-optimisation").glob("*.parquet")):
        with suppress(PalateError):  # Of another release, or cut: it is made again by `palate run`.
            header = read_header(path, "best-of-many")
            names = ["prompt", "truth", "reward", "members", "average"]
            table = read_columns(path, names, "best-of-many")
            width = int(header.details["responses"])
            truth = table["truth"].to_numpy().reshape(-1, width)
            reward = table["reward"].to_numpy().astype(np.float64).reshape(-1, width)
            complete = np.isfinite(reward).all(1)
            if complete.sum() < 2:
                continue
            by: dict[str, Floats] = {ALONE: reward}
            if not table["members"].null_count:
                members = np.array(table["members"].to_pylist()).reshape(*reward.shape, -1)
                bounds = np.stack([stats.lower_bounds(rows, 1.0) for rows in members])
                by = {ONE: members[..., 0], MEAN: reward, BOUND: bounds}
                if "average" in table.column_names and not table["average"].null_count:
                    average = table["average"].to_numpy().astype(np.float64).reshape(-1, width)
                    by[AVERAGE] = average
                else:
                    by = {MEAN_OF_HEADS if way == MEAN else way: s for way, s in by.items()}
            sizes = [2**k for k in range(width.bit_length()) if 2**k <= width]
            for name, scores in (by | {TRUTH: truth}).items():
                fingerprint = digest("over-optimisation", header.fingerprint, name)
                curve = stats.best_of_n_curve(
                    scores[complete], truth[complete], sizes, fingerprint=fingerprint
                )
                turned = stats.turnover(
                    scores[complete], truth[complete], sizes, fingerprint=fingerprint
                )
                yield escape.name(str(header.details["model"])), name, turned, curve


def _turned(turned: Turnover) -> Values:
    """Whether a curve turns over, where it is highest, and what is lost after that."""
    low, high = turned.between
    peak = f"n = {turned.peak} [{low}, {high}]"
    if turned.lost is None:
        return "no", peak, None
    return (f"at {peak}" if turned.shown else "not shown"), peak, turned.lost
