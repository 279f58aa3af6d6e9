"""Tables of a study: accuracy by variant over seeds, every run (Table 28)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from palate import escape
from palate.evaluate.metrics import JudgeResults, Result
from palate.records import read_header, write_json
from palate.report import llama2
from palate.report.accuracy import RATING_NAMES, RATINGS, judge_name, sizes
from palate.report.read import read_judged
from palate.report.table import (
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
    percent,
)
from palate.report.table import published as printed
from palate.report.verdict import (
    NAME,
    Finding,
    Verdict,
    Words,
    beyond_luck,
    clause,
    finds,
    joined,
    merged,
)
from palate.stats import (
    Estimate,
    PairedDifference,
    Replicated,
    accuracy,
    detectable,
    holm_family,
    replicated_accuracy,
    replicated_difference,
    replicated_mean,
    student_test,
)
from palate.types import PalateError, Rating, digest
from palate.validation import explain

# What a study left behind: its runs, and every model's verdicts item by item and seed by seed.

INDEX, TOOK = "study.json", "took.json"
Floats = NDArray[np.float64]
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
        """Whether that run is finished up to a stage; what was made of another recipe is not."""
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
    """Say what the study in this folder is made of."""
    write_json(run_dir / INDEX, index.model_dump(mode="json"))


def forget_index(run_dir: Path) -> None:
    """What runs in this folder is no study any more."""
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
    """Keep in a run's folder how far it has come."""
    write_json(folder / TOOK, took.model_dump(mode="json"))


def read_took(folder: Path) -> Took:
    """Read what `write_took` wrote; of a run that never began, or whose file is broken, nothing."""
    try:
        return Took.model_validate_json((folder / TOOK).read_bytes())
    except (OSError, ValidationError):
        return Took()


@dataclass(slots=True)
class Series:
    """One model on one benchmark in every run: `votes` by (variant, seed), each [N] by item.

    `ids`, `clusters` and `ratings` [N] are the items'; values as in `JudgeResults`. `limit` is what
    the best possible judge would score, where it is known.
    """

    model: str
    benchmark: str
    ids: NDArray[Any]
    clusters: NDArray[np.int64]
    ratings: NDArray[np.int64]
    items: str
    paper_column: str | None = None
    limit: Result | None = None
    votes: dict[tuple[Levels, int], Floats] = field(default_factory=dict)
    prints: dict[tuple[Levels, int], str] = field(default_factory=dict)

    def seeds(self, *variants: Levels) -> list[int]:
        """The seeds with which all these variants were judged, in order."""
        found = (seed for levels, seed in self.votes if levels == variants[0])
        return sorted(s for s in found if all((v, s) in self.votes for v in variants))

    def table(self, variant: Levels, seeds: Sequence[int]) -> Floats:
        """[S, N], one row a seed."""
        return np.stack([self.votes[variant, seed] for seed in seeds])

    def fingerprint(self, seeds: Sequence[int], *variants: Levels) -> str:
        """Of a figure made of these variants with these seeds."""
        return digest(*(self.prints[v, s] for v in variants for s in seeds))


@dataclass(frozen=True, slots=True)
class StudyResults:
    """All verdicts of a study, how many comparisons each model saw, and what went wrong."""

    index: StudyIndex
    sheets: tuple[Series, ...]
    pairs: Mapping[tuple[Levels, str], int]
    finished: int
    problems: tuple[str, ...]


def read_study(run_dir: Path) -> StudyResults:
    """Read the verdicts of every finished run of a study; the others are left out.

    A run is finished when it was judged as the study now stands: what an earlier recipe or other
    data left in its folder is not mixed with the rest.

    Raises:
        PalateError: the study's index is broken.
    """
    index = read_index(run_dir)
    sheets: dict[tuple[str, str], Series] = {}
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
        votes = {key: v for key, v in judged.tallies.items() if key[0] in index.models}
        for (model, benchmark), tally in sorted(votes.items()):
            sheet = sheets.setdefault((model, benchmark), _sheet(tally))
            result = judged.results[model, benchmark]
            sheet.paper_column = result.paper_column
            limits = (r for r in judged.of(benchmark) if r.kind == "limit")
            sheet.limit = sheet.limit or next(limits, None)
            problems += _add(sheet, tally, (levels, run.seed), folder)
            pairs[levels, model] = _pairs(folder / "mixtures" / f"{run.mixtures[model]}.parquet")
    ordered = sorted(sheets.values(), key=lambda s: (index.models.index(s.model), s.benchmark))
    return StudyResults(index, tuple(ordered), pairs, finished, tuple(problems))


def _order(tally: JudgeResults) -> NDArray[np.int64]:
    return np.argsort(tally.ids.astype(str), kind="stable")


def _sheet(tally: JudgeResults) -> Series:
    order = _order(tally)
    return Series(
        model=tally.judge,
        benchmark=tally.benchmark,
        ids=tally.ids[order],
        clusters=tally.clusters[order],
        ratings=tally.ratings[order],
        items=tally.items,
    )


def _add(sheet: Series, tally: JudgeResults, key: tuple[Levels, int], folder: Path) -> list[str]:
    """Add a run's verdicts to the sheet, or say why they do not belong to it (pitfall 28)."""
    if tally.items != sheet.items:
        return [
            f"{folder}: {tally.judge!r} was judged on other items of {tally.benchmark!r} than the "
            "study's first run; run the study again"
        ]
    sheet.votes[key] = tally.values[_order(tally)]
    sheet.prints[key] = tally.fingerprint
    return []


def _pairs(mixture: Path) -> int:
    return read_header(mixture, "comparisons").rows if mixture.is_file() else 0


Flags = NDArray[np.bool_]

METHOD = (
    "Mean over the seeds ± the longer arm of the 95 % interval: Wilson on the effective number of "
    "items, whose variance is that over prompts plus that of the seeds' own means."
)
ONE_SEED = "One seed: its intervals cover other items, and say nothing of another training."


def study_accuracy(studied: StudyResults) -> Table:
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


def named(studied: StudyResults, *first: str) -> list[Column]:
    """Columns of names: those given, then the study's axes."""
    axes = (escape.name(axis) for axis in studied.index.axes)
    return [Column(name, figures=False) for name in (*first, *axes)]


def remarks_of(studied: StudyResults) -> list[str]:
    """What must be known of all tables of a study: runs that are missing, seeds that are few."""
    runs, found = len(studied.index.runs), []
    if studied.finished < runs:
        found.append(f"{studied.finished} of {runs} runs are finished; the others are left out.")
    if len({run.seed for run in studied.index.runs}) == 1:
        found.append(ONE_SEED)
    return found


def ratings_of(studied: StudyResults) -> list[Rating]:
    """The ratings that any of its test sets is graded by."""
    known = {int(rating) for sheet in studied.sheets for rating in sheet.ratings}
    return [rating for rating in RATINGS if int(rating) in known]


def _groups(sheet: Series, ratings: Sequence[Rating]) -> list[Flags]:
    """Which items each column is of: those of each rating, then all."""
    by_rating = [sheet.ratings == rating for rating in ratings]
    return [*by_rating, np.ones(sheet.ratings.size, dtype=bool)]


def _accuracy_rows(
    studied: StudyResults, sheet: Series, ratings: Sequence[Rating]
) -> Iterator[Row]:
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


def accuracy_of(sheet: Series, variant: Levels, items: Flags | None = None) -> Replicated:
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


def _paper_rows(studied: StudyResults, ratings: Sequence[Rating]) -> Iterator[Row]:
    """Table 28 as printed, under the axis's own column; its columns are those of the ratings."""
    dashes = [Cell(DASH, paper=True)] * (len(studied.index.axes) - 1)
    for margin, values in llama2.TABLE_28.items():
        by_rating = dict(zip(RATINGS, values, strict=False))
        of = [printed(by_rating[rating]) for rating in ratings]
        names = (Cell("Meta Helpful.", paper=True), Cell("Helpfulness RM", paper=True))
        cells = (*names, Cell(margin, paper=True), *dashes, Cell(DASH), *of, printed(values[-1]))
        yield Row((*cells, Cell(DASH)), "paper's figures")


def signed(estimate: Estimate) -> Cell:
    """The cell of a difference; a dash where one prompt is too few to know its error."""
    return figure(estimate, signed=True) if math.isfinite(estimate.error) else Cell(DASH)


def study_runs(studied: StudyResults) -> Table:
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


def _run_cells(
    studied: StudyResults, sheet: Series, variant: Levels, seed: int
) -> tuple[Cell, ...]:
    found = accuracy(
        sheet.votes[variant, seed],
        sheet.clusters,
        fingerprint=sheet.fingerprint([seed], variant),
    )
    names = (Cell(escape.name(sheet.benchmark)), Cell(judge_name(sheet.model)))
    trained = count(studied.pairs[variant, sheet.model])
    return (*names, *levels_of(variant), Cell(str(seed)), trained, figure(found))


def group_of(sheet: Series) -> str:
    """What rows of one sheet stand together under."""
    return escape.name(f"{sheet.benchmark}, {sheet.model}")


# Variants of a study beside its baseline, on the same items and with the same seeds.


@dataclass(frozen=True, slots=True)
class Contrast:
    """A variant less the baseline on all items, in one family of tests with all of the study."""

    sheet: Series
    variant: Levels
    baseline: Levels
    difference: PairedDifference
    replicated: Replicated

    @property
    def seeds(self) -> list[int]:
        """Those that both were trained with."""
        return self.sheet.seeds(self.variant, self.baseline)


def contrasts(studied: StudyResults) -> list[Contrast]:
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
    sheet: Series, variant: Levels, baseline: Levels, items: Flags | None = None
) -> tuple[PairedDifference, Replicated]:
    """Variant less baseline, on all items or on some."""
    seeds, of = sheet.seeds(variant, baseline), slice(None) if items is None else items
    return replicated_difference(
        sheet.table(variant, seeds)[:, of],
        sheet.table(baseline, seeds)[:, of],
        sheet.clusters[of],
        fingerprint=sheet.fingerprint(seeds, variant, baseline),
    )


def study_differences(studied: StudyResults, found: Sequence[Contrast]) -> Table | None:
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


# What can be concluded of a study, in sentences: which variants differ from the baseline.

Say = Callable[[Levels], str]
"""A variant in words."""


def study_verdict(studied: StudyResults, found: Sequence[Contrast]) -> Verdict:
    """A sentence for each model and variant that is shown to differ, and every contrast."""
    say = partial(_say, tuple(studied.index.axes))
    sentences = [
        sentence
        for model in dict.fromkeys(contrast.sheet.model for contrast in found)
        for sentence in _of_model([one for one in found if one.sheet.model == model], say)
    ]
    cautions = [Finding("caution", (remark,)) for remark in remarks_of(studied)]
    findings = [_finding(contrast, say) for contrast in found]
    return Verdict(tuple(sentences), (*findings, *cautions))


def _of_model(found: Sequence[Contrast], say: Say) -> Iterator[Words]:
    model, baseline = NAME + judge_name(found[0].sheet.model), say(found[0].baseline)
    by_variant = {one.variant: _clauses(found, one.variant) for one in found}
    told = {variant: clauses for variant, clauses in by_variant.items() if any(clauses)}
    for variant, clauses in told.items():
        words = [model, " with ", say(variant), " is ", *joined(clauses), " than with ", baseline]
        yield tuple(merged([*words, "."]))
    if not told:
        nothing = " is not shown to be better or worse with another variant than with "
        yield tuple(merged([model, nothing, baseline, "."]))


def _clauses(found: Sequence[Contrast], variant: Levels) -> list[list[str]]:
    """Where the variant is more accurate than the baseline, and where less."""
    mine = [(one.sheet.benchmark, _won(one)) for one in found if one.variant == variant]
    return [
        clause(f"{how} accurate on ", [benchmark for benchmark, won in mine if won == sign])
        for how, sign in (("more", 1), ("less", -1))
    ]


def _finding(contrast: Contrast, say: Say) -> Finding:
    sheet, won = contrast.sheet, _won(contrast)
    model, one, other = (
        NAME + judge_name(sheet.model),
        say(contrast.variant),
        say(contrast.baseline),
    )
    evidence: dict[str, Any] = {
        "benchmark": escape.name(sheet.benchmark),
        "difference": contrast.difference.estimate,
        "p_value": contrast.difference.p_value,
    }
    if won:
        shares = (
            percent(accuracy_of(sheet, variant).estimate.value)
            for variant in (contrast.variant, contrast.baseline)
        )
        how = f" is {'more' if won > 0 else 'less'} accurate with "
        words = [model, how, one, " than with ", other, f": {' % against '.join(shares)} %."]
        return Finding("shown", tuple(merged(words)), **evidence)
    least = finds(contrast.difference.estimate)
    words = [model, " with ", one, " and with ", other, f" cannot be told apart. {least}."]
    return Finding("open", tuple(merged(words)), **evidence)


def _won(contrast: Contrast) -> int:
    return beyond_luck(contrast.difference)


def _say(axes: Sequence[str], variant: Levels) -> str:
    levels = zip(axes, variant, strict=True)
    return NAME + escape.name(", ".join(f"{axis} {level}" for axis, level in levels))


# Accuracy against the amount of data, and the trend fitted to it with its error (Figure 6).


@dataclass(frozen=True, slots=True)
class Curve:
    """One model on one test set at every amount of data, all else equal: `size` is that else.

    `variants` are in order of `pairs`, the comparisons trained on; `seeds` those of all of them.
    """

    sheet: Series
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


def curves(studied: StudyResults, sheet: Series) -> list[Curve]:
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


def _curve(studied: StudyResults, sheet: Series, size: Levels, variants: Sequence[Levels]) -> Curve:
    points = sorted((studied.pairs[v, sheet.model], v) for v in variants)
    return Curve(sheet, size, tuple(v for _, v in points), tuple(n for n, _ in points))


def all_curves(studied: StudyResults) -> list[list[Curve]]:
    """The curves of every test set that has any."""
    return [found for sheet in studied.sheets if (found := curves(studied, sheet))]


def scaling_table(studied: StudyResults) -> Table | None:
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


def scaling_trend(studied: StudyResults) -> Table | None:
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
