"""What the package imports, wherever it does, is what it asks to be installed."""

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest

from palate import __file__ as package

SOURCE = Path(package).parent
OF_EXTRAS = {
    # In a function, with a line that says what to install where it is missing.
    "model/onnx.py": {"onnxruntime", "onnxscript", "onnx_ir"},
    "model/quantization.py": {"bitsandbytes"},
    "serve/metrics.py": {"opentelemetry"},
}


def named(requirement: str) -> str:
    """The distribution of a requirement as metadata spells it everywhere: `ruamel-yaml`."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def needed(distribution: str) -> list[str]:
    """What a distribution requires without extras; nothing where it is not installed."""
    try:
        listed = requires(distribution) or []
    except PackageNotFoundError:
        return []
    return [named(one) for one in listed if "extra ==" not in one]


def reachable(distribution: str) -> set[str]:
    """All that comes with a distribution."""
    found, waiting = set(), [distribution]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += needed(one)
    return found


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, top-level name) of everything a file imports, in functions too; types aside."""
    tree = ast.parse(path.read_text())
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.lineno, node.module.split(".")[0]


def test_nothing_is_imported_that_a_plain_install_does_not_bring() -> None:
    """The explorer's Marks page imported statsmodels, a dev extra: HTTP 500 for every user."""
    brought, owners = reachable("palate"), packages_distributions()
    if brought == {"palate"}:
        pytest.skip("palate is not installed: nothing says what it requires")
    missing = []
    for path in sorted(SOURCE.rglob("*.py")):
        if path.parent == SOURCE / "engines/workers":  # Run in the library's own environment.
            continue
        of_extras = OF_EXTRAS.get(path.relative_to(SOURCE).as_posix(), set())
        for line, name in imports(path):
            if name == "palate" or name in sys.stdlib_module_names or name in of_extras:
                continue
            if not brought & {named(owner) for owner in owners.get(name, [])}:
                missing.append(f"{path.relative_to(SOURCE)}:{line}: {name}")
    assert not missing, "imported, and not among the dependencies of pyproject.toml"


def test_a_function_that_imports_a_dev_extra_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "made.py"
    path.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pandas\n"
        "def f():\n    from statsmodels.stats import inter_rater\n"
    )
    assert list(imports(path)) == [(1, "typing"), (5, "statsmodels")]
    assert "statsmodels" not in reachable("palate")
