"""Checkpoints: whole or absent, the newest wins, damage is one line."""

from pathlib import Path

import pytest
import torch

from palate.model.options import BaseOptions
from palate.model.reward_model import RewardModel
from palate.model.tokens import ChatTokens
from palate.train.checkpoint import KEEP, load_checkpoint, save_checkpoint
from palate.train.options import TrainOptions
from palate.train.progress import drop_after
from palate.train.schedule import make_optimizer
from palate.types import PalateError
from tiny import tiny_model, tiny_tokenizer

CHAT = ChatTokens(tiny_tokenizer(), BaseOptions())


@pytest.fixture
def parts():
    model = RewardModel(tiny_model("llama"), CHAT)
    optimizer = make_optimizer(model, TrainOptions(learning_rate=1e-3))
    sum(p.square().sum() for p in model.parameters()).backward()
    optimizer.step()
    return model, optimizer


def state(step: int) -> dict:
    return {"step": step, "fingerprint": "f"}


def test_weights_and_moments_come_back_bit_for_bit(parts, tmp_path: Path) -> None:
    model, optimizer = parts
    save_checkpoint(tmp_path, model, optimizer, state(3))
    other = RewardModel(tiny_model("llama", seed=5), CHAT)
    fresh = make_optimizer(other, TrainOptions(learning_rate=1e-3))
    assert load_checkpoint(tmp_path, other, fresh, "f") == state(3)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        for key, value in optimizer.state[a].items():
            assert torch.equal(value, fresh.state[b][key]), key


def test_only_the_last_are_kept_and_the_newest_is_read(parts, tmp_path: Path) -> None:
    for step in (1, 2, 30):
        save_checkpoint(tmp_path, *parts, state(step))
    assert len(list(tmp_path.glob("step-*"))) == KEEP
    assert load_checkpoint(tmp_path, *parts, "f") == state(30)


def test_none_where_there_is_none(parts, tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "nothing", *parts, "f") is None


def test_a_cut_checkpoint_and_a_foreign_one_are_one_line(parts, tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, *parts, state(1))
    with pytest.raises(PalateError, match="other data or options"):
        load_checkpoint(tmp_path, *parts, "another")
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(PalateError, match="unreadable checkpoint"):
        load_checkpoint(tmp_path, *parts, "f")


def test_an_unwritable_folder_leaves_the_previous_checkpoint(
    parts, tmp_path: Path, monkeypatch
) -> None:
    save_checkpoint(tmp_path, *parts, state(1))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("palate.train.checkpoint.save_file", full)
    with pytest.raises(PalateError, match="No space left on device"):
        save_checkpoint(tmp_path, *parts, state(2))
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


def test_metrics_after_the_checkpoint_are_forgotten_and_a_torn_line_too(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    drop_after(tmp_path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
