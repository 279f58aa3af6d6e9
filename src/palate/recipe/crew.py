"""Several processes on one recipe: rank 0 runs its stages, the others join it in training.

torchrun starts every process with the same command. All need the run's folder and the same
Python packages; only rank 0 reads data, judges, writes results and prints.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from palate.model.options import BaseOptions
from palate.train.options import TrainOptions

if TYPE_CHECKING:  # torch is slow to import and only training needs it.
    from palate.model.backbone import Backbone
    from palate.model.reward_model import RewardModel
    from palate.model.tokens import ChatTokens
    from palate.train.examples import Examples
    from palate.train.parallel import World


@contextmanager
def crew() -> Generator[bool]:
    """Yield whether this process runs the recipe; one that does not has done its part already."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield True
        return
    from palate.train.parallel import join, leave

    world = join()
    if world.leads:
        yield True
        world.tell()  # Nothing: there is no more to train.
    else:
        _follow(world)
        yield False
    leave(world)


class Training(BaseModel, frozen=True, extra="forbid"):
    """All that a rank must know to take part in training one reward model."""

    name: str
    base: BaseOptions
    train: TrainOptions
    mixture: Path
    watched: dict[str, Path]
    folder: Path
    resume: bool


def train_together(training: Training) -> tuple[RewardModel, Backbone]:
    """Train on every rank, at the word of this one; the whole model, to be exported."""
    from palate.train.parallel import join

    world = join()
    world.tell(training.model_dump_json())
    return _train(training, world)


def _follow(world: World) -> None:
    from palate.train.parallel import peers

    with peers(world):
        while words := world.tell():
            _train(Training.model_validate_json(words), world)


def _train(training: Training, world: World) -> tuple[RewardModel, Backbone]:
    from palate.model.backbone import load_backbone
    from palate.model.device import compute_dtype, keep_memory
    from palate.model.reward_model import RewardModel
    from palate.model.tokens import ChatTokens
    from palate.train.loop import train
    from palate.train.parallel import gather

    base, options = training.base, training.train
    keep_memory()
    backbone = load_backbone(base.model, revision=base.revision, layers=base.layers)
    chat = ChatTokens(backbone.tokenizer, base)
    model = RewardModel(
        backbone.model,
        chat,
        dtype=compute_dtype(base.dtype, world.device),
        safety_head=options.safety_loss is not None and options.safety_loss.on == "head",
        seed=options.seed,
    )
    examples, heldout = _tokens(training, chat, world)
    train(
        model, examples, heldout, options, training.folder,
        name=training.name, resume=training.resume, world=world,
    )  # fmt: skip
    gather(model, world)
    return model, backbone


def _tokens(
    training: Training, chat: ChatTokens, world: World
) -> tuple[Examples, dict[str, Examples]]:
    """The token files, made by rank 0 and then opened by the others."""
    from palate.train.examples import tokenise

    folder = training.folder / "tokens"
    if not world.leads:
        world.wait()
    examples = tokenise(training.mixture, chat, folder / "mixture.arrow")
    heldout = {
        key: tokenise(path, chat, folder / f"{key}.arrow") for key, path in training.watched.items()
    }
    if world.leads:
        world.wait()
    return examples, heldout
