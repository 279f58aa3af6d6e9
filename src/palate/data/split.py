"""Hold-out: N examples of each annotation batch for testing, by prompt, for ever.

Rows that share a prompt (equal openings, in any source) or a cluster (`prompt_id` within a
source) belong to one group, and a group has one side. A batch is a source's annotation batch.
Batches are taken one after the other, known ones first and new ones in natural order of their
names, and a batch's groups in order of a seeded hash of their prompts:

1. A group with a known test prompt is test, one with a known train prompt is train: what was
   trained on cannot become a test, what was tested on is never trained on. A group with both
   bridges the sides and goes to neither.
2. A batch that was split before is closed: its unseen groups are train.
3. Of a new batch's unseen groups, the first that fit whole into what is left of N are test.
4. All others are train, and every prompt's side is written to the state, which later runs extend.

A prompt that came as a transcript or templated text was known by that whole text until such texts
were read as turns; a side that it was given so is its side still (`RowKeys.earlier`).

So an earlier batch's membership does not depend on later batches, and nothing depends on the
order of rows. Groups are not cut: a batch gives N exactly where its groups can make N up, and more
only where old test prompts alone exceed it.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from palate.data.prompts import (
    EARLIER_KEY,
    NORMALISATION,
    cluster_key,
    hash64,
    prompt_key,
    text_key,
)
from palate.data.transcript import as_turns
from palate.records import (
    COMPARISON_SCHEMA,
    ROWS_PER_GROUP,
    Header,
    read_header,
    read_rows,
    write_table,
)
from palate.types import Message, PalateError

# Groups of rows that must not be parted: rows of one prompt or one cluster, in 28 bytes a row.

Keys = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int32]
BatchName = tuple[str, str]  # A source and one of its annotation batches.

_COLUMNS = ["source", "batch", "prompt", "prompt_id", "meta"]


@dataclass(frozen=True, slots=True)
class RowKeys:
    """What splits need of R rows: prompts [R], clusters [R], and batches [R] into `names`.

    `earlier` [R] is what a prompt was known by while one that came as a transcript or templated
    text was read as a single turn; of all others it is `prompts`. Sides that were given, and the
    seeded order, go by it, so that such rows stay where they were.
    """

    prompts: Keys
    clusters: Keys
    batches: Numbers
    names: list[BatchName]
    earlier: Keys


def read_keys(paths: Iterable[Path]) -> RowKeys:
    """The keys of all rows of comparison files, in order; responses are not read."""
    prompts, clusters, earlier, batches = array("Q"), array("Q"), array("Q"), array("i")
    numbers: dict[BatchName, int] = {}
    for path in paths:
        read_header(path, "comparisons")
        for row in read_rows(path, _COLUMNS):
            prompt = tuple(Message(m["role"], m["content"]) for m in row["prompt"])
            prompts.append(prompt_key(prompt))
            earlier.append(_earlier_key(prompt, row["meta"], prompts[-1]))
            clusters.append(cluster_key(row["source"], row["prompt_id"]))
            batches.append(numbers.setdefault((row["source"], row["batch"]), len(numbers)))
    return RowKeys(
        np.array(prompts, np.uint64),
        np.array(clusters, np.uint64),
        np.array(batches, np.int32),
        list(numbers),
        np.array(earlier, np.uint64),
    )


def _earlier_key(prompt: tuple[Message, ...], meta: str | None, key: int) -> int:
    if meta and EARLIER_KEY in meta:  # Imported since, as messages.
        return int(json.loads(meta).get(EARLIER_KEY, f"{key:x}"), 16)
    # Imported before, as one turn.
    return text_key(prompt[0].content) if as_turns(prompt) is not prompt else key


def group(prompts: Keys, clusters: Keys) -> Numbers:
    """[R] the number of each row's group: rows connected through prompts and clusters."""
    if not len(prompts):
        return np.empty(0, np.int32)
    _, prompt = np.unique(prompts, return_inverse=True)
    _, cluster = np.unique(clusters, return_inverse=True)
    cluster = cluster + int(prompt.max()) + 1
    nodes = int(cluster.max()) + 1
    edges = (np.ones(len(prompt), np.int8), (prompt, cluster))
    _, label = connected_components(coo_array(edges, shape=(nodes, nodes)), directed=False)
    _, numbers = np.unique(label[prompt], return_inverse=True)
    return numbers.astype(np.int32)


def ranks(prompts: Keys, groups: Numbers, seed: int) -> Keys:
    """[G] each group's place in the seeded order, uniform whatever the group's size.

    It is the seeded hash of one prompt of the group, the one with the smallest key.
    """
    smallest = np.full(int(groups.max(initial=-1)) + 1, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(smallest, groups, prompts)
    return seeded(smallest, "holdout", seed)


def seeded(keys: Keys, purpose: str, seed: int) -> Keys:
    """Keys re-hashed for one purpose and seed: sorting by the result is a random order.

    A bijection, so distinct keys stay distinct (splitmix64's finaliser; Steele et al. 2014).
    """
    mixed = keys ^ np.uint64(hash64(purpose, str(seed)))
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


Codes = npt.NDArray[np.int8]
Chosen = npt.NDArray[np.bool_]

TRAIN, TEST, NEITHER = 0, 1, 2
SIDES = ("train", "test", "neither")

STATE_SCHEMA = pa.schema(
    [
        pa.field("key", pa.uint64(), nullable=False),
        pa.field("side", pa.string(), nullable=False),
    ]
)


class Holdout(BaseModel):
    """How much of each annotation batch is held out.

    `by_source` overrides `per_batch` for some sources (0 holds out nothing of them, though their
    rows with a test prompt still leave training). A batch never gives more than `max_share` of
    its rows to the test, so that a small batch is not swallowed whole.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    per_batch: int = Field(default=1_000, ge=0)
    by_source: Mapping[str, int] = Field(default_factory=dict)
    max_share: float = Field(default=0.5, ge=0.0, le=1.0)
    seed: int = 0

    def asked(self, source: str) -> int:
        """The number of test rows asked of each batch of a source."""
        return self.by_source.get(source, self.per_batch)


@dataclass(frozen=True, slots=True)
class BatchSplit:
    """What became of one batch's rows."""

    source: str
    batch: str
    rows: int
    asked: int
    test: int
    train: int
    neither: int
    known: bool

    def to_json(self) -> dict[str, Any]:
        """The row of the split's table."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Split:
    """The files of a split by pool, and what became of each batch."""

    train: Mapping[str, Path]
    test: Mapping[str, Path]
    batches: Sequence[BatchSplit]
    state: Path

    def table(self) -> list[dict[str, Any]]:
        """One row for each batch: rows, asked, test, train, neither."""
        return [batch.to_json() for batch in self.batches]


@dataclass(slots=True)
class HoldoutState:
    """The side of every prompt and cluster met so far; 9 bytes each."""

    seed: int
    keys: Keys = field(default_factory=lambda: np.empty(0, np.uint64))
    sides: Codes = field(default_factory=lambda: np.empty(0, np.int8))
    batches: list[BatchName] = field(default_factory=list[BatchName])

    def look_up(self, keys: Keys) -> Codes:
        """The side of each key, or -1 where it was never met."""
        if not len(self.keys):
            return np.full(len(keys), -1, np.int8)
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[at] == keys, self.sides[at], -1).astype(np.int8)

    def learn(self, keys: Keys, sides: Codes) -> None:
        """Add keys not met before; the sides of known keys stay as they are."""
        fresh = self.look_up(keys) < 0
        new_keys, first = np.unique(keys[fresh], return_index=True)
        at = np.searchsorted(self.keys, new_keys)
        self.keys = np.insert(self.keys, at, new_keys)
        self.sides = np.insert(self.sides, at, sides[fresh][first])

    def save(self, path: Path) -> Header:
        """Write the state as a table of kind `holdout`, whole or not at all."""
        rows = (
            {"key": key, "side": SIDES[side]}
            for key, side in zip(self.keys.tolist(), self.sides.tolist(), strict=True)
        )
        details = {"seed": self.seed, "normalisation": NORMALISATION, "batches": self.batches}
        return write_table(path, rows, STATE_SCHEMA, kind="holdout", details=details)

    @classmethod
    def load(cls, path: Path, seed: int) -> HoldoutState:
        """Read a state, or begin one where there is no file.

        Raises:
            PalateError: the state was made with another seed or normalisation.
        """
        if not path.exists():
            return cls(seed)
        details = read_header(path, "holdout").details
        for name, ours in (("seed", seed), ("normalisation", NORMALISATION)):
            if details[name] != ours:
                raise PalateError(
                    f"{path}: hold-out made with {name} {details[name]}, this run has {ours}; "
                    f"use {name} {details[name]}, or another state file for a new experiment"
                )
        keys = np.fromiter((row["key"] for row in read_rows(path, ["key"])), np.uint64)
        names = (row["side"] for row in read_rows(path, ["side"]))
        sides = np.fromiter(map(SIDES.index, names), np.int8)
        return cls(seed, keys, sides, [(s, b) for s, b in details["batches"]])


def split(pools: Mapping[str, Path], folder: Path, holdout: Holdout, state: Path) -> Split:
    """Split comparison files into `folder/train/POOL.parquet` and `folder/test/POOL.parquet`.

    Two passes: the first reads prompts and keeps 28 bytes a row, the second copies rows. `state`
    is read if it exists, extended, and written before the rows are.
    """
    known = HoldoutState.load(state, holdout.seed)
    rows = read_keys(pools.values())
    sides, batches = assign(rows, holdout, known)
    saved = known.save(state)
    taken, train, test = 0, dict[str, Path](), dict[str, Path]()
    for pool, path in pools.items():
        header = read_header(path, "comparisons")
        part = sides[taken : taken + header.rows]
        taken += header.rows
        for side, files in ((TRAIN, train), (TEST, test)):
            files[pool] = folder / SIDES[side] / f"{pool}.parquet"
            _copy_rows(
                path,
                part == side,
                files[pool],
                inputs={pool: header.fingerprint, "holdout": saved.fingerprint},
                details={"side": SIDES[side], "holdout": holdout.model_dump(mode="json")},
            )
    return Split(train, test, batches, state)


def split_by_share(path: Path, first: Path, second: Path, share: float, seed: int) -> None:
    """Split one file in two by prompt: a group goes to `first` if its seeded hash is below `share`.

    It needs no state: a prompt's side depends on the prompt (and its cluster) alone. `share` is
    met in expectation over groups, not exactly.
    """
    rows = read_keys([path])
    groups = group(rows.prompts, rows.clusters)
    sides = np.less(ranks(rows.earlier, groups, seed)[groups], share * 2.0**64).astype(np.int8)
    header = read_header(path, "comparisons")
    for target, side in ((first, TEST), (second, TRAIN)):
        _copy_rows(
            path,
            sides == side,
            target,
            inputs={path.stem: header.fingerprint},
            details={"share": share if side == TEST else 1 - share, "seed": seed},
        )


def assign(rows: RowKeys, holdout: Holdout, state: HoldoutState) -> tuple[Codes, list[BatchSplit]]:
    """The side of each row [R] by the rules of this module; extends `state`."""
    sides = np.full(len(rows.batches), TRAIN, np.int8)
    report = []
    by_batch = np.argsort(rows.batches, kind="stable")
    bounds = np.searchsorted(rows.batches[by_batch], np.arange(len(rows.names) + 1))
    for number in _in_order(rows.names, state.batches):
        source, batch = rows.names[number]
        own = by_batch[bounds[number] : bounds[number + 1]]
        known = (source, batch) in state.batches
        asked = holdout.asked(source)
        most = 0 if known else min(asked, int(holdout.max_share * len(own)))
        prompts, clusters, earlier = rows.prompts[own], rows.clusters[own], rows.earlier[own]
        part = sides[own] = _assign_batch(prompts, clusters, earlier, most, state)
        state.learn(np.concatenate([prompts, clusters]), np.concatenate([part, part]))
        if not known:
            state.batches.append((source, batch))
        train, test, neither = (int((part == side).sum()) for side in (TRAIN, TEST, NEITHER))
        report.append(BatchSplit(source, batch, len(own), asked, test, train, neither, known))
    return sides, report


def _in_order(names: Sequence[BatchName], known: Sequence[BatchName]) -> list[int]:
    """Known batches in order of arrival, then new ones by week before source (week-2, week-10)."""
    arrival = {name: place for place, name in enumerate(known)}

    def place(number: int) -> tuple[Any, ...]:
        source, batch = names[number]
        parts = re.findall(r"([0-9]+)|([^0-9]+)", batch)
        natural = [(int(digits or 0), letters) for digits, letters in parts]
        return arrival.get((source, batch), len(arrival)), natural, batch, source

    return sorted(range(len(names)), key=place)


def _assign_batch(
    prompts: Keys, clusters: Keys, earlier: Keys, most: int, state: HoldoutState
) -> Codes:
    """The side of each row of one batch; `most` rows of unseen groups become test."""
    groups = group(prompts, clusters)
    sizes = np.bincount(groups)
    by_prompt, by_cluster, by_text = map(state.look_up, (prompts, clusters, earlier))

    # [side, group] whether a group has a key of that side.
    touches = np.zeros((3, len(sizes)), bool)
    for known in (by_prompt, by_cluster, by_text):
        met = np.flatnonzero(known >= 0)
        touches[known[met], groups[met]] = True
    side_of = np.full(len(sizes), TRAIN, np.int8)
    side_of[touches[TEST]] = TEST
    side_of[touches[NEITHER] | (touches[TEST] & touches[TRAIN])] = NEITHER

    # Unseen groups are test in their seeded order, as long as they fit.
    unseen = np.logical_not(np.asarray(touches.any(axis=0)))
    left = most - int(sizes[side_of == TEST].sum())
    for number in np.argsort(ranks(earlier, groups, state.seed), kind="stable").tolist():
        if left <= 0:
            break
        if unseen[number] and sizes[number] <= left:
            side_of[number] = TEST
            left -= int(sizes[number])

    # A row met before keeps its side, though a newer row may bridge its group to the other. One
    # that was met as a single turn of text was known by that text alone.
    sides = side_of[groups]
    sides = np.where((by_prompt >= 0) & (by_prompt == by_cluster), by_prompt, sides)
    return np.where((earlier != prompts) & (by_text >= 0), by_text, sides)


def _copy_rows(
    path: Path, chosen: Chosen, out: Path, inputs: Mapping[str, str], details: Mapping[str, Any]
) -> None:
    """Write the chosen rows of a comparison file, in order."""

    def rows() -> Iterator[dict[str, Any]]:
        start = 0
        with pq.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(ROWS_PER_GROUP):
                yield from batch.filter(pa.array(chosen[start : start + len(batch)])).to_pylist()
                start += len(batch)

    write_table(out, rows(), COMPARISON_SCHEMA, kind="comparisons", inputs=inputs, details=details)
