"""`palate recipes`: what experiments come with Palate, and what a recipe may say."""

from __future__ import annotations

import json
import sys

import typer

from palate.cli.output import DataOption, Format, FormatOption, SetOption, emit
from palate.cli.run import RecipeArgument

app = typer.Typer(help="List, show and describe recipes.", no_args_is_help=True)


@app.command("list")
def list_recipes(form: FormatOption = Format.TABLE) -> None:
    """List the built-in recipes.

    Example: [bold]palate recipes list[/bold]
    """
    from palate.recipe import built_in, load_recipe

    rows = []
    for name in built_in():
        recipe = load_recipe(name)
        rows.append(
            {
                "recipe": name,
                "what": " ".join(recipe.description.split()),
                "models": ", ".join(recipe.models),
                "benchmarks": len(recipe.benchmarks),
            }
        )
    emit(rows, form, "Recipes")


@app.command("show")
def show(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    data: DataOption = None,
) -> None:
    """Print a recipe resolved: `extends` and `--set` applied, every default written out.

    Of a study, what it runs is said above, in comments.
    Example: [bold]palate recipes show llama2 --set train.epochs=2[/bold]
    """
    import yaml

    from palate.recipe import load_recipe, resolved

    loaded = load_recipe(recipe, overrides or (), data=data)
    if loaded.study is not None:
        sys.stdout.writelines(f"# {line}\n" for line in loaded.study.explained().splitlines())
    sys.stdout.write(
        yaml.safe_dump(resolved(loaded), sort_keys=False, allow_unicode=True, width=100)
    )


@app.command("schema")
def print_schema() -> None:
    """Print the JSON schema of a recipe, for completion in editors.

    Example: [bold]palate recipes schema > recipe.schema.json[/bold], then in your recipe's first
    line: [bold]# yaml-language-server: $schema=recipe.schema.json[/bold]
    """
    from palate.recipe import schema

    sys.stdout.write(json.dumps(schema(), indent=2) + "\n")
