"""report(): verdicts in, tables out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from palate.evaluate.metrics import JudgeResults, Result
from palate.records import write_json, write_text
from palate.report import data, render
from palate.report.accuracy import (
    Tests,
    differences,
    outcomes,
    table_7,
    table_8,
    table_29,
    tests_of,
)
from palate.report.diagnostics import (
    best_of_n,
    calibration,
    gaps,
    length,
    orders,
    parts,
    thresholds,
)
from palate.report.read import Items, Judged, Key, read_items, read_judged
from palate.report.render import show
from palate.report.study import (
    Contrast,
    StudyResults,
    contrasts,
    is_study,
    read_study,
    scaling_table,
    scaling_trend,
    study_accuracy,
    study_differences,
    study_runs,
    study_verdict,
)
from palate.report.table import Table
from palate.report.training import TrainingCurves, read_courses, training_curve, training_summary
from palate.report.verdict import Verdict, verdict, verdict_table
from palate.types import PalateError

# Several runs in one report: their judges and models side by side, each under its run's name.

T = TypeVar("T")


def merged(runs: Mapping[str, Judged]) -> Judged:
    """All verdicts of all runs; of one run they are its own.

    Judges become `RUN: JUDGE`. A trivial judge or a limit that is the same in several runs, on the
    same items, stands once under its own name.
    """
    if len(runs) == 1:
        return next(iter(runs.values()))
    results: dict[Key, Result] = {}
    tallies: dict[Key, JudgeResults] = {}
    absent: dict[str, str] = {}
    for run, judged in runs.items():
        for (judge, benchmark), result in judged.results.items():
            shared = result.kind in ("trivial", "limit")
            standing = results.get((judge, benchmark))
            if shared and standing is not None and standing.items == result.items:
                continue
            name = judge if shared and standing is None else f"{run}: {judge}"
            results[name, benchmark] = replace(result, judge=name)
            if (votes := judged.tallies.get((judge, benchmark))) is not None:
                tallies[name, benchmark] = replace(votes, judge=name)
        absent |= {f"{run}: {judge}": why for judge, why in judged.absent.items()}
    problems = tuple(problem for judged in runs.values() for problem in judged.problems)
    return Judged(results, tallies, problems, absent)


def labelled(runs: Sequence[Path]) -> dict[str, Path]:
    """Each run under its folder's name, with as much of its path as tells it from the others.

    Raises:
        PalateError: the same folder twice.
    """
    whole = [run.resolve() for run in runs]
    if len(set(whole)) < len(whole):
        raise PalateError(f"{runs[-1]}: given twice; name each run once")
    depth = 1
    while len({run.parts[-depth:] for run in whole}) < len(whole):
        depth += 1
    return {"/".join(run.parts[-depth:]): runs[i] for i, run in enumerate(whole)}


def courses_of(runs: Mapping[str, Path]) -> list[TrainingCurves]:
    """The courses of all runs; of several, under their names."""
    if len(runs) == 1:
        return read_courses(next(iter(runs.values())))
    return [
        replace(course, model=f"{name}: {course.model}")
        for name, run in runs.items()
        for course in read_courses(run)
    ]


def of_runs(
    runs: Sequence[Path], read: Callable[[Path], tuple[list[T], list[str]]]
) -> tuple[list[T], list[str]]:
    """What `read` finds in every run, and what it could not read."""
    both = [read(run) for run in runs]
    return [one for found, _ in both for one in found], [p for _, said in both for p in said]


STUDY = ("study-accuracy", "study-differences", "scaling", "scaling-trend", "study-runs")
DATA = ("mixture", "contents", "batches", "sources", "lint", "overlap")
NAMES = (
    "table-7", "table-8", "table-29", "table-29-thresholds", "verdict", "differences", "length",
    "parts", "gaps", "calibration", "reliability", "best-of-n", "orders", "outcomes", "training",
    "training-curve", *STUDY, *DATA,
)  # fmt: skip
"""Every table there can be, in order."""
FORMS: Mapping[str, Callable[[Table], str]] = {
    ".md": render.markdown,
    ".csv": render.comma_separated,
    ".tex": render.latex,
}
QUIET = (
    "training-curve", "study-runs", "table-29-thresholds", "reliability", "parts", "verdict", *DATA,
)  # fmt: skip
"""In files only: they have many rows for every judge or run, or more words than a terminal."""


@dataclass(frozen=True, slots=True)
class Report:
    """What runs amount to: their tables, what these were made of, what could not be read.

    `run_dir` is the folder it is written in. `judged`, `items` and `verdict` are those of all
    `runs`; `studied` is there where the run is a study.
    """

    run_dir: Path
    runs: tuple[Path, ...]
    tables: tuple[Table, ...]
    problems: tuple[str, ...]
    files: tuple[Path, ...] = ()
    judged: Judged = field(default_factory=lambda: Judged({}, {}))
    items: Mapping[str, Items] = field(default_factory=dict[str, Items])
    courses: tuple[TrainingCurves, ...] = ()
    verdict: Verdict = field(default_factory=lambda: Verdict((), ()))
    contents: tuple[data.Contents, ...] = ()
    studied: StudyResults | None = None

    @property
    def results(self) -> tuple[Result, ...]:
        """All figures, benchmark by benchmark."""
        return tuple(self.judged.all())

    def table(self, name: str) -> Table | None:
        """The table of that file name, such as `table-7`."""
        return next((table for table in self.tables if table.name == name), None)


def report(
    runs: Path | Sequence[Path], console: Console | None = None, *, out: Path | None = None
) -> Report:
    """Make the tables of a run, write them under `tables/`, show them on `console`.

    Reads `verdicts/*.parquet`, `results/*.json` (see `evaluate.metrics.write_results`),
    `train/*/metrics.jsonl`, and of the data what is there; no model is needed. Of a study, the
    tables compare its runs. Of several runs, judges stand side by side as `RUN: JUDGE`. Files that
    cannot be read are problems of the report and the rest is kept. The same inputs give the same
    bytes.

    Args:
        runs: the folder of a run, or several.
        console: where the tables are shown, if anywhere.
        out: the folder to write in; by default the run's own, which several runs do not have.

    Raises:
        PalateError: there is nothing to report, or nowhere to write it.
    """
    folders = (runs,) if isinstance(runs, Path) else tuple(runs)
    folder = out or (folders[0] if len(folders) == 1 else None)
    if folder is None:
        raise PalateError(f"{len(folders)} runs: a report of several needs a folder; give --out")
    studies = [run for run in folders if is_study(run)]
    if studies and len(folders) > 1:
        raise PalateError(f"{studies[0]}: a study is reported alone, it compares its own runs")
    made = _study_report(folders[0], folder) if studies else _run_report(folders, folder)
    if console is not None:
        show((table for table in made.tables if table.name not in QUIET), console)
    try:
        return replace(made, files=_write(folder / "tables", made.tables))
    except PalateError as error:  # A run may lie where nobody may write, and is read all the same.
        raise PalateError(f"{error}; write the report elsewhere with --out FOLDER") from error


def _run_report(runs: tuple[Path, ...], folder: Path) -> Report:
    named = labelled(runs)
    judged = merged({name: read_judged(run) for name, run in named.items()})
    courses = courses_of(named)
    contents, broken = of_runs(runs, data.read_contents)
    items, unread = read_items(runs, judged)
    found = Verdict((), ())
    tables: list[Table | None] = []
    if judged.results:
        tests = tests_of(judged)
        found = verdict(judged, tests, courses)
        tables += _accuracy_tables(judged, tests, items, found)
    tables += [training_summary(courses), training_curve(courses)]
    problems = (*judged.problems, *(p for c in courses for p in c.problems), *broken, *unread)
    if not any(tables):
        raise PalateError(
            problems[0]
            if problems
            else f"{runs[0]}: no verdicts and no training to report; run `palate evaluate` first"
        )
    tables += _data_tables(runs, contents)
    made = tuple(table for table in tables if table)
    return Report(
        folder, runs, made, tuple(dict.fromkeys(problems)), (), judged, items, tuple(courses),
        found, tuple(contents),
    )  # fmt: skip


def _study_report(run: Path, folder: Path) -> Report:
    studied = read_study(run)
    if not studied.sheets:
        raise PalateError(
            studied.problems[0]
            if studied.problems
            else f"{run}: none of {len(studied.index.runs)} runs is finished; "
            "`palate run` of its recipe goes on where it was"
        )
    found = contrasts(studied)
    tables = [*_study_tables(studied, found), *_data_tables((run,), ())]
    made = tuple(table for table in tables if table)
    said = study_verdict(studied, found)
    return Report(folder, (run,), made, studied.problems, verdict=said, studied=studied)


def _study_tables(studied: StudyResults, found: Sequence[Contrast]) -> list[Table | None]:
    return [
        study_accuracy(studied),
        study_differences(studied, found),
        scaling_table(studied),
        scaling_trend(studied),
        study_runs(studied),
    ]


def _accuracy_tables(
    judged: Judged, tests: Mapping[str, Tests], items: Mapping[str, Items], found: Verdict
) -> list[Table | None]:
    return [
        table_7(judged, tests),
        table_8(judged),
        table_29(judged),
        thresholds(judged),
        verdict_table(found),
        differences(judged, tests),
        length(judged),
        parts(judged, items),
        gaps(judged),
        *calibration(judged),
        best_of_n(judged, items),
        orders(judged),
        outcomes(judged),
    ]


def _data_tables(runs: Sequence[Path], contents: Sequence[data.Contents]) -> list[Table | None]:
    return [
        data.mixture_table(runs),
        data.contents_table(contents),
        data.batches_table(contents),
        data.sources_table(runs),
        data.lint_table(runs),
        data.overlap_table(runs),
    ]


def _write(folder: Path, tables: Sequence[Table]) -> tuple[Path, ...]:
    files: list[Path] = []
    for table in tables:
        for ending, draw in FORMS.items():
            files.append(folder / f"{table.name}{ending}")
            write_text(files[-1], draw(table))
    files.append(folder / "tables.md")
    write_text(files[-1], "\n".join(render.markdown(table) for table in tables))
    files.append(folder / "tables.json")
    write_json(files[-1], {"version": 1, "tables": [render.values(table) for table in tables]})
    _remove_stale(folder, {table.name for table in tables})
    return tuple(files)


def _remove_stale(folder: Path, made: set[str]) -> None:
    """A table of an earlier report that this one does not have must not be taken for it."""
    for name in set(NAMES) - made:
        for ending in FORMS:
            (folder / f"{name}{ending}").unlink(missing_ok=True)
