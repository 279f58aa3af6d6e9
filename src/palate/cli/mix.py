"""`palate mix`: the mixtures, before anything is trained on them."""

from __future__ import annotations

from palate.cli.output import DataOption, QuietOption, SetOption
from palate.cli.run import OutOption, RecipeArgument, ResumeOption, run_recipe


def mix(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    data: DataOption = None,
    out: OutOption = None,
    resume: ResumeOption = True,
    quiet: QuietOption = False,
) -> None:
    """Make a recipe's mixtures and print the shares asked and achieved.

    Imports, lints, splits and excludes first where that is not done.
    Example: [bold]palate mix llama2 --data DIR[/bold]
    """
    run_recipe(recipe, overrides, data, out, resume, until="mix", quiet=quiet)
