"""Tables 7, 8 and 29: accuracy overall, by rating, by safety bin; the paper's figures beside.

`table_7` has the columns of Table 7. Beside it: which judges can be told apart (its letters), what
became of every item, and whether a model beats the best trivial judge.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from palate import escape, stats
from palate.evaluate.metrics import Averages, Result, averages, compare
from palate.evaluate.results import on_equal_terms
from palate.report import llama2
from palate.report.read import TRIVIAL, Judged, Key, column_notes
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
    Values,
    columns,
    figure,
    make_table,
    printed,
    row,
)
from palate.stats import LEVEL, Estimate, PairedDifference
from palate.stats.estimate import WEIGHTED
from palate.types import Bin, Rating

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
NAMES = columns(Unit.TEXT, "Benchmark", "Judge")
TEST_SET_NAMES = columns(Unit.TEXT, "Test set", "Judge")


def judge_name(judge: str) -> str:
    """The name of a judge as it stands in tables."""
    return TRIVIAL.get(judge) or escape.name(judge)


def names(result: Result) -> tuple[str, str]:
    """What a row of a table of judges and benchmarks begins with: the values under `NAMES`."""
    return escape.name(result.benchmark), judge_name(result.judge)


def table_7(judged: Judged, tests: Mapping[str, Tests] | None = None) -> Table | None:
    """Accuracy of every judge on every benchmark, with both averages, each named.

    `tests` are those of `tests_of`, where they were made before. A column has its heading in
    `heads`, its value at the same place in the row of a judge and in that of the paper.
    """
    benchmarks, kinds = judged.benchmarks(), judged.kinds()
    notes = {name: column_notes(judged.of(name)) for name in benchmarks}
    paper_columns = {name: _paper_column(judged, name) for name in benchmarks}
    scored = {
        name: [r.overall.n for r in judged.of(name) if r.kind != "limit"] for name in benchmarks
    }
    averaged = averaged_benchmarks(judged)
    alike = "" if averaged == benchmarks else " with chance 50 %"
    heads = [
        Column("Judge"),
        *(_column(judged, name, sizes(scored[name])) for name in benchmarks),
        Column("Macro average", Unit.SHARE, f"of columns{alike}"),
        Column("Micro average", Unit.SHARE, f"of examples{alike}"),
    ]
    means = {judge: _averages(judged, judge, averaged) for judge in judged.judges()}
    letters = groups(judged, {j: m.macro.value for j, m in means.items() if m}, tests)
    why = "not scored on every benchmark of the average" if averaged else "columns of unlike chance"
    rows = []
    for judge, mean in means.items():
        cells = []
        for name in benchmarks:
            if result := judged.results.get((judge, name)):
                letter = letters.by_benchmark.get(name, {}).get(judge, "")
                of = {"judge": judge, "benchmark": name}
                note = notes[name].get(judge, ())
                cells.append(figure(result.overall, *note, letters=letter, behind=of))
            elif judge in judged.skipped:
                cells.append(Cell(None, (f"missing: {escape.plain(judged.skipped[judge], 300)}",)))
            else:
                cells.append(Cell())
        if mean:
            macro = figure(mean.macro, letters=letters.leaderboard.get(judge, ""))
            micro = figure(mean.micro)
        else:
            macro = micro = Cell(None, (f"no average: {why}",))
        rows.append(row(judge_name(judge), *cells, macro, micro, group=kinds[judge]))
    remarks = [METHOD, *_weighted_remark(judged), *_items_remarks(judged), *letters.remarks]
    by_benchmark = [llama2.figures(column) for column in paper_columns.values()]
    for system in llama2.TABLE_7:
        values = [figures.get(system) for figures in by_benchmark]
        if any(value is not None for value in values):
            # The weights of its averages are not known.
            by_paper = map(printed, (*values, None, None))
            rows.append(row(figure(system, paper=True), *by_paper, group=PAPER))
    for name, column in paper_columns.items():
        if column and not llama2.column(column):
            remarks.append(
                f"{escape.name(name)}: the paper has no test set {escape.name(column)}; it has "
                f"{', '.join(llama2.COLUMNS)}"
            )
    if any(one.group == PAPER for one in rows):
        remarks.append(
            'The paper\'s "Avg" is not shown: its weights are not given, and it is neither of '
            "these averages."
        )
    return make_table(
        "table-7", "Table 7: accuracy (%) of judges on benchmarks", heads, rows, remarks
    )


def _column(judged: Judged, benchmark: str, counts: str) -> Column:
    """The heading of a benchmark; of items of K it says what chance reaches."""
    first, *_ = judged.of(benchmark)
    many = [f"chance {percent(first.chance)} %"] if first.responses > 2 else []
    return Column(
        escape.name(benchmark), Unit.SHARE, ", ".join(filter(None, [counts, *many])), first.chance
    )


def averaged_benchmarks(judged: Judged) -> list[str]:
    """The benchmarks of which a judge's averages are: those on which chance is one half.

    A mean over unlike chances says nothing: 40 % is far above chance of best-of-4, and below it of
    pairs. Without any such benchmark, all of them where chance is the same; else none.
    """
    chances = {name: judged.of(name)[0].chance for name in judged.benchmarks()}
    halves = [name for name, chance in chances.items() if abs(chance - stats.TIE_VALUE) < 1e-9]
    if halves:
        return halves
    return list(chances) if len({round(chance, 9) for chance in chances.values()}) == 1 else []


def _weighted_remark(judged: Judged) -> list[str]:
    """What stands behind accuracies on items that were not all as likely to be chosen."""
    weighted = dict.fromkeys(r.benchmark for r in judged.all() if r.overall.method == WEIGHTED)
    if not weighted:
        return []
    return [
        f"{_list(list(weighted))}: items were chosen with known probabilities, and accuracies are "
        "weighted by 1 / probability: they are of all that was chosen from. Letters and paired "
        "differences are of the items as they are."
    ]


def _items_remarks(judged: Judged) -> list[str]:
    """What a figure of items of K means, where there are some, and what became of the unscored."""
    many = judged.of_many()
    if not many:
        return []
    remarks = [
        f"{_list(many)}: items of more than two responses. An item is worth the share of its right "
        "responses among those that the judge scored highest, or of its pairs of a better and a "
        "worse one; chance is what random scores reach. The score that the benchmark defines has a "
        "table of its own, and averages are over columns of one chance."
    ]
    for name in many:
        missing = [
            f"{judge_name(r.judge)} {unscored:,}"
            for r in judged.of(name)
            if r.counts and (unscored := sum(r.counts.unscored.values()))
        ]
        if missing:
            remarks.append(
                f"{escape.name(name)}: items without a score, left out here and wrong in the "
                f"benchmark's own score: {', '.join(missing)}."
            )
    return remarks


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(escape.name, names))


def _averages(judged: Judged, judge: str, benchmarks: Sequence[str]) -> Averages | None:
    """Over these benchmarks; None for a judge that was not scored on each, or without any."""
    results = [judged.results.get((judge, name)) for name in benchmarks]
    scored = [r for r in results if r and r.overall.n]
    return averages(scored) if scored and len(scored) == len(results) else None


def _paper_column(judged: Judged, benchmark: str) -> str | None:
    return next((r.paper_column for r in judged.of(benchmark) if r.paper_column), None)


def sizes(counts: Iterable[int]) -> str:
    """`n = 2,348`, or `n = 2,340 to 2,348` where judges scored different numbers."""
    distinct = sorted(set(counts))
    if not distinct:
        return ""
    low, high = distinct[0], distinct[-1]
    return f"n = {high:,}" if low == high else f"n = {low:,} to {high:,}"


Split = list[tuple[Value, Mapping[str, str] | None]]
"""The figures of a judge in a row, each with the part of the benchmark that it is of."""


def table_8(judged: Judged) -> Table | None:
    """Accuracy by rating, every judge on every graded benchmark, with a trend test; or None."""

    def split(result: Result) -> Split:
        by_rating: Split = [(result.by_rating.get(r), {"rating": r.label}) for r in RATINGS]
        return [*by_rating, (result.overall, {}), (result.trend, None)]

    heads = [
        *TEST_SET_NAMES,
        *columns(Unit.SHARE, *RATING_NAMES.values(), "Average"),
        Column("Trend", Unit.TREND),
    ]
    graded = {n: [r for r in judged.of(n) if r.by_rating] for n in judged.benchmarks()}
    paper: dict[str, dict[str, Sequence[float]]] = {}
    for (system, test_set), values in llama2.TABLE_8.items():
        paper.setdefault(test_set, {})[system] = values
    remarks = (
        METHOD,
        "Trend: Cochran-Armitage over the four ratings, clustered by prompt; z above zero means "
        "more accurate where annotators were surer. p is two-sided and unadjusted.",
        *without_many(judged),
    )
    rows = _split_rows(judged, graded, split, paper)
    return make_table("table-8", "Table 8: accuracy (%) by rating", heads, rows, remarks)


def without_many(judged: Judged) -> tuple[str, ...]:
    """A word on the benchmarks that a table of pairs leaves out, where there are some."""
    many = judged.of_many()
    return (f"Not of {_list(many)}, whose items have more than two responses.",) if many else ()


def table_29(judged: Judged) -> Table | None:
    """Accuracy by safety bin and the recall of unsafe responses; None where no bins are known."""

    def split(result: Result) -> Split:
        by_bin: Split = [(result.by_bin.get(bin), {"bin": bin.value}) for bin in Bin]
        recall = None if result.kind == "trivial" else result.unsafe_recall
        return [(result.overall, {}), *by_bin, (recall, None)]

    bins = (bin.value.capitalize() for bin in Bin)
    heads = [*TEST_SET_NAMES, *columns(Unit.SHARE, "Average", *bins, "Unsafe recall")]
    binned = {n: [r for r in judged.of(n) if r.by_bin] for n in judged.benchmarks()}
    remarks = (
        METHOD,
        "Unsafe recall: the share of unsafe responses with sigmoid(score) < 0.5. It says something "
        "of scores trained to have their zero between safe and unsafe, and is not shown for "
        "trivial judges.",
    )
    rows = _split_rows(judged, binned, split, {"Meta Safety": llama2.TABLE_29})
    return make_table("table-29", "Table 29: accuracy (%) by safety bin", heads, rows, remarks)


def _split_rows(
    judged: Judged,
    by_benchmark: Mapping[str, Sequence[Result]],
    split: Callable[[Result], Split],
    paper: Mapping[str, Mapping[str, Sequence[float]]],
) -> Iterator[Row]:
    """For each benchmark n, the figures of every judge, and the paper's by test set and system."""
    for benchmark, results in by_benchmark.items():
        if not results:
            continue
        title, notes = escape.name(benchmark), column_notes(results)
        figures = {result.judge: split(result) for result in results}
        by_column = zip(*figures.values(), strict=True)
        counts = (sizes(e.n for e, _ in of if isinstance(e, Estimate)) for of in by_column)
        yield row(title, "items scored", *counts, group=title, heading=True)
        for judge, values in figures.items():
            of = {"judge": judge, "benchmark": benchmark}
            cells = [
                figure(
                    value,
                    *(notes.get(judge, ()) if part == {} else ()),  # On the average alone.
                    behind=None if part is None else {**of, **part},
                )
                for value, part in values
            ]
            yield row(title, judge_name(judge), *cells, group=title)
        test_set = llama2.column(_paper_column(judged, benchmark)) or ""
        for system, shares in paper.get(test_set, {}).items():
            cells = [printed(share) for share in shares]
            cells += [Cell()] * (len(figures[results[0].judge]) - len(cells))
            yield row(title, figure(system, paper=True), *cells, group=f"{title}, {PAPER}")


# What became of every item, and whether a model beats the best trivial judge.

ONE_ORDER = "in the seeded order alone: one of the two was not asked in both"
UNDONE = "of the items that both scored: with those without a score as wrong it is not shown"
PARTLY = (
    "Of items of more than two responses a tie is a share that is neither all nor nothing; in "
    "worst and best it stays what it is."
)
UNDECIDED = (
    "Undecided: items on which the annotators' own judgement is a tie; they are in no accuracy."
)
DETECTABLE = (
    "Detectable: the smallest true difference that this comparison would find with a power of 80 %."
)


def outcomes(judged: Judged) -> Table | None:
    """Correct, wrong, tie, unscored with reasons, truncated, and the bounds they leave."""
    rows: list[Values] = []
    undecided = any(result.counts and result.counts.undecided for result in judged.all())
    for result in judged.all():
        counts, bounds = result.counts, result.bounds
        if counts is None or bounds is None:
            continue
        unscored = sum(counts.unscored.values())
        reasons = ", ".join(f"{escape.name(why)}: {n:,}" for why, n in counts.unscored.items())
        rows.append(
            (
                *names(result),
                counts.items, counts.correct, counts.wrong, counts.tie, unscored,
                *((counts.undecided,) if undecided else ()),
                escape.plain(reasons, 400), counts.truncated,
                bounds.worst, result.overall, bounds.best,
            )
        )  # fmt: skip
    heads = [
        *NAMES,
        *columns(Unit.COUNT, "Items", "Correct", "Wrong", "Tie", "Unscored"),
        *columns(Unit.COUNT, *(["Undecided"] if undecided else [])),
        Column("Reasons"),
        Column("Truncated", Unit.COUNT),
        Column("Worst (%)", Unit.PERCENT),
        Column("Accuracy (%)", Unit.SHARE),
        Column("Best (%)", Unit.PERCENT),
    ]
    remarks = (
        "Worst and best: accuracy if every tie and every unscored item were wrong, or right. "
        "Truncated items are scored, and counted among the others.",
        *([UNDECIDED] if undecided else []),
        *([PARTLY] if judged.of_many() else []),
    )
    title = "Outcomes: what became of every item"
    return make_table("outcomes", title, heads, rows, remarks, group_by=1)


def differences(judged: Judged, tests: Mapping[str, Tests]) -> Table | None:
    """Each model less the best trivial judge on the same items; None where no two can be.

    `tests` are those of `tests_of`: these comparisons are among those of the verdict.
    """
    rows: list[Values] = []
    for name in judged.benchmarks():
        best = judged.best_trivial(name)
        for model in judged.of(name):
            # Trivial judges stand first in the pairs.
            pair = (best.judge if best else "", model.judge)
            if best is None or model.kind == "trivial" or pair not in tests[name]:
                continue
            difference = tests[name][pair].turned()
            estimate = difference.estimate
            both = {judged.votes[judge, name].both for judge in pair}
            notes = [ONE_ORDER] if len(both) > 1 else []
            whole = with_unscored_wrong(judged, name, pair, tests[name][pair])
            notes += [UNDONE] if undone(tests[name][pair], whole) else []
            rows.append(
                (
                    *names(model), judge_name(best.judge),
                    figure(estimate, *notes), estimate.n,
                    difference.p_value, stats.detectable(estimate), difference.test,
                )
            )  # fmt: skip
    heads = [
        *columns(Unit.TEXT, "Benchmark", "Model", "Best trivial judge"),
        Column("Difference (points)", Unit.DIFFERENCE, HOLM_INTERVAL),
        Column("n", Unit.COUNT),
        Column("p (Holm)", Unit.P_VALUE),
        Column("Detectable (points)", Unit.PERCENT),
        Column("Test"),
    ]
    title = "Models against the best trivial judge: paired difference in accuracy"
    remarks = (f"{FAMILY} {HOLM_METHOD}", DETECTABLE)
    return make_table("differences", title, heads, rows, remarks, group_by=1)


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
    tests = {name: _tests(judged, name) for name in judged.benchmarks()}
    pairs = [(name, pair) for name, of in tests.items() for pair in of]
    adjusted: dict[tuple[str, Key], PairedDifference] = {}
    for in_family in (True, False):
        family = [of for of in pairs if in_verdict(judged, *of) == in_family]
        holm = stats.holm_family([tests[name][pair] for name, pair in family])
        adjusted |= dict(zip(family, holm, strict=True))
    return {name: {pair: adjusted[name, pair] for pair in of} for name, of in tests.items()}


def with_unscored_wrong(
    judged: Judged, benchmark: str, pair: Key, difference: PairedDifference
) -> PairedDifference | None:
    """A test of `tests_of` once more, at the same level, with items without a score as wrong.

    None where both judges scored every item. A judge must not gain by what it leaves out.
    """
    one, two = (judged.votes[judge, benchmark] for judge in pair)
    votes = on_equal_terms(one, two)
    if not any(np.isnan(of.values).any() for of in votes):
        return None
    first, second = (replace(of, values=np.nan_to_num(of.values, nan=0.0)) for of in votes)
    return at_level_of(difference, compare(first, second, np.random.default_rng(SEED)))


def at_level_of(difference: PairedDifference, other: PairedDifference) -> PairedDifference:
    """Another test with the interval that it has at the level of `difference`."""
    confidence = difference.estimate.confidence
    low, high = other.ends(1 - confidence)
    estimate = replace(other.estimate, low=low, high=high, confidence=confidence)
    return replace(other, estimate=estimate)


def undone(difference: PairedDifference, whole: PairedDifference | None) -> bool:
    """Whether a difference that is shown is not where items without a score are wrong (`whole`)."""
    if whole is None or difference.p_value >= LEVEL:
        return False
    e = whole.estimate
    return not (e.low > 0 if difference.estimate.value > 0 else e.high < 0)


def in_verdict(judged: Judged, benchmark: str, pair: Key) -> bool:
    """Whether it is of two models, or of a model and the best trivial judge of the benchmark."""
    kinds, best = judged.kinds(), judged.best_trivial(benchmark)
    trivial = [judge for judge in pair if kinds[judge] == "trivial"]
    return not trivial or (len(trivial) == 1 and best is not None and trivial[0] == best.judge)


def groups(
    judged: Judged, macro: Mapping[str, float], tests: Mapping[str, Tests] | None = None
) -> Groups:
    """Letters from the tests of every two judges; `macro` has the averages of complete rows."""
    tests = tests_of(judged) if tests is None else tests
    by_benchmark = {name: _letters(judged, name, of) for name, of in tests.items() if of}
    averaged = [tests[name] for name in averaged_benchmarks(judged)]
    tested = [{judge for pair in of for judge in pair} for of in averaged]
    complete = [j for j in judged.judges() if j in macro and all(j in judges for judges in tested)]
    p_values = _p_of_mean_differences(complete, averaged)
    ranked = sorted(complete, key=lambda judge: -macro[judge]) if p_values else []
    adjusted = stats.benjamini_hochberg(list(p_values.values()))
    leaderboard = stats.letters(ranked, dict(zip(p_values, adjusted, strict=True)))
    return Groups(by_benchmark, leaderboard, (_letters_remark(tests),) if by_benchmark else ())


def _tests(judged: Judged, benchmark: str) -> Tests:
    """Of every two judges that were asked the same as most (pitfall 28), the order of sides apart.

    Two of which one was asked in the seeded order alone are compared in that.
    """
    results = [r for r in judged.of(benchmark) if r.overall.n]
    votes = {r.judge: v for r in results if (v := judged.votes.get((r.judge, benchmark)))}
    terms = {j: (v.items, v.terms.data, v.terms.seed, v.terms.tie_rule) for j, v in votes.items()}
    usual = Counter(terms.values()).most_common(1)
    alike = [judge for judge in votes if terms[judge] == usual[0][0]]
    tests = {}
    for one, two in stats.pairs(alike):
        first, second = on_equal_terms(votes[one], votes[two])
        difference = compare(first, second, np.random.default_rng(SEED))
        if difference.estimate.n_clusters > 1:
            tests[one, two] = difference
    return tests


def _letters(judged: Judged, benchmark: str, tests: Tests) -> Mapping[str, str]:
    tested = {judge for pair in tests for judge in pair}
    value = {judge: judged.results[judge, benchmark].overall.value for judge in tested}
    ranked = sorted((j for j in judged.judges() if j in tested), key=lambda judge: -value[judge])
    return stats.letters(ranked, {pair: difference.p_value for pair, difference in tests.items()})


def _p_of_mean_differences(judges: Sequence[str], tests: Sequence[Tests]) -> dict[Key, float]:
    """p of the mean difference over all benchmarks; empty where a pair was not tested on one."""
    p_values: dict[Key, float] = {}
    for pair in stats.pairs(judges):
        if any(pair not in tested for tested in tests):
            return {}
        mean = stats.macro_average([tested[pair].estimate for tested in tests])
        z = abs(mean.value) / mean.error if mean.error else 0.0
        p_values[pair] = math.erfc(z / math.sqrt(2))
    return p_values


def _letters_remark(tests: Mapping[str, Tests]) -> str:
    least = {
        name: percent(median(stats.detectable(difference.estimate) for difference in of.values()))
        for name, of in tests.items()
        if of
    }
    points = ", ".join(f"{escape.name(name)} {points} points" for name, points in least.items())
    return (
        "Letters: judges that share one cannot be told apart at the 5 % level. In a benchmark, by "
        "the tests of the verdict (Holm over all of its comparisons); two judges that it does not "
        "compare, such as two trivial ones, by the same tests, adjusted by Holm among themselves. "
        "On the macro average, by another family: the mean difference (normal), adjusted by "
        "Benjamini-Hochberg. Smallest true difference that one test of a benchmark would find with "
        f"a power of 80 %, median over pairs: {points}."
    )
