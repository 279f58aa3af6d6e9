"""Palate turns human comparisons into reward models people can trust, and proves it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from palate.client import AsyncRewardClient, RewardClient

__all__ = ["AsyncRewardClient", "RewardClient", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The clients, imported when they are first asked for."""
    if name in ("AsyncRewardClient", "RewardClient"):
        from palate import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
