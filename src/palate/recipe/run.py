"""run(recipe): the stages in ten lines."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, get_args

from palate.recipe import judging, learn, prepare
from palate.recipe.open import save_recipe
from palate.recipe.schema import Recipe
from palate.recipe.workspace import Told, Workspace, locked, uncounted

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
) -> Path:
    """Run an experiment in `folder` up to the stage `until`, and return the folder.

    Each step is files in and files out, and is skipped where its options, inputs and outputs
    are unchanged; `resume` False makes everything again. A judge that cannot be asked is left out:
    `evaluate.absent.read_absent` of the folder `verdicts` has the reasons.

    Raises:
        PalateError: a mistake in recipe or data, or a folder that another run is writing.
        KeyboardInterrupt: stopped; what was finished is saved.
    """
    work = Workspace(recipe, folder, resume, say, counting)
    with locked(folder):
        save_recipe(recipe, folder / "recipe.yaml")
        imported = prepare.import_sources(work)
        clean = prepare.lint_sources(work, imported)
        train, held_out = prepare.hold_out(work, clean)
        benchmarks = prepare.make_benchmarks(work, clean, held_out)
        pools = prepare.exclude_overlaps(work, train, benchmarks)
        mixtures = learn.make_mixtures(work, pools)
        learn.keep_apart(work, mixtures, benchmarks)
        if until == "mix":
            return folder
        models = learn.train_models(work, mixtures, benchmarks)
        if until == "train":
            return folder
        judging.judge_all(work, models, benchmarks)
        judging.find_limits(work, benchmarks)
        if until == "report":
            judging.write_report(work, models)
    return folder
