"""The pairs of one optimizer step as micro-batches of prompt groups.

Comparisons of one prompt become one group: the prompt is run once, and a response that occurs
in several comparisons is encoded once. Shape letters: B pairs, R responses.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from palate.model.packing import Group, Tokens, group, plan
from palate.train.dataset import Example, Examples
from palate.types import Attributes, PalateError, Rating

# What a rank runs where it has no group of its own: its gradient is zero, its collectives are not
# missed (pitfall 19). Every vocabulary has a token 0.
IDLE = Group(np.empty(0, np.int32), (np.zeros(1, np.int32),))


@dataclass(frozen=True, slots=True)
class Microbatch:
    """Groups to run, and how their responses form pairs.

    `places`: [B], the pairs' indices in the step. `chosen`, `rejected`: [B], indices into the
    responses of `groups` in order. `margin`: [B]. `safe`, `labelled`: [R], the safety label and
    whether there is one. `ratings`: [R, K], what was rated of K attributes, NaN where nothing was.
    `shares`: [B, 3], how much of the judgement is for chosen, tie and
    rejected. `decided`: [B], 1 where it is no tie. `weight`: [B]. `ranking`: [B], the number of the
    pair's ranking, -1 outside. `entries`: [N, 3], the rankings' responses: number of the ranking,
    index of the response, place in it from 0. `drawn`: [R, M], how often each member of an ensemble
    has drawn the response's prompt; [R, 0] without one.
    """

    groups: tuple[Group, ...]
    places: Tensor
    chosen: Tensor
    rejected: Tensor
    margin: Tensor
    safe: Tensor
    labelled: Tensor
    ratings: Tensor
    shares: Tensor
    decided: Tensor
    weight: Tensor
    ranking: Tensor
    entries: Tensor
    drawn: Tensor

    @property
    def tokens(self) -> int:
        """Tokens that a packed row spends on it; none where the rank only keeps step."""
        return sum(g.tokens for g in self.groups) if len(self.places) else 0

    def to(self, device: torch.device) -> Microbatch:
        """The same with its tensors on `device`."""
        columns = [f.name for f in fields(self) if f.name != "groups"]
        return replace(self, **{name: getattr(self, name).to(device) for name in columns})


@dataclass(frozen=True, slots=True)
class Step:
    """One rank's micro-batches of a step, as many as every other rank's.

    `ids`, `tokens`: comparisons and tokens of the whole step, all ranks together. `labelled`: how
    many of the whole step's distinct responses have a safety label; `rated`: how many of them have
    a rating of each attribute. `decided`: how many of its comparisons are no ties.
    """

    ids: tuple[str, ...]
    tokens: int
    labelled: int
    rated: tuple[int, ...]
    decided: int
    parts: tuple[Microbatch, ...]


class _Prompt:
    """The comparisons of one prompt: its distinct responses, and pairs of them by index."""

    def __init__(self) -> None:
        self.responses: dict[bytes, int] = {}
        self.tokens: list[Tokens] = []
        self.safe: list[bool | None] = []
        self.attributes: list[Attributes] = []
        self.pairs: list[tuple[int, int, int]] = []

    def add(self, place: int, example: Example) -> None:
        chosen = self._index(example.chosen, example.chosen_safe, example.chosen_attributes)
        rejected = self._index(example.rejected, example.rejected_safe, example.rejected_attributes)
        self.pairs.append((place, chosen, rejected))

    def _index(self, tokens: Tokens, safe: bool | None, attributes: Attributes) -> int:
        key = tokens.tobytes()
        if key not in self.responses:
            self.responses[key] = len(self.tokens)
            self.tokens.append(tokens)
            self.safe.append(safe)
            self.attributes.append(attributes)
        index = self.responses[key]
        if self.safe[index] is None:
            self.safe[index] = safe
        if not self.attributes[index]:
            self.attributes[index] = attributes
        return index


def split_step(
    examples: Sequence[Example],
    margins: Mapping[Rating | None, float],
    budget: int,
    *,
    attributes: Sequence[str] = (),
    members: int = 1,
    seed: int = 0,
    rank: int = 0,
    ranks: int = 1,
) -> Step:
    """The share of `rank` in a step; the shares of all ranks together hold every example once.

    Args:
        margins: m(rating), and under None that of comparisons without a rating.
        budget: tokens of one micro-batch at most.
        attributes: those whose ratings are learnt, in the order of the model's heads.
        members: of an ensemble; which comparisons each learns from is drawn with `seed`.
    """
    prompts: dict[str, _Prompt] = {}
    for place, example in enumerate(examples):
        prompts.setdefault(example.prompt, _Prompt()).add(place, example)
    groups = {prompt: group(p.tokens) for prompt, p in prompts.items()}
    names, tokens = list(prompts), [g.tokens for g in groups.values()]

    def microbatch(indices: Sequence[int]) -> Microbatch:
        pairs, safe = list[tuple[int, int, int]](), list[bool | None]()
        ratings, drawn = list[list[float]](), list[list[int]]()
        for name in (names[i] for i in indices):
            prompt = prompts[name]
            drawn += [draws(name, seed, members)] * len(prompt.safe) if members > 1 else []
            pairs += [(place, len(safe) + a, len(safe) + b) for place, a, b in prompt.pairs]
            safe += prompt.safe
            ratings += [[a.get(name, math.nan) for name in attributes] for a in prompt.attributes]
        places, chosen, rejected = torch.tensor(pairs, dtype=torch.long).reshape(-1, 3).unbind(1)
        rows = [examples[place] for place, _, _ in pairs]
        shares = [row.judgement.shares for row in rows]
        ranking, entries = _rankings(rows, chosen.tolist(), rejected.tolist())
        return Microbatch(
            groups=tuple(groups[names[i]] for i in indices) or (IDLE,),
            places=places,
            chosen=chosen,
            rejected=rejected,
            margin=torch.tensor([margins[row.rating] for row in rows], dtype=torch.float32),
            safe=torch.tensor([float(bool(s)) for s in safe or [None]]),
            labelled=torch.tensor([float(s is not None) for s in safe or [None]]),
            ratings=torch.tensor(ratings or [[math.nan] * len(attributes)], dtype=torch.float32),
            shares=torch.tensor(shares, dtype=torch.float32).reshape(-1, 3),
            decided=torch.tensor([float(_is_decided(row)) for row in rows]),
            weight=torch.tensor([row.judgement.weight for row in rows], dtype=torch.float32),
            ranking=ranking,
            entries=entries,
            drawn=torch.tensor(drawn or [[0] * members * (members > 1)], dtype=torch.float32),
        )

    return Step(
        ids=tuple(example.id for example in examples),
        tokens=sum(tokens),
        labelled=sum(safe is not None for p in prompts.values() for safe in p.safe),
        rated=tuple(
            sum(name in rated for p in prompts.values() for rated in p.attributes)
            for name in attributes
        ),
        decided=sum(map(_is_decided, examples)),
        parts=tuple(map(microbatch, plan(tokens, budget, ranks)[rank])),
    )


def draws(prompt: str, seed: int, members: int) -> list[int]:
    """How often each member of an ensemble has the comparisons of a prompt in its own sample, [M].

    A bootstrap of prompts: counts are Poisson with mean 1, each by itself, in the place of the
    multinomial counts of drawing as many prompts as there are with replacement. So a member's
    sample does not depend on how many prompts there are, on their order or on the process that
    reads them; 37 % of the prompts are in none of it. The comparisons of a prompt are drawn
    together, for their labels are alike.

    Args:
        prompt: its digest.

    Source: Oza and Russell, "Online bagging and boosting" (2001), section 2; clusters as in
    Field and Welsh, "Bootstrapping clustered data", JRSS B 69 (2007).
    """
    bits = hashlib.shake_128(f"{seed} {prompt}".encode()).digest(8 * members)
    uniform = np.frombuffer(bits, "<u8") / 2.0**64
    return [int(count) for count in np.searchsorted(_POISSON, uniform, side="right")]


_POISSON = np.cumsum([math.exp(-1) / math.factorial(count) for count in range(16)])


def _is_decided(example: Example) -> bool:
    return example.judgement.decides != "tie"


def _rankings(
    rows: Sequence[Example], chosen: Sequence[int], rejected: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """`ranking` and `entries` of a `Microbatch` whose pairs are `rows`."""
    numbers: dict[tuple[str, str], int] = {}
    of_pair = list[int]()
    entries: dict[tuple[int, int, int], None] = {}  # A set in order.
    for row, first, second in zip(rows, chosen, rejected, strict=True):
        if row.ranks is None:
            of_pair.append(-1)
            continue
        number = numbers.setdefault((row.prompt, row.ranks.ranking), len(numbers))
        of_pair.append(number)
        entries[number, first, row.ranks.chosen] = None
        entries[number, second, row.ranks.rejected] = None
    return (
        torch.tensor(of_pair, dtype=torch.long),
        torch.tensor(list(entries), dtype=torch.long).reshape(-1, 3),
    )


# Which comparisons each step holds, and the next step made while this one computes.

Item = TypeVar("Item")
Keys = NDArray[np.uint64]


def epoch_order(
    keys: Keys, seed: int, epoch: int, rankings: Keys | None = None
) -> NDArray[np.int64]:
    """The order in which an epoch goes through its rows; a pure function of its arguments.

    Prompts are shuffled, and the comparisons of one prompt lie together, shuffled too: a step
    then computes a ranked set from one pass, its prompt and each response encoded once. Within a
    prompt, the rows of a ranking lie together.

    Args:
        keys: one number a row, equal where the prompts are, [N].
        rankings: one number a row, equal in the rows of one ranking, 0 outside, [N].

    Returns:
        Row numbers, [N], each once.
    """
    rng = np.random.default_rng([seed, epoch])
    _, prompt = np.unique(keys, return_inverse=True)
    place = rng.permutation(prompt.max(initial=-1) + 1)[prompt]
    rows = rng.permutation(len(keys))
    if rankings is None or not rankings.any():
        return rows[np.argsort(place[rows], kind="stable")]
    return rows[np.lexsort((rankings[rows], place[rows]))]  # Stable, the last key first.


def steps_per_epoch(rows: int, pairs_per_step: int) -> int:
    """Steps of one pass over the data; the last may be smaller."""
    return math.ceil(rows / pairs_per_step)


def cuts(rankings: Keys, pairs_per_step: int) -> list[int]:
    """Where the steps of an epoch begin, and its end: every `pairs_per_step` rows, or before the
    ranking that such a cut would part.

    As many steps as `steps_per_epoch` says, none of them empty: a ranking fits into a step.

    Args:
        rankings: as in `epoch_order`, in the epoch's order, [N].
    """
    rows = len(rankings)
    places = np.arange(steps_per_epoch(rows, pairs_per_step) + 1) * pairs_per_step
    changes = rankings[1:] != rankings[:-1]
    begins = np.concatenate(([True], changes | (rankings[1:] == 0))) if rows else np.empty(0, bool)
    start = np.maximum.accumulate(np.where(begins, np.arange(rows), 0))
    return [*start[places[:-1]].tolist(), rows]


def refuse_long_rankings(rankings: Keys, pairs_per_step: int) -> None:
    """Raise where the rows of one ranking, [N] as in `epoch_order`, are more than a step has."""
    longest = longest_ranking(rankings)
    if longest > pairs_per_step:
        raise PalateError(
            f"train.pairs_per_step is {pairs_per_step}, and a ranking has {longest} comparisons, "
            f"which are learnt in one step; set train.pairs_per_step={longest} or more"
        )


def longest_ranking(rankings: Keys) -> int:
    """The most rows of one ranking, [N] as in `epoch_order`; 0 where there is none."""
    _, sizes = np.unique(rankings[rankings != 0], return_counts=True)
    return int(sizes.max(initial=0))


def steps(
    examples: Examples, pairs_per_step: int, epochs: int, seed: int, *, start: int = 0
) -> Iterator[tuple[int, list[Example]]]:
    """(step, its examples) after step `start`: consecutive slices of each epoch's order.

    A step has exactly `pairs_per_step` comparisons, the last of an epoch what is left. A prompt
    with more comparisons than a step has room for is split at the cut, a ranking never: the cut
    is made before it. No ranking may have more comparisons than a step.
    """
    keys, rankings = examples.prompt_keys(), examples.ranking_keys()
    per_epoch = steps_per_epoch(len(examples), pairs_per_step)
    for epoch in range(start // per_epoch, epochs):
        order = epoch_order(keys, seed, epoch, rankings)
        ends = cuts(rankings[order], pairs_per_step)
        for index in range(start % per_epoch if epoch == start // per_epoch else 0, per_epoch):
            rows = order[ends[index] : ends[index + 1]]
            yield epoch * per_epoch + index + 1, [examples[int(row)] for row in rows]


def prefetch(items: Iterable[Item]) -> Generator[Item]:
    """The same items, the next one made in a background thread while this one is used.

    What making it raises is raised here. Closing the generator waits for the item being made.
    """
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1, "prefetch") as thread:
        item: Future[Any] = thread.submit(next, iterator, end)
        while (made := item.result()) is not end:
            item = thread.submit(next, iterator, end)
            yield made
