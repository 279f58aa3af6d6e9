"""Groups of rows that must not be parted: rows of one prompt or one cluster, in 28 bytes a row."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from palate.data.prompts import EARLIER_KEY, cluster_key, hash64, prompt_key, text_key
from palate.data.transcript import as_turns
from palate.records import read_header, read_rows
from palate.types import Message

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
