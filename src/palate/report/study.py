"""Tables of a study: accuracy by variant over seeds, differences, scaling, every run (Table 28).

A study trains every variant (a level on each of its axes) with several seeds. Here are its files,
its verdicts item by item and seed by seed (`StudyResults`), and what is made of them:
`study_accuracy`, `contrasts` with the baseline and what can be concluded of them, the `Curve` of
accuracy against the amount of data, and `study_runs`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ValidationError

from palate import escape, stats
from palate.evaluate.metrics import Result
from palate.evaluate.results import Codes, Flags, Floats
from palate.records import read_header, write_json
from palate.report import llama2
from palate.report.accuracy import (
    DETECTABLE,
    RATING_NAMES,
    RATINGS,
    UNDONE,
    at_level_of,
    judge_name,
    sizes,
    undone,
)
from palate.report.read import read_judged
from palate.report.render import percent
from palate.report.table import (
    HOLM_INTERVAL,
    HOLM_METHOD,
    Cell,
    Column,
    Row,
    Table,
    Unit,
    Value,
    columns,
    figure,
    make_table,
    printed,
    row,
)
from palate.report.verdict import (
    UNSCORED_SHARE,
    Finding,
    Name,
    Verdict,
    Words,
    beyond_luck,
    detectable,
    joined,
    listed,
    named,
    sentence,
    what_is_left,
)
from palate.stats import Estimate, PairedDifference, Replicated
from palate.types import PalateError, Rating, digest
from palate.validation import explain

# What a study leaves on disk: its index, and how far each run has come.

INDEX, TOOK = "study.json", "took.json"
Levels = tuple[str, ...]
"""The level of each axis, in the order of the axes: a variant."""


class StudyRun(BaseModel, frozen=True, extra="forbid"):
    """One variant trained with one seed; `folder` is that of its run, below the study's.

    `experiment` is a digest of the run's recipe and data, `mixtures` are model to mixture.
    """

    levels: dict[str, str]
    seed: int
    folder: str
    experiment: str
    mixtures: dict[str, str]


class Took(BaseModel, frozen=True, extra="forbid"):
    """How far a run of a study has come, of which experiment, and how long it took."""

    experiment: str = ""
    stage: Literal["", "train", "evaluate", "report"] = ""
    seconds: float = 0.0

    def reached(self, run: StudyRun, stage: str) -> bool:
        """Whether that run is finished up to a stage; what was made by another recipe is not."""
        return self.experiment == run.experiment and _STAGES[self.stage] >= _STAGES[stage]


_STAGES = {"": 0, "train": 1, "evaluate": 2, "report": 3}


class StudyIndex(BaseModel, frozen=True, extra="forbid"):
    """What a study is made of, kept beside its runs so that its tables need nothing else.

    `axes` are axis to levels; `data_axis` is the axis whose levels are amounts of data.
    """

    version: Literal[1] = 1
    name: str
    axes: dict[str, tuple[str, ...]]
    baseline: dict[str, str]
    data_axis: str | None
    paper: str | None
    models: tuple[str, ...]
    runs: tuple[StudyRun, ...]

    def levels(self, of: Mapping[str, str]) -> Levels:
        """The levels in the order of the axes."""
        return tuple(of[axis] for axis in self.axes)

    def variants(self) -> list[Levels]:
        """Every variant once, in order."""
        return list(dict.fromkeys(self.levels(run.levels) for run in self.runs))


def is_study(run_dir: Path) -> bool:
    """Whether the folder is a study's."""
    return (run_dir / INDEX).is_file()


def write_index(run_dir: Path, index: StudyIndex) -> None:
    """Write what the study in this folder is made of."""
    write_json(run_dir / INDEX, index.model_dump(mode="json"))


def forget_index(run_dir: Path) -> None:
    """Remove the index: what runs in this folder is no study any more."""
    (run_dir / INDEX).unlink(missing_ok=True)


def read_index(run_dir: Path) -> StudyIndex:
    """Read what `write_index` wrote.

    Raises:
        PalateError: the file is not such an index.
    """
    path = run_dir / INDEX
    try:
        return StudyIndex.model_validate_json(path.read_bytes())
    except ValidationError as error:
        mistake = explain(error, root="file", show_input=False)
        raise PalateError(
            f"{path}: {mistake}; `palate run` of its recipe writes it again"
        ) from None


def write_took(folder: Path, took: Took) -> None:
    """Write in a run's folder how far it has come."""
    write_json(folder / TOOK, took.model_dump(mode="json"))


def read_took(folder: Path) -> Took:
    """Read what `write_took` wrote; of a run that never began, or whose file is broken, nothing."""
    try:
        return Took.model_validate_json((folder / TOOK).read_bytes())
    except (OSError, ValidationError):
        return Took()


# The verdicts of a study, item by item and seed by seed.


@dataclass(slots=True)
class Series:
    """One model on one benchmark in every run: `values` by (variant, seed), each [N] by item.

    `clusters` and `ratings` [N] are the items'; values as in `JudgeResults`, items in the order of
    their ids. `limit` is what the best possible judge would score, where it is known; `chance` what
    random scores reach.
    """

    model: str
    benchmark: str
    clusters: Codes
    ratings: Codes
    items: str
    limit: Result | None = None
    chance: float = stats.TIE_VALUE
    values: dict[tuple[Levels, int], Floats] = field(default_factory=dict)
    fingerprints: dict[tuple[Levels, int], str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, str]:
        """Test set and model: what its rows begin with."""
        return escape.name(self.benchmark), judge_name(self.model)

    def seeds(self, *variants: Levels) -> list[int]:
        """The seeds with which all these variants were judged, in order."""
        seeds = (seed for levels, seed in self.values if levels == variants[0])
        return sorted(s for s in seeds if all((v, s) in self.values for v in variants))

    def table(self, variant: Levels, seeds: Sequence[int]) -> Floats:
        """[S, N], one row a seed."""
        return np.stack([self.values[variant, seed] for seed in seeds])

    def fingerprint(self, seeds: Sequence[int], *variants: Levels) -> str:
        """Of a figure made of these variants with these seeds."""
        return digest(*(self.fingerprints[v, s] for v in variants for s in seeds))

    def accuracy(self, variant: Levels, items: Flags | slice = slice(None)) -> Replicated:
        """The accuracy of a variant over its seeds, on all items or on some."""
        seeds = self.seeds(variant)
        return stats.replicated_accuracy(
            self.table(variant, seeds)[:, items],
            self.clusters[items],
            fingerprint=self.fingerprint(seeds, variant),
        )

    def difference(
        self,
        variant: Levels,
        other: Levels,
        items: Flags | slice = slice(None),
        seeds: Sequence[int] | None = None,
    ) -> tuple[PairedDifference, Replicated]:
        """One variant less another, seed by seed, on all items or on some."""
        seeds = self.seeds(variant, other) if seeds is None else seeds
        return stats.replicated_difference(
            self.table(variant, seeds)[:, items],
            self.table(other, seeds)[:, items],
            self.clusters[items],
            fingerprint=self.fingerprint(seeds, variant, other),
        )


@dataclass(frozen=True, slots=True)
class StudyResults:
    """All verdicts of a study, how many comparisons each model was trained on, what went wrong."""

    index: StudyIndex
    series: tuple[Series, ...]
    pairs: Mapping[tuple[Levels, str], int]
    finished: int
    problems: tuple[str, ...]

    def remarks(self) -> list[str]:
        """What must be known of all its tables: runs that are missing, seeds that are few."""
        runs, remarks = len(self.index.runs), []
        if self.finished < runs:
            remarks.append(f"{self.finished} of {runs} runs are finished; the others are left out.")
        if len({run.seed for run in self.index.runs}) == 1:
            remarks.append(ONE_SEED)
        return remarks

    def ratings(self) -> list[Rating]:
        """The ratings that any of its test sets is graded by."""
        known = {int(rating) for series in self.series for rating in series.ratings}
        return [rating for rating in RATINGS if int(rating) in known]

    def name_columns(self, *without: str | None) -> list[Column]:
        """The columns that rows begin with: test set, model, the axes but those named."""
        axes = [escape.name(axis) for axis in self.index.axes if axis not in without]
        return columns(Unit.TEXT, "Test set", "Model", *axes)


def read_study(run_dir: Path) -> StudyResults:
    """Read the verdicts of every finished run of a study; the others are left out.

    A run is finished when it was judged as the study now stands: what an earlier recipe or other
    data left in its folder is not mixed with the rest.

    Raises:
        PalateError: the study's index is broken.
    """
    index = read_index(run_dir)
    by_key: dict[tuple[str, str], Series] = {}
    pairs: dict[tuple[Levels, str], int] = {}
    problems: list[str] = []
    finished = 0
    for run in index.runs:
        folder, levels = run_dir / run.folder, index.levels(run.levels)
        if not read_took(folder).reached(run, "evaluate"):
            continue
        finished += 1
        judged = read_judged(folder)
        problems += judged.problems
        for (model, benchmark), votes in sorted(judged.votes.items(), key=lambda one: one[0]):
            if model not in index.models:
                continue
            by_id = np.argsort(votes.ids.astype(str), kind="stable")
            series = by_key.setdefault(
                (model, benchmark),
                Series(model, benchmark, votes.clusters[by_id], votes.ratings[by_id], votes.items),
            )
            series.chance = float(votes.chance.mean())
            limits = (r for r in judged.of(benchmark) if r.kind == "limit")
            series.limit = series.limit or next(limits, None)
            mixture = folder / "mixtures" / f"{run.mixtures[model]}.parquet"
            pairs[levels, model] = (
                read_header(mixture, "comparisons").rows if mixture.is_file() else 0
            )
            if votes.items != series.items:  # Not compared (pitfall 28).
                problems.append(
                    f"{folder}: {model!r} was judged on other items of {benchmark!r} than the "
                    "study's first run; run the study again"
                )
                continue
            series.values[levels, run.seed] = votes.values[by_id]
            series.fingerprints[levels, run.seed] = votes.fingerprint
    ordered = sorted(by_key.values(), key=lambda s: (index.models.index(s.model), s.benchmark))
    return StudyResults(index, tuple(ordered), pairs, finished, tuple(problems))


METHOD = (
    "Mean over the seeds ± the longer arm of the 95 % interval: Wilson on the effective number of "
    "items, whose variance is that over prompts plus that of the seeds' own means."
)
ONE_SEED = "One seed: its intervals cover other items, and say nothing of another training."


def study_accuracy(study: StudyResults) -> Table | None:
    """Accuracy of every variant on every benchmark, by rating where graded; the paper's beside."""
    ratings = study.ratings()
    rows: list[Row] = []
    for series in study.series:
        rows += _accuracy_rows(study, series, ratings)
    remarks = [
        *study.remarks(),
        METHOD,
        "Spread: the standard deviation of the seeds' own accuracies, in points.",
        *(
            f"{escape.name(name)}: random scores reach {percent(chance)} %."
            for name, chance in {s.benchmark: s.chance for s in study.series}.items()
            if abs(chance - stats.TIE_VALUE) > 1e-9
        ),
    ]
    title = f"Study {escape.name(study.index.name)}: accuracy (%) by variant"
    if study.index.paper == "table-28":
        title = f"Table 28: accuracy (%) by {escape.name(next(iter(study.index.axes)))}"
        remarks.append("The paper's test set is not public: its rows are of other items than ours.")
        for margin, values in llama2.TABLE_28.items():  # Under the axis's own column.
            by_rating = dict(zip(RATINGS, values, strict=False))
            names = (
                figure(text, paper=True) for text in ("Meta Helpful.", "Helpfulness RM", margin)
            )
            other_axes = [Cell(paper=True)] * (len(study.index.axes) - 1)
            figures = (printed(value) for value in (*(by_rating[r] for r in ratings), values[-1]))
            rows.append(row(*names, *other_axes, None, *figures, None, group="paper's figures"))
    heads = [
        *study.name_columns(),
        Column("Seeds", Unit.COUNT),
        *columns(Unit.SHARE, *(RATING_NAMES[rating] for rating in ratings), "Average"),
        Column("Spread of seeds", Unit.PERCENT),
    ]
    return make_table("study-accuracy", title, heads, rows, remarks)


def _accuracy_rows(study: StudyResults, series: Series, ratings: Sequence[Rating]) -> Iterator[Row]:
    (test_set, model), group = series.names, _group(series)
    masks: list[Flags | slice] = [*(series.ratings == rating for rating in ratings), slice(None)]
    estimates = {
        variant: [series.accuracy(variant, items).estimate for items in masks]
        for variant in study.index.variants()
        if series.seeds(variant)
    }
    axes = len(study.index.axes)
    counts = [sizes(e.n for e in of if e.n) for of in zip(*estimates.values(), strict=True)]
    blank = [""] * (axes + 1)
    yield row(test_set, "items scored", *blank, *counts, "", group=group, heading=True)
    for variant, of in estimates.items():
        seeds, spread = len(series.seeds(variant)), series.accuracy(variant).spread
        yield row(test_set, model, *_levels(variant), seeds, *of, spread, group=group)
    if limit := series.limit:
        by_rating = [limit.by_rating.get(rating) for rating in ratings]
        none = [None] * (axes + 1)
        yield row(test_set, limit.judge, *none, *by_rating, limit.overall, None, group=group)


def _levels(variant: Levels) -> list[str]:
    return [escape.name(level) for level in variant]


def _group(series: Series) -> str:
    """What rows of one series stand together under."""
    return escape.name(f"{series.benchmark}, {series.model}")


def chances(study: StudyResults) -> dict[str, float]:
    """What random scores reach on the test set of each group of rows of `study_accuracy`."""
    return {_group(series): series.chance for series in study.series}


def study_runs(study: StudyResults) -> Table | None:
    """Every run by itself: what one training made of each test set."""
    rows = []
    for series in study.series:
        for variant in study.index.variants():
            for seed in series.seeds(variant):
                accuracy = stats.accuracy(
                    series.values[variant, seed],
                    series.clusters,
                    fingerprint=series.fingerprint([seed], variant),
                )
                pairs = study.pairs[variant, series.model]
                names = (*series.names, *_levels(variant))
                rows.append(row(*names, seed, pairs, accuracy, group=_group(series)))
    heads = [
        *study.name_columns(),
        Column("Seed", Unit.SEED),
        Column("Comparisons trained on", Unit.COUNT),
        Column("Accuracy (%)", Unit.SHARE),
    ]
    title = f"Study {escape.name(study.index.name)}: every run"
    remark = "95 % interval over other items alone: Wilson, clustered by prompt."
    return make_table("study-runs", title, heads, rows, (*study.remarks(), remark))


# Variants of a study beside its baseline, on the same items and with the same seeds.


@dataclass(frozen=True, slots=True)
class Contrast:
    """A variant less the baseline on all items, in one family of tests with all of the study.

    `whole` is the difference where items without a score are wrong, None where there are none.
    """

    series: Series
    variant: Levels
    baseline: Levels
    difference: PairedDifference
    replicated: Replicated
    whole: PairedDifference | None = None

    @property
    def undone(self) -> bool:
        """Whether a difference is shown by items that are left out."""
        return undone(self.difference, self.whole)


def contrasts(study: StudyResults) -> list[Contrast]:
    """Every variant beside the baseline, wherever both are finished with one seed or more."""
    baseline = study.index.levels(study.index.baseline)
    untested = [
        Contrast(series, variant, baseline, *series.difference(variant, baseline))
        for series in study.series
        for variant in study.index.variants()
        if variant != baseline and series.seeds(variant, baseline)
    ]
    family = stats.holm_family([contrast.difference for contrast in untested])
    return [
        replace(
            one,
            difference=tested,
            whole=_with_unscored_wrong(one.series, (one.variant, one.baseline), tested),
        )
        for one, tested in zip(untested, family, strict=True)
    ]


def _with_unscored_wrong(
    series: Series, variants: tuple[Levels, Levels], tested: PairedDifference
) -> PairedDifference | None:
    """The test once more, at the same level, with items without a score as wrong."""
    values = {
        (variant, seed): series.values[variant, seed]
        for variant in variants
        for seed in series.seeds(*variants)
    }
    if not any(np.isnan(of).any() for of in values.values()):
        return None
    whole = replace(series, values={key: np.nan_to_num(of) for key, of in values.items()})
    return at_level_of(tested, whole.difference(*variants)[0])


def _known(estimate: Estimate) -> Estimate | None:
    """None where one prompt is too few to know the error."""
    return estimate if math.isfinite(estimate.error) else None


def study_differences(study: StudyResults, compared: Sequence[Contrast]) -> Table | None:
    """The contrasts by rating and on all items; None where there are none."""
    ratings = study.ratings()
    rows = []
    for one in compared:
        series, estimate = one.series, one.difference.estimate
        by_rating = [
            series.difference(one.variant, one.baseline, series.ratings == rating)[0].estimate
            for rating in ratings
        ]
        cells = (
            *series.names, *_levels(one.variant), len(series.seeds(one.variant, one.baseline)),
            *map(_known, by_rating), figure(_known(estimate), *([UNDONE] if one.undone else [])),
            estimate.n, one.difference.p_value, one.replicated.of_items, one.replicated.of_seeds,
            stats.detectable(estimate),
        )  # fmt: skip
        rows.append(row(*cells, group=_group(series)))
    heads = [
        *study.name_columns(),
        Column("Seeds", Unit.COUNT),
        *(Column(RATING_NAMES[rating], Unit.DIFFERENCE, "not tested") for rating in ratings),
        Column("Difference (points)", Unit.DIFFERENCE, HOLM_INTERVAL),
        Column("n", Unit.COUNT),
        Column("p (Holm)", Unit.P_VALUE),
        *columns(Unit.PERCENT, "Error of items", "Error of seeds", "Detectable (points)"),
    ]
    baseline = escape.name(", ".join(study.index.levels(study.index.baseline)))
    remarks = (
        *study.remarks(),
        f"Against {baseline}, paired on the items that both scored, seed by seed. The error is the "
        "root of the sum of the squares of its two parts, standard errors over prompts and over "
        "seeds, in points; p is that of Student's t with their joint degrees of freedom, adjusted "
        f"by Holm over all rows. {HOLM_METHOD} Differences by rating have 95 % intervals, each its "
        "own.",
        DETECTABLE,
    )
    title = f"Study {escape.name(study.index.name)}: paired difference from {baseline}"
    return make_table("study-differences", title, heads, rows, remarks)


# What can be concluded of a study, in sentences: which variants differ from the baseline.


def study_verdict(study: StudyResults, compared: Sequence[Contrast]) -> Verdict:
    """A sentence for each model and variant that is shown to differ, and every contrast."""

    def words(variant: Levels) -> Name:
        levels = zip(study.index.axes, variant, strict=True)
        return named(", ".join(f"{axis} {level}" for axis, level in levels))

    models = dict.fromkeys(one.series.model for one in compared)
    sentences = [
        conclusion
        for model in models
        for conclusion in _conclusions(
            [one for one in compared if one.series.model == model], words
        )
    ]
    findings = [_finding(one, words) for one in compared]
    findings += _unscored(study, words)
    findings += [Finding("caution", (remark,)) for remark in study.remarks()]
    return Verdict(tuple(sentences), tuple(findings))


def _conclusions(compared: Sequence[Contrast], words: Callable[[Levels], Name]) -> Iterator[Words]:
    """A sentence for each variant of one model that differs somewhere, or one that none does."""
    model, baseline = Name(judge_name(compared[0].series.model)), words(compared[0].baseline)
    differs = False
    gone: list[tuple[Levels, str]] = []  # Differences that unscored items undo.
    for variant in dict.fromkeys(one.variant for one in compared):
        of_variant = [one for one in compared if one.variant == variant]
        gone += [(variant, one.series.benchmark) for one in of_variant if one.undone]
        won = [
            (one.series.benchmark, 0 if one.undone else beyond_luck(one.difference))
            for one in of_variant
        ]
        clauses = [
            listed(f"{how} accurate on ", [benchmark for benchmark, of in won if of == sign])
            for how, sign in (("more", 1), ("less", -1))
        ]
        if any(clauses):
            differs = True
            how = joined(clauses)
            yield sentence(
                model, " with ", words(variant), " is ", *how, " than with ", baseline, "."
            )
    if not differs:
        nothing = " is not shown to be better or worse with another variant than with "
        yield sentence(model, nothing, baseline, ".")
    for variant in dict.fromkeys(variant for variant, _ in gone):
        on = listed(" on ", [benchmark for one, benchmark in gone if one == variant])
        but = " is gone where items without a score count as wrong."
        yield sentence("The difference of ", model, " with ", words(variant), *on, but)


def _unscored(study: StudyResults, words: Callable[[Levels], Name]) -> Iterator[Finding]:
    """Variants that gave many items no score, of which their accuracy says nothing."""
    for series in study.series:
        for variant in study.index.variants():
            if not (seeds := series.seeds(variant)):
                continue
            missing = np.isnan(series.table(variant, seeds))
            if missing.mean() >= UNSCORED_SHARE:
                yield Finding(
                    "caution",
                    sentence(
                        Name(judge_name(series.model)), " with ", words(variant),
                        f" gave no score to {int(missing.sum()):,} of {missing.size:,} items, over "
                        "all seeds, which its accuracy leaves out.",
                    ),
                    escape.name(series.benchmark),
                )  # fmt: skip


def _finding(contrast: Contrast, words: Callable[[Levels], Name]) -> Finding:
    series, estimate = contrast.series, contrast.difference.estimate
    one, other = words(contrast.variant), words(contrast.baseline)
    model = Name(judge_name(series.model))
    if won := beyond_luck(contrast.difference):
        shares = " % against ".join(
            percent(series.accuracy(variant).estimate.value)
            for variant in (contrast.variant, contrast.baseline)
        )
        how = f" is {'more' if won > 0 else 'less'} accurate with "
        rest = what_is_left(contrast.difference, contrast.whole)
        text = sentence(model, how, one, " than with ", other, f": {shares} %.", rest)
    else:
        end = f" cannot be told apart. {detectable(estimate)}."
        text = sentence(model, " with ", one, " and with ", other, end)
    return Finding(
        "shown" if won else "open", text, escape.name(series.benchmark), estimate,
        contrast.difference.p_value,
    )  # fmt: skip


# Accuracy against the amount of data, and the trend fitted to it with its error (Figure 6).


@dataclass(frozen=True, slots=True)
class Curve:
    """One model on one test set at every amount of data, all else equal: `size` is that else.

    `variants` are in order of `pairs`, the comparisons trained on; `seeds` those of all of them.
    """

    series: Series
    size: Levels
    variants: tuple[Levels, ...]
    pairs: tuple[int, ...]

    @property
    def seeds(self) -> list[int]:
        """The seeds with which every point of the curve was trained."""
        return self.series.seeds(*self.variants)

    @property
    def name(self) -> str:
        """What distinguishes it from the other curves of its test set."""
        return ", ".join(self.size) or self.series.model

    @property
    def has_slope(self) -> bool:
        """Whether it was trained with one seed at two amounts or more."""
        return bool(self.seeds) and len(set(self.pairs)) > 1 and min(self.pairs) > 0

    def accuracies(self) -> list[Estimate]:
        """One for each amount."""
        return [self.series.accuracy(variant).estimate for variant in self.variants]

    def gains(self, seeds: Sequence[int]) -> Floats:
        """[S, N] what each item adds to the slope, so that their mean is the slope.

        The least-squares slope of accuracy a over x = log2 pairs is sum_k w_k a_k with
        w_k = (x_k - mean x) / sum (x - mean x)^2, hence the mean over items and seeds of
        sum_k w_k y_k: items and seeds enter its error as they do an accuracy's.
        """
        x = np.log2(np.array(self.pairs, dtype=np.float64))  # [K]
        x -= x.mean()
        with np.errstate(invalid="ignore"):  # NaN where all amounts are equal.
            weights = x / (x @ x)
        tables = np.stack([self.series.table(variant, seeds) for variant in self.variants])
        return np.tensordot(weights, tables, axes=1)

    def slope(self) -> Replicated:
        """Accuracy gained by twice the data, over all amounts."""
        fingerprint = self.series.fingerprint(self.seeds, *self.variants)
        return stats.replicated_mean(
            self.gains(self.seeds), self.series.clusters, fingerprint=fingerprint
        )

    def last_step(self) -> Replicated:
        """Accuracy gained from the last amount but one to the last: has it levelled off?"""
        before, last = self.variants[-2:]
        return self.series.difference(last, before, seeds=self.seeds)[1]

    def steeper_than(self, other: Curve) -> Replicated:
        """Its slope less another's on the same items and seeds."""
        seeds = [seed for seed in self.seeds if seed in other.seeds]
        return stats.replicated_mean(
            self.gains(seeds) - other.gains(seeds),
            self.series.clusters,
            fingerprint=self.series.fingerprint(seeds, *self.variants, *other.variants),
        )

    def line(self) -> tuple[Floats, Floats] | None:
        """The fitted trend as (pairs, accuracy) at its two ends, through the mean of the points."""
        if not self.has_slope:
            return None
        x = np.log2(np.array(self.pairs, dtype=np.float64))
        middle = math.fsum(e.value for e in self.accuracies()) / len(self.pairs)
        ends = np.array([x.min(), x.max()])
        return 2**ends, middle + self.slope().estimate.value * (ends - x.mean())


def scaling_curves(study: StudyResults) -> list[list[Curve]]:
    """The curves of every test set: one for each combination of the axes that are not data."""
    if study.index.data_axis is None:
        return []
    place = list(study.index.axes).index(study.index.data_axis)
    by_series: list[list[Curve]] = []
    for series in study.series:
        by_size: dict[Levels, list[tuple[int, Levels]]] = {}
        for variant in study.index.variants():
            if series.seeds(variant):
                size = (*variant[:place], *variant[place + 1 :])
                point = study.pairs[variant, series.model], variant
                by_size.setdefault(size, []).append(point)
        curves = []
        for size, points in by_size.items():
            pairs, variants = zip(*sorted(points), strict=True)
            curves.append(Curve(series, size, variants, pairs))
        if curves:
            by_series.append(curves)
    return by_series


def scaling_table(study: StudyResults) -> Table | None:
    """Accuracy by size and amount of data; None where the study has no axis of data."""
    axis = study.index.data_axis
    if axis is None:
        return None
    levels, place = study.index.axes[axis], list(study.index.axes).index(axis)
    rows = []
    for curves in scaling_curves(study):
        (test_set, model), group = curves[0].series.names, _group(curves[0].series)
        pairs = {
            v[place]: n
            for curve in curves
            for v, n in zip(curve.variants, curve.pairs, strict=True)
        }
        blank = [""] * (len(study.index.axes) - 1)
        counts = (pairs.get(level, "") for level in levels)
        rows.append(row(test_set, "comparisons", *blank, *counts, group=group, heading=True))
        for curve in curves:
            at = {v[place]: a for v, a in zip(curve.variants, curve.accuracies(), strict=True)}
            accuracies = (at.get(level) for level in levels)
            rows.append(row(test_set, model, *_levels(curve.size), *accuracies, group=group))
    heads = [*study.name_columns(axis), *columns(Unit.SHARE, *_levels(levels))]
    title = f"Scaling: accuracy (%) by {escape.name(axis)}"
    return make_table("scaling", title, heads, rows, (*study.remarks(), METHOD))


def scaling_differences(study: StudyResults) -> Table | None:
    """Every curve less the baseline's at each amount of data, paired; None where there is one."""
    axis = study.index.data_axis
    if axis is None:
        return None
    place = list(study.index.axes).index(axis)
    baseline = study.index.levels(study.index.baseline)
    size = (*baseline[:place], *baseline[place + 1 :])
    compared = [
        (curve, variant, pairs, (*baseline[:place], variant[place], *baseline[place + 1 :]))
        for of in scaling_curves(study)
        for curve in of
        if curve.size != size
        for variant, pairs in zip(curve.variants, curve.pairs, strict=True)
    ]
    # Where curves begin in one and the same model there is nothing to test.
    compared = [
        (curve, one, pairs, of)
        for curve, one, pairs, of in compared
        if (seeds := curve.series.seeds(one, of))
        and not np.array_equal(
            curve.series.table(one, seeds), curve.series.table(of, seeds), equal_nan=True
        )
    ]
    if not compared:
        return None
    tested = stats.holm_family(
        [curve.series.difference(one, of)[0] for curve, one, _, of in compared]
    )
    rows = []
    for (curve, one, pairs, of), difference in zip(compared, tested, strict=True):
        estimate = difference.estimate
        whole = _with_unscored_wrong(curve.series, (one, of), difference)
        notes = [UNDONE] if undone(difference, whole) else []
        cells: tuple[Value | Cell, ...] = (
            *curve.series.names, *_levels(one), len(curve.series.seeds(one, of)), pairs,
            study.pairs[of, curve.series.model], figure(_known(estimate), *notes), estimate.n,
            difference.p_value,
        )  # fmt: skip
        rows.append(row(*cells, group=_group(curve.series)))
    name = escape.name(", ".join(size))
    heads = [
        *study.name_columns(),
        *columns(Unit.COUNT, "Seeds", "Comparisons", f"Of {name}"),
        Column("Difference (points)", Unit.DIFFERENCE, HOLM_INTERVAL),
        Column("n", Unit.COUNT),
        Column("p (Holm)", Unit.P_VALUE),
    ]
    remarks = (
        *study.remarks(),
        f"Against {name} at the same {escape.name(axis)}, paired on the items that both scored, "
        "seed by seed. Comparisons are those trained on. p is adjusted by Holm over these rows, "
        "which are another family of tests than the differences from one baseline. "
        f"{HOLM_METHOD}",
    )
    title = f"Scaling: paired difference from {name}"
    return make_table("scaling-differences", title, heads, rows, remarks)


def scaling_trend(study: StudyResults) -> Table | None:
    """The slope of every curve, its last step, and its slope less the first curve's; or None."""
    pairs = [(one, of[0]) for of in scaling_curves(study) for one in of if one.has_slope]
    slopes = stats.holm_family([stats.student_test(one.slope()) for one, _ in pairs])
    rows = []
    for (one, first), slope in zip(pairs, slopes, strict=True):
        steeper = None
        if one is not first and first.has_slope and set(one.seeds) & set(first.seeds):
            steeper = _known(one.steeper_than(first).estimate)
        cells = (
            *one.series.names, *_levels(one.size), len(one.seeds), _known(slope.estimate),
            slope.p_value, _known(one.last_step().estimate), steeper,
        )  # fmt: skip
        rows.append(row(*cells, group=_group(one.series)))
    heads = [
        *study.name_columns(study.index.data_axis),
        Column("Seeds", Unit.COUNT),
        Column("Points a doubling", Unit.DIFFERENCE, HOLM_INTERVAL),
        Column("p (Holm)", Unit.P_VALUE, "over the slopes"),
        Column("Last step (points)", Unit.DIFFERENCE, "95 % interval"),
        Column("Steeper than the first (points a doubling)", Unit.DIFFERENCE, "95 % interval"),
    ]
    remarks = (
        *study.remarks(),
        "Points a doubling: least-squares slope of accuracy over the base-2 logarithm of the "
        "comparisons trained on. Last step: gained from the last amount but one to the last; an "
        "interval above zero says that the curve has not levelled off. Steeper: this slope less "
        "that of the first row of its test set. Intervals cover other prompts and other seeds.",
        f"p is adjusted by Holm over the slopes alone: they are another family of tests than the "
        f"differences of variants. {HOLM_METHOD} Last steps and steeper slopes are not tested.",
    )
    return make_table("scaling-trend", "Scaling: the fitted trend", heads, rows, remarks)
