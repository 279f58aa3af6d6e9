"""Killed and resumed equals uninterrupted: real kill -9, real processes, other numbers of them."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from apart import finish, kill_when, start, together
from palate.model.reward_model import RewardModel
from palate.records import write_comparisons
from palate.train.checkpoint import MANIFEST, damage_of, stored_dtype
from palate.train.dataset import tokenise
from palate.train.loop import train
from palate.train.options import LoraOptions, Trainable
from palate.train.trainable import choose_trainable
from palate.types import Comparison, Message, PalateError
from resumed import (
    CHAT,
    OPTIONS,
    fresh,
    killed_at_every_touch,
    one_step,
    sharded,
    train_on,
    whole,
)  # fmt: skip
from tiny import tiny_model

WORDS = ["bread", "sea", "Paris", "poem", "yeast", "dough", "honest", "short", "safer", "blue"]


def mixture(folder: Path, pairs: int) -> Path:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, 6)) for _ in range(3 * pairs)]
    path = folder / "mixture.parquet"
    write_comparisons(
        path,
        (
            Comparison(f"c{i}", "made", (Message("user", a),), f"{b}.", f"{c}!", f"p{i}")
            for i, (a, b, c) in enumerate(zip(texts[::3], texts[1::3], texts[2::3], strict=True))
        ),
    )
    return path


def test_a_training_goes_on_in_the_number_format_it_began_in(tmp_path: Path) -> None:
    data, folder = mixture(tmp_path, 16), tmp_path / "run"
    train_on(data, folder)
    assert stored_dtype(folder / "checkpoints") == "float32"
    examples = tokenise(data, CHAT, folder / "tokens.arrow")
    model = RewardModel(tiny_model("llama"), CHAT, dtype=torch.bfloat16)
    with pytest.raises(
        PalateError, match=r"began in float32 .* set backbone.dtype=float32, or train"
    ):
        train(model, examples, {}, OPTIONS, folder)
    assert stored_dtype(tmp_path / "none") is None


def newest(folder: Path) -> Path | None:
    return max((folder / "checkpoints").glob("step-*"), default=None)


def last_state(folder: Path) -> dict[str, Tensor]:
    found = newest(folder)
    assert found is not None
    return load_file(found / "shard-00000.safetensors")


def curve(folder: Path) -> list[tuple[int, float]]:
    """Step and loss of every line, evaluations too."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row.get("loss", row.get("eval", {}).get("loss"))) for row in rows]


def train_with_kills(data: Path, folder: Path, kills: int, steps: int) -> int:
    """Train to the end, killed `kills` times on the way; how many died during a write."""
    rng, during_a_write = np.random.default_rng(0), 0
    later = sorted(rng.integers(1, round(0.7 * steps), kills - 1))
    for number, at in enumerate([0, *later]):  # The first dies before there is a checkpoint.
        process = start(train_on, data, folder)
        # Every other one waits for a half written folder; the rest die anywhere.
        reached = moment(folder, at, delay=rng.uniform(0, 0.05), writing=number % 2 == 0)
        assert kill_when(process, reached), "it ended before it could be killed"
        during_a_write += is_writing(folder)
        for checkpoint in (folder / "checkpoints").glob("step-*"):
            assert damage_of(checkpoint) is None
    finish(start(train_on, data, folder))
    return during_a_write


def moment(folder: Path, step: int, *, delay: float, writing: bool) -> Callable[[], bool]:
    """Whether step `step` was saved at least `delay` seconds ago and, if asked, one is written."""
    since: list[float] = []

    def reached() -> bool:
        found = newest(folder)
        if not since and step <= (int(found.name.removeprefix("step-")) if found else 0):
            since.append(time.monotonic())
        late = bool(since) and time.monotonic() - since[0] >= delay
        return late and (is_writing(folder) or not writing)

    return reached


def is_writing(folder: Path) -> bool:
    return any((folder / "checkpoints").glob(".step-*"))


def check_kills(tmp_path: Path, kills: int, pairs: int) -> None:
    data, steps = mixture(tmp_path, pairs), pairs // 2  # Two epochs, four pairs a step.
    finish(start(train_on, data, tmp_path / "whole"))
    during_a_write = train_with_kills(data, tmp_path / "killed", kills, steps)
    assert during_a_write >= kills // 2
    expected, found = last_state(tmp_path / "whole"), last_state(tmp_path / "killed")
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name
    lines = curve(tmp_path / "killed")
    assert lines == curve(tmp_path / "whole")
    assert lines[-2][0] == steps


def test_pitfall_31_three_kills_leave_no_trace(tmp_path: Path) -> None:
    check_kills(tmp_path, kills=3, pairs=32)


@pytest.mark.slow
def test_pitfall_31_many_kills_leave_no_trace(tmp_path: Path) -> None:
    check_kills(tmp_path, kills=24, pairs=240)


def test_a_step_that_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    data = mixture(tmp_path, 32)
    examples = tokenise(data, CHAT, tmp_path / "tokens.arrow")
    sound = train(fresh()[0], examples, {}, OPTIONS, tmp_path / "sound")
    broken, forwards = fresh()[0], 0

    def break_later(*_: object) -> None:
        nonlocal forwards
        forwards += 1
        if forwards == 10:
            torch.nn.init.constant_(broken.head.weight, math.nan)

    broken.register_forward_pre_hook(break_later)
    with pytest.raises(PalateError, match=r"non-finite loss among the pairs c\d+"):
        train(broken, examples, {}, OPTIONS, tmp_path / "broken")
    kept, recorded = newest(tmp_path / "broken"), curve(tmp_path / "broken")
    assert kept is not None
    assert damage_of(kept) is None
    assert kept.name == f"step-{recorded[-1][0]:08d}", "the step before the bad one"
    assert 1 <= recorded[-1][0] < 10
    resumed = train(fresh(seed=5)[0], examples, {}, OPTIONS, tmp_path / "broken")
    for a, b in zip(sound.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    assert curve(tmp_path / "broken") == curve(tmp_path / "sound")


def test_adapters_start_the_same_whatever_ran_before() -> None:
    options = OPTIONS.model_copy(update={"trainable": Trainable(lora=LoraOptions(rank=2))})
    starts = []
    for _ in range(2):
        model, _ = fresh()
        choose_trainable(model, options)
        starts.append({n: p for n, p in model.named_parameters() if "lora_A" in n})
    assert starts[0]
    for name, value in starts[0].items():
        assert torch.equal(value, starts[1][name])


def test_a_kill_at_any_touch_of_the_disk_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    finish(start(killed_at_every_touch, tmp_path))
    steps = (tmp_path / "steps").read_text().split()
    assert steps == sorted(steps), "once it is there it stays"
    assert set(steps) == {"2", "3"}
    assert len(steps) > 10


def test_two_processes_then_one_then_four(tmp_path: Path) -> None:
    model, optimizer = fresh()
    for step in (1, 2, 3, 4):
        one_step(model, optimizer, step)
    together(2, sharded, tmp_path, tmp_path, 2)
    together(1, sharded, tmp_path, tmp_path, 3)
    together(4, sharded, tmp_path, tmp_path, 4)
    notes = {path.stem: load_file(path) for path in tmp_path.glob("*.safetensors")}
    for before, after in (("after-2", "loaded-1"), ("after-1", "loaded-4")):
        assert notes[before].keys() == notes[after].keys()
        for name, value in notes[before].items():
            assert torch.equal(value, notes[after][name]), f"{name}: {before} is not {after}"
    for name, value in whole(model, optimizer).items():
        torch.testing.assert_close(notes["after-4"][name], value, rtol=1e-4, atol=1e-6)
    files = json.loads((tmp_path / "checkpoints" / "step-00000004" / MANIFEST).read_text())["files"]
    assert sorted(files) == [f"shard-{rank:05d}.safetensors" for rank in range(4)]
