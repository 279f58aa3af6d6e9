"""Training a tiny model as one rank of several, for processes that a test starts.

`launch` gives each process the environment that torchrun would.
"""

import json
import os
import signal
import socket
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from apart import start
from palate.model.options import BaseOptions
from palate.model.reward_model import RewardModel
from palate.model.tokenizer import ChatTokens
from palate.recipe.distributed import distributed
from palate.recipe.stages import train_one
from palate.records import write_comparisons
from palate.train import loop
from palate.train.dataset import tokenise
from palate.train.distributed import Distributed, gather, join, leave
from palate.train.ensemble import train_ensemble
from palate.train.loop import train
from palate.train.loss import LOSSES
from palate.train.options import Ensemble, Trainable, TrainOptions
from palate.types import (
    PREFERRED,
    Comparison,
    Judgement,
    Message,
    PalateError,
    Ranks,
    Rating,
)
from tiny import tiny_model, tiny_tokenizer

CHAT = ChatTokens(tiny_tokenizer(), BaseOptions(max_tokens=128))


def write_mixture(path: Path) -> Path:
    """21 comparisons of 15 prompts: pairs and ranked sets, rated or not, labelled or not."""
    answers = ["The sea is blue.", "The sea is deep and wide.", "I cannot help.", "Bread."]
    rows = []
    for p in range(15):
        prompt = (Message("user", "What of the sea? " * (1 + p % 4) + str(p)),)
        sides = [(0, 2)] if p % 5 else [(0, 1), (1, 3), (0, 3)]
        for a, b in sides:
            rated = {"rating": Rating(1 + p % 4)} if p % 3 else {}
            labels = {"chosen_safe": True, "rejected_safe": p % 4 > 1} if p % 2 else {}
            if p % 4:
                labels["chosen_attributes"] = {"helpfulness": 4.0, "verbosity": a + 1.0}
                labels["rejected_attributes"] = {"helpfulness": b % 3}
            name = f"c{len(rows)}"
            rows.append(
                Comparison(name, "made", prompt, answers[a], answers[b], str(p), **rated, **labels)
            )
    write_comparisons(path, rows)
    tokenise(path, CHAT, path.with_suffix(".arrow"))
    return path


def write_judged_mixture(path: Path) -> Path:
    """58 comparisons: rankings of four with ties, split votes with weights, probabilities, ties."""
    answers = ["The sea is blue.", "The sea is deep and wide.", "I cannot help.", "Bread."]
    said = (
        Judgement(3, 1, 1, weight=2), Judgement(0.7, 0.3, weight=0.5), Judgement(0, tie=1),
        Judgement(1, 1), Judgement(2, 1, 0, 1), Judgement(0, both_bad=1, weight=3), PREFERRED,
    )  # fmt: skip
    rows: list[Comparison] = []

    def add(prompt: int, a: int, b: int, **facts: Any) -> None:
        turns = (Message("user", "What of the sea? " * (1 + prompt % 4) + str(prompt)),)
        name = f"c{len(rows)}"
        rows.append(Comparison(name, "made", turns, answers[a], answers[b], str(prompt), **facts))

    for p in range(28):
        add(p, p % 4, (p + 1 + p % 3) % 4, judgement=said[p % len(said)])
    for p in range(28, 33):
        places = [(0, 1, 2, 3), (0, 0, 1, 2), (1, 1, 0, 1), (0, 1, 0, 1), (2, 0, 1, 0)][p - 28]
        for a, b in combinations(range(4), 2):
            first, second = (b, a) if places[b] < places[a] else (a, b)
            tie = places[a] == places[b]
            add(
                p, first, second,
                judgement=Judgement(0, tie=1) if tie else PREFERRED,
                ranks=Ranks(f"r{p}", places[first], places[second]),
            )  # fmt: skip
    write_comparisons(path, rows)
    tokenise(path, CHAT, path.with_suffix(".arrow"))
    return path


def train_with_each_loss(world: Distributed, mixture: Path, folder: Path, budget: int) -> None:
    """As `train_tiny`, once for each loss, in a folder of its name."""
    for loss in LOSSES:
        (folder / loss).mkdir(exist_ok=True)
        options = {
            "loss": loss, "pairs_per_step": 20, "tokens_per_microbatch": budget, "trackers": (),
            "learning_rate": 1e-3, "epochs": 1, "center_rewards_coefficient": 0.01,
        }  # fmt: skip
        train_tiny(world, mixture, folder / loss, options, torch.float32)


def train_tiny(
    world: Distributed, mixture: Path, folder: Path, options: dict[str, Any], dtype: torch.dtype
) -> None:
    """Train, and have rank 0 write the whole weights to `weights.safetensors`."""
    settings = TrainOptions(**options)
    model = RewardModel(tiny_model("llama"), CHAT, dtype=dtype, attributes=settings.attributes)
    examples = tokenise(mixture, CHAT, mixture.with_suffix(".arrow"))
    train(model, examples, {"same": examples}, settings, folder, world=world)
    gather(model, world)
    if world.leads:
        tensors = {name: p.detach().contiguous() for name, p in model.named_parameters()}
        save_file(tensors, folder / "weights.safetensors")


def train_members(world: Distributed, mixture: Path, folder: Path) -> None:
    """Train an ensemble of each kind that takes several trainings or checkpoints of one; rank 0
    writes what its members have of their own to `KIND.safetensors`."""
    for kind in ("seeds", "checkpoints"):
        options = TrainOptions(
            pairs_per_step=8, trackers=(), learning_rate=1e-3, eval_rows=0,
            trainable=Trainable(last_layers=1), ensemble=Ensemble(members=2, of=kind),
        )  # fmt: skip
        examples = tokenise(mixture, CHAT, mixture.with_suffix(".arrow"))
        model = train_ensemble(
            lambda of: RewardModel(tiny_model("llama"), CHAT, seed=of.seed), examples, {}, options,
            folder / kind, world=world,
        )  # fmt: skip
        if world.leads and model.own is not None:
            heads = {"head": model.head.weight.detach(), "offsets": model.offsets}
            tensors = {name: t.contiguous() for name, t in (model.own.tensors | heads).items()}
            save_file(tensors, folder / f"{kind}.safetensors")


def train_with_trouble(
    world: Distributed, mixture: Path, folder: Path, options: dict[str, Any], trouble: str
) -> None:
    """As `train_tiny`, but rank 1 meets `trouble` in step 2."""
    steps, real = 0, loop._gradients

    def troubled(*arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        if world.rank == 1 and steps == 2:
            if trouble == "SIGTERM":
                os.kill(os.getpid(), signal.SIGTERM)
            else:
                raise MemoryError
        return real(*arguments)

    loop._gradients = troubled
    train_tiny(world, mixture, folder, options, torch.float32)


def run_crew(world: Distributed | None, mixture: Path, base: Path, out: Path, *native: str) -> None:
    """What `palate train` does for a recipe of two models.

    `native`: whether bfloat16 counts as native, by rank, for ranks on unlike machines.
    """
    if native:
        os.environ["PALATE_NATIVE_BF16"] = native[world.rank if world else 0]
    with distributed() as leads:
        for seed in (1, 2) if leads else ():
            options = TrainOptions(pairs_per_step=8, trackers=(), learning_rate=1e-3, seed=seed)
            train_one(
                f"model-{seed}", BaseOptions(model=str(base)), options, mixture, {"same": mixture},
                out / f"train-{seed}", out / f"model-{seed}",
            )  # fmt: skip


def launch(
    size: int, job: Callable[..., None], folder: Path, *arguments: Any, per_node: int | None = None
) -> list[str]:
    """Run `job(world, ...)` on `size` ranks; how each ended, "" where it ended well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nodes = per_node or size
    ranks = [start(_rank, rank, size, nodes, port, folder, job, *arguments) for rank in range(size)]
    for process in ranks:
        process.join()
    return [json.loads((folder / f"end-{rank}.json").read_text()) for rank in range(size)]


def _rank(
    rank: int, size: int, nodes: int, port: int, folder: Path, job: Callable[..., None], *rest: Any
) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank % nodes), "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(nodes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    end = ""
    world = join()
    try:
        job(world, *rest)
        if dist.is_initialized():
            leave(world)
    except (PalateError, KeyboardInterrupt) as error:
        end = f"{type(error).__name__}: {error}"
    (folder / f"end-{rank}.json").write_text(json.dumps(end))
