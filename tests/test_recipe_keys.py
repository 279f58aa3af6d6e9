"""Every key of a recipe is listed with its meaning, in the docs as the schema has it.

`PYTHONPATH=src python tests/test_recipe_keys.py` writes the page anew.
"""

from pathlib import Path
from typing import Any

import pytest

from palate.recipe import load_recipe
from palate.recipe.schema import recipe_keys, resolved

PAGE = Path(__file__).parents[1] / "docs" / "recipe-keys.md"
HEAD = """# Every key of a recipe

Made from the schema, as `palate recipes keys` prints it; [Recipes](recipes.md) explains them.
`NAME` stands for a name of your own. What follows from the rows where it is not stated is said in
[Recipes](recipes.md#what-is-not-stated).

| key | type | default | meaning |
|---|---|---|---|
"""


def page() -> str:
    rows = [(f"`{key.path}`", key.kind, key.default, key.meaning) for key in recipe_keys()]
    return HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def test_the_page_is_that_of_the_schema():
    assert PAGE.read_text() == page(), "python tests/test_recipe_keys.py"


def test_every_key_says_what_it_means_and_stands_once():
    listed = list(recipe_keys())
    assert [key.path for key in listed if not key.meaning] == []
    assert len({key.path for key in listed}) == len(listed)


@pytest.mark.parametrize("name", ["demo", "llama2", "margin"])
def test_every_key_that_a_recipe_has_is_listed(name):
    kinds = {key.path: key.kind for key in recipe_keys()}

    def check(values: dict[str, Any], prefix: str) -> None:
        for key, value in values.items():
            path = f"{prefix}{key}"
            assert path in kinds
            if kinds[path] == "text to keys":
                for named in value.values():
                    check(named, f"{path}.NAME.")
            elif isinstance(value, dict) and "keys" in kinds[path]:
                check(value, f"{path}.")

    check(resolved(load_recipe(name, environment={})), "")


if __name__ == "__main__":
    PAGE.write_text(page())
