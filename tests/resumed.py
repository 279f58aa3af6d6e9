"""What the processes of tests/train/test_checkpoint.py do; they import it from here."""

import os
import resource
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.optim import AdamW

from palate.model.options import BaseOptions
from palate.model.packing import group
from palate.model.reward_model import RewardModel
from palate.model.tokenizer import ChatTokens
from palate.train.checkpoint import Checkpoints
from palate.train.dataset import tokenise
from palate.train.loop import make_optimizer, train
from palate.train.options import TrainOptions
from palate.types import PalateError
from tiny import tiny_model, tiny_tokenizer

CHAT = ChatTokens(tiny_tokenizer(), BaseOptions(max_tokens=128))
OPTIONS = TrainOptions(
    epochs=2, pairs_per_step=4, tokens_per_microbatch=256, learning_rate=1e-3, trackers=(),
    save_every_minutes=1e-9,
)  # fmt: skip


def fresh(seed: int = 0) -> tuple[RewardModel, AdamW]:
    model = RewardModel(tiny_model("llama", seed=seed), CHAT)
    return model, make_optimizer(model, OPTIONS)


def train_on(mixture: Path, folder: Path) -> None:
    """A whole training that saves after every step."""
    examples = tokenise(mixture, CHAT, folder / "tokens.arrow")
    train(fresh()[0], examples, {"same": examples}, OPTIONS, folder)


def one_step(model: RewardModel, optimizer: AdamW, step: int) -> None:
    """A step on tokens that only `step` decides: every process computes the same."""
    rng = np.random.default_rng(step)
    pairs = [[rng.integers(5, 400, 20).astype("int32") for _ in range(2)] for _ in range(4)]
    rewards = model([group(pair) for pair in pairs]).reward
    (-torch.nn.functional.logsigmoid(rewards[::2] - rewards[1::2])).mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def whole(model: RewardModel, optimizer: AdamW) -> dict[str, Tensor]:
    """Every weight and moment, put together where it is in pieces."""
    named = dict(model.named_parameters())
    moments = {f"{k}/{n}": v for n, p in named.items() for k, v in optimizer.state[p].items()}
    everything = {f"weight/{n}": p.detach() for n, p in named.items()} | moments
    return {
        name: value.full_tensor() if isinstance(value, DTensor) else value.clone()
        for name, value in everything.items()
    }


def sharded(rank: int, world: int, folder: Path, until: int) -> None:
    """Go on from the newest checkpoint to step `until`, saving there; notes what it had."""
    model, optimizer = fresh(seed=0)
    if world > 1:
        for layer in model.backbone.layers:
            fully_shard(layer)
        fully_shard(model)
        optimizer = make_optimizer(model, OPTIONS)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        state = checkpoints.load(model, optimizer, "f") or {"step": 0}
        _note(rank, whole(model, optimizer), folder / f"loaded-{world}.safetensors")
        for step in range(state["step"] + 1, until + 1):
            one_step(model, optimizer, step)
        checkpoints.save(model, optimizer, {"step": until, "fingerprint": "f"})
        _note(rank, whole(model, optimizer), folder / f"after-{world}.safetensors")


def _note(rank: int, tensors: dict[str, Tensor], path: Path) -> None:
    if rank == 0:
        save_file(tensors, path)


def killed_at_every_touch(folder: Path) -> None:
    """Save step 3 over and over, killed at its first, second, ... touch of the file system.

    Each time what is left must give step 2 or 3, bit for bit. Prints which it gave.
    """
    model, optimizer = fresh()
    expected = {}
    for step in (1, 2, 3):
        one_step(model, optimizer, step)
        expected[step] = whole(model, optimizer)
        if step < 3:
            save(model, optimizer, folder / "before", step)
    kept, touches, finished = folder / "checkpoints", 0, False
    while not finished:
        touches += 1
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(folder / "before", kept)
        finished = _die_at(touches, lambda: save(model, optimizer, kept, 3))
        other, fresh_optimizer = fresh(seed=5)
        state = Checkpoints(kept).load(other, fresh_optimizer, "f")
        assert state is not None
        left = expected[state["step"]]
        assert all(torch.equal(left[k], v) for k, v in whole(other, fresh_optimizer).items())
        assert not list(kept.glob(".*")), "half made folders stay"
        print(state["step"], end=" ", file=(folder / "steps").open("a"))


def save(model: RewardModel, optimizer: AdamW, folder: Path, step: int) -> None:
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(model, optimizer, {"step": step, "fingerprint": "f"})


def save_under_a_limit(folder: Path, bytes_: int) -> None:
    """Save step 2 where no file may grow past `bytes_`; notes what was told."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, bytes_))
    model, optimizer = fresh()
    one_step(model, optimizer, 1)
    try:
        save(model, optimizer, folder, 2)
    except PalateError as error:
        (folder / "told").write_text(f"{error}\n")


def _die_at(touch: int, do: Any) -> bool:
    """Run `do` in a fork that is killed just before its `touch`-th touch; whether it ended."""
    child = os.fork()
    if child == 0:
        seen = 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal seen
            writes = event == "open" and isinstance(arguments[1], str) and arguments[1] != "r"
            if writes or event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir"):
                seen += 1
                if seen == touch:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        do()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return not os.WIFSIGNALED(status)
