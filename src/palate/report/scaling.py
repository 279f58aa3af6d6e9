"""Accuracy against the amount of data, and the trend fitted to it with its error (Figure 6)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from palate.report import escape
from palate.report.accuracy import judge_name
from palate.report.studied import Floats, Levels, Sheet, Studied
from palate.report.study import METHOD, accuracy_of, group_of, remarks_of, signed
from palate.report.tables import (
    DASH,
    HOLM_INTERVAL,
    HOLM_METHOD,
    Cell,
    Column,
    Row,
    Table,
    count,
    figure,
    p_value,
)
from palate.stats import (
    Estimate,
    PairedDifference,
    Replicated,
    holm_family,
    replicated_difference,
    replicated_mean,
    student_test,
)


@dataclass(frozen=True, slots=True)
class Curve:
    """One model on one test set at every amount of data, all else equal: `size` is that else.

    `variants` are in order of `pairs`, the comparisons trained on; `seeds` those of all of them.
    """

    sheet: Sheet
    size: Levels
    variants: tuple[Levels, ...]
    pairs: tuple[int, ...]

    @property
    def seeds(self) -> list[int]:
        """The seeds with which every point of the curve was trained."""
        return self.sheet.seeds(*self.variants)

    @property
    def name(self) -> str:
        """What distinguishes it from the other curves of its test set."""
        return ", ".join(self.size) or self.sheet.model

    def accuracies(self) -> list[Estimate]:
        """One for each amount."""
        return [accuracy_of(self.sheet, variant).estimate for variant in self.variants]

    def gains(self, seeds: Sequence[int]) -> Floats:
        """[S, N] what each item adds to the slope, so that their mean is the slope.

        The least-squares slope of accuracy a over x = log2 pairs is sum_k w_k a_k with
        w_k = (x_k - mean x) / sum (x - mean x)^2, hence the mean over items and seeds of
        sum_k w_k y_k: items and seeds enter its error as they do an accuracy's.
        """
        tables = np.stack([self.sheet.table(variant, seeds) for variant in self.variants])
        return np.tensordot(self.weights(), tables, axes=1)

    def weights(self) -> Floats:
        """[K] of the slope; NaN where all amounts are equal."""
        x = np.log2(np.array(self.pairs, dtype=np.float64))
        x -= x.mean()
        with np.errstate(invalid="ignore"):
            return np.asarray(x / (x @ x))

    def slope(self) -> Replicated:
        """Accuracy gained by twice the data, over all amounts."""
        mark = self.sheet.fingerprint(self.seeds, *self.variants)
        return replicated_mean(self.gains(self.seeds), self.sheet.clusters, fingerprint=mark)

    def last_step(self) -> Replicated:
        """Accuracy gained from the last amount but one to the last: has it levelled off?"""
        before, last = self.variants[-2:]
        return replicated_difference(
            self.sheet.table(last, self.seeds),
            self.sheet.table(before, self.seeds),
            self.sheet.clusters,
            fingerprint=self.sheet.fingerprint(self.seeds, last, before),
        )[1]

    def steeper_than(self, other: Curve) -> Replicated:
        """Its slope less another's on the same items and seeds."""
        seeds = [seed for seed in self.seeds if seed in other.seeds]
        variants = (*self.variants, *other.variants)
        return replicated_mean(
            self.gains(seeds) - other.gains(seeds),
            self.sheet.clusters,
            fingerprint=self.sheet.fingerprint(seeds, *variants),
        )


def curves(studied: Studied, sheet: Sheet) -> list[Curve]:
    """The curves of one test set: one for each combination of the axes that are not data."""
    axes = list(studied.index.axes)
    if studied.index.data_axis is None:
        return []
    place = axes.index(studied.index.data_axis)
    sizes: dict[Levels, list[Levels]] = {}
    for variant in studied.index.variants():
        if sheet.seeds(variant):
            sizes.setdefault((*variant[:place], *variant[place + 1 :]), []).append(variant)
    return [_curve(studied, sheet, size, variants) for size, variants in sizes.items()]


def _curve(studied: Studied, sheet: Sheet, size: Levels, variants: Sequence[Levels]) -> Curve:
    points = sorted((studied.pairs[v, sheet.model], v) for v in variants)
    return Curve(sheet, size, tuple(v for _, v in points), tuple(n for n, _ in points))


def all_curves(studied: Studied) -> list[list[Curve]]:
    """The curves of every test set that has any."""
    return [found for sheet in studied.sheets if (found := curves(studied, sheet))]


def scaling_table(studied: Studied) -> Table | None:
    """Accuracy by size and amount of data; None where the study has no axis of data."""
    axis = studied.index.data_axis
    if axis is None:
        return None
    levels = studied.index.axes[axis]
    others = [name for name in studied.index.axes if name != axis]
    columns = (
        *(Column(escape.name(name), figures=False) for name in ("Test set", "Model", *others)),
        *(Column(escape.name(level), estimates=True) for level in levels),
    )
    place = list(studied.index.axes).index(axis)
    rows = [row for of in all_curves(studied) for row in _rows(of, levels, place, len(others))]
    remarks = (*remarks_of(studied), METHOD)
    title = f"Scaling: accuracy (%) by {escape.name(axis)}"
    return Table("scaling", title, columns, tuple(rows), remarks)


def _rows(of: Sequence[Curve], levels: Sequence[str], place: int, others: int) -> Iterator[Row]:
    sheet, group = of[0].sheet, group_of(of[0].sheet)
    title = Cell(escape.name(sheet.benchmark))
    seen = {v[place]: n for one in of for v, n in zip(one.variants, one.pairs, strict=True)}
    counted = [count(seen[level]) if level in seen else Cell() for level in levels]
    yield Row((title, Cell("comparisons"), *[Cell()] * others, *counted), group, heading=True)
    for one in of:
        found = {v[place]: a for v, a in zip(one.variants, one.accuracies(), strict=True)}
        cells = (*map(Cell, map(escape.name, one.size)), *(figure(found.get(x)) for x in levels))
        yield Row((title, Cell(judge_name(sheet.model)), *cells), group)


def scaling_trend(studied: Studied) -> Table | None:
    """The slope of every curve, its last step, and its slope less the first curve's; or None."""
    of = [(one, found[0]) for found in all_curves(studied) for one in found if _has_slope(one)]
    if not of:
        return None
    slopes = holm_family([student_test(one.slope()) for one, _ in of])
    others = [name for name in studied.index.axes if name != studied.index.data_axis]
    columns = (
        *(Column(escape.name(name), figures=False) for name in ("Test set", "Model", *others)),
        Column("Seeds"),
        Column("Points a doubling", HOLM_INTERVAL, estimates=True),
        Column("p (Holm)", "over the slopes"),
        Column("Last step (points)", "95 % interval", estimates=True),
        Column("Steeper than the first (points a doubling)", "95 % interval", estimates=True),
    )
    rows = [
        Row((*_names(one), *_figures(one, first, slope)), group_of(one.sheet))
        for (one, first), slope in zip(of, slopes, strict=True)
    ]
    remarks = (
        *remarks_of(studied),
        "Points a doubling: least-squares slope of accuracy over the base-2 logarithm of the "
        "comparisons trained on. Last step: gained from the last amount but one to the last; an "
        "interval above zero says that the curve has not levelled off. Steeper: this slope less "
        "that of the first row of its test set. Intervals cover other prompts and other seeds.",
        f"p is adjusted by Holm over the slopes alone: they are another family of tests than the "
        f"differences of variants. {HOLM_METHOD} Last steps and steeper slopes are not tested.",
    )
    return Table("scaling-trend", "Scaling: the fitted trend", columns, tuple(rows), remarks)


def _has_slope(one: Curve) -> bool:
    return bool(one.seeds) and len(set(one.pairs)) > 1 and min(one.pairs) > 0


def _names(one: Curve) -> list[Cell]:
    names = (one.sheet.benchmark, judge_name(one.sheet.model), *one.size)
    return [*(Cell(escape.name(name)) for name in names), count(len(one.seeds))]


def _figures(one: Curve, first: Curve, slope: PairedDifference) -> list[Cell]:
    steeper = Cell(DASH)
    if one is not first and _has_slope(first) and set(one.seeds) & set(first.seeds):
        steeper = signed(one.steeper_than(first).estimate)
    last = signed(one.last_step().estimate)
    return [signed(slope.estimate), Cell(p_value(slope.p_value)), last, steeper]


def line(one: Curve) -> tuple[Floats, Floats] | None:
    """The fitted trend as (pairs, accuracy) at its two ends, through the mean of the points."""
    if not _has_slope(one):
        return None
    x = np.log2(np.array(one.pairs, dtype=np.float64))
    middle = math.fsum(e.value for e in one.accuracies()) / len(one.pairs)
    ends = np.array([x.min(), x.max()])
    return 2**ends, middle + one.slope().estimate.value * (ends - x.mean())
