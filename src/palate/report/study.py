"""Tables of a study: accuracy by variant over seeds, every run (Table 28)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from palate.report import escape, paper
from palate.report.accuracy import RATING_NAMES, RATINGS, judge_name, sizes
from palate.report.studied import Levels, Sheet, Studied
from palate.report.tables import DASH, Cell, Column, Row, Table, count, figure, percent
from palate.report.tables import published as printed
from palate.stats import Estimate, Replicated, accuracy, replicated_accuracy
from palate.types import Rating

Flags = NDArray[np.bool_]

METHOD = (
    "Mean over the seeds ± the longer arm of the 95 % interval: Wilson on the effective number of "
    "items, whose variance is that over prompts plus that of the seeds' own means."
)
ONE_SEED = "One seed: its intervals cover other items, and say nothing of another training."


def study_accuracy(studied: Studied) -> Table:
    """Accuracy of every variant on every benchmark, by rating where graded; the paper's beside."""
    ratings = ratings_of(studied)
    columns = (
        *named(studied, "Test set", "Model"),
        Column("Seeds"),
        *(Column(RATING_NAMES[rating], estimates=True) for rating in ratings),
        Column("Average", estimates=True),
        Column("Spread of seeds"),
    )
    rows = [row for sheet in studied.sheets for row in _accuracy_rows(studied, sheet, ratings)]
    remarks = [
        *remarks_of(studied),
        METHOD,
        "Spread: the standard deviation of the seeds' own accuracies, in points.",
    ]
    title = f"Study {escape.name(studied.index.name)}: accuracy (%) by variant"
    if studied.index.paper == "table-28":
        title = f"Table 28: accuracy (%) by {escape.name(next(iter(studied.index.axes)))}"
        rows += _paper_rows(studied, ratings)
        remarks.append("The paper's test set is not public: its rows are of other items than ours.")
    return Table("study-accuracy", title, columns, tuple(rows), tuple(remarks))


def named(studied: Studied, *first: str) -> list[Column]:
    """Columns of names: those given, then the study's axes."""
    axes = (escape.name(axis) for axis in studied.index.axes)
    return [Column(name, figures=False) for name in (*first, *axes)]


def remarks_of(studied: Studied) -> list[str]:
    """What must be known of all tables of a study: runs that are missing, seeds that are few."""
    runs, found = len(studied.index.runs), []
    if studied.finished < runs:
        found.append(f"{studied.finished} of {runs} runs are finished; the others are left out.")
    if len({run.seed for run in studied.index.runs}) == 1:
        found.append(ONE_SEED)
    return found


def ratings_of(studied: Studied) -> list[Rating]:
    """The ratings that any of its test sets is graded by."""
    known = {int(rating) for sheet in studied.sheets for rating in sheet.ratings}
    return [rating for rating in RATINGS if int(rating) in known]


def _groups(sheet: Sheet, ratings: Sequence[Rating]) -> list[Flags]:
    """Which items each column is of: those of each rating, then all."""
    by_rating = [sheet.ratings == rating for rating in ratings]
    return [*by_rating, np.ones(sheet.ratings.size, dtype=bool)]


def _accuracy_rows(studied: Studied, sheet: Sheet, ratings: Sequence[Rating]) -> Iterator[Row]:
    title, group = Cell(escape.name(sheet.benchmark)), group_of(sheet)
    found = {
        variant: [accuracy_of(sheet, variant, items).estimate for items in _groups(sheet, ratings)]
        for variant in studied.index.variants()
        if sheet.seeds(variant)
    }
    blank = [Cell()] * len(studied.index.axes)
    counted = [Cell(sizes(e.n for e in of if e.n)) for of in zip(*found.values(), strict=True)]
    heading = (title, Cell("items scored"), *blank, Cell(), *counted, Cell())
    yield Row(heading, group, heading=True)
    for variant, estimates in found.items():
        seeds = sheet.seeds(variant)
        spread = accuracy_of(sheet, variant).spread
        cells = (*levels_of(variant), count(len(seeds)), *map(figure, estimates))
        name = Cell(judge_name(sheet.model))
        yield Row((title, name, *cells, Cell(points(spread))), group)
    if sheet.limit is not None:
        of = [sheet.limit.by_rating.get(rating) for rating in ratings]
        dashes = [Cell(DASH)] * (len(blank) + 1)
        figures = map(figure, [*of, sheet.limit.overall])
        yield Row((title, Cell(sheet.limit.judge), *dashes, *figures, Cell(DASH)), group)


def accuracy_of(sheet: Sheet, variant: Levels, items: Flags | None = None) -> Replicated:
    """The accuracy of a variant over its seeds, on all items or on some."""
    seeds = sheet.seeds(variant)
    of = slice(None) if items is None else items
    return replicated_accuracy(
        sheet.table(variant, seeds)[:, of],
        sheet.clusters[of],
        fingerprint=sheet.fingerprint(seeds, variant),
    )


def levels_of(variant: Levels) -> list[Cell]:
    """A variant's cells in the columns of the axes."""
    return [Cell(escape.name(level)) for level in variant]


def points(share: float) -> str:
    """A standard error or deviation in points; a dash where it is not known."""
    return DASH if math.isnan(share) else percent(share)


def _paper_rows(studied: Studied, ratings: Sequence[Rating]) -> Iterator[Row]:
    """Table 28 as printed, under the axis's own column; its columns are those of the ratings."""
    dashes = [Cell(DASH, paper=True)] * (len(studied.index.axes) - 1)
    for margin, values in paper.TABLE_28.items():
        by_rating = dict(zip(RATINGS, values, strict=False))
        of = [printed(by_rating[rating]) for rating in ratings]
        names = (Cell("Meta Helpful.", paper=True), Cell("Helpfulness RM", paper=True))
        cells = (*names, Cell(margin, paper=True), *dashes, Cell(DASH), *of, printed(values[-1]))
        yield Row((*cells, Cell(DASH)), "paper's figures")


def signed(estimate: Estimate) -> Cell:
    """The cell of a difference; a dash where one prompt is too few to know its error."""
    return figure(estimate, signed=True) if math.isfinite(estimate.error) else Cell(DASH)


def study_runs(studied: Studied) -> Table:
    """Every run by itself: what one training made of each test set."""
    columns = (
        *named(studied, "Test set", "Model"),
        *map(Column, ("Seed", "Comparisons trained on")),
        Column("Accuracy (%)", estimates=True),
    )
    rows = [
        Row(_run_cells(studied, sheet, variant, seed), group_of(sheet))
        for sheet in studied.sheets
        for variant in studied.index.variants()
        for seed in sheet.seeds(variant)
    ]
    title = f"Study {escape.name(studied.index.name)}: every run"
    remark = "95 % interval over other items alone: Wilson, clustered by prompt."
    return Table("study-runs", title, columns, tuple(rows), (*remarks_of(studied), remark))


def _run_cells(studied: Studied, sheet: Sheet, variant: Levels, seed: int) -> tuple[Cell, ...]:
    found = accuracy(
        sheet.votes[variant, seed],
        sheet.clusters,
        fingerprint=sheet.fingerprint([seed], variant),
    )
    names = (Cell(escape.name(sheet.benchmark)), Cell(judge_name(sheet.model)))
    trained = count(studied.pairs[variant, sheet.model])
    return (*names, *levels_of(variant), Cell(str(seed)), trained, figure(found))


def group_of(sheet: Sheet) -> str:
    """What rows of one sheet stand together under."""
    return escape.name(f"{sheet.benchmark}, {sheet.model}")
