"""Scripts that the suite does not run import names that exist."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(
    path
    for folder in ("benchmarks", "examples", "tests")
    for path in (ROOT / folder).rglob("*.py")
    if not path.name.startswith("test_") and "/.venv" not in str(path)
)


def imported(tree: ast.Module) -> list[tuple[str, str]]:
    """(module, name) of every `from palate... import name`, wherever it stands."""
    return [
        (node.module or "", alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "palate"
        for alias in node.names
    ]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_script_imports_what_there_is(script):
    for module, name in imported(ast.parse(script.read_text())):
        if not hasattr(import_module(module), name):
            import_module(f"{module}.{name}")  # A module, or an error that names it.
