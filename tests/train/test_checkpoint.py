"""Checkpoints: whole or absent, the newest whole one wins, what went wrong is one line."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.optim import AdamW

from apart import finish, start
from palate.model.reward_model import RewardModel
from palate.train.checkpoint import MANIFEST, Checkpoints
from palate.train.logging import drop_after
from palate.types import PalateError
from resumed import fresh, one_step, save, save_under_a_limit, whole


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
