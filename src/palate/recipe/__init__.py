"""A recipe is the experiment: read it, check it, run it."""

from palate.recipe.open import load_recipe, save_recipe, schema
from palate.recipe.run import STAGES, run
from palate.recipe.schema import Recipe, resolved
from palate.recipe.yaml import built_in

__all__ = [
    "STAGES",
    "Recipe",
    "built_in",
    "load_recipe",
    "resolved",
    "run",
    "save_recipe",
    "schema",
]
