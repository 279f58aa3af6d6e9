"""Palate turns human comparisons into reward models people can trust, and proves it.

What is named here is the public API. Each name is imported when it is first asked for, so that
`import palate` is instant and needs no torch.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from palate import renamed
from palate.cpus import library_settings

if TYPE_CHECKING:
    from palate.client import AsyncRewardClient, RewardClient
    from palate.client.trl import reward_func
    from palate.data.comparisons import (
        load_comparisons,
        save_comparisons,
        to_dataset,
        to_pandas,
    )
    from palate.data.lint import LintReport, lint
    from palate.data.mixture import MixtureSpec, mix
    from palate.evaluate.benchmark import Benchmark
    from palate.evaluate.metrics import judge_benchmark
    from palate.judges import open_judge
    from palate.judges.pretrained import RewardModel, rank
    from palate.recipe.open import load_recipe
    from palate.recipe.run import run
    from palate.types import Comparison, Message, PalateError

__all__ = [
    "AsyncRewardClient",
    "Benchmark",
    "Comparison",
    "LintReport",
    "Message",
    "MixtureSpec",
    "PalateError",
    "RewardClient",
    "RewardModel",
    "__version__",
    "judge_benchmark",
    "lint",
    "load_comparisons",
    "load_recipe",
    "mix",
    "open_judge",
    "rank",
    "reward_func",
    "run",
    "save_comparisons",
    "to_dataset",
    "to_pandas",
]
__version__ = "0.1.0"

# Where each name is. None is also the name of a module of this package: importing the module would
# set the attribute, and what `palate.NAME` is would hang on what was imported before.
_MODULES = {
    "palate.client": ("AsyncRewardClient", "RewardClient"),
    "palate.client.trl": ("reward_func",),
    "palate.data.comparisons": (
        "load_comparisons",
        "save_comparisons",
        "to_dataset",
        "to_pandas",
    ),
    "palate.data.lint": ("LintReport", "lint"),
    "palate.data.mixture": ("MixtureSpec", "mix"),
    "palate.evaluate.benchmark": ("Benchmark",),
    "palate.evaluate.metrics": ("judge_benchmark",),
    "palate.judges": ("open_judge",),
    "palate.judges.pretrained": ("RewardModel", "rank"),
    "palate.recipe.open": ("load_recipe",),
    "palate.recipe.run": ("run",),
    "palate.types": ("Comparison", "Message", "PalateError"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

# Before anything here imports torch, and for every process that is started from here.
os.environ.update(library_settings(os.environ))
renamed.install()


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first asked for."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    """The public names too, for completion."""
    return sorted({*globals(), *__all__})
