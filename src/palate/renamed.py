"""Aliases of moved modules and names that the documentation named: they work, with one warning.

A finder at the end of the import system's list resolves old module paths, so that imports of
present paths cost nothing.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MODULES: Mapping[str, str] = {
    "palate.asking": "palate.http",
    "palate.data.campaign": "palate.data.simulation",
    "palate.data.holdout": "palate.data.split",
    "palate.data.overlap": "palate.data.contamination",
    "palate.data.shares": "palate.data.mixture",
    "palate.evaluate.orders": "palate.evaluate.metrics",
    "palate.evaluate.score": "palate.evaluate.scoring",
    "palate.evaluate.select": "palate.evaluate.scoring",
    "palate.evaluate.tally": "palate.evaluate.results",
    "palate.judges.spec": "palate.judges.options",
    "palate.model.last_layer": "palate.model.attention",
    "palate.model.load": "palate.model.loading",
    "palate.report.page.build": "palate.report.page",
    "palate.report.write": "palate.report.report",
    "palate.train.footprint": "palate.train.cost",
    "palate.train.work": "palate.train.cost",
    "palate.view": "palate.explorer",
}


def install() -> None:
    """Let old module paths be imported; a second call changes nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


def renamed(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """A `__getattr__` for `module` that knows the old `names` of what it holds."""

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        _warn(f"{module}.{name}", f"{module}.{names[name]}")
        return getattr(sys.modules[module], names[name])

    return get


def _warn(old: str, new: str) -> None:
    # At the caller's caller, which the import system's own frames do not count towards.
    warnings.warn(f"{old} is now {new}", FutureWarning, stacklevel=3)


class _Finder(MetaPathFinder):
    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 - the import system's form.
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        new = MODULES.get(fullname)
        if new is None:
            return None
        _warn(fullname, new)
        return ModuleSpec(fullname, _Alias(new))


class _Alias(Loader):
    """Lends the module of the new path, which keeps its own specification."""

    def __init__(self, new: str) -> None:
        self._new = new

    def create_module(self, spec: ModuleSpec) -> ModuleType:  # noqa: ARG002
        module = importlib.import_module(self._new)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec
