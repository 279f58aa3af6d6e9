"""Several runs in one report: their judges and models side by side, each under its run's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from palate.evaluate.metrics import Result, Tally
from palate.report.read import Judged, Key
from palate.report.training import Course, read_courses
from palate.types import PalateError

T = TypeVar("T")


def merged(runs: Mapping[str, Judged]) -> Judged:
    """All verdicts of all runs; of one run they are its own.

    Judges become `RUN: JUDGE`. A trivial judge or a limit that is the same in several runs, on the
    same items, stands once under its own name.
    """
    if len(runs) == 1:
        return next(iter(runs.values()))
    results: dict[Key, Result] = {}
    tallies: dict[Key, Tally] = {}
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


def courses_of(runs: Mapping[str, Path]) -> list[Course]:
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
