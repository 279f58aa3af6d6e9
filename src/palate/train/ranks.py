"""The processes that share one checkpoint, and what they do together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

import torch.distributed as dist

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes of this run with a channel of their own; one process needs none.

    The channel is apart from training's, so that a background thread may use it meanwhile.
    """

    rank: int = 0
    world: int = 1
    group: dist.ProcessGroup | None = None

    @classmethod
    def now(cls) -> Ranks:
        """The processes of `torch.distributed`; where there are several, all must call this."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size(), dist.new_group(backend="gloo"))

    def every(self, do: Callable[[], T]) -> list[T]:
        """Do it on every rank; the results by rank. What fails on one is raised on all."""
        mine: T | Exception
        try:
            mine = do()
        except Exception as error:
            mine = error
        results: list[T | Exception] = [mine] * self.world
        if self.group is not None:
            dist.all_gather_object(results, mine, group=self.group)
        for result in results:
            if isinstance(result, Exception):
                raise result
        return [result for result in results if not isinstance(result, Exception)]

    def first(self, do: Callable[[], T]) -> T:
        """Do it on rank 0 alone, and tell the result to all, who wait for it."""
        return cast(T, self.every(lambda: do() if self.rank == 0 else None)[0])
