"""AdamW's parameter groups, and the learning rate of every step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from torch.optim import AdamW

from palate.model.reward_model import RewardModel
from palate.train.options import TrainOptions


@dataclass(frozen=True, slots=True)
class Schedule:
    """Linear warm-up to 1, then cosine down to `final` at the last step; steps count from 1.

    As a factor on each group's peak learning rate (arXiv 2307.09288, section 3.2.2: warm-up 3 %
    of the steps and at least 5, cosine down to 10 %).
    """

    steps: int
    warmup: int
    final: float

    @classmethod
    def of(cls, options: TrainOptions, steps: int) -> Schedule:
        """The schedule of a run of `steps` optimizer steps, all epochs together."""
        return cls(steps, options.warmup_steps(steps), options.final_lr_fraction)

    def factor(self, step: int) -> float:
        """The factor at `step`, 1 <= step <= steps."""
        if not 1 <= step <= self.steps:
            raise ValueError(f"step {step} is outside 1..{self.steps}")
        if step <= self.warmup:
            return step / self.warmup
        progress = (step - self.warmup) / (self.steps - self.warmup)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2


def make_optimizer(model: RewardModel, options: TrainOptions) -> AdamW:
    """AdamW over what is trainable: matrices with weight decay, vectors and norms without.

    The paper says neither what decays nor whether the fresh head has its own rate; both are
    options of ours (pitfall 17).
    """
    heads = {id(p) for h in (model.head, model.safety_head) if h for p in h.parameters()}
    head_rate = options.head_learning_rate or options.learning_rate
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in _trainable(model):
        rate = head_rate if id(parameter) in heads else options.learning_rate
        decay = options.weight_decay if parameter.ndim >= 2 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return AdamW(
        [
            {"params": parameters, "lr": rate, "peak_lr": rate, "weight_decay": decay}
            for (rate, decay), parameters in groups.items()
        ],
        betas=(options.adam_beta1, options.adam_beta2),
        eps=options.adam_epsilon,
        fused=True,
    )


def set_learning_rate(optimizer: AdamW, factor: float) -> float:
    """Scale every group's peak by `factor`; returns the backbone's rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return float(optimizer.param_groups[0]["lr"])


def _trainable(model: RewardModel) -> Iterator[nn.Parameter]:
    return (p for p in model.parameters() if p.requires_grad)
