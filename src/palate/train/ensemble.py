"""Ensembles whose members have weights of their own: a training for each, or checkpoints of one.

Members of `seeds` and `lora` are trainings one after another that differ by their seed alone: by
the new head, the adapters' first weights and the order of the comparisons, of which each sees all
(Lakshminarayanan et al., arXiv 1612.01474). The first is what a model alone would be. What frozen
layers make of the comparisons is computed once for all of them, where it can be kept
(`train.states`). Members of `checkpoints` are weights that one training had at several of its
steps, and cost nothing beside it (Huang et al., arXiv 1704.00109, without its cycles).

A member that is trained is a file of `members/`; a run that was killed goes on with the member that
it was at.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from palate.model.ensemble import DOWN, UP, WHOLE, MemberWeights
from palate.model.reward_model import RewardModel
from palate.train.checkpoint import SNAPSHOTS, Snapshots, read_weights, write_weights
from palate.train.dataset import Examples
from palate.train.distributed import Distributed, gather
from palate.train.loop import learnable_examples, train
from palate.train.options import TrainOptions
from palate.train.states import forget_states
from palate.train.validation import centre_members
from palate.types import PalateError, digest

MEMBERS = "members"
HEAD, BACKBONE = "head.weight", "backbone."
PEFT = "base_model.model."
LORA_DOWN, LORA_UP = ".lora_A.default.weight", ".lora_B.default.weight"


def train_ensemble(
    start: Callable[[TrainOptions], RewardModel],
    examples: Examples,
    heldout: Mapping[str, Examples],
    options: TrainOptions,
    folder: Path,
    *,
    name: str = "reward model",
    origin: str = "",
    resume: bool = True,
    world: Distributed,
) -> RewardModel:
    """Train the members of an ensemble and give the model that has them all, on rank 0.

    Args:
        start: makes the model that a training with these options starts from.
        folder: of the first training or the only one; others are below it, in `members/N`.
        others: as in `train`.

    Raises:
        PalateError: what `train` raises; a backbone whose adapters lie on fused experts.
        Interrupted: as `train`; what is trained is kept.
    """
    common = _Common(start, examples, heldout, options, folder, name, origin, resume, world)
    members = common.checkpoints() if options.checkpoints else common.trainings()
    model = start(options.of_member(0))
    if not world.leads:
        return model
    assert options.ensemble is not None
    assert options.ensemble.of != "heads"
    lora = None if options.trainable == "full" else options.trainable.lora
    scale = 0.0 if lora is None else lora.alpha / lora.rank
    own = MemberWeights(options.ensemble.of, _by_member(members), scale)
    own.average_into(model.backbone)
    heads = torch.cat([weights[HEAD] for weights in members])
    model.to(world.device).eval()
    model.give_members(own, heads, torch.zeros(len(heads)))
    learnt, _ = learnable_examples(examples, options)
    alone = Distributed(device=world.device)
    centre_members(model, learnt, options.tokens_per_microbatch, alone)
    return model


@dataclass(frozen=True, slots=True)
class _Common:
    """What the trainings of an ensemble have in common: the arguments of `train_ensemble`."""

    start: Callable[[TrainOptions], RewardModel]
    examples: Examples
    heldout: Mapping[str, Examples]
    options: TrainOptions
    folder: Path
    name: str
    origin: str
    resume: bool
    world: Distributed

    def checkpoints(self) -> list[dict[str, Tensor]]:
        """The weights of one training at several of its steps."""
        self._train(self.options, self.folder, self.name)
        place = self.folder / SNAPSHOTS
        members = [read_weights(path) for path in Snapshots(place, self.world).files]
        whole = [weights for weights in members if weights is not None]
        if len(whole) != self.options.checkpoints:
            raise PalateError(
                f"{place}: {len(whole)} of {self.options.checkpoints} checkpoints of the ensemble "
                "are there; train with --no-resume"
            )
        return whole

    def trainings(self) -> list[dict[str, Tensor]]:
        """The weights of a training for each seed, one after another."""
        examples, heldout, world = self.examples, self.heldout, self.world
        count, members = self.options.trainings, list[dict[str, Tensor]]()
        chosen_by = sorted(heldout) if self.options.selects else []
        sets = [heldout[key].fingerprint for key in chosen_by]
        for number in range(count):
            own = self.options.of_member(number)
            path = self.folder / MEMBERS / f"{number + 1}.safetensors"
            made_of = digest(examples.fingerprint, own.decisive(), len(examples), self.origin, sets)

            def found(path: Path = path, made_of: str = made_of) -> bool:
                return self.resume and read_weights(path, made_of) is not None

            if not world.first(found):
                place = path.with_suffix("") if number else self.folder
                name = f"{self.name}, member {number + 1} of {count}"
                model = self._train(own, place, name, states=self.folder, trainings=count)
                learnt = [key for key, p in model.named_parameters() if p.requires_grad]
                gather(model, world)
                if world.leads:
                    weights = dict(model.named_parameters())
                    kept = {key: weights[key].detach().cpu().contiguous() for key in learnt}
                    write_weights(path, kept, made_of)
                    if number:  # The first one's say in which number format the run began.
                        shutil.rmtree(place / "checkpoints", ignore_errors=True)
                del model
            members.append((world.leads and read_weights(path, made_of)) or {})
        if world.leads:
            forget_states(self.folder)
        return members

    def _train(
        self, options: TrainOptions, folder: Path, name: str, states: Path | None = None,
        trainings: int = 1,
    ) -> RewardModel:  # fmt: skip
        model = self.start(options)
        _refuse_experts(model, options)
        return train(
            model, self.examples, self.heldout, options, folder, name=name, origin=self.origin,
            resume=self.resume, world=self.world, states=states, trainings=trainings,
        )  # fmt: skip


def _refuse_experts(model: RewardModel, options: TrainOptions) -> None:
    """Adapters on the experts of a layer, one tensor of all, are no update of a matrix."""
    adapts = options.trainable != "full" and options.trainable.lora is not None
    if adapts and any(p.ndim == 3 and p.shape[1] > 1 for p in model.backbone.parameters()):
        raise PalateError(
            f"train.ensemble: {type(model.backbone).__name__} has experts in one tensor, whose "
            "adapters cannot be members; take an ensemble of heads, or of seeds with "
            "train.trainable={last_layers: K}"
        )


def _by_member(members: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """What members of an ensemble learnt in the backbone, under the names of `MemberWeights`."""
    found = {}
    for name in members[0]:
        if name == HEAD:
            continue
        stacked = torch.stack([weights[name] for weights in members])
        plain = name.removeprefix(BACKBONE).removeprefix(PEFT)
        if plain.endswith(LORA_DOWN):
            found[f"{DOWN}{plain.removesuffix(LORA_DOWN)}"] = stacked
        elif plain.endswith(LORA_UP):
            found[f"{UP}{plain.removesuffix(LORA_UP)}"] = stacked
        else:
            found[f"{WHOLE}{plain}"] = stacked
    return found
