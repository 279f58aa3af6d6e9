"""Rewards of pairs under the present weights: curves on held-out sets, and which are not finite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from palate.model.reward_model import RewardModel
from palate.train.batching import Step, split_step
from palate.train.dataset import Examples
from palate.train.distributed import Distributed
from palate.train.loss import accuracy, ranking_loss
from palate.train.options import TrainOptions


@torch.no_grad()
def pair_rewards(model: RewardModel, step: Step, world: Distributed) -> Tensor:
    """Rewards of the step's chosen and rejected responses, [B, 2] float64, on every rank.

    Each rank fills in its own pairs and the ranks' tables are added, so what is computed of them
    does not depend on who scored what (pitfall 23).
    """
    table = torch.zeros(len(step.ids), 3, dtype=torch.float64, device=world.device)
    for part in step.parts:
        reward = model(part.groups).reward.double()
        chosen, rejected = (reward[i.to(world.device)] for i in (part.chosen, part.rejected))
        table[part.places.to(world.device)] = torch.stack(
            (chosen, rejected, torch.ones_like(chosen)), dim=1
        )
    rewards, times = world.total(table).split((2, 1), dim=1)
    if not bool((times == 1).all()):
        raise RuntimeError("a pair was scored twice or never; the plan is broken")
    return rewards


@dataclass(frozen=True, slots=True)
class Validation:
    """Held-out sets that are scored during training, by name, and how much of them."""

    sets: Mapping[str, Examples]
    rows: int
    budget: int

    @classmethod
    def of(cls, sets: Mapping[str, Examples], options: TrainOptions) -> Validation:
        """As the options say; nothing where `eval_rows` is 0."""
        rows = options.eval_rows
        return cls(sets if rows else {}, rows, options.tokens_per_microbatch)

    def figures(self, model: RewardModel, world: Distributed) -> dict[str, dict[str, float]]:
        """Accuracy (ties count one half) and loss without margin over each set's first rows."""
        figures, none = {}, TrainOptions().margins()
        for name, examples in self.sets.items():
            rows = [examples[i] for i in range(min(self.rows, len(examples)))]
            step = split_step(rows, none, self.budget, rank=world.rank, ranks=world.size)
            chosen, rejected = pair_rewards(model, step, world).unbind(1)  # [B]
            figures[name] = {
                "accuracy": accuracy(chosen, rejected).mean().item(),
                "loss": ranking_loss(chosen, rejected, torch.zeros_like(chosen)).mean().item(),
                "gap": (chosen - rejected).mean().item(),
                "pairs": float(len(rows)),
            }
        return figures
