"""What `from palate import ...` gives: every name, lazily, typed, documented, and no module's."""

import ast
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import palate

ROOT = Path(__file__).parents[1]
NAMES = sorted(set(palate.__all__) - {"__version__"})


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_there_and_documented(name):
    found = getattr(palate, name)
    assert found.__name__ == name
    assert found.__doc__
    assert name in dir(palate)
    module = palate._MODULE_OF[name]
    reference = (ROOT / "docs/reference.md").read_text()
    assert f"| `{name}` | `{module}` |" in reference
    assert f"::: {module}\n" in reference


def test_types_are_seen_of_the_same_names_from_the_same_modules():
    tree = ast.parse(Path(palate.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == palate._MODULE_OF
    assert sorted(seen) == NAMES


def test_no_public_name_is_a_modules_own():
    """Else `from palate import NAME` would give what happened to be imported before."""
    modules = {found.name for found in pkgutil.iter_modules(palate.__path__)}
    assert not modules & set(NAMES)
    assert "evaluate" in modules, "why judge_benchmark is not called so"


def test_data_and_recipes_need_no_torch():
    code = """
import sys
import palate
assert not {"numpy", "pyarrow", "pydantic"} & sys.modules.keys()
from palate import Benchmark, judge_benchmark, lint, load_comparisons, load_recipe, mix, run
rows = [{"prompt": "Bread?", "chosen": "Flour.", "rejected": "No."}]
assert len(list(lint(load_comparisons(rows)))) == 1
assert not {"torch", "transformers", "pandas", "datasets"} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_a_recipe_may_be_a_dictionary_and_stays_as_it_was():
    values = {"extends": "demo", "name": "mine", "train": {"epochs": 3}}
    recipe = palate.load_recipe(values, ["train.epochs=4"])
    assert (recipe.name, recipe.train.epochs) == ("mine", 4)
    assert values["train"] == {"epochs": 3}
    with pytest.raises(palate.PalateError, match="epohcs"):
        palate.load_recipe({"extends": "demo", "train": {"epohcs": 3}})
