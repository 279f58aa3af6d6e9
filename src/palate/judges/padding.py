"""Rows of like length side by side: batches of a token budget, padded on the right."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

Row = TypeVar("Row")


def batches(
    rows: Sequence[Row], length: Callable[[Row], int], max_tokens: int
) -> Iterator[list[Row]]:
    """Batches of rows of like length, longest first, of at most `max_tokens` padded tokens."""
    batch: list[Row] = []
    for row in sorted(rows, key=length, reverse=True):
        if batch and (len(batch) + 1) * length(batch[0]) > max_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def padded(rows: Sequence[Sequence[int]], length: int, pad: int) -> torch.Tensor:
    """Rows [B, T] padded on the right."""
    return torch.tensor([[*row, *[pad] * (length - len(row))] for row in rows])
