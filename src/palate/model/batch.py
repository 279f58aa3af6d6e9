"""Prompt groups as packed rows: each prompt once, nothing padded.

Shape letters: R responses, T tokens of a packed row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from palate.model.layout import Integers, Layout, Segments
from palate.model.plan import plan

Tokens = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Group:
    """One prompt and its distinct responses as tokens: the prefix they share, then each rest."""

    prefix: Tokens
    suffixes: tuple[Tokens, ...]

    @property
    def tokens(self) -> int:
        """Tokens that a packed row spends on this group."""
        return len(self.prefix) + sum(map(len, self.suffixes))


@dataclass(frozen=True, slots=True)
class Packed:
    """A micro-batch as one row.

    `ids`, `positions`: [1, T]. `ends`: [R], the index of each response's terminal token, from
    lengths and never from ids (pitfall 3); responses in the order of the groups.
    """

    ids: Tensor
    positions: Tensor
    ends: Tensor
    layout: Layout


def group(conversations: Sequence[Tokens], *, shared: bool = True) -> Group:
    """The longest common token prefix of `conversations`, and each one's rest.

    The prefix stops one token short of the shortest conversation, so that every response keeps
    its terminal token. With `shared` off the prefix is empty: packing without sharing.

    Raises:
        ValueError: no conversation, or an empty one.
    """
    shortest = min(map(len, conversations))
    if shortest == 0:
        raise ValueError("a conversation without tokens cannot be scored")
    first, *others = conversations
    shares = (common_prefix(first, other) for other in others)
    common = min(shares, default=shortest - 1) if shared else 0
    return Group(first[:common], tuple(c[common:] for c in conversations))


def common_prefix(first: Tokens, second: Tokens) -> int:
    """How many tokens both begin with, at most all but the last of the shorter one."""
    limit = min(len(first), len(second)) - 1
    differs = first[:limit] != second[:limit]
    return int(differs.argmax()) if differs.any() else limit


def pack(groups: Sequence[Group], device: torch.device | str = "cpu") -> Packed:
    """Lay groups one after another; a response's positions continue its own prompt's.

    Built on the host and moved at once, without waiting for the device.
    """
    parts = [part for item in groups for part in (item.prefix, *item.suffixes)]
    whole = Segments.of([(len(g.prefix), [*map(len, g.suffixes)]) for g in groups])
    ids = np.concatenate(parts).astype(np.int64)
    tensors = _move(
        [ids, whole.positions, whole.rows, *whole.index, *whole.ends.index], torch.device(device)
    )
    packed_ids, positions, rows, *index = tensors
    layout = whole.layout(index[:3], ends=whole.ends.layout(index[3:], rows=rows))
    return Packed(packed_ids[None], positions[None], rows, layout)


def _move(arrays: Sequence[Integers], device: torch.device) -> Sequence[Tensor]:
    """Each array on `device`, in one transfer, which pinned memory lets run beside the host."""
    host = torch.from_numpy(np.concatenate(arrays))
    if device.type == "cuda":
        host = host.pin_memory()
    return host.to(device, non_blocking=True).split([*map(len, arrays)])


def microbatches(groups: Sequence[Group], budget: int) -> Iterator[tuple[list[int], list[Group]]]:
    """The planned micro-batches of `groups`, each with the indices it holds."""
    (planned,) = plan([g.tokens for g in groups], budget)
    for indices in planned:
        yield indices, [groups[i] for i in indices]
