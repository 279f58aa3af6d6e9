"""A study: one recipe, varied, each variant an ordinary run, all compared.

Apart from `run.py` because it needs the report, which a run needs last and a training never.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Literal

from palate.recipe.cache import LENT, UNCHANGED, fingerprint, locked
from palate.recipe.run import spoken
from palate.recipe.schema import Recipe, StudyConfig, fingerprinted
from palate.report import report, write_page
from palate.report.study import StudyIndex, StudyRun, Took, read_took, write_index, write_took
from palate.types import digest

VARIANTS = "variants"
Run = Callable[..., Path]
Until = Literal["train", "evaluate", "report"]


def run_study(
    recipe: Recipe,
    study: StudyConfig,
    folder: Path,
    run: Run,
    *,
    until: Until,
    say: Callable[[str], None],
) -> Path:
    """Prepare the data in `folder`, `run` every variant below it, and compare them.

    A variant takes over from the study, and from the variants before it, every step that they have
    made of the same options and inputs: data, mixtures, judges that do not hang on it. What is
    finished is not run again.
    """
    run(recipe, folder, until="mix", say=say)

    def say_what_is_done(line: str) -> None:
        if not line.endswith((UNCHANGED, LENT)):
            say(line)

    lenders = [folder]
    with locked(folder / VARIANTS):
        planned = _plan(recipe, study, _data(folder))
        runs = [one for one, _ in planned]
        write_index(folder, _index(recipe, study, runs))
        for number, (one, of) in enumerate(planned):
            left, name = _left(folder, runs[number:], until), ", ".join(one.levels.values())
            say(f"run {number + 1} of {len(runs)}: {name}, seed {one.seed}{left}")
            with _timed(folder, one, until):
                run(
                    of, folder / one.folder, until=until, lenders=tuple(lenders),
                    say=say_what_is_done,
                )  # fmt: skip
            lenders.append(folder / one.folder)
    if until == "report":
        write_page(report(folder))
    return folder


def _plan(recipe: Recipe, study: StudyConfig, data: str) -> list[tuple[StudyRun, Recipe]]:
    """Every run and its recipe, seed by seed: one that is stopped early has compared them all."""
    planned = []
    for seed in study.seeds:
        for variant in study.variants():
            of = recipe.varied(variant, seed)
            one = StudyRun(
                levels=dict(variant.levels),
                seed=seed,
                folder=f"{VARIANTS}/{variant.folder}/seed-{seed}",
                experiment=digest(fingerprinted(of), data),
                mixtures={name: plan.mixture for name, plan in of.models.items()},
            )
            planned.append((one, of))
    return planned


def _data(folder: Path) -> str:
    """A digest of what all variants are trained and judged on."""
    files = sorted(p for room in ("mixtures", "benchmarks") for p in folder.glob(f"{room}/*"))
    return digest(*(fingerprint(path) for path in files if path.suffix == ".parquet"))


def _index(recipe: Recipe, study: StudyConfig, runs: Sequence[StudyRun]) -> StudyIndex:
    return StudyIndex(
        name=recipe.name,
        axes={axis: tuple(levels) for axis, levels in study.vary.items()},
        baseline=study.compared_with(),
        data_axis=study.data_axis(),
        paper=study.paper,
        models=tuple(recipe.models),
        runs=tuple(runs),
    )


@contextmanager
def _timed(folder: Path, one: StudyRun, until: Until) -> Generator[None]:
    """Keep what the run inside takes, also where it is stopped, and how far it came."""
    place, started = folder / one.folder, time.monotonic()
    before = read_took(place)
    if before.experiment != one.experiment:
        before = Took(experiment=one.experiment)
        write_took(place, before)  # At once: what is in the folder is of another experiment.
    stage = before.stage
    try:
        yield
        stage = stage if before.reached(one, until) else until
    finally:
        seconds = before.seconds + time.monotonic() - started
        write_took(place, Took(experiment=one.experiment, stage=stage, seconds=round(seconds, 1)))


def _left(folder: Path, runs: Sequence[StudyRun], until: Until) -> str:
    """`; about 12 min left`, from finished runs of the same variant, else of all; or nothing."""
    took = {
        path.parent: read_took(path.parent) for path in folder.glob(f"{VARIANTS}/*/*/took.json")
    }
    finished = {place: t.seconds for place, t in took.items() if t.stage}
    if not finished:
        return ""
    total = 0.0
    for one in runs:
        place = folder / one.folder
        if not read_took(place).reached(one, until):
            alike = [s for other, s in finished.items() if other.parent == place.parent]
            total += fmean(alike or finished.values())
    return f"; about {spoken(total)} left" if total else "; finished before"
