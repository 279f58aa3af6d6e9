"""Variants of a study beside its baseline, on the same items and with the same seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from palate.report import escape
from palate.report.accuracy import RATING_NAMES, judge_name
from palate.report.studied import Levels, Sheet, Studied
from palate.report.study import (
    Flags,
    group_of,
    levels_of,
    named,
    points,
    ratings_of,
    remarks_of,
    signed,
)
from palate.report.tables import (
    HOLM_INTERVAL,
    HOLM_METHOD,
    Cell,
    Column,
    Row,
    Table,
    count,
    p_value,
)
from palate.stats import (
    PairedDifference,
    Replicated,
    detectable,
    holm_family,
    replicated_difference,
)
from palate.types import Rating


@dataclass(frozen=True, slots=True)
class Contrast:
    """A variant less the baseline on all items, in one family of tests with all of the study."""

    sheet: Sheet
    variant: Levels
    baseline: Levels
    difference: PairedDifference
    replicated: Replicated

    @property
    def seeds(self) -> list[int]:
        """Those that both were trained with."""
        return self.sheet.seeds(self.variant, self.baseline)


def contrasts(studied: Studied) -> list[Contrast]:
    """Every variant beside the baseline, wherever both are finished with one seed or more."""
    baseline = studied.index.levels(studied.index.baseline)
    found = [
        Contrast(sheet, variant, baseline, *_difference(sheet, variant, baseline))
        for sheet in studied.sheets
        for variant in studied.index.variants()
        if variant != baseline and sheet.seeds(variant, baseline)
    ]
    family = holm_family([contrast.difference for contrast in found])
    return [replace(one, difference=tested) for one, tested in zip(found, family, strict=True)]


def _difference(
    sheet: Sheet, variant: Levels, baseline: Levels, items: Flags | None = None
) -> tuple[PairedDifference, Replicated]:
    """Variant less baseline, on all items or on some."""
    seeds, of = sheet.seeds(variant, baseline), slice(None) if items is None else items
    return replicated_difference(
        sheet.table(variant, seeds)[:, of],
        sheet.table(baseline, seeds)[:, of],
        sheet.clusters[of],
        fingerprint=sheet.fingerprint(seeds, variant, baseline),
    )


def study_differences(studied: Studied, found: Sequence[Contrast]) -> Table | None:
    """The contrasts by rating and on all items; None where there are none."""
    if not found:
        return None
    ratings = ratings_of(studied)
    columns = (
        *named(studied, "Test set", "Model"),
        Column("Seeds"),
        *(Column(RATING_NAMES[rating], "not tested", estimates=True) for rating in ratings),
        Column("Difference (points)", HOLM_INTERVAL, estimates=True),
        *map(Column, ("n", "p (Holm)", "Error of items", "Error of seeds", "Detectable (points)")),
    )
    rows = tuple(_row(contrast, ratings) for contrast in found)
    name = escape.name(", ".join(found[0].baseline))
    remarks = (
        *remarks_of(studied),
        f"Against {name}, paired on the items that both scored, seed by seed. The error is the "
        "root of the sum of the squares of its two parts, standard errors over prompts and over "
        "seeds, in points; p is that of Student's t with their joint degrees of freedom, adjusted "
        f"by Holm over all rows. {HOLM_METHOD} Differences by rating have 95 % intervals, each its "
        "own.",
        "Detectable: the smallest true difference that this comparison would find with a power of "
        "80 %.",
    )
    title = f"Study {escape.name(studied.index.name)}: paired difference from {name}"
    return Table("study-differences", title, columns, rows, remarks)


def _row(contrast: Contrast, ratings: Sequence[Rating]) -> Row:
    sheet, estimate = contrast.sheet, contrast.difference.estimate
    sides = sheet, contrast.variant, contrast.baseline
    by_rating = [_difference(*sides, sheet.ratings == rating)[0].estimate for rating in ratings]
    cells = (
        Cell(escape.name(sheet.benchmark)),
        Cell(judge_name(sheet.model)),
        *levels_of(contrast.variant),
        count(len(contrast.seeds)),
        *map(signed, (*by_rating, estimate)),
        count(estimate.n),
        Cell(p_value(contrast.difference.p_value)),
        Cell(points(contrast.replicated.of_items)),
        Cell(points(contrast.replicated.of_seeds)),
        Cell(points(detectable(estimate))),
    )
    return Row(cells, group_of(sheet))
