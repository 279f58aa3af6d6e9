"""`dtype: auto` is the faster format, measured once; the measurement itself changes nothing."""

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch

from palate.model import precision
from palate.model.precision import (
    Note,
    Seconds,
    Timing,
    choose_dtype,
    compute_dtype,
    stored_at,
)

CPU = torch.device("cpu")
SLOWER = Timing(
    scoring=Seconds(float32=0.02, bfloat16=0.01), training=Seconds(float32=0.1, bfloat16=0.2)
)
"""A CPU whose backward pass is slow in bfloat16."""


@pytest.fixture
def undecided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """A CPU with native bfloat16, whatever this one is, of which nothing is known yet."""
    monkeypatch.setenv("PALATE_NATIVE_BF16", "auto")
    monkeypatch.setenv("PALATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(precision, "native_bfloat16", lambda _: True)
    yield stored_at()
    precision._timing.cache_clear()


def measuring(monkeypatch: pytest.MonkeyPatch, found: Timing = SLOWER) -> list[int]:
    asked: list[int] = []
    monkeypatch.setattr(precision, "measure", lambda: asked.append(1) or found)
    return asked


def test_the_switch_decides_without_measuring(
    native_bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = measuring(monkeypatch)
    expected = torch.bfloat16 if native_bf16 else torch.float32
    assert compute_dtype("auto", CPU) is expected
    assert compute_dtype("bfloat16", CPU) is torch.bfloat16
    assert compute_dtype("float32", CPU) is torch.float32
    assert choose_dtype("auto", CPU).why == f"PALATE_NATIVE_BF16={int(native_bf16)}"
    assert not asked


def test_what_is_emulated_is_not_measured(undecided: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = measuring(monkeypatch)
    monkeypatch.setattr(precision, "native_bfloat16", lambda _: False)
    choice = choose_dtype("auto", CPU)
    assert (choice.dtype, choice.why) == (torch.float32, "this cpu emulates bfloat16")
    assert not asked


def test_auto_is_the_faster_format_for_the_work_and_is_measured_once(
    undecided: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = measuring(monkeypatch)
    assert compute_dtype("auto", CPU, "scoring") is torch.bfloat16
    assert compute_dtype("auto", CPU, "training") is torch.float32, "hardware is not enough"
    assert "100 in float32" in choose_dtype("auto", CPU, "training").why
    precision._timing.cache_clear()  # As another process.
    assert compute_dtype("auto", CPU, "training") is torch.float32
    assert len(asked) == 1
    ((_, note),) = json.loads(undecided.read_text()).items()
    assert note["threads"] == torch.get_num_threads()
    assert note["machine"]["torch"] == torch.__version__


def test_other_threads_and_other_instructions_are_measured_anew(
    undecided: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = measuring(monkeypatch)
    compute_dtype("auto", CPU)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    compute_dtype("auto", CPU)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")  # Read by us alone: oneDNN has begun.
    precision._timing.cache_clear()
    compute_dtype("auto", CPU)
    assert len(asked) == len(json.loads(undecided.read_text())) == 3


@pytest.mark.parametrize("damage", ["{", "[]", '{"a": {"timing": 1}}', '{"a": null}'])
def test_a_damaged_file_is_measured_anew(
    damage: str, undecided: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = measuring(monkeypatch)
    undecided.parent.mkdir()
    undecided.write_text(damage)
    compute_dtype("auto", CPU)
    assert len(asked) == len(precision.NOTES.validate_json(undecided.read_bytes())) == 1


def test_a_folder_that_cannot_be_written_costs_only_the_time(
    undecided: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    measuring(monkeypatch)
    undecided.parent.write_text("a file where the folder would be")
    assert compute_dtype("auto", CPU, "training") is torch.float32
    assert "set PALATE_CACHE" in caplog.text


@pytest.mark.parametrize(
    ("float32", "bfloat16", "faster"),
    [
        (1, 2, torch.float32),
        (2, 1, torch.bfloat16),
        (1, 1, torch.float32),
        (1.04, 1, torch.float32),
    ],
)
def test_the_slower_format_is_never_taken_nor_one_that_wins_by_noise(
    float32: float, bfloat16: float, faster: torch.dtype
) -> None:
    assert Seconds(float32=float32, bfloat16=bfloat16).faster is faster


def test_a_real_measurement_has_both_formats_and_moves_nobodys_random_numbers() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    with torch.inference_mode():
        found = precision.measure()
    assert torch.equal(torch.rand(3), expected)
    for seconds in (found.scoring, found.training):
        assert 0 < seconds.float32 < 60
        assert 0 < seconds.bfloat16 < 60
    assert found.training.float32 > found.scoring.float32
    known: dict[str, Any] = {"a": Note(timing=found, machine={}, threads=1)}
    assert precision.NOTES.validate_json(precision.NOTES.dump_json(known)) == known
