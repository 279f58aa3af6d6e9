"""Several processes on one recipe: rank 0 runs its stages, the others join it where it is slow.

torchrun starts every process with the same command. All need the run's folder and the same
Python packages. All train and ask judges; only rank 0 reads data, writes results and prints.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, TypeAdapter

from palate.evaluate.benchmark import Benchmark, OrderPlan, order_for
from palate.evaluate.journal import ALONE, Progress, Shard, shard_of
from palate.evaluate.run import evaluate
from palate.judges import open_judge
from palate.model.options import BaseOptions
from palate.process import this_process
from palate.train.options import TrainOptions
from palate.types import Judge, PalateError, digest

if TYPE_CHECKING:
    import torch

    from palate.model.backbone import Backbone
    from palate.model.reward_model import RewardModel
    from palate.model.tokenizer import ChatTokens
    from palate.train.dataset import Examples
    from palate.train.distributed import Distributed


@contextmanager
def distributed() -> Generator[bool]:
    """Yield whether this process runs the recipe; one that does not has done its part already."""
    if this_process().size == 1:
        yield True
        return
    from palate.train.distributed import join, leave

    world = join()
    if world.leads:
        yield True
        world.broadcast()  # Nothing: there is no more to train.
    else:
        _follow(world)
        yield False
    leave(world)


class Training(BaseModel, frozen=True, extra="forbid"):
    """All that a rank must know to take part in training one reward model."""

    kind: Literal["train"] = "train"
    name: str
    base: BaseOptions
    train: TrainOptions
    mixture: Path
    eval_sets: dict[str, Path]
    folder: Path
    resume: bool


class Judging(BaseModel, frozen=True, extra="forbid"):
    """All that a rank must know to put its part of a benchmark to a judge."""

    kind: Literal["judge"] = "judge"
    judge: str | dict[str, Any]
    benchmark: str
    comparisons: Path
    paper_column: str | None
    folder: Path
    seed: int
    order: OrderPlan


WORDS: TypeAdapter[Training | Judging] = TypeAdapter(Training | Judging)


def train_together(training: Training) -> tuple[RewardModel, Backbone]:
    """Train on every rank, at the word of this one; the whole model, to be exported."""
    from palate.train.distributed import join

    world = join()
    world.broadcast(training.model_dump_json())
    return _train(training, world)


def _follow(world: Distributed) -> None:
    from palate.train.distributed import peers

    opened: dict[str, Judge] = {}
    with peers(world):
        while words := world.broadcast():
            told = WORDS.validate_json(words)
            if isinstance(told, Training):
                _train(told, world)
                continue
            try:
                _judge(told, opened, shard_of(world))
            except PalateError as error:  # Rank 0 has it too, and goes on with other judges.
                sys.stderr.write(f"palate: rank {world.rank}: {' '.join(str(error).split())}\n")


def judge_together(judging: Judging, opened: dict[str, Judge], progress: Progress) -> Path:
    """Put a benchmark to a judge on every rank, at the word of this one; the verdict file.

    The judge is kept in `opened` for the next benchmark, and only that one.
    """
    if this_process().size == 1:
        return _judge(judging, opened, ALONE, progress)
    from palate.train.distributed import join

    world = join()
    judging = judging.model_copy(update={"judge": _of_one_dtype(judging.judge, world.device)})
    world.broadcast(judging.model_dump_json())
    return _judge(judging, opened, shard_of(world), progress)


def _of_one_dtype(judge: str | dict[str, Any], device: torch.device) -> str | dict[str, Any]:
    """The judge with rank 0's number format in place of `auto`: ranks may be unlike machines."""
    from palate.model.precision import compute_dtype, name_of

    if not isinstance(judge, dict):
        return judge
    return {
        kind: {**options, "dtype": name_of(compute_dtype("auto", device))}
        if isinstance(options, dict) and options.get("dtype") == "auto"
        else options
        for kind, options in judge.items()
    }


def _judge(
    judging: Judging, opened: dict[str, Judge], share: Shard, progress: Progress | None = None
) -> Path:
    judge = _open(judging.judge, opened, share)
    benchmark = Benchmark(judging.benchmark, judging.comparisons, judging.paper_column)
    return evaluate(
        judge, benchmark, judging.folder, seed=judging.seed,
        order=order_for(judge, judging.order), progress=progress, share=share,
    )  # fmt: skip


def _open(spec: str | dict[str, Any], opened: dict[str, Judge], share: Shard) -> Judge:
    """The judge of `opened`, or the one that takes its place; open on every rank or on none."""
    key = str(spec)
    if key in opened:
        return opened[key]
    opened.clear()
    judges: list[Judge] = []
    share.together(lambda: judges.append(open_judge(spec)))
    opened[key] = judges[0]
    return judges[0]


def _train(training: Training, world: Distributed) -> tuple[RewardModel, Backbone]:
    from palate.model.device import keep_memory
    from palate.model.loading import start_model
    from palate.model.quantization import check_quantization
    from palate.train.distributed import gather
    from palate.train.ensemble import train_ensemble
    from palate.train.loop import train
    from palate.train.trainable import layers_below

    base, options = training.base, training.train
    if options.quantizes:
        check_quantization()
    keep_memory()
    dtype = _agreed_dtype(training, world)

    def start(options: TrainOptions) -> tuple[RewardModel, Backbone]:
        return start_model(
            base,
            dtype=dtype,
            safety_head=options.safety_loss is not None and options.safety_loss.on == "head",
            attributes=options.attributes,
            members=options.heads,
            seed=options.seed,
        )

    model, backbone = start(options)
    if options.trainable != "full" and options.trainable.last_layers is not None:
        layers_below(model.backbone, options.trainable.last_layers)  # Before it takes minutes.
    examples, heldout = _tokens(training, model.chat, world)
    origin = digest(backbone.revision, base.layers)
    if options.trainings > 1 or options.checkpoints:
        del model
        model = train_ensemble(
            lambda options: start(options)[0], examples, heldout, options, training.folder,
            name=training.name, origin=origin, resume=training.resume, world=world,
        )  # fmt: skip
        return model, backbone
    train(
        model, examples, heldout, options, training.folder, name=training.name, origin=origin,
        resume=training.resume, world=world,
    )  # fmt: skip
    gather(model, world)
    return model, backbone


def _agreed_dtype(training: Training, world: Distributed) -> torch.dtype:
    """The number format of every rank: the one that a checkpoint there began in, else rank 0's.

    Ranks may be on unlike machines, and a training may go on on another one.
    """
    from palate.model.device import native_bfloat16
    from palate.model.precision import choose_dtype, name_of, named_dtype
    from palate.train.checkpoint import stored_dtype

    name: str = training.base.dtype
    if name == "auto" and world.leads:
        stored = stored_dtype(training.folder / "checkpoints") if training.resume else None
        chosen = choose_dtype(stored or "auto", world.device, "training")
        name, why = name_of(chosen.dtype), "as it began" if stored else chosen.why
        if name == "bfloat16" and not native_bfloat16(world.device):
            why += f"; this {world.device.type} emulates it, which is slow"
        sys.stderr.write(f"{training.name}: number format {name}, {why}\n")
    return named_dtype(world.broadcast(name))


def _tokens(
    training: Training, chat: ChatTokens, world: Distributed
) -> tuple[Examples, dict[str, Examples]]:
    """The token files, made by rank 0 and then opened by the others."""
    from palate.train.dataset import tokenise

    folder = training.folder / "tokens"
    if not world.leads:
        world.wait()
    examples = tokenise(training.mixture, chat, folder / "mixture.arrow")
    heldout = {
        key: tokenise(path, chat, folder / f"{key}.arrow")
        for key, path in training.eval_sets.items()
    }
    if world.leads:
        world.wait()
    return examples, heldout
