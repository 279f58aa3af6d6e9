"""The shape of the house: layers, and rooms that open without torch."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
WITHOUT_TORCH = (
    "palate.types",
    "palate.records",
    "palate.stats",
    "palate.data.sources",
    "palate.data.lint",
    "palate.data.contamination",
    "palate.data.split",
    "palate.data.mixture",
    "palate.data.simulation",
    "palate.evaluate.metrics",
    "palate.evaluate.run",
    "palate.report",
    "palate.explorer.app",
    "palate.recipe",
    "palate.cli",
)
HEAVY = ("torch", "transformers")


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)


def test_layers_hold():
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout


def test_everything_but_models_and_training_opens_without_torch():
    code = f"""
import importlib, sys
for name in {WITHOUT_TORCH!r}:
    importlib.import_module(name)
    heavy = [h for h in {HEAVY!r} if h in sys.modules]
    assert not heavy, f"{{name}} imports {{heavy}}"
"""
    done = python(code)
    assert done.returncode == 0, done.stderr.splitlines()[-1:]


def test_the_command_line_opens_without_anything_heavy():
    heavy = ("torch", "transformers", "datasets", "pyarrow", "scipy", "pydantic", "numpy")
    done = python(f"import sys, palate.cli; print([h for h in {heavy!r} if h in sys.modules])")
    assert done.stdout.strip() == "[]", done
