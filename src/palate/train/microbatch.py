"""The pairs of one optimizer step as micro-batches of prompt groups.

Comparisons of one prompt become one group: the prompt is run once, and a response that occurs
in several comparisons is encoded once. Shape letters: B pairs, R responses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from palate.model.packing import Group, Tokens, group, plan
from palate.train.example import Example
from palate.types import Rating

# What a rank runs where it has no group of its own: its gradient is zero, its collectives are not
# missed (pitfall 19). Every vocabulary has a token 0.
IDLE = Group(np.empty(0, np.int32), (np.zeros(1, np.int32),))


@dataclass(frozen=True, slots=True)
class Microbatch:
    """Groups to run, and how their responses form pairs.

    `places`: [B], the pairs' indices in the step. `chosen`, `rejected`: [B], indices into the
    responses of `groups` in order. `margin`: [B]. `safe`, `labelled`: [R], the safety label and
    whether there is one.
    """

    groups: tuple[Group, ...]
    places: Tensor
    chosen: Tensor
    rejected: Tensor
    margin: Tensor
    safe: Tensor
    labelled: Tensor

    @property
    def tokens(self) -> int:
        """Tokens that a packed row spends on it; none where the rank only keeps step."""
        return sum(g.tokens for g in self.groups) if len(self.places) else 0


@dataclass(frozen=True, slots=True)
class Step:
    """One rank's micro-batches of a step, as many as every other rank's.

    `ids`, `tokens`: comparisons and tokens of the whole step, all ranks together. `labelled`: how
    many of the whole step's distinct responses have a safety label.
    """

    ids: tuple[str, ...]
    tokens: int
    labelled: int
    parts: tuple[Microbatch, ...]


class _Prompt:
    """Comparisons of one prompt while they are collected: distinct responses, pairs of them."""

    def __init__(self) -> None:
        self.responses: dict[bytes, int] = {}
        self.tokens: list[Tokens] = []
        self.safe: list[bool | None] = []
        self.pairs: list[tuple[int, int, int]] = []

    def add(self, place: int, example: Example) -> None:
        chosen = self._index(example.chosen, example.chosen_safe)
        rejected = self._index(example.rejected, example.rejected_safe)
        self.pairs.append((place, chosen, rejected))

    def _index(self, tokens: Tokens, safe: bool | None) -> int:
        key = tokens.tobytes()
        if key not in self.responses:
            self.responses[key] = len(self.tokens)
            self.tokens.append(tokens)
            self.safe.append(safe)
        index = self.responses[key]
        if self.safe[index] is None:
            self.safe[index] = safe
        return index


def split_step(
    examples: Sequence[Example],
    margins: Mapping[Rating | None, float],
    budget: int,
    *,
    rank: int = 0,
    ranks: int = 1,
) -> Step:
    """The share of `rank` in a step; the shares of all ranks together hold every example once.

    Args:
        margins: m(rating), and under None that of comparisons without a rating.
        budget: tokens of one micro-batch at most.
    """
    prompts: dict[str, _Prompt] = {}
    for place, example in enumerate(examples):
        prompts.setdefault(example.prompt, _Prompt()).add(place, example)
    collected = list(prompts.values())
    groups = [group(p.tokens) for p in collected]
    margin = [margins[example.rating] for example in examples]
    tokens = [g.tokens for g in groups]
    mine = plan(tokens, budget, ranks)[rank]
    return Step(
        ids=tuple(example.id for example in examples),
        tokens=sum(tokens),
        labelled=sum(safe is not None for p in collected for safe in p.safe),
        parts=tuple(
            _microbatch([collected[i] for i in held], [groups[i] for i in held], margin)
            for held in mine
        ),
    )


def _microbatch(
    prompts: Sequence[_Prompt], groups: Sequence[Group], margins: Sequence[float]
) -> Microbatch:
    pairs, safe = list[tuple[int, int, int]](), list[bool | None]()
    for prompt in prompts:
        pairs += [(place, len(safe) + a, len(safe) + b) for place, a, b in prompt.pairs]
        safe += prompt.safe
    if not prompts:
        groups, safe = (IDLE,), [None]
    places, chosen, rejected = torch.tensor(pairs, dtype=torch.long).reshape(-1, 3).unbind(1)
    return Microbatch(
        groups=tuple(groups),
        places=places,
        chosen=chosen,
        rejected=rejected,
        margin=torch.tensor([margins[place] for place, _, _ in pairs], dtype=torch.float32),
        safe=torch.tensor([float(bool(s)) for s in safe]),
        labelled=torch.tensor([float(s is not None) for s in safe]),
    )
