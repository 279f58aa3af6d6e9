"""Where the groups of a packed row lie: segments of queries, and the keys that each one sees.

A packed row holds groups `[prompt | response 1 | response 2 | ...]` one after another. A prompt is
one segment of p queries over its own p keys; a response is one of r queries over the p keys of its
prompt and then its own r. Causal order is aligned to the last query and the last key. Where the
beginning of a prompt was computed before and kept, its keys come in front, and no query is its.

Shape letters: T tokens of the row, P kept tokens before it, N segments, K keys of all segments
together, S kept states.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from palate.types import PalateError

Integers = NDArray[np.int64]


# Queries of one segment within a sliding window that is shorter: what a block reads besides its own
# keys is one window, so that smaller ones gather more and larger ones multiply what they mask.
BLOCK = 256


class Kept:
    """What layers go on from, and what they leave to be kept: a call of each after the other.

    Attention and mixers read their part of what was kept in the order in which a forward pass
    calls them, and add theirs to what is `left`.

    `before`: [P, B] bytes of the kept tokens, of every call of attention its keys and values;
    None where there are none. `states`: of each kept prompt what every mixer ended it in.
    `left_rows`: of every key and value of a call their bytes, [T, B'], views of what was computed.
    `left_states`: of each mixer's calls the states at the ends of the row's prompts, in the order
    of `SegmentBatches.prompts` and then `.further`.
    """

    def __init__(self, before: Tensor | None = None, states: Sequence[Sequence[Any]] = ()) -> None:
        self.before, self.states = before, states
        self.left_rows: list[Tensor] = []
        self.left_states: list[Any] = []
        self._read = 0

    def next_states(self) -> list[Any]:
        """What the next call of a mixer goes on from: a state of each kept prompt."""
        return [calls[len(self.left_states)] for calls in self.states]

    def join(self, rows: Tensor) -> Tensor:
        """Keys or values of a call, [1, T, H, D], behind those that were kept: [1, P + T, H, D]."""
        own = rows[0].flatten(1).view(torch.uint8)
        self.left_rows.append(own)
        if self.before is None:
            return rows
        start, self._read = self._read, self._read + own.shape[1]
        before = self.before[:, start : self._read].view(rows.dtype)
        return torch.cat((before.unflatten(1, rows.shape[2:]), rows[0]))[None]


@dataclass(frozen=True)
class Layout:
    """The segments of one packed row, made once a micro-batch and read by every layer.

    `gather`: [K], the token whose key each segment reads, segment after segment; kept tokens come
    before those of the row. `sources`: what each segment goes on from, see `Segments`.
    `query_starts`, `key_starts`: [N + 1] int32, 0 and then the running sums of the lengths. Lengths
    are numbers of the host, so that no layer has to ask the device for one. `rows`: the tokens that
    query, where not all do. `ends`: the same row, but of each response only its last token queries.
    `window`: how many keys a query sees, its own the last of them, where that is not all before it.
    `sink`: whether each segment's first key is none of a token, and seen by all of its queries.
    `kept`: where prompts are kept between micro-batches.

    Not slotted: what is computed from it is kept.
    """

    query_lengths: tuple[int, ...]
    key_lengths: tuple[int, ...]
    gather: Tensor
    query_starts: Tensor
    key_starts: Tensor
    sources: tuple[int, ...] = ()
    rows: Tensor | None = None
    ends: Layout | None = None
    window: int | None = None
    sink: bool = False
    kept: Kept | None = None

    @cached_property
    def masks(self) -> tuple[Tensor | None, ...]:
        """A boolean mask [queries, keys] a segment, shared by equal ones.

        None where as many keys as queries are seen in causal order, and no less.
        """
        sizes = list(zip(self.query_lengths, self.key_lengths, strict=True))
        masks = {size: self._mask(*size) for size in set(sizes)}
        return tuple(masks[size] for size in sizes)

    def _mask(self, queries: int, keys: int) -> Tensor | None:
        window = keys if self.window is None else self.window + self.sink
        if queries == keys <= window:
            return None
        last = keys - queries  # The key of the first query's own token.
        mask = torch.ones(queries, keys, dtype=torch.bool, device=self.gather.device)
        mask = mask.tril(diagonal=last)
        if self.window is not None:
            mask = mask.triu(diagonal=last - self.window + 1)
        if self.sink:
            mask[:, 0] = True
        return mask

    @cached_property
    def batches(self) -> SegmentBatches:
        """The segments as rows of a few batches, for layers that carry a state."""
        kept = 0 if self.kept is None else len(self.kept.states)
        return SegmentBatches.of(self.query_lengths, self.sources, self.gather.device, kept)

    @cached_property
    def longest_query(self) -> int:
        """Tokens of the longest segment."""
        return max(self.query_lengths)

    @cached_property
    def longest_key(self) -> int:
        """Tokens of the longest conversation, the reach that attention must have."""
        return max(self.key_lengths)

    def within(self, window: int | None) -> Layout:
        """The same row where a query sees no more than `window` keys; kept for the next layer.

        Keys that no query of a segment sees are not gathered, and longer segments are several: of
        a prompt of p tokens p / max(window, 256) blocks, each over its own keys and window - 1
        before them, so that work and masks grow with p and not with its square.
        """
        if window is None or window >= self.longest_key:
            return self
        if window not in self._variants:
            self._variants[window] = self._blocks(window)
        return self._variants[window]

    def with_sink(self, tokens: int) -> Layout:
        """The same row with one more key in front of each segment's, at the place `tokens`."""
        if None not in self._variants:
            sink = self.gather.new_full((1,), tokens)
            parts = [p for keys in self.gather.split(self.key_lengths) for p in (sink, keys)]
            keys = tuple(length + 1 for length in self.key_lengths)
            self._variants[None] = self._with(self.query_lengths, keys, parts, sink=True)
        return self._variants[None]

    @cached_property
    def _variants(self) -> dict[int | None, Layout]:
        return {}

    def _blocks(self, window: int) -> Layout:
        step = max(window, BLOCK)
        queries, keys, gather = list[int](), list[int](), list[Tensor]()
        places = self.gather.split(self.key_lengths)
        for count, length, place in zip(self.query_lengths, self.key_lengths, places, strict=True):
            for start in range(0, count, step):
                end = length - count + min(start + step, count)  # One past its last query's key.
                queries.append(min(step, count - start))
                keys.append(min(end, queries[-1] + window - 1))
                gather.append(place[end - keys[-1] : end])
        return self._with(tuple(queries), tuple(keys), gather, window=window)

    def _with(
        self, queries: tuple[int, ...], keys: tuple[int, ...], gather: list[Tensor], **changes: Any
    ) -> Layout:
        device = self.gather.device
        query_starts, key_starts = (
            torch.from_numpy(np.cumsum([0, *lengths], dtype=np.int32)).to(device, non_blocking=True)
            for lengths in (queries, keys)
        )
        return replace(
            self, query_lengths=queries, key_lengths=keys, gather=torch.cat(gather),
            query_starts=query_starts, key_starts=key_starts, **changes,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Segments:
    """The segments of a packed row on the host, before their one transfer to the device.

    `responses` are the places of those segments that are responses. `sources`: what each goes on
    from: -1 nothing, n < S the n-th kept state, S + m segment m.
    """

    query_lengths: tuple[int, ...]
    key_lengths: tuple[int, ...]
    gather: Integers
    responses: tuple[int, ...]
    sources: tuple[int, ...]

    @classmethod
    def of(cls, groups: Sequence[tuple[int, Sequence[int]]], kept: Sequence[int] = ()) -> Segments:
        """Segments of groups given as (tokens of the prompt, tokens of each response).

        `kept`: of each group how many tokens before those are kept; none where it is empty.
        """
        queries, keys, gather, places, sources = [], [], [], [], []
        kept = kept or [0] * len(groups)
        states, laid, start = sum(map(bool, kept)), 0, sum(kept)
        state = 0
        for past, (prefix, responses) in zip(kept, groups, strict=True):
            before = [np.arange(laid, laid + past)]
            laid += past
            source, state = (state, state + 1) if past else (-1, state)
            if prefix:
                before.append(np.arange(start, start + prefix))
                queries.append(prefix)
                keys.append(past + prefix)
                gather += before
                sources.append(source)
                source = states + len(queries) - 1
                start += prefix
            for length in responses:
                places.append(len(queries))
                queries.append(length)
                keys.append(past + prefix + length)
                gather += [*before, np.arange(start, start + length)]
                sources.append(source)
                start += length
        joined = np.concatenate(gather)
        return cls(tuple(queries), tuple(keys), joined, tuple(places), tuple(sources))

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
        sources = tuple(self.sources[n] for n in self.responses)
        return Segments((1,) * len(keys), keys, np.concatenate(gather), places, sources)

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

    def layout(self, index: Sequence[Tensor], **others: Any) -> Layout:
        """The layout of these segments, `index` being theirs on the device."""
        gather, queries, keys = index
        sums = queries.int(), keys.int()
        return Layout(self.query_lengths, self.key_lengths, gather, *sums, self.sources, **others)


# Padding of a batch of segments: at most an eighth, and as much as another batch would cost.
PADDING, SPARE = 1 / 8, 32


@dataclass(frozen=True, slots=True)
class SegmentBatch:
    """Segments of like lengths as the rows of one batch.

    `tokens`: [N, L], of each place its token in the packed row, any where there is padding.
    `present`: [N, L], where there is none; None where there is none at all. `segments`: which they
    are. `sources`: [N], of those that go on from a state its place among all states: those that
    were kept, then those in which the prompts of all batches end, in order.
    """

    tokens: Tensor
    present: Tensor | None
    segments: tuple[int, ...]
    sources: Tensor


@dataclass(frozen=True, slots=True)
class SegmentBatches:
    """The segments of a packed row in batches: those that start from nothing, then the others.

    `prompts` are padded on the left, so that all end at the last place of a row; `responses` on
    the right, where nothing follows that would be read. `further` are prompts that go on from a
    kept state and end in one: neither side may be padded. `places`: [T], where each token of the
    packed row lies among the places of all batches.
    """

    prompts: tuple[SegmentBatch, ...]
    further: tuple[SegmentBatch, ...]
    responses: tuple[SegmentBatch, ...]
    places: Tensor

    @classmethod
    def of(
        cls, queries: Sequence[int], sources: Sequence[int], device: torch.device, kept: int = 0
    ) -> SegmentBatches:
        """Batches of segments of so many queries that go on from `sources` (see `Segments`)."""
        starts = np.cumsum([0, *queries])
        source = np.array(sources)
        goes_on = source >= 0
        has_responses = np.isin(np.arange(len(queries)), source[source >= kept] - kept)
        places, laid = np.zeros(starts[-1], np.int64), 0
        # Of each state its place: kept ones first, then ends of prompts as their batches come.
        order = np.concatenate((np.arange(kept), np.zeros(len(queries), np.int64)))
        ended = kept

        def batch(segments: Sequence[int], least: int, *, left: bool) -> SegmentBatch:
            nonlocal laid
            width = max(least, *(queries[n] for n in segments))
            tokens = np.zeros((len(segments), width), np.int64)
            present = np.zeros(tokens.shape, bool)
            for row, n in enumerate(segments):
                own = slice(width - queries[n], width) if left else slice(queries[n])
                tokens[row, own] = np.arange(starts[n], starts[n + 1])
                present[row, own] = True
            places[tokens[present]] = laid + np.flatnonzero(present)
            laid += tokens.size
            arrays = tokens, present, order[np.maximum(source[segments], 0)]
            index, filled, of = (torch.from_numpy(array).to(device) for array in arrays)
            return SegmentBatch(index, None if present.all() else filled, tuple(segments), of)

        def prompts(batches: Sequence[Sequence[int]]) -> tuple[SegmentBatch, ...]:
            nonlocal ended
            for segments in batches:
                order[[kept + n for n in segments]] = np.arange(ended, ended + len(segments))
                ended += len(segments)
            return tuple(batch(segments, 1, left=True) for segments in batches)

        first = prompts(_alike(np.flatnonzero(~goes_on), queries))
        further = prompts(_equal(np.flatnonzero(goes_on & has_responses), queries))
        alike = _alike(np.flatnonzero(goes_on & ~has_responses), queries)
        # One token after a prompt would take a path of transformers that has no gradient.
        later = tuple(batch(segments, 2, left=False) for segments in alike)
        return cls(first, further, later, torch.from_numpy(places).to(device))


def _equal(segments: Integers, lengths: Sequence[int]) -> list[list[int]]:
    """`segments` in batches of equal length."""
    batches: dict[int, list[int]] = {}
    for n in segments.tolist():
        batches.setdefault(lengths[n], []).append(n)
    return [*batches.values()]


def _alike(segments: Integers, lengths: Sequence[int]) -> list[list[int]]:
    """`segments` in batches of like lengths, the longest first, padded within bounds."""
    batches: list[list[int]] = []
    tokens = 0
    for n in sorted(segments.tolist(), key=lambda n: -lengths[n]):
        tokens += lengths[n]
        if batches:
            padded = lengths[batches[-1][0]] * (len(batches[-1]) + 1)
            if padded <= (1 + PADDING) * tokens + SPARE:
                batches[-1].append(n)
                continue
        batches.append([n])
        tokens = lengths[n]
    return batches


def spread(values: Tensor, rows: Tensor, tokens: int) -> Tensor:
    """[1, R, ...] to [1, T, ...]: each row in its place, zeros elsewhere."""
    return values.new_zeros(1, tokens, *values.shape[2:]).index_copy(1, rows, values)


# The planner: whole prompt groups into micro-batches of equal work, the same number on each rank.
#
# A micro-batch holds at most a budget of tokens. How few micro-batches that takes is found first;
# then the groups are spread evenly over them, so that no rank waits for the one that got the most.

Bins = list[list[int]]


def plan(tokens: Sequence[int], budget: int, ranks: int = 1) -> list[Bins]:
    """Partition groups into micro-batches of at most `budget` tokens, `ranks` lists of equal count.

    A pure function of its arguments. A group longer than the budget is alone in its micro-batch;
    where there are fewer groups than micro-batches, some are empty (their weight is zero). The
    lengths that lie together do not depend on the order of `tokens`.

    Args:
        tokens: tokens of each group, at least 1. budget: tokens of one micro-batch.

    Returns:
        For each rank its micro-batches as lists of indices into `tokens`; every index once.
        Micro-batches of the same place run at the same time and are of nearly equal size.

    Raises:
        PalateError: the budget is not positive.
    """
    if budget < 1:
        raise PalateError(f"tokens_per_microbatch must be at least 1, got {budget}")
    order = sorted(range(len(tokens)), key=lambda i: (-tokens[i], i))

    # Few bins, best fit: the longest group first, each into the fullest bin that it fits.
    few: Bins = []
    room: list[int] = []
    for index in order:
        fitting = [b for b, left in enumerate(room) if left >= tokens[index]]
        if fitting:
            best = min(fitting, key=lambda b: (room[b], b))
            few[best].append(index)
            room[best] -= tokens[index]
        else:
            few.append([index])
            room.append(budget - tokens[index])

    # The same number on each rank, evenly: the longest first, each into the emptiest bin.
    count = math.ceil(len(few) / ranks) * ranks
    even: Bins = [[] for _ in range(count)]
    heap = [(0, b) for b in range(count)]
    for index in order:
        used, emptiest = heapq.heappop(heap)
        even[emptiest].append(index)
        heapq.heappush(heap, (used + tokens[index], emptiest))

    def size(indices: Sequence[int]) -> int:
        return sum(tokens[i] for i in indices)

    fits = all(len(indices) <= 1 or size(indices) <= budget for indices in even)
    bins = even if fits else few + [[] for _ in range(count - len(few))]

    # Dealt out: the largest first, a row of them over the ranks and the next row back again.
    bins.sort(key=lambda indices: -size(indices))
    dealt: list[Bins] = [[] for _ in range(ranks)]
    for start in range(0, len(bins), ranks):
        row = bins[start : start + ranks]
        back = start // ranks % 2
        for rank, indices in enumerate(reversed(row) if back else row):
            dealt[rank].append(sorted(indices))
    return dealt


# Prompt groups as packed rows: each prompt once, nothing padded.
#
# Shape letters: R responses, T tokens of a packed row.

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


def pack(
    groups: Sequence[Group],
    device: torch.device | str = "cpu",
    *,
    kept: Kept | None = None,
    kept_tokens: Sequence[int] = (),
) -> Packed:
    """Lay groups one after another; a response's positions continue its own prompt's.

    Built on the host and moved at once, without waiting for the device. With `kept`, so many
    tokens of each group come before its prefix and are not in the row.
    """
    parts = [part for item in groups for part in (item.prefix, *item.suffixes)]
    lengths = [(len(g.prefix), [*map(len, g.suffixes)]) for g in groups]
    segments = Segments.of(lengths, kept_tokens)
    tokens = np.concatenate(parts).astype(np.int64)
    arrays = [tokens, segments.positions, segments.rows, *segments.index, *segments.ends.index]
    # In one transfer, which pinned memory lets run beside the host.
    host = torch.from_numpy(np.concatenate(arrays))
    if torch.device(device).type == "cuda":
        host = host.pin_memory()
    tensors = host.to(device, non_blocking=True).split([*map(len, arrays)])
    ids, positions, rows, *index = tensors
    ends = segments.ends.layout(index[3:], rows=rows, kept=kept)
    layout = segments.layout(index[:3], ends=ends, kept=kept)
    return Packed(ids[None], positions[None], rows, layout)


def microbatches(groups: Sequence[Group], budget: int) -> Iterator[tuple[list[int], list[Group]]]:
    """The planned micro-batches of `groups`, each with the indices it holds."""
    for indices in plan([g.tokens for g in groups], budget)[0]:
        yield indices, [groups[i] for i in indices]
