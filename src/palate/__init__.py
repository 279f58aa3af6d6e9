"""Palate turns human comparisons into reward models people can trust, and proves it."""

import os
from typing import TYPE_CHECKING, Any

from palate import renamed
from palate.cpus import library_settings

if TYPE_CHECKING:
    from palate.client import AsyncRewardClient, RewardClient

__all__ = ["AsyncRewardClient", "RewardClient", "__version__"]
__version__ = "0.1.0"

# Before anything here imports torch, and for every process that is started from here.
os.environ.update(library_settings(os.environ))
renamed.install()


def __getattr__(name: str) -> Any:
    """The clients, imported when they are first asked for."""
    if name in ("AsyncRewardClient", "RewardClient"):
        from palate import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
