"""run(recipe): the stages in ten lines; of a study, of each of its variants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from palate.recipe import stages
from palate.recipe.cache import Progress, Workspace, locked, no_progress
from palate.recipe.judges import refuse_one_name
from palate.recipe.open import save_recipe
from palate.recipe.schema import Recipe


def spoken(seconds: float) -> str:
    """A duration as it is said: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


Stage = Literal["mix", "train", "evaluate", "report"]
STAGES: tuple[Stage, ...] = get_args(Stage)


def run(
    recipe: Recipe,
    folder: Path | str,
    *,
    resume: bool = True,
    until: Stage = "report",
    say: Callable[[str], None] = lambda _: None,
    counting: Callable[[str], AbstractContextManager[Progress]] = no_progress,
    lenders: Sequence[Path] = (),
) -> Path:
    """Run an experiment in `folder` up to the stage `until`, and return the folder.

    Each step is files in and files out, and is skipped where its options, inputs and outputs
    are unchanged; `resume` False makes everything again. A judge that cannot be asked is left out:
    `evaluate.absent.read_absent` of the folder `verdicts` has the reasons. What another run, in one
    of the folders `lenders`, has made of the same options and inputs is taken over from there. Of a
    recipe with a study, the data are prepared here and each variant is a run in a folder below.

    Raises:
        PalateError: a mistake in recipe or data, or a folder that another run is writing.
        KeyboardInterrupt: stopped; what was finished is saved.
    """
    folder = Path(folder)
    if recipe.study is not None and until != "mix":
        from palate.recipe.study import run_study

        one = partial(run, resume=resume, counting=counting)
        return run_study(recipe, recipe.study, folder, one, until=until, say=say)
    refuse_one_name(recipe.judges)
    stages.require_data(recipe)
    work = Workspace(recipe, folder, resume, say, counting, lenders)
    with locked(folder):
        if recipe.study is None:
            from palate.report.study import forget_index

            forget_index(folder)
        save_recipe(recipe, folder / "recipe.yaml")
        imported = stages.import_sources(work)
        clean = stages.lint_sources(work, imported)
        train, held_out = stages.hold_out(work, clean)
        benchmarks = stages.make_benchmarks(work, clean, held_out)
        pools = stages.exclude_overlaps(work, train, benchmarks)
        mixtures = stages.make_mixtures(work, pools)
        stages.forbid_overlap(work, mixtures, benchmarks)
        if until == "mix":
            stages.log_courses(work, mixtures)
            return folder
        work = replace(work, recipe=stages.settle(work, mixtures))
        save_recipe(work.recipe, folder / "recipe.yaml")
        models = stages.train_models(work, mixtures, benchmarks)
        if until == "train":
            return folder
        stages.judge_all(work, models, benchmarks)
        stages.find_limits(work, benchmarks)
        stages.choose_best_of_many(work, models)
        if until == "report":
            stages.write_report(work, models)
    return folder
