"""Tables 7, 8 and 29: accuracy overall, by rating, by safety bin; the paper's figures beside."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from palate import escape, stats
from palate.evaluate.metrics import Averages, JudgeResults, Result, averages, compare
from palate.evaluate.results import on_equal_terms
from palate.report import llama2
from palate.report.read import TRIVIAL, Judged, Key, column_notes
from palate.report.table import (
    DASH,
    HOLM_INTERVAL,
    HOLM_METHOD,
    Cell,
    Column,
    Row,
    Table,
    behind,
    count,
    figure,
    p_value,
    percent,
    published,
)
from palate.stats import Estimate, PairedDifference, Trend, detectable
from palate.types import Bin, Rating

# Which judges of the leaderboard can be told apart: letters for Table 7.

SEED = 0  # Of the permutation tests; fixed so that a report made again is the same bytes.
FAMILY = (
    "p is adjusted by Holm over all comparisons of the verdict: every model with the best trivial "
    "judge of a test set and with every other model, on all test sets, paired on the items that "
    "both scored, clustered by prompt."
)
Tests = Mapping[Key, PairedDifference]
"""Paired differences by (judge, judge), in the order of `Judged.judges`; p is adjusted."""


@dataclass(frozen=True, slots=True)
class Groups:
    """Letters of each judge by benchmark, and on the leaderboard (macro average)."""

    by_benchmark: Mapping[str, Mapping[str, str]]
    leaderboard: Mapping[str, str]
    remarks: tuple[str, ...]


def tests_of(judged: Judged) -> dict[str, Tests]:
    """Every two judges that were asked alike, by benchmark: all tests of a report, made once.

    Two families, each adjusted by Holm over all benchmarks: the comparisons of the verdict
    (`in_verdict`), and the rest. One comparison has one p, wherever it stands.
    """
    found = {name: _tests(judged, name) for name in judged.benchmarks()}
    pairs = [(name, pair) for name, tests in found.items() for pair in tests]
    adjusted: dict[tuple[str, Key], PairedDifference] = {}
    for asked in (True, False):
        family = [(name, pair) for name, pair in pairs if in_verdict(judged, name, pair) == asked]
        tests = stats.holm_family([found[name][pair] for name, pair in family])
        adjusted |= dict(zip(family, tests, strict=True))
    return {name: {pair: adjusted[name, pair] for pair in tests} for name, tests in found.items()}


def in_verdict(judged: Judged, benchmark: str, pair: Key) -> bool:
    """Whether it is of two models, or of a model and the best trivial judge of the benchmark."""
    kinds, best = judged.kinds(), judged.best_trivial(benchmark)
    trivial = [judge for judge in pair if kinds[judge] == "trivial"]
    return not trivial or (len(trivial) == 1 and best is not None and trivial[0] == best.judge)


def groups(
    judged: Judged, macro: Mapping[str, float], tests: Mapping[str, Tests] | None = None
) -> Groups:
    """Letters from the tests of every two judges; `macro` has the averages of whole rows."""
    tests = tests_of(judged) if tests is None else tests
    by_benchmark = {name: _letters(judged, name, found) for name, found in tests.items() if found}
    everywhere = [{name for pair in found for name in pair} for found in tests.values()]
    whole = [j for j in judged.judges() if j in macro and all(j in names for names in everywhere)]
    overall = _mean_p_values(whole, list(tests.values()))
    ranked = sorted(whole, key=lambda judge: -macro[judge]) if overall else []
    adjusted = dict(zip(overall, stats.benjamini_hochberg(list(overall.values())), strict=True))
    remarks = (_remark(tests),) if by_benchmark else ()
    return Groups(by_benchmark, stats.letters(ranked, adjusted), remarks)


def _tests(judged: Judged, benchmark: str) -> Tests:
    votes = _alike(judged, benchmark)
    found = {}
    for one, two in stats.pairs(list(votes)):
        first, second = on_equal_terms(votes[one], votes[two])
        difference = compare(first, second, np.random.default_rng(SEED))
        if difference.estimate.n_clusters > 1:
            found[one, two] = difference
    return found


def _alike(judged: Judged, benchmark: str) -> dict[str, JudgeResults]:
    """The judges that were asked the same as most (pitfall 28), the order of sides apart."""
    results = [r for r in judged.of(benchmark) if r.overall.n]
    votes = {r.judge: t for r in results if (t := judged.tallies.get((r.judge, benchmark)))}
    terms = {j: (t.items, t.terms.data, t.terms.seed, t.terms.tie_rule) for j, t in votes.items()}
    if not terms:
        return {}
    usual = Counter(terms.values()).most_common(1)[0][0]
    return {judge: tally for judge, tally in votes.items() if terms[judge] == usual}


def _letters(judged: Judged, benchmark: str, tests: Tests) -> dict[str, str]:
    names = {name for pair in tests for name in pair}
    value = {name: judged.results[name, benchmark].overall.value for name in names}
    ranked = sorted((j for j in judged.judges() if j in names), key=lambda judge: -value[judge])
    return stats.letters(ranked, {pair: found.p_value for pair, found in tests.items()})


def _mean_p_values(names: Sequence[str], tests: Sequence[Tests]) -> dict[Key, float]:
    """p of the mean difference over all benchmarks; empty where a pair was not tested on one."""
    found: dict[Key, float] = {}
    for pair in stats.pairs(names):
        if any(pair not in tested for tested in tests):
            return {}
        mean = stats.macro_average([tested[pair].estimate for tested in tests])
        found[pair] = math.erfc(abs(mean.value) / mean.error / math.sqrt(2)) if mean.error else 1.0
    return found


def _remark(tests: Mapping[str, Tests]) -> str:
    least = ", ".join(
        f"{escape.name(name)} {percent(median(_least_detectable(found)))} points"
        for name, found in tests.items()
        if found
    )
    return (
        "Letters: judges that share one cannot be told apart at the 5 % level. In a benchmark, by "
        "the tests of the verdict (Holm over all of its comparisons); two judges that it does not "
        "compare, such as two trivial ones, by the same tests, adjusted by Holm among themselves. "
        "On the macro average, by another family: the mean difference (normal), adjusted by "
        "Benjamini-Hochberg. Smallest true difference that one test of a benchmark would find with "
        f"a power of 80 %, median over pairs: {least}."
    )


def _least_detectable(tests: Tests) -> list[float]:
    return [stats.detectable(difference.estimate) for difference in tests.values()]


PAPER = "paper's figures"
METHOD = (
    "Value ± the longer arm of the 95 % interval: Wilson on the effective number of items, "
    "clustered by prompt. A tie counts one half; unscored items are left out (see outcomes)."
)
RATINGS = tuple(reversed(Rating))
RATING_NAMES = {
    Rating.SIGNIFICANTLY: "Significantly better",
    Rating.BETTER: "Better",
    Rating.SLIGHTLY: "Slightly better",
    Rating.NEGLIGIBLY: "Negligibly better / unsure",
}


def judge_name(judge: str) -> str:
    """The name of a judge as it stands in tables."""
    return TRIVIAL.get(judge) or escape.name(judge)


def table_7(judged: Judged, tests: Mapping[str, Tests] | None = None) -> Table:
    """Accuracy of every judge on every benchmark, with both averages, each named.

    `tests` are those of `groups.tests_of`, where they were made before.
    """
    benchmarks = judged.benchmarks()
    notes = {name: column_notes(judged.of(name)) for name in benchmarks}
    columns = [Column("Judge", figures=False)]
    for name in benchmarks:
        scored = (r.overall.n for r in judged.of(name) if r.kind != "limit")
        columns.append(Column(escape.name(name), sizes(scored), estimates=True))
    columns += [
        Column("Macro average", "of columns", estimates=True),
        Column("Micro average", "of examples", estimates=True),
    ]
    means = {judge: _averages(judged, judge, benchmarks) for judge in judged.judges()}
    marks = groups(judged, {j: m.macro.value for j, m in means.items() if m}, tests)
    rows = [_judge_row(judged, judge, mean, marks, notes) for judge, mean in means.items()]
    remarks = [METHOD, *marks.remarks, *_unknown_columns(judged, benchmarks)]
    published_rows = _paper_rows(judged, benchmarks)
    if published_rows:
        remarks.append(
            'The paper\'s "Avg" is not shown: its weights are not given, and it is neither of '
            "these averages."
        )
    return Table(
        "table-7",
        "Table 7: accuracy (%) of judges on benchmarks",
        tuple(columns),
        (*rows, *published_rows),
        tuple(remarks),
    )


def _judge_row(
    judged: Judged,
    judge: str,
    mean: Averages | None,
    marks: Groups,
    notes: Mapping[str, Mapping[str, tuple[str, ...]]],
) -> Row:
    found = {name: judged.results.get((judge, name)) for name in notes}
    why = judged.absent.get(judge)
    missing = () if why is None else (f"missing: {escape.plain(why, 300)}",)
    cells = [
        _marked(
            _overall(r, *notes[name].get(judge, ())) if r else figure(None, *missing),
            marks.by_benchmark.get(name, {}).get(judge, ""),
        )
        for name, r in found.items()
    ]
    gap = Cell(DASH, notes=("no average: not scored on every benchmark of the table",))
    ends = (gap, gap)
    if mean:
        macro = _marked(figure(mean.macro), marks.leaderboard.get(judge, ""))
        ends = (macro, figure(mean.micro))
    return Row((Cell(judge_name(judge)), *cells, *ends), judged.kinds()[judge])


def _overall(result: Result, *notes: str) -> Cell:
    cell = figure(result.overall, *notes)
    return behind(cell, judge=result.judge, benchmark=result.benchmark)


def _averages(judged: Judged, judge: str, benchmarks: Sequence[str]) -> Averages | None:
    found = [judged.results.get((judge, name)) for name in benchmarks]
    whole = [r for r in found if r and r.overall.n]
    return averages(whole) if len(whole) == len(benchmarks) else None


def _marked(cell: Cell, letters: str) -> Cell:
    return replace(cell, text=f"{cell.text} {letters}") if letters else cell


def _paper_rows(judged: Judged, benchmarks: Sequence[str]) -> list[Row]:
    by_column = [llama2.figures(_paper_column(judged, name)) for name in benchmarks]
    rows = []
    for system in llama2.TABLE_7:
        values = [column.get(system) for column in by_column]
        if any(value is not None for value in values):
            cells = [published(value) for value in (*values, None, None)]
            rows.append(Row((Cell(system, paper=True), *cells), PAPER))
    return rows


def _paper_column(judged: Judged, benchmark: str) -> str | None:
    said = (r.paper_column for r in judged.of(benchmark) if r.paper_column)
    return next(said, None)


def _unknown_columns(judged: Judged, benchmarks: Sequence[str]) -> list[str]:
    said = ((name, _paper_column(judged, name)) for name in benchmarks)
    return [
        f"{escape.name(name)}: the paper has no test set {escape.name(column)}; it has "
        f"{', '.join(llama2.COLUMNS)}"
        for name, column in said
        if column and not llama2.column(column)
    ]


def table_8(judged: Judged) -> Table | None:
    """Accuracy by rating, every judge on every graded benchmark, with a trend test; or None."""
    graded = [n for n in judged.benchmarks() if any(r.by_rating for r in judged.of(n))]
    if not graded:
        return None
    columns = (
        Column("Test set", figures=False),
        Column("Judge", figures=False),
        *(Column(RATING_NAMES[rating], estimates=True) for rating in RATINGS),
        Column("Average", estimates=True),
        Column("Trend"),
    )
    rows = [row for name in graded for row in _rating_rows(judged, name)]
    remarks = (
        METHOD,
        "Trend: Cochran-Armitage over the four ratings, clustered by prompt; z above zero means "
        "more accurate where annotators were surer. p is two-sided and unadjusted.",
    )
    return Table("table-8", "Table 8: accuracy (%) by rating", columns, tuple(rows), remarks)


def _rating_rows(judged: Judged, benchmark: str) -> list[Row]:
    results = [r for r in judged.of(benchmark) if r.by_rating]
    group = escape.name(benchmark)
    notes, title = column_notes(results), Cell(group)
    groups = [[r.by_rating.get(rating) for r in results] for rating in RATINGS]
    heading = _heading(title, [*groups, [r.overall for r in results]], group)
    rows = [heading]
    for r in results:
        of = {"judge": r.judge, "benchmark": r.benchmark}
        cells = [
            behind(figure(r.by_rating.get(rating)), **of, rating=rating.label) for rating in RATINGS
        ]
        overall = _overall(r, *notes.get(r.judge, ()))
        name = Cell(judge_name(r.judge))
        rows.append(Row((title, name, *cells, overall, _trend(r.trend)), group))
    known = llama2.column(_paper_column(judged, benchmark))
    for (system, test_set), row in llama2.TABLE_8.items():
        if test_set == known:
            printed = [published(value) for value in row]
            cells = [title, Cell(system, paper=True), *printed, Cell(DASH)]
            rows.append(Row(tuple(cells), f"{group}, {PAPER}"))
    return rows


def _heading(title: Cell, groups: Iterable[Iterable[Estimate | None]], name: str) -> Row:
    cells = [Cell(sizes(e.n for e in group if e)) for group in groups]
    return Row((title, Cell("items scored"), *cells, Cell()), name, heading=True)


def _trend(trend: Trend | None) -> Cell:
    return Cell(DASH) if trend is None else Cell(f"z = {trend.z:.1f}, {p_value(trend.p_value)}")


def table_29(judged: Judged) -> Table | None:
    """Accuracy by safety bin and the recall of unsafe responses; None where no bins are known."""
    binned = [n for n in judged.benchmarks() if any(r.by_bin for r in judged.of(n))]
    if not binned:
        return None
    columns = (
        Column("Test set", figures=False),
        Column("Judge", figures=False),
        Column("Average", estimates=True),
        *(Column(bin.value.capitalize(), estimates=True) for bin in Bin),
        Column("Unsafe recall", estimates=True),
    )
    rows = [row for name in binned for row in _bin_rows(judged, name)]
    remarks = (
        METHOD,
        "Unsafe recall: the share of unsafe responses with sigmoid(score) < 0.5. It says something "
        "of scores trained to have their zero between safe and unsafe, and is not shown for "
        "trivial judges.",
    )
    return Table("table-29", "Table 29: accuracy (%) by safety bin", columns, tuple(rows), remarks)


def _bin_rows(judged: Judged, benchmark: str) -> list[Row]:
    results = [r for r in judged.of(benchmark) if r.by_bin]
    group = escape.name(benchmark)
    notes, title = column_notes(results), Cell(group)
    recalls = {r.judge: _recall(r) for r in results}
    groups = [[r.overall for r in results]]
    groups += [[e for r in results if (e := r.by_bin.get(bin))] for bin in Bin]
    groups.append([e for e in recalls.values() if e])
    sized = [sizes(e.n for e in group) for group in groups]
    heading = (title, Cell("items scored"), *map(Cell, sized))
    rows = [Row(heading, group, heading=True)]
    for r in results:
        of = {"judge": r.judge, "benchmark": r.benchmark}
        cells = [behind(figure(r.by_bin.get(bin)), **of, bin=bin.value) for bin in Bin]
        overall = _overall(r, *notes.get(r.judge, ()))
        name = Cell(judge_name(r.judge))
        rows.append(Row((title, name, overall, *cells, figure(recalls[r.judge])), group))
    if llama2.column(_paper_column(judged, benchmark)) == "Meta Safety":
        for system, values in llama2.TABLE_29.items():
            printed = [published(value) for value in values]
            cells_of = (title, Cell(system, paper=True), *printed)
            rows.append(Row(cells_of, f"{group}, {PAPER}"))
    return rows


def _recall(result: Result) -> Estimate | None:
    return None if result.kind == "trivial" else result.unsafe_recall


def sizes(counts: Iterable[int]) -> str:
    """`n = 2,348`, or `n = 2,340 to 2,348` where judges scored different numbers."""
    found = sorted(set(counts))
    if not found:
        return ""
    low, high = count(found[0]).text, count(found[-1]).text
    return f"n = {high}" if low == high else f"n = {low} to {high}"


# What became of every item, and whether a model beats the best trivial judge.

ONE_ORDER = "in the seeded order alone: one of the two was not asked in both"


def outcomes(judged: Judged) -> Table:
    """Correct, wrong, tie, unscored with reasons, truncated, and the bounds they leave."""
    columns = (
        Column("Benchmark", figures=False),
        Column("Judge", figures=False),
        *(Column(name) for name in ("Items", "Correct", "Wrong", "Tie", "Unscored")),
        Column("Reasons", figures=False),
        Column("Truncated"),
        Column("Worst (%)"),
        Column("Accuracy (%)", estimates=True),
        Column("Best (%)"),
    )
    remarks = (
        "Worst and best: accuracy if every tie and every unscored item were wrong, or right. "
        "Truncated items are scored, and counted among the others.",
    )
    rows = tuple(row for result in judged.all() if (row := _outcome_row(result)))
    return Table("outcomes", "Outcomes: what became of every item", columns, rows, remarks)


def _outcome_row(result: Result) -> Row | None:
    counts, bounds = result.counts, result.bounds
    if counts is None or bounds is None:
        return None
    unscored = sum(counts.unscored.values())
    reasons = ", ".join(f"{escape.name(why)}: {n:,}" for why, n in counts.unscored.items())
    numbers = (counts.items, counts.correct, counts.wrong, counts.tie, unscored)
    cells = (
        Cell(escape.name(result.benchmark)),
        Cell(judge_name(result.judge)),
        *map(count, numbers),
        Cell(escape.plain(reasons, 400)),
        count(counts.truncated),
        Cell(percent(bounds.worst)),
        figure(result.overall),
        Cell(percent(bounds.best)),
    )
    return Row(cells, cells[0].text)


def differences(judged: Judged, tests: Mapping[str, Tests]) -> Table | None:
    """Each model less the best trivial judge on the same items; None where no two can be.

    `tests` are those of `groups.tests_of`: these comparisons are among those of the verdict.
    """
    rows = [row for name in judged.benchmarks() for row in _against_best(judged, name, tests[name])]
    columns = (
        Column("Benchmark", figures=False),
        Column("Model", figures=False),
        Column("Best trivial judge", figures=False),
        Column("Difference (points)", HOLM_INTERVAL, estimates=True),
        Column("n"),
        Column("p (Holm)"),
        Column("Detectable (points)"),
        Column("Test", figures=False),
    )
    remarks = (
        f"{FAMILY} {HOLM_METHOD}",
        "Detectable: the smallest true difference that this comparison would find with a power of "
        "80 %.",
    )
    title = "Models against the best trivial judge: paired difference in accuracy"
    return Table("differences", title, columns, tuple(rows), remarks) if rows else None


def _against_best(judged: Judged, name: str, tests: Tests) -> Iterator[Row]:
    best = judged.best_trivial(name)
    for model in judged.of(name):
        # Trivial judges stand first in the pairs.
        if best is None or model.kind == "trivial" or (best.judge, model.judge) not in tests:
            continue
        difference = tests[best.judge, model.judge].turned()
        both = [judged.tallies[judge, name].both for judge in (model.judge, best.judge)]
        estimate = difference.estimate
        cells = (
            Cell(escape.name(name)),
            Cell(judge_name(model.judge)),
            Cell(judge_name(best.judge)),
            figure(estimate, *([ONE_ORDER] if both[0] != both[1] else []), signed=True),
            count(estimate.n),
            Cell(p_value(difference.p_value)),
            Cell(percent(detectable(estimate))),
            Cell(difference.test),
        )
        yield Row(cells, escape.name(name))
