"""Rewards of pairs under the present weights: curves on held-out sets, and which are not finite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from palate.model.reward_model import RewardModel, Rewards
from palate.train.batching import Microbatch, Step, split_step
from palate.train.dataset import Examples
from palate.train.distributed import Distributed
from palate.train.loss import accuracy, attribute_loss, bradley_terry_loss
from palate.train.options import TrainOptions
from palate.types import PalateError


@torch.no_grad()
def pair_rewards(model: RewardModel, step: Step, world: Distributed) -> Tensor:
    """Rewards of the step's chosen and rejected responses, [B, 2] float64, on every rank.

    Each rank fills in its own pairs and the ranks' tables are added, so what is computed of them
    does not depend on who scored what (pitfall 23).
    """
    return pair_scores(model, step, world)[0]


ATTRIBUTE_LOSS = "attribute_loss/"
"""Begins the names of figures of attributes' losses, which the attribute's name ends."""


def attribute_errors(model: RewardModel, rewards: Rewards, part: Microbatch, step: Step) -> Tensor:
    """The micro-batch's share of each attribute's mean loss over the ratings of the step, [K]."""
    heads = model.attribute_heads
    assert heads is not None
    assert rewards.attributes is not None
    values = rewards.attributes
    losses = attribute_loss(values, part.ratings.to(values.device), heads.spread)
    return losses.sum(0) / torch.tensor(step.rated, device=values.device).clamp(min=1)


@torch.no_grad()
def pair_scores(model: RewardModel, step: Step, world: Distributed) -> tuple[Tensor, Tensor]:
    """What `pair_rewards` gives, and the mean loss of each attribute, [K] float64."""
    table = torch.zeros(len(step.ids), 3, dtype=torch.float64, device=world.device)
    errors = torch.zeros(len(step.rated), dtype=torch.float64, device=world.device)
    for part in step.parts:
        scored = model(part.groups)
        if step.rated:
            errors += attribute_errors(model, scored, part, step)
        reward = scored.reward.double()
        chosen, rejected = (reward[i.to(world.device)] for i in (part.chosen, part.rejected))
        table[part.places.to(world.device)] = torch.stack(
            (chosen, rejected, torch.ones_like(chosen)), dim=1
        )
    rewards, times = world.total(table).split((2, 1), dim=1)
    if not bool((times == 1).all()):
        raise RuntimeError("a pair was scored twice or never; the plan is broken")
    return rewards, world.total(errors) if step.rated else errors


REFERENCE_PAIRS, REFERENCE_SHARE = 64, 8
"""At most so many, and of few comparisons one in eight: reading them costs little beside training.
The error of an offset is a tenth of what members' rewards of single responses differ by."""


@torch.no_grad()
def centre_members(model: RewardModel, examples: Examples, budget: int, world: Distributed) -> None:
    """Set the offsets of an ensemble's members: how much higher than the mean of all each rates
    the responses of a few training comparisons, evenly spaced.

    Comparisons do not say what a member adds to every reward, so members differ by it for no
    reason; their disagreement would be that for the most part.
    """
    count = min(REFERENCE_PAIRS, max(len(examples) // REFERENCE_SHARE, 4), len(examples))
    rows = np.linspace(0, len(examples) - 1, count).astype(int)
    chosen = [examples[row] for row in sorted(set(rows.tolist()))]
    step = split_step(chosen, TrainOptions().margins(), budget, rank=world.rank, ranks=world.size)
    sums = torch.zeros(model.members + 1, dtype=torch.float64, device=world.device)
    for part in step.parts:
        said = model(part.groups).members
        assert said is not None
        if len(part.places):  # Else the rank only keeps step.
            sums[:-1] += said.double().sum(0)
            sums[-1] += len(said)
    *totals, count = world.total(sums).tolist()
    means = np.array(totals) / count
    model.offsets.copy_(torch.from_numpy(means - means.mean()))


@dataclass(slots=True)
class Best:
    """The best evaluation of a training so far by one figure on one held-out set.

    `since`: evaluations after it. Of equal ones the first is the best. `top`: the steps of the best
    `several` with their values, the best first.
    """

    name: str
    metric: str
    patience: int | None
    step: int = 0
    value: float | None = None
    since: int = 0
    several: int = 0
    top: dict[int, float] = field(default_factory=dict[int, float])

    @property
    def is_over(self) -> bool:
        """Whether the training is to end, for nothing became better for long."""
        return self.patience is not None and self.since >= self.patience

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        top = {"top": list(self.top.items())} if self.several else {}
        return {"step": self.step, "value": self.value, "since": self.since, **top}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint holds."""
        self.step, self.value, self.since = state["step"], state["value"], state["since"]
        self.top = {int(step): float(value) for step, value in state.get("top", ())}

    def see(self, step: int, figures: Mapping[str, Mapping[str, float]]) -> bool:
        """Take in an evaluation; whether it is the best so far."""
        value = figures[self.name].get(self.metric)
        higher = self.metric == "accuracy"
        if value is not None:
            ranked = sorted(
                {**self.top, step: value}.items(), key=lambda one: -one[1] if higher else one[1]
            )
            self.top = dict(ranked[: self.several])
        if value is None or (
            self.value is not None and (value <= self.value if higher else value >= self.value)
        ):
            self.since += 1
            return False
        self.step, self.value, self.since = step, value, 0
        return True

    def words(self, keep: str, last: int, steps: int) -> str:
        """Which weights the model has that was trained for `last` of `steps`, and why."""
        early = f"; ended early, {self.since} evaluations after the best" if last < steps else ""
        if not self.step:
            return f"step {last} of {steps}; {self.name} gave no {self.metric}"
        found = f"{self.metric} {self.value:.4f} on {self.name}"
        if keep == "last":
            return f"step {last} of {steps}, the last; best at step {self.step}, {found}{early}"
        return (
            f"step {self.step} of {steps}, the best by {found}{early}; chosen by that set, so its "
            "figures there are better than elsewhere"
        )


@dataclass(frozen=True, slots=True)
class Validation:
    """Held-out sets that are scored during training, by name, and how much of them."""

    sets: Mapping[str, Examples]
    rows: int
    budget: int
    soft: bool = False

    @classmethod
    def of(cls, sets: Mapping[str, Examples], options: TrainOptions) -> Validation:
        """As the options say; nothing where `eval_rows` is 0."""
        rows = options.eval_rows
        soft = options.loss != "ranking"
        seen = {name: s if soft else s.decided() for name, s in sets.items() if rows}
        seen = {name: s for name, s in seen.items() if len(s)}
        return cls(seen, rows, options.tokens_per_microbatch, soft)

    def best(self, options: TrainOptions) -> Best | None:
        """What follows the best evaluation on the first set, where the options ask for it.

        Raises:
            PalateError: they do, and there is no set.
        """
        if not options.selects:
            return None
        if not self.sets:
            raise PalateError(
                "train.keep=best and train.patience need held-out comparisons: name them in the "
                "model's eval_sets (palate train --watch), with train.eval_rows above 0"
            )
        several = options.checkpoints if options.keep == "best" else 0
        return Best(next(iter(self.sets)), options.metric, options.patience, several=several)

    def figures(self, model: RewardModel, world: Distributed) -> dict[str, dict[str, float]]:
        """Accuracy and gap over each set's first rows, loss without margin or weight; and of each
        attribute that is rated there the loss, 1 where its head is no better than the mean.

        Accuracy and gap are of the `pairs` that people decided (equal rewards count one half). The
        loss is the ranking loss of those, or, where the loss that is trained learns from ties and
        votes, Bradley-Terry's of all.
        """
        figures, none = {}, TrainOptions().margins()
        for name, examples in self.sets.items():
            rows = [examples[i] for i in range(min(self.rows, len(examples)))]
            step = split_step(
                rows,
                none,
                self.budget,
                attributes=model.attributes,
                rank=world.rank,
                ranks=world.size,
            )
            rewards, errors = pair_scores(model, step, world)
            chosen, rejected = rewards.unbind(1)  # [B]
            shares = torch.tensor([r.judgement.shares for r in rows]).to(chosen)
            if not self.soft:
                shares = torch.tensor([[1.0, 0.0, 0.0]]).to(chosen).expand_as(shares)
            loss = bradley_terry_loss(chosen, rejected, torch.zeros_like(chosen), shares)
            decided = [row.judgement.decides != "tie" for row in rows]
            pairs = sum(decided)
            figures[name] = {"loss": loss.mean().item(), "pairs": float(pairs)}
            if pairs < len(rows):
                figures[name]["ties"] = float(len(rows) - pairs)
            for attribute, error, n in zip(
                model.attributes, errors.tolist(), step.rated, strict=True
            ):
                if n:
                    figures[name][f"{ATTRIBUTE_LOSS}{attribute}"] = error
            if pairs:
                right, gap = accuracy(chosen, rejected)[decided], (chosen - rejected)[decided]
                figures[name] |= {"accuracy": right.mean().item(), "gap": gap.mean().item()}
        return figures
