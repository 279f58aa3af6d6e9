"""What a recipe may say of training; every default is the paper's (`paper.md`, Training).

A recipe's own defaults for rows and base at hand are in `train.defaults`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from palate.model.options import Compute
from palate.types import Rating

# They change what is recorded, how often, and in which pieces a step is computed; no more.
FREE = (
    "tokens_per_microbatch", "compute", "eval_every_steps", "eval_rows", "save_every_minutes",
    "trackers",
)  # fmt: skip


MOST_MEMBERS = 64
SEEDS_BETWEEN = 1_000_003


class LoraOptions(BaseModel):
    """Low-rank adapters on every linear layer of the backbone, experts and routers too."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(16, ge=1, description="Rank of the update.")
    alpha: float = Field(32.0, gt=0, description="Scale of the update, over the rank.")
    quantization: Literal["nf4"] | None = Field(
        None,
        description="QLoRA: keep the frozen matrices in four bits (bitsandbytes; one process).",
        exclude_if=lambda kind: kind is None,  # Runs of before keep their fingerprints.
    )


class Trainable(BaseModel):
    """Which weights learn, besides the head and the final norm."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    last_layers: int | None = Field(None, ge=0, description="Only the last K decoder layers.")
    lora: LoraOptions | None = Field(
        None, description="Low-rank adapters in the place of the weights."
    )


class SafetyLoss(BaseModel):
    """The auxiliary safety classification (section 3.2.2; weight and place are not stated there).

    On `reward`, the reward itself is the logit of "safe", which anchors its zero: the paper's
    recall of unsafe responses is read at sigmoid(reward) = 0.5. On `head`, a second linear head.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(0.5, ge=0, description="Of the safety loss beside the ranking loss.")
    on: Literal["reward", "head"] = Field(
        "reward", description="The reward itself, or a head of its own."
    )


class Ensemble(BaseModel):
    """Several models in one, which disagree where the comparisons have taught little."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    members: int = Field(description="How many.")
    of: Literal["heads", "seeds", "checkpoints", "lora"] = Field(
        "heads",
        description="Heads on one backbone, each with comparisons drawn for it alone; or members "
        "with weights of their own: trainings of what `trainable` says with seeds of their own, "
        "checkpoints of one training, or adapters of one backbone with seeds of their own.",
    )

    @field_validator("members")
    @classmethod
    def _several(cls, members: int) -> int:
        if not 2 <= members <= MOST_MEMBERS:
            one = "one model is no ensemble: leave it out" if members == 1 else "5 are usual"
            raise ValueError(f"expected 2 to {MOST_MEMBERS} members; {one}")
        return members

    @model_validator(mode="before")
    @classmethod
    def _a_number_is_of_heads(cls, value: Any) -> Any:
        if value is None or isinstance(value, Mapping | Ensemble):
            return value
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError("expected the number of members, 5 or {members: 5, of: seeds}")
        return {"members": value}


class TrainOptions(BaseModel):
    """Loss, optimizer, schedule and batch of one reward model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(
        1,
        ge=1,
        description="The paper trains one: longer over-fits. Not stated in a recipe: as many as "
        "make 36 steps (100 where the head alone learns), at most 3.",
    )
    pairs_per_step: int = Field(
        512,
        ge=1,
        description="Effective batch, in comparisons. Not stated in a recipe: follows from the "
        "rows, 8 of 300 and 512 of a million.",
    )
    tokens_per_microbatch: int = Field(
        4096, ge=64, description="Token budget of one forward; no effect on the result."
    )
    learning_rate: float = Field(
        1e-5,
        gt=0,
        description="Peak; 5e-6 for the paper's 70B. Not stated in a recipe: follows from the "
        "base's size.",
    )
    head_learning_rate: float | None = Field(
        None,
        gt=0,
        description="Peak for the fresh head alone; default: learning_rate, and ten times it "
        "where that is not stated in a recipe.",
    )
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="Decay of the mean of gradients.")
    adam_beta2: float = Field(0.95, ge=0, lt=1, description="Decay of the mean of their squares.")
    adam_epsilon: float = Field(1e-5, gt=0, description="Added to the root of that mean.")
    weight_decay: float = Field(0.1, ge=0, description="On matrices only.")
    clip_norm: float = Field(1.0, gt=0, description="Longest gradient of a step, by its norm.")
    warmup_fraction: float = Field(
        0.03, ge=0, le=1, description="Share of the steps in which the rate rises to its peak."
    )
    warmup_steps_min: int = Field(
        5,
        ge=0,
        description="Fewest steps that warm up. Not stated in a recipe: a tenth of them where "
        "that is less.",
    )
    final_lr_fraction: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Rate of the last step, as a share of the peak; a cosine in between.",
    )
    margin: Literal["none", "small", "large"] | dict[str, float] = Field(
        "none", description="Table 27's margins by rating, or your own by rating name."
    )
    unrated_margin: float = Field(0.0, ge=0, description="Margin of comparisons without a rating.")
    # What is at its default stays out of the fingerprint: runs of before keep theirs.
    loss: Literal["ranking", "bradley-terry", "rao-kupper", "davidson", "plackett-luce"] = Field(
        "ranking",
        description="The paper's ranking loss, by the side with most votes; or one that learns "
        "from ties, votes and shares, or from rankings as a whole.",
        exclude_if=lambda name: name == "ranking",
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=0.5,
        description="Of `bradley-terry`: the probability that a label is the wrong way round.",
        exclude_if=lambda probability: probability == 0,
    )
    tie_share: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Of `rao-kupper` and `davidson`: how often two equally good responses tie; "
        "default: the share of ties in the training rows.",
        exclude_if=lambda share: share is None,
    )
    center_rewards_coefficient: float = Field(
        0.0,
        ge=0,
        description="Of the squared sum of a pair's rewards, added to its loss so that rewards "
        "centre on 0; TRL suggests 0.01.",
        exclude_if=lambda coefficient: coefficient == 0,
    )
    router_loss_coefficient: float = Field(
        0.0,
        ge=0,
        description="Of the loss that spreads tokens evenly over a mixture's experts, micro-batch "
        "by micro-batch. Mixtral and Qwen3-MoE were made with 0.001; OpenRLHF's default is 0 too.",
        exclude_if=lambda coefficient: coefficient == 0,
    )
    safety_loss: SafetyLoss | None = Field(
        None, description="Loss of the responses' safety labels beside the ranking loss."
    )
    attributes: dict[str, float] = Field(
        default_factory=dict,
        description="Rated attributes of responses that heads beside the reward learn, each with "
        "the weight of its squared error beside the loss: {helpfulness: 0.5}.",
        exclude_if=lambda weights: not weights,
    )
    ensemble: Ensemble | None = Field(
        None,
        description="Several models in one whose disagreement says how sure a reward is: 5 heads "
        "on one backbone, or {members: 5, of: seeds}.",
        exclude_if=lambda members: members is None,
    )
    trainable: Literal["full"] | Trainable = Field(
        "full",
        description="What learns: all weights, the last layers, or adapters. Not stated in a "
        "recipe: the head alone on the embedded backbone up to 2,000 rows, else all.",
    )
    seed: int = Field(0, description="Of the order of comparisons and the head.")
    eval_every_steps: int = Field(0, ge=0, description="0: only at the end of each epoch.")
    eval_rows: int = Field(512, ge=0, description="Held-out comparisons scored at each evaluation.")
    keep: Literal["last", "best"] = Field(
        "last",
        description="Weights of the last step, or of the best evaluation on the first of the "
        "model's eval_sets.",
        exclude_if=lambda which: which == "last",
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="End after so many evaluations in a row without a new best; default: never.",
        exclude_if=lambda evaluations: evaluations is None,
    )
    metric: Literal["loss", "accuracy"] = Field(
        "loss",
        description="What is best for `keep` and `patience`.",
        exclude_if=lambda metric: metric == "loss",
    )
    save_every_minutes: float = Field(5.0, gt=0, description="Between checkpoints.")
    compute: Compute = Field(
        Compute(), description="Memory and speed, with no effect on the result."
    )
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = Field(
        ("tensorboard",), description="Where the curves go beside the run folder."
    )

    @field_validator("attributes")
    @classmethod
    def _weights_are_above_0(cls, weights: dict[str, float]) -> dict[str, float]:
        for name, weight in weights.items():
            if not 0 < weight < math.inf:
                raise ValueError(
                    f"{name}: expected a weight above 0, got {weight:g}; or leave it out"
                )
        return weights

    @model_validator(mode="after")
    def _the_loss_has_what_is_set(self) -> Self:
        margin = self.margin != "none" or self.unrated_margin > 0
        for key, is_set, losses in (
            ("margin", margin, ("ranking", "bradley-terry")),
            ("label_smoothing", self.label_smoothing > 0, ("bradley-terry",)),
            ("tie_share", self.tie_share is not None, ("rao-kupper", "davidson")),
        ):
            if is_set and self.loss not in losses:
                raise ValueError(
                    f"{key}: the loss {self.loss} has none; leave it out, or set loss to "
                    f"{' or '.join(losses)}"
                )
        return self

    @model_validator(mode="after")
    def _members_can_be_trained(self) -> Self:
        ensemble = self.ensemble
        if ensemble is None or ensemble.of == "heads":
            return self
        where = f"ensemble: of {ensemble.of}"
        adapters = self.trainable != "full" and self.trainable.lora is not None
        if ensemble.of == "lora" and not adapters:
            raise ValueError(f"{where}: trainable has no adapters; set trainable={{lora: {{}}}}")
        if ensemble.of == "seeds" and adapters:
            raise ValueError(f"{where}: trainable is of adapters; say of: lora")
        if self.quantizes:
            raise ValueError(
                f"{where}: the matrices cannot be kept in four bits; leave "
                "trainable.lora.quantization out, or take an ensemble of heads"
            )
        if self.attributes or (self.safety_loss is not None and self.safety_loss.on == "head"):
            key = "attributes" if self.attributes else "safety_loss.on: head"
            raise ValueError(f"{where}: {key} goes with an ensemble of heads alone; leave it out")
        if ensemble.of == "checkpoints" and self.patience is not None:
            if self.keep == "last":
                raise ValueError(
                    f"{where}: patience may end a training before the last of them; set keep=best, "
                    "or leave it out"
                )
            if self.patience + 1 < ensemble.members:
                raise ValueError(
                    f"{where}: patience={self.patience} may end a training after "
                    f"{self.patience + 1} evaluations, of which {ensemble.members} are to be kept; "
                    f"set it to {ensemble.members - 1} or more"
                )
        return self

    def decisive(self) -> dict[str, Any]:
        """The options on which the trained weights depend, rounding aside; the others may change
        between a stop and a resume."""
        free = set(FREE)
        if self.selects:
            free -= {"eval_every_steps", "eval_rows"}
        if self.router_loss_coefficient:
            free -= {"tokens_per_microbatch"}
        return self.model_dump(mode="json", exclude=free)

    @property
    def heads(self) -> int:
        """How many scalar heads learn in one training: 1, or those of an ensemble of heads."""
        return self._members_of("heads") or 1

    @property
    def trainings(self) -> int:
        """How many trainings it takes: 1, or one for each member where each has a seed."""
        return self._members_of("seeds", "lora") or 1

    @property
    def checkpoints(self) -> int:
        """How many checkpoints of the training are members of an ensemble; 0 without one."""
        return self._members_of("checkpoints")

    def _members_of(self, *kinds: str) -> int:
        of_kind = self.ensemble is not None and self.ensemble.of in kinds
        return self.ensemble.members if self.ensemble is not None and of_kind else 0

    def of_member(self, number: int) -> TrainOptions:
        """Those of one training of several, from 0: the first is that of a model alone.

        Seeds lie far apart, so that no member is one of an ensemble with a seed beside.
        """
        return self.model_copy(
            update={"ensemble": None, "seed": self.seed + number * SEEDS_BETWEEN}
        )

    @property
    def quantizes(self) -> bool:
        """Whether the frozen matrices of the backbone are kept in four bits."""
        lora = None if self.trainable == "full" else self.trainable.lora
        return lora is not None and lora.quantization is not None

    @property
    def selects(self) -> bool:
        """Whether evaluations during training decide which weights are kept."""
        return self.keep == "best" or self.patience is not None

    def warmup_steps(self, steps: int) -> int:
        """How many of `steps` optimizer steps warm up: a share of them, with a floor."""
        share = math.ceil(self.warmup_fraction * steps)
        return min(max(share, self.warmup_steps_min), steps)

    def margins(self) -> dict[Rating | None, float]:
        """Margin by rating (Table 27), and under None that of comparisons without one."""
        table = {
            "none": (0.0, 0.0, 0.0, 0.0),
            "small": (0.0, 1 / 3, 2 / 3, 1.0),
            "large": (0.0, 1.0, 2.0, 3.0),
        }
        unrated: dict[Rating | None, float] = {None: self.unrated_margin}
        if isinstance(self.margin, str):
            return unrated | dict(zip(Rating, table[self.margin], strict=True))
        return unrated | {rating: self.margin.get(rating.label, 0.0) for rating in Rating}
