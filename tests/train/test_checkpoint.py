"""Checkpoints: whole or absent, the newest whole one wins, what went wrong is one line."""

import json
import math
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.optim import AdamW

from apart import finish, kill_when, start, together
from palate.model.reward_model import RewardModel
from palate.records import write_comparisons
from palate.train.checkpoint import MANIFEST, Checkpoints, damage_of, stored_dtype
from palate.train.dataset import tokenise
from palate.train.logging import drop_after
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
    save,
    save_under_a_limit,
    sharded,
    train_on,
    whole,
)  # fmt: skip
from tiny import tiny_model


@pytest.fixture
def parts() -> tuple[RewardModel, AdamW]:
    model, optimizer = fresh()
    one_step(model, optimizer, 1)
    return model, optimizer


def steps(folder: Path) -> list[str]:
    """Everything in the folder, hidden things too."""
    return sorted(path.name for path in folder.iterdir())


def loaded_step(folder: Path, parts: tuple[RewardModel, AdamW]) -> int:
    state = Checkpoints(folder).load(*parts, "f")
    assert state is not None
    return int(state["step"])


def test_weights_and_moments_come_back_bit_for_bit(parts, tmp_path: Path) -> None:
    save(*parts, tmp_path, 3)
    other = fresh(seed=5)
    state = Checkpoints(tmp_path).load(*other, "f")
    assert state == {"step": 3, "fingerprint": "f"}
    expected, found = whole(*parts), whole(*other)
    assert expected.keys() == found.keys()
    assert {name.split("/")[0] for name in found} == {"weight", "step", "exp_avg", "exp_avg_sq"}
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name
        assert value.dtype == found[name].dtype


def test_pitfall_37_the_umask_says_who_reads_it(parts, tmp_path: Path) -> None:
    save(*parts, tmp_path, 3)
    (folder,) = tmp_path.iterdir()
    expected = folder.stat().st_mode & 0o666
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {expected}


def test_what_is_saved_is_the_moment_of_saving(parts, tmp_path: Path) -> None:
    model, optimizer = parts
    expected = whole(*parts)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(model, optimizer, {"step": 1, "fingerprint": "f"})
        one_step(model, optimizer, 2)
    loaded_step(tmp_path, parts)
    assert all(torch.equal(value, expected[name]) for name, value in whole(*parts).items())


def test_frozen_weights_are_not_saved(tmp_path: Path) -> None:
    model, optimizer = fresh()
    model.backbone.embed_tokens.weight.requires_grad_(False)
    save(model, optimizer, tmp_path, 1)
    assert (tmp_path / "step-00000001" / "shard-00000.safetensors").stat().st_size < sum(
        4 * p.numel() for p in model.parameters()
    )
    with torch.no_grad():
        model.backbone.embed_tokens.weight.fill_(7.0)
        model.head.weight.fill_(7.0)
    loaded_step(tmp_path, (model, optimizer))
    assert bool((model.backbone.embed_tokens.weight == 7.0).all())
    assert not bool((model.head.weight == 7.0).any())


def test_only_the_last_are_kept_and_the_newest_is_read(parts, tmp_path: Path) -> None:
    for step in (1, 2, 30):
        save(*parts, tmp_path, step)
    assert steps(tmp_path) == ["step-00000002", "step-00000030"]
    assert loaded_step(tmp_path, parts) == 30


def test_a_training_that_starts_over_replaces_what_was_there(parts, tmp_path: Path) -> None:
    for step in (4, 30, 4):
        save(*parts, tmp_path, step)
    assert steps(tmp_path) == ["step-00000004"]


def test_none_where_there_is_none(parts, tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "nothing").load(*parts, "f") is None


def test_what_a_killed_run_left_half_made_is_removed(parts, tmp_path: Path) -> None:
    save(*parts, tmp_path, 1)
    for left in (".step-00000002.partial", ".step-00000000.removed"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "shard-00000.safetensors").write_bytes(b"half")
    assert loaded_step(tmp_path, parts) == 1
    assert steps(tmp_path) == ["step-00000001"]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "one bit": lambda folder: flip(folder / "shard-00000.safetensors"),
    "cut": lambda folder: (folder / "shard-00000.safetensors").write_bytes(b""),
    "a file gone": lambda folder: (folder / "shard-00000.safetensors").unlink(),
    "manifest gone": lambda folder: (folder / MANIFEST).unlink(),
    "manifest cut": lambda folder: (folder / MANIFEST).write_text('{"version"'),
    "manifest changed": lambda folder: (folder / MANIFEST).write_text(
        (folder / MANIFEST).read_text().replace('"step": 2', '"step": 3')
    ),
    "not a manifest": lambda folder: (folder / MANIFEST).write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    damage: str, parts, tmp_path: Path, capsys
) -> None:
    save(*parts, tmp_path, 1)
    before = whole(*parts)
    one_step(*parts, 2)
    save(*parts, tmp_path, 2)
    DAMAGES[damage](tmp_path / "step-00000002")
    assert loaded_step(tmp_path, parts) == 1
    assert all(torch.equal(value, before[name]) for name, value in whole(*parts).items())
    told = capsys.readouterr().err
    assert "step-00000002: damaged checkpoint, not used: " in told
    assert told.count("\n") == 1


def test_when_none_is_whole_the_cure_is_told(parts, tmp_path: Path) -> None:
    save(*parts, tmp_path, 1)
    flip(tmp_path / "step-00000001" / "shard-00000.safetensors")
    with pytest.raises(PalateError, match=r"none of the 1 .* is whole; .*--no-resume"):
        loaded_step(tmp_path, parts)


def test_one_of_another_experiment_or_model_is_refused(parts, tmp_path: Path) -> None:
    save(*parts, tmp_path, 1)
    with pytest.raises(PalateError, match="other data or options"):
        Checkpoints(tmp_path).load(*parts, "another")
    parts[0].backbone.norm.weight.requires_grad_(False)
    with pytest.raises(PalateError, match="another model"):
        loaded_step(tmp_path, parts)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for one checkpoint of 1 MB and a half."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1600k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_leaves_the_previous_checkpoint_and_is_one_line(parts, tiny_disk: Path) -> None:
    save(*parts, tiny_disk, 1)
    checkpoints = Checkpoints(tiny_disk)
    checkpoints.save(*parts, {"step": 2, "fingerprint": "f"})  # Fails while training goes on.
    with pytest.raises(PalateError, match=r"step-00000002: .*No space left on device") as failure:
        checkpoints.save(*parts, {"step": 3, "fingerprint": "f"})
    assert "\n" not in str(failure.value)
    assert steps(tiny_disk) == ["step-00000001"]
    assert loaded_step(tiny_disk, parts) == 1


def test_a_file_that_may_not_grow_leaves_the_previous_checkpoint(parts, tmp_path: Path) -> None:
    """As above where no file system can be mounted: the system refuses to write past 1 MB."""
    save(*parts, tmp_path, 1)
    finish(start(save_under_a_limit, tmp_path, 1_000_000))
    assert (tmp_path / "told").read_text().count("step-00000002: checkpoint not written") == 1
    assert loaded_step(tmp_path, parts) == 1


def test_the_last_failure_does_not_hide_why_training_stopped(parts, tmp_path: Path, capsys) -> None:
    (tmp_path / "checkpoints").write_text("a file where the folder should be")

    def stop() -> None:
        with Checkpoints(tmp_path / "checkpoints") as checkpoints:
            checkpoints.save(*parts, {"step": 1, "fingerprint": "f"})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert "checkpoint not written" in capsys.readouterr().err


def test_metrics_after_the_checkpoint_are_forgotten_and_a_torn_line_too(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    drop_after(tmp_path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_the_manifest_says_what_made_it(parts, tmp_path: Path) -> None:
    save(*parts, tmp_path, 1)
    manifest = json.loads((tmp_path / "step-00000001" / MANIFEST).read_text())
    assert manifest["state"] == {"step": 1, "fingerprint": "f"}
    assert manifest["packages"]["torch"] == torch.__version__


# Killed and resumed equals uninterrupted: real kill -9, real processes, other numbers of them.

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
