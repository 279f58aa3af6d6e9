"""report(): verdicts in, tables out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from palate.evaluate.metrics import Result
from palate.records import write_json, write_text
from palate.report import render
from palate.report.accuracy import table_7, table_8, table_29
from palate.report.calibration import calibration
from palate.report.detection import thresholds
from palate.report.length import length
from palate.report.orders import orders
from palate.report.outcomes import differences, outcomes
from palate.report.plot import scaling_page
from palate.report.read import Judged, read_judged
from palate.report.scaling import all_curves, scaling_table, scaling_trend
from palate.report.studied import Studied, is_study, read_study
from palate.report.study import study_accuracy, study_differences, study_runs
from palate.report.tables import Table
from palate.report.terminal import show
from palate.report.training import read_courses, training_curve, training_summary
from palate.types import PalateError

STUDY = ("study-accuracy", "study-differences", "scaling", "scaling-trend", "study-runs")
NAMES = (
    "table-7", "table-8", "table-29", "table-29-thresholds", "differences", "length",
    "calibration", "reliability", "orders", "outcomes", "training", "training-curve", *STUDY,
)  # fmt: skip
"""Every table there can be, in order."""
FORMS: Mapping[str, Callable[[Table], str]] = {
    ".md": render.markdown,
    ".csv": render.comma_separated,
    ".tex": render.latex,
}
QUIET = ("training-curve", "study-runs", "table-29-thresholds", "reliability")
"""In files only: they have many rows for every judge or run."""
PAGE = "scaling.html"


@dataclass(frozen=True, slots=True)
class Report:
    """What a run amounts to: its tables, the figures behind them, what could not be read."""

    run_dir: Path
    tables: tuple[Table, ...]
    results: tuple[Result, ...]
    problems: tuple[str, ...]
    files: tuple[Path, ...]

    def table(self, name: str) -> Table | None:
        """The table of that file name, such as `table-7`."""
        return next((table for table in self.tables if table.name == name), None)


def report(run_dir: Path, console: Console | None = None) -> Report:
    """Make the tables of a run, write them under `run_dir/tables`, show them on `console`.

    Reads `verdicts/*.parquet`, `results/*.json` (see `evaluate.metrics.write_results`) and
    `train/*/metrics.jsonl`; no model is needed. Of a study, the tables compare its runs. Files
    that cannot be read are problems of the report and the rest is kept. The same inputs give the
    same bytes.

    Raises:
        PalateError: there is nothing to report.
    """
    if is_study(run_dir):
        return _study_report(run_dir, console)
    judged, courses = read_judged(run_dir), read_courses(run_dir)
    made = _accuracy_tables(judged) if judged.results else []
    made += [table for table in (training_summary(courses), training_curve(courses)) if table]
    problems = (*judged.problems, *(p for course in courses for p in course.problems))
    if not made:
        raise PalateError(
            problems[0]
            if problems
            else f"{run_dir}: no verdicts and no training to report; run `palate evaluate` first"
        )
    files = _write(run_dir / "tables", made)
    if console is not None:
        show((table for table in made if table.name not in QUIET), console)
    return Report(run_dir, tuple(made), tuple(judged.all()), problems, files)


def _study_report(run_dir: Path, console: Console | None) -> Report:
    studied = read_study(run_dir)
    if not studied.sheets:
        raise PalateError(
            studied.problems[0]
            if studied.problems
            else f"{run_dir}: none of {len(studied.index.runs)} runs is finished; "
            "`palate run` of its recipe goes on where it was"
        )
    made = [table for table in _study_tables(studied) if table]
    files = list(_write(run_dir / "tables", made))
    if curves := all_curves(studied):
        files.append(run_dir / "tables" / PAGE)
        write_text(files[-1], scaling_page(curves, f"Study {studied.index.name}"))
    if console is not None:
        show((table for table in made if table.name not in QUIET), console)
    return Report(run_dir, tuple(made), (), studied.problems, tuple(files))


def _study_tables(studied: Studied) -> list[Table | None]:
    return [
        study_accuracy(studied),
        study_differences(studied),
        scaling_table(studied),
        scaling_trend(studied),
        study_runs(studied),
    ]


def _accuracy_tables(judged: Judged) -> list[Table]:
    made = (
        table_7(judged),
        table_8(judged),
        table_29(judged),
        thresholds(judged),
        differences(judged),
        length(judged),
        *calibration(judged),
        orders(judged),
        outcomes(judged),
    )
    return [table for table in made if table]


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
    (folder / PAGE).unlink(missing_ok=True)
