"""From a name or a file to a Recipe, and back to a file that makes the same one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from palate.data.sources.files import DATA_VARIABLE
from palate.model.options import BaseOptions
from palate.recipe.schema import Recipe, resolved, valid, validate
from palate.recipe.yaml import read
from palate.records import write_text
from palate.train.options import TrainOptions
from palate.types import PalateError


def load_recipe(
    name_or_path: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    data: str | Path | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Recipe:
    """The recipe of a built-in name, a YAML file or its keys in Python, `a.b=c` overrides applied.

    `data` is the data root; else the recipe's own, else PALATE_DATA. Raises PalateError, one line.
    """
    recipe = validate(read(name_or_path, overrides))
    root = data or recipe.data.root or environment.get(DATA_VARIABLE)
    if root is None:
        return recipe
    plan = recipe.data.model_copy(update={"root": str(Path(root).expanduser().resolve())})
    return recipe.model_copy(update={"data": plan})


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write the resolved recipe as YAML; `palate run` of that file repeats the experiment."""
    text = yaml.safe_dump(resolved(recipe), sort_keys=False, allow_unicode=True, width=100)
    write_text(
        path, f"# Resolved: every option, defaults included. `palate run` repeats it.\n{text}"
    )


def schema() -> dict[str, Any]:
    """JSON schema of a recipe file, for completion in editors."""
    result = Recipe.model_json_schema()
    result["properties"]["extends"] = {
        "type": "string",
        "description": "A built-in recipe or a file beside this one, laid underneath this one.",
    }
    # A recipe that extends another may leave out anything.
    result.pop("required", None)
    result["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return result


def load_options(overrides: Sequence[str]) -> tuple[TrainOptions, BaseOptions]:
    """Options of training and backbone alone, from `train.a=b` and `backbone.a=b`."""
    values = read({}, overrides)
    if strange := next((key for key in values if key not in ("backbone", "train")), None):
        raise PalateError(f"--set {strange}: expected backbone.KEY or train.KEY")
    train = valid(TrainOptions, values.get("train", {}), "train")
    return train, valid(BaseOptions, values.get("backbone", {}), "backbone")
