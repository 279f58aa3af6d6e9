"""`report()`: the files of a run, or of several, in; tables out.

Which tables there are, and in which order, is in `_run_report` and `_study_report`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from palate.data.annotators import Disagreement
from palate.data.benchmarks import BENCHMARKS
from palate.evaluate.audit import Audit
from palate.evaluate.metrics import JudgeResults, Result
from palate.evaluate.scores import BenchmarkScore
from palate.records import write_json, write_text
from palate.report import accuracy, data, diagnostics, render, study, training
from palate.report.attributes import attributes
from palate.report.audit import AUDIT, read_audits
from palate.report.audit import tables as audit_tables
from palate.report.over_optimisation import over_optimisation
from palate.report.read import Items, Judged, Key, read_items, read_judged
from palate.report.scores import own_scores
from palate.report.study import StudyResults, is_study, read_study
from palate.report.table import Table
from palate.report.ties import ties
from palate.report.training import TrainingCurves, read_curves
from palate.report.uncertainty import uncertainty
from palate.report.verdict import Verdict, verdict, verdict_table
from palate.types import PalateError

STUDY = (
    "study-accuracy", "study-differences", "scaling", "scaling-differences", "scaling-trend",
    "study-runs",
)  # fmt: skip
DATA = ("mixture", "contents", "batches", "sources", "lint", "agreement", "annotators", "overlap")
NAMES = (
    "table-7", *(f"scores-{name}" for name in BENCHMARKS), "table-8", "table-29",
    "table-29-thresholds", "verdict", "differences", "length",
    "parts", "gaps", "calibration", "reliability", "best-of-n", "orders", "ties", "attributes",
    "uncertainty", "over-optimisation", "outcomes", "training", "training-curve", *STUDY, *AUDIT,
    *DATA,
)  # fmt: skip
"""Every table there can be, in order."""
FORMS: Mapping[str, Callable[[Table], str]] = {
    ".md": render.markdown,
    ".csv": render.comma_separated,
    ".tex": render.latex,
}
QUIET = (
    "training-curve", "study-runs", "table-29-thresholds", "reliability", "parts", "verdict",
    *AUDIT, *DATA,
)  # fmt: skip
"""In files only: they have many rows for every judge or run, or more words than a terminal."""


@dataclass(frozen=True, slots=True)
class Report:
    """What runs amount to: their tables, what these were made of, what could not be read.

    `run_dir` is the folder it is written in. `judged`, `items` and `verdict` are those of all
    `runs`; `study` is there where the run is a study.
    """

    run_dir: Path
    runs: tuple[Path, ...]
    tables: tuple[Table, ...]
    problems: tuple[str, ...]
    files: tuple[Path, ...] = ()
    judged: Judged = field(default_factory=lambda: Judged({}, {}))
    items: Mapping[str, Items] = field(default_factory=dict[str, Items])
    curves: tuple[TrainingCurves, ...] = ()
    verdict: Verdict = field(default_factory=Verdict)
    contents: tuple[data.Contents, ...] = ()
    study: StudyResults | None = None
    audits: tuple[Audit, ...] = ()

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
        render.show((table for table in made.tables if table.name not in QUIET), console)
    try:
        return replace(made, files=_write(folder / "tables", made.tables))
    except PalateError as error:  # A run may lie where nobody may write, and is read all the same.
        raise PalateError(f"{error}; write the report elsewhere with --out FOLDER") from error


def _run_report(runs: tuple[Path, ...], folder: Path) -> Report:
    named = _named(runs)
    judged = _merged({name: read_judged(run) for name, run in named.items()})
    curves = [
        replace(curve, model=f"{name}: {curve.model}") if len(runs) > 1 else curve
        for name, run in named.items()
        for curve in read_curves(run)
    ]
    items, broken_items = read_items(runs, judged)
    contents: list[data.Contents] = []
    broken: list[str] = []
    for run in runs:
        readable, unreadable = data.read_contents(run)
        contents += readable
        broken += unreadable
    conclusions = Verdict()
    tables: list[Table | None] = []
    if judged.results:
        tests = accuracy.tests_of(judged)
        conclusions = verdict(judged, tests, curves)
        tables += [
            accuracy.table_7(judged, tests),
            *own_scores(judged),
            accuracy.table_8(judged),
            accuracy.table_29(judged),
            diagnostics.thresholds(judged),
            verdict_table(conclusions),
            accuracy.differences(judged, tests),
            diagnostics.length(judged),
            diagnostics.slices(judged, items),
            diagnostics.margins(judged),
            *diagnostics.calibration(judged),
            diagnostics.best_of_n(judged, items),
            diagnostics.orders(judged),
            ties(judged, curves),
            attributes(judged),
            uncertainty(judged),
            over_optimisation(runs),
            accuracy.outcomes(judged),
        ]
    tables += [training.training_summary(curves), training.training_curve(curves)]
    audits, broken_audits = read_audits(runs)
    problems = (
        *judged.problems, *(p for c in curves for p in c.problems), *broken, *broken_items,
        *broken_audits,
    )  # fmt: skip
    if not any(tables):
        raise PalateError(
            problems[0]
            if problems
            else f"{runs[0]}: no verdicts and no training to report; run `palate evaluate` first"
        )
    tables += [*audit_tables(audits), *_data_tables(runs, contents)]
    return Report(
        run_dir=folder,
        runs=runs,
        tables=tuple(filter(None, tables)),
        problems=tuple(dict.fromkeys(problems)),
        judged=judged,
        items=items,
        curves=tuple(curves),
        verdict=conclusions,
        contents=tuple(contents),
        audits=tuple(audits),
    )


def _study_report(run: Path, folder: Path) -> Report:
    results = read_study(run)
    if not results.series:
        raise PalateError(
            results.problems[0]
            if results.problems
            else f"{run}: none of {len(results.index.runs)} runs is finished; "
            "`palate run` of its recipe goes on where it was"
        )
    contrasts = study.contrasts(results)
    tables = [
        study.study_accuracy(results),
        study.study_differences(results, contrasts),
        study.scaling_table(results),
        study.scaling_differences(results),
        study.scaling_trend(results),
        study.study_runs(results),
        *_data_tables((run,), ()),
    ]
    return Report(
        run_dir=folder,
        runs=(run,),
        tables=tuple(filter(None, tables)),
        problems=results.problems,
        verdict=study.study_verdict(results, contrasts),
        study=results,
    )


def _data_tables(runs: Sequence[Path], contents: Sequence[data.Contents]) -> list[Table | None]:
    return [
        data.mixture_table(runs),
        data.contents_table(contents),
        data.batches_table(contents),
        data.sources_table(runs),
        data.lint_table(runs),
        *data.annotator_tables([Disagreement.of_run(run) for run in runs]),
        data.overlap_table(runs),
    ]


def _write(folder: Path, tables: Sequence[Table]) -> tuple[Path, ...]:
    files: list[Path] = []
    for table in tables:
        for ending, printed in FORMS.items():
            files.append(folder / f"{table.name}{ending}")
            write_text(files[-1], printed(table))
    files.append(folder / "tables.md")
    write_text(files[-1], "\n".join(render.markdown(table) for table in tables))
    files.append(folder / "tables.json")
    write_json(files[-1], {"version": 1, "tables": [render.values(table) for table in tables]})
    # A table of an earlier report that this one does not have must not be taken for it.
    for name in set(NAMES) - {table.name for table in tables}:
        for ending in FORMS:
            (folder / f"{name}{ending}").unlink(missing_ok=True)
    return tuple(files)


# Several runs in one report: their judges and models side by side, each under its run's name.


def _merged(runs: Mapping[str, Judged]) -> Judged:
    """All verdicts of all runs; of one run they are its own.

    Judges become `RUN: JUDGE`. A trivial judge or a limit that is the same in several runs, on the
    same items, stands once under its own name.
    """
    if len(runs) == 1:
        return next(iter(runs.values()))
    results: dict[Key, Result] = {}
    all_votes: dict[Key, JudgeResults] = {}
    scores: dict[Key, BenchmarkScore] = {}
    files: dict[Key, Path] = {}
    skipped: dict[str, str] = {}
    for run, judged in runs.items():
        for (judge, benchmark), result in judged.results.items():
            shared = result.kind in ("trivial", "limit")
            earlier = results.get((judge, benchmark))
            if shared and earlier is not None and earlier.items == result.items:
                continue
            name = judge if shared and earlier is None else f"{run}: {judge}"
            results[name, benchmark] = replace(result, judge=name)
            if (votes := judged.votes.get((judge, benchmark))) is not None:
                all_votes[name, benchmark] = replace(votes, judge=name)
                files[name, benchmark] = judged.files[judge, benchmark]
            if (score := judged.scores.get((judge, benchmark))) is not None:
                scores[name, benchmark] = replace(score, judge=name)
        skipped |= {f"{run}: {judge}": why for judge, why in judged.skipped.items()}
    problems = tuple(problem for judged in runs.values() for problem in judged.problems)
    return Judged(results, all_votes, problems, skipped, scores, files)


def _named(runs: Sequence[Path]) -> dict[str, Path]:
    """Each run under its folder's name, with as much of its path as tells it from the others.

    Raises:
        PalateError: the same folder twice.
    """
    full = [run.resolve() for run in runs]
    if len(set(full)) < len(full):
        raise PalateError(f"{runs[-1]}: given twice; name each run once")
    depth = 1
    while len({run.parts[-depth:] for run in full}) < len(full):
        depth += 1
    return {"/".join(run.parts[-depth:]): runs[i] for i, run in enumerate(full)}
