"""Pairs whose labels are asked for, with what frozen layers of SmolLM2-135M make of them, once.

A file of states has 240 pairs, so that a kill loses little. Of the simulated campaign a pair's
label is drawn anew in every repetition, for its true difference is known; of a file it is the
file's.

Shape letters: P pairs, D width.
"""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from palate.data.simulation import CampaignOptions, CampaignTask, simulate
from palate.model.device import keep_memory
from palate.model.loading import start_model
from palate.model.options import BaseOptions
from palate.model.packing import pack
from palate.model.precision import compute_dtype
from palate.model.reward_model import RewardModel
from palate.records import write_comparisons
from palate.train.batching import split_step
from palate.train.dataset import Example, tokenise
from palate.train.options import TrainOptions
from palate.types import Comparison, digest

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Flags = NDArray[np.bool_]

LAYERS, SHARD, WEEKS, RANKED = 16, 240, 4, 4
WIDTH = 64  # Of made-up states.
TERMS = 1_500
KEPT = 128  # Of the states' principal directions: more of them teach no more here (measured).


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Pairs as they stand in a file, chosen first.

    `states`: chosen less rejected, [P, D]. `truth`: what the difference is worth, in logits, NaN
    where nobody knows. `prompts`: numbered from 0. `rating`: 1 to 4, 0 where there is none.
    `bins`: the safety bin, or "".
    """

    states: Floats
    truth: Floats
    prompts: Codes
    rating: Codes
    bins: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.prompts)

    def where(self, some: Flags) -> Pairs:
        """Some of the pairs, whose prompts are numbered anew."""
        prompts = np.unique(self.prompts[some], return_inverse=True)[1]
        return Pairs(
            self.states[some], self.truth[some], prompts, self.rating[some], self.bins[some]
        )


def pairs_of(rows: Sequence[Comparison], states: Floats) -> Pairs:
    """The pairs of rows and their states."""
    return Pairs(
        states,
        np.array([row.meta.get("utility_difference", np.nan) for row in rows], np.float64),
        np.unique([row.prompt_id for row in rows], return_inverse=True)[1],
        np.array([row.rating or 0 for row in rows], np.int64),
        np.array([row.bin or "" for row in rows], np.str_),
    )


def campaign(task: CampaignTask, seed: int, pairs: int) -> list[Comparison]:
    """About so many pairs of a campaign; of helpfulness all six of four responses to a prompt."""
    ranked = RANKED if task == "helpfulness" else None
    options = CampaignOptions(
        task=task, weeks=WEEKS, comparisons_per_week=pairs // WEEKS, ranked=ranked
    )
    return list(simulate(options, seed))


def linear(pairs: int, seed: int) -> Pairs:
    """Made-up pairs, six of a prompt, whose truth a head can learn whole: what selection may give.

    States are as uneven as real ones: the k-th direction has a spread of 1 / sqrt(k).
    """
    rng = np.random.default_rng([11, seed])
    responses = rng.normal(size=(pairs // 6, RANKED, WIDTH)) / np.sqrt(np.arange(1, WIDTH + 1))
    first, second = np.triu_indices(RANKED, 1)
    states = (responses[:, first] - responses[:, second]).reshape(-1, WIDTH)
    truth = states @ rng.normal(size=WIDTH)
    truth *= 1.9 / truth.std()  # About as clear as the campaign's: its best judge has 80 %.
    prompts = np.repeat(np.arange(pairs // 6), 6)
    none = np.zeros(len(truth), np.int64)
    return Pairs(states, truth, prompts, none, np.full(len(truth), "", np.str_))


def words(rows: Sequence[Comparison]) -> Pairs:
    """Pairs whose states are how often the commonest words and neighbours of words occur.

    A poorer backbone, at no cost: the square root of counts, chosen less rejected.
    """
    said = [(_terms(row.chosen), _terms(row.rejected)) for row in rows]
    common = Counter(term for both in said for one in both for term in one).most_common(TERMS)
    place = {term: n for n, (term, _) in enumerate(common)}
    states = np.zeros((len(rows), len(place)))
    for n, (chosen, rejected) in enumerate(said):
        for sign, counted in ((1, chosen), (-1, rejected)):
            for term, count in counted.items():
                if term in place:
                    states[n, place[term]] += sign * math.sqrt(count)
    return pairs_of(rows, states)


def _terms(text: str) -> Counter[str]:
    spoken = re.findall(r"\w+|[^\w\s]", text.lower())
    return Counter([*spoken, *map(" ".join, pairwise(spoken))])


def split(pairs: Pairs, held_out: float, seed: int, *, even: bool) -> tuple[Pairs, Pairs]:
    """A pool and what is held out of it, a share of the prompts, as `reduced` has them."""
    prompts = int(pairs.prompts.max()) + 1
    asked = np.random.default_rng(seed).permutation(prompts) < held_out * prompts
    held = asked[pairs.prompts]
    return reduced(pairs.where(~held), pairs.where(held), even=even)


def reduced(pool: Pairs, asked: Pairs, *, even: bool = True) -> tuple[Pairs, Pairs]:
    """Both along the pool's `KEPT` principal directions, its mean square length 1.

    `even`: each number of a state is first brought to the same spread. Directions and scale are of
    all the pool, whose labels need not be known.
    """
    scale = np.sqrt((pool.states**2).mean(0)) + 1e-12 if even else np.ones(pool.states.shape[1])
    scaled = pool.states / scale
    directions = np.linalg.eigh(scaled.T @ scaled)[1][:, ::-1][:, :KEPT]
    length = np.sqrt((scaled**2).sum(1).mean())

    def along(pairs: Pairs) -> Pairs:
        states = (pairs.states / scale) @ directions / length
        return Pairs(states, pairs.truth, pairs.prompts, pairs.rating, pairs.bins)

    return along(pool), along(asked)


# States.


class Backbone:
    """The first layers of SmolLM2-135M, opened when the first states are made."""

    def __init__(self, max_tokens: int, layers: int = LAYERS) -> None:
        self.max_tokens, self.layers = max_tokens, layers
        self._model: RewardModel | None = None

    @property
    def model(self) -> RewardModel:
        """The model, with a new head that nothing asks."""
        if self._model is None:
            keep_memory()
            base = BaseOptions(layers=self.layers, template="chatml", max_tokens=self.max_tokens)
            dtype = compute_dtype("auto", torch.device("cpu"))
            self._model = start_model(base, dtype=dtype)[0].eval()
        return self._model

    def pairs(self, rows: Sequence[Comparison], folder: Path) -> Pairs:
        """The pairs of rows that can be trained on, their states from `folder` where they are."""
        return pairs_of(*self.states(rows, folder))

    def states(self, rows: Sequence[Comparison], folder: Path) -> tuple[list[Comparison], Floats]:
        """The rows that can be trained on, and chosen less rejected of their states, [P, D]."""
        kept, parts = list[Comparison](), list[NDArray[np.float32]]()
        folder.mkdir(parents=True, exist_ok=True)
        for start in range(0, len(rows), SHARD):
            shard, path = rows[start : start + SHARD], folder / f"{start}.npz"
            made_of = digest(self.layers, self.max_tokens, [row.id for row in shard])
            if not path.is_file() or np.load(path)["made_of"] != made_of:
                self._write(shard, path, made_of)
                end = start + len(shard)
                print(f"{folder.name}: {end:,} of {len(rows):,} pairs run", file=sys.stderr)
            with np.load(path) as found:
                parts.append(found["states"])
                places = {row.id: row for row in shard}
                kept += [places[name] for name in found["ids"].tolist()]
        return kept, np.concatenate(parts).astype(np.float64)

    def _write(self, rows: Sequence[Comparison], path: Path, made_of: str) -> None:
        file = path.with_suffix(".parquet")
        write_comparisons(file, rows)
        examples = tokenise(file, self.model.chat, path.with_suffix(".arrow"), workers=1)
        some = [examples[place] for place in range(len(examples))]
        unfinished = path.with_suffix(".part.npz")
        ids, states = [row.id for row in some], differences(self.model, some)
        np.savez(unfinished, ids=ids, states=states, made_of=made_of)
        unfinished.rename(path)
        for end in (".parquet", ".arrow", ".lock"):
            path.with_suffix(end).unlink(missing_ok=True)


@torch.no_grad()
def differences(model: RewardModel, rows: Sequence[Example]) -> NDArray[np.float32]:
    """Chosen less rejected of what the head would be given, [P, D]."""
    given: list[torch.Tensor] = []
    hook = model.head.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    found = np.empty((len(rows), model.head.in_features), np.float32)
    try:
        for part in split_step(rows, TrainOptions().margins(), 4_096).parts:
            given.clear()
            model.forward_packed(pack(part.groups, model.device))
            ends = given[0].numpy()
            found[part.places] = ends[part.chosen] - ends[part.rejected]
    finally:
        hook.remove()
    return found
