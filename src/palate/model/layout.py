"""Where the groups of a packed row lie: segments of queries, and the keys that each one sees.

A packed row holds groups `[prompt | response 1 | response 2 | ...]` one after another. A prompt is
one segment of p queries over its own p keys; a response is one of r queries over the p keys of its
prompt and then its own r. Causal order is aligned to the last query and the last key.

Shape letters: T tokens of the row, N segments, K keys of all segments together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """The segments of one packed row, made once a micro-batch and read by every layer.

    `gather`: [K], the token whose key each segment reads, segment after segment. `query_starts`,
    `key_starts`: [N + 1] int32, 0 and then the running sums of the lengths. Lengths are numbers of
    the host, so that no layer has to ask the device for one. `rows`: the tokens that query, where
    not all do. `ends`: the same row, but of each response only its last token queries.

    Not slotted: `masks` is computed on first use and kept.
    """

    query_lengths: tuple[int, ...]
    key_lengths: tuple[int, ...]
    gather: Tensor
    query_starts: Tensor
    key_starts: Tensor
    rows: Tensor | None = None
    ends: Layout | None = None

    @cached_property
    def masks(self) -> tuple[Tensor | None, ...]:
        """A boolean mask [r, p + r] a segment, shared by equal ones; None where p is 0."""
        sizes = list(zip(self.query_lengths, self.key_lengths, strict=True))
        device = self.gather.device
        made = {
            size: _causal_lower_right(*size, device) for size in set(sizes) if len(set(size)) > 1
        }
        return tuple(made.get(size) for size in sizes)

    @cached_property
    def longest_query(self) -> int:
        """Tokens of the longest segment."""
        return max(self.query_lengths)

    @cached_property
    def longest_key(self) -> int:
        """Tokens of the longest conversation, the reach that attention must have."""
        return max(self.key_lengths)


def _causal_lower_right(queries: int, keys: int, device: torch.device) -> Tensor:
    full = torch.ones(queries, keys, dtype=torch.bool, device=device)
    return full.tril(diagonal=keys - queries)


@dataclass(frozen=True, slots=True)
class Segments:
    """The segments of a packed row on the host, before their one transfer to the device.

    `responses` are the places of those segments that are responses.
    """

    query_lengths: tuple[int, ...]
    key_lengths: tuple[int, ...]
    gather: Integers
    responses: tuple[int, ...]

    @classmethod
    def of(cls, groups: Sequence[tuple[int, Sequence[int]]]) -> Segments:
        """Segments of groups given as (tokens of the prompt, tokens of each response)."""
        queries, keys, gather, places = [], [], [], []
        start = 0
        for prefix, responses in groups:
            prompt = np.arange(start, start + prefix)
            start += prefix
            if prefix:
                queries.append(prefix)
                keys.append(prefix)
                gather.append(prompt)
            for length in responses:
                places.append(len(queries))
                queries.append(length)
                keys.append(prefix + length)
                gather += [prompt, np.arange(start, start + length)]
                start += length
        return cls(tuple(queries), tuple(keys), np.concatenate(gather), tuple(places))

    @property
    def rows(self) -> Integers:
        """[R], the index of each response's last token."""
        return np.cumsum(self.query_lengths)[list(self.responses)] - 1

    @property
    def ends(self) -> Segments:
        """The same row, where nothing but each response's last token queries."""
        starts = np.cumsum([0, *self.key_lengths])
        gather = [self.gather[starts[n] : starts[n + 1]] for n in self.responses]
        keys = tuple(self.key_lengths[n] for n in self.responses)
        places = tuple(range(len(keys)))
        return Segments((1,) * len(keys), keys, np.concatenate(gather), places)

    @property
    def positions(self) -> Integers:
        """[T], the position of each token in its own conversation."""
        sizes = zip(self.query_lengths, self.key_lengths, strict=True)
        return np.concatenate([np.arange(keys - queries, keys) for queries, keys in sizes])

    @property
    def index(self) -> tuple[Integers, Integers, Integers]:
        """`gather`, `query_starts` and `key_starts` of a layout."""
        queries, keys = np.cumsum([0, *self.query_lengths]), np.cumsum([0, *self.key_lengths])
        return self.gather, queries, keys

    def layout(
        self, index: Sequence[Tensor], *, rows: Tensor | None = None, ends: Layout | None = None
    ) -> Layout:
        """The layout of these segments, `index` being theirs on the device."""
        gather, queries, keys = index
        sums = queries.int(), keys.int()
        return Layout(self.query_lengths, self.key_lengths, gather, *sums, rows=rows, ends=ends)


def spread(found: Tensor, rows: Tensor, tokens: int) -> Tensor:
    """[1, R, ...] to [1, T, ...]: each row in its place, zeros elsewhere."""
    empty = found.new_zeros(1, tokens, *found.shape[2:])
    return empty.index_copy(1, rows, found)
