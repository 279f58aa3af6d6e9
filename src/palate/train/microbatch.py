"""The pairs of one optimizer step as micro-batches of prompt groups.

Comparisons of one prompt become one group: the prompt is run once, and a response that occurs
in several comparisons is encoded once. Shape letters: B pairs, R responses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from palate.model.batch import Group, Tokens, group, microbatches
from palate.train.examples import Example
from palate.types import Rating


@dataclass(frozen=True, slots=True)
class Microbatch:
    """Groups to run, and how their responses form pairs.

    `chosen`, `rejected`: [B], indices into the responses of `groups` in order. `margin`: [B].
    `safe`, `labelled`: [R], the safety label and whether there is one.
    """

    ids: tuple[str, ...]
    groups: tuple[Group, ...]
    chosen: Tensor
    rejected: Tensor
    margin: Tensor
    safe: Tensor
    labelled: Tensor

    @property
    def tokens(self) -> int:
        """Tokens that a packed row spends on it."""
        return sum(g.tokens for g in self.groups)


class _Prompt:
    """Comparisons of one prompt while they are collected: distinct responses, pairs of them."""

    def __init__(self) -> None:
        self.responses: dict[bytes, int] = {}
        self.tokens: list[Tokens] = []
        self.safe: list[bool | None] = []
        self.pairs: list[tuple[int, int, Example]] = []

    def add(self, example: Example) -> None:
        chosen = self._index(example.chosen, example.chosen_safe)
        rejected = self._index(example.rejected, example.rejected_safe)
        self.pairs.append((chosen, rejected, example))

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
    margins: Mapping[Rating, float],
    unrated_margin: float,
    budget: int,
) -> list[Microbatch]:
    """Micro-batches of at most `budget` tokens that together hold every example once."""
    prompts: dict[str, _Prompt] = {}
    for example in examples:
        prompts.setdefault(example.prompt, _Prompt()).add(example)
    collected = list(prompts.values())
    groups = [group(p.tokens) for p in collected]
    return [
        _microbatch([collected[i] for i in indices], chosen, margins, unrated_margin)
        for indices, chosen in microbatches(groups, budget)
    ]


def _microbatch(
    prompts: Sequence[_Prompt],
    groups: Sequence[Group],
    margins: Mapping[Rating, float],
    unrated_margin: float,
) -> Microbatch:
    ids, chosen, rejected, margin, safe = [], [], [], [], []
    start = 0
    for prompt in prompts:
        for better, worse, example in prompt.pairs:
            ids.append(example.id)
            chosen.append(start + better)
            rejected.append(start + worse)
            rated = example.rating is not None
            margin.append(margins[example.rating] if rated else unrated_margin)  # type: ignore[index]
        safe += prompt.safe
        start += len(prompt.tokens)
    return Microbatch(
        ids=tuple(ids),
        groups=tuple(groups),
        chosen=torch.tensor(chosen),
        rejected=torch.tensor(rejected),
        margin=torch.tensor(margin, dtype=torch.float32),
        safe=torch.tensor([float(bool(s)) for s in safe]),
        labelled=torch.tensor([float(s is not None) for s in safe]),
    )
