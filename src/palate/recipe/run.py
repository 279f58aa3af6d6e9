"""run(recipe): the stages in ten lines; of a study, of each of its variants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from palate.recipe import judging, learn, prepare
from palate.recipe.open import save_recipe
from palate.recipe.schema import Recipe
from palate.recipe.study import run_study
from palate.recipe.workspace import Told, Workspace, locked, uncounted
from palate.report.study import forget_index

Stage = Literal["mix", "train", "evaluate", "report"]
STAGES: tuple[Stage, ...] = get_args(Stage)


def run(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = True,
    until: Stage = "report",
    say: Callable[[str], None] = lambda _: None,
    counting: Callable[[str], AbstractContextManager[Told]] = uncounted,
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
    if recipe.study is not None and until != "mix":
        one = partial(run, resume=resume, counting=counting)
        return run_study(recipe, recipe.study, folder, one, until=until, say=say)
    work = Workspace(recipe, folder, resume, say, counting, lenders)
    with locked(folder):
        if recipe.study is None:
            forget_index(folder)
        save_recipe(recipe, folder / "recipe.yaml")
        imported = prepare.import_sources(work)
        clean = prepare.lint_sources(work, imported)
        train, held_out = prepare.hold_out(work, clean)
        benchmarks = prepare.make_benchmarks(work, clean, held_out)
        pools = prepare.exclude_overlaps(work, train, benchmarks)
        mixtures = learn.make_mixtures(work, pools)
        learn.keep_apart(work, mixtures, benchmarks)
        if until == "mix":
            learn.say_courses(work, mixtures)
            return folder
        work = replace(work, recipe=learn.settle(work, mixtures))
        save_recipe(work.recipe, folder / "recipe.yaml")
        models = learn.train_models(work, mixtures, benchmarks)
        if until == "train":
            return folder
        judging.judge_all(work, models, benchmarks)
        judging.find_limits(work, benchmarks)
        if until == "report":
            judging.write_report(work, models)
    return folder
