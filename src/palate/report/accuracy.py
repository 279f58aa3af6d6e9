"""Tables 7, 8 and 29: accuracy overall, by rating, by safety bin; the paper's figures beside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from palate.evaluate.metrics import Averages, Result, averages
from palate.report import escape, paper
from palate.report.groups import Groups, Tests, groups
from palate.report.read import TRIVIAL, Judged, column_notes
from palate.report.tables import (
    DASH,
    Cell,
    Column,
    Row,
    Table,
    behind,
    count,
    figure,
    p_value,
    published,
)
from palate.stats import Estimate, Trend
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
    by_column = [paper.figures(_paper_column(judged, name)) for name in benchmarks]
    rows = []
    for system in paper.TABLE_7:
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
        f"{', '.join(paper.COLUMNS)}"
        for name, column in said
        if column and not paper.column(column)
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
    known = paper.column(_paper_column(judged, benchmark))
    for (system, test_set), row in paper.TABLE_8.items():
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
    if paper.column(_paper_column(judged, benchmark)) == "Meta Safety":
        for system, values in paper.TABLE_29.items():
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
