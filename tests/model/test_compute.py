"""Which trainings are compiled, and what becomes of those that cannot be."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from packed import tiny_reward_model
from palate.model import compute
from palate.model.compute import LONG, worth_compiling
from palate.model.reward_model import RewardModel


def operations_of_a_token(model: RewardModel) -> int:
    return 6 * sum(p.numel() for layer in model.backbone.layers for p in layer.parameters())


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "_compiler", lambda: "/usr/bin/g++")


@pytest.mark.usefixtures("compiler")
def test_only_long_trainings_in_bfloat16_are_compiled() -> None:
    model = tiny_reward_model("llama", dtype=torch.bfloat16)
    long = int(LONG / operations_of_a_token(model)) + 1
    assert worth_compiling(model, long)
    assert not worth_compiling(model, long - 2)
    assert not worth_compiling(tiny_reward_model("llama"), long)


@pytest.mark.usefixtures("compiler")
def test_layers_that_do_not_learn_count_for_a_third() -> None:
    model = tiny_reward_model("llama", dtype=torch.bfloat16)
    model.backbone.requires_grad_(False)
    long = int(LONG / operations_of_a_token(model)) + 1
    assert not worth_compiling(model, 3 * long - 6)
    assert worth_compiling(model, 3 * long)


def test_nothing_is_compiled_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert not worth_compiling(tiny_reward_model("llama", dtype=torch.bfloat16), 10**15)


TRIAL = """
import sys, torch
from packed import conversations, tiny_reward_model
from palate.model.compute import compile_and_try
from palate.model.packing import group
model = tiny_reward_model("llama", dtype=torch.bfloat16).train()
groups = [group(responses) for responses in conversations()]
before = model(groups).reward.detach()
compiled = compile_and_try(model, groups)
assert all(p.grad is None for p in model.parameters())
after = model(groups).reward.detach()
assert (after - before).abs().max() <= (0.05 * (1 + before.abs().max()) if compiled else 0)
print("compiled" if compiled else "as it was")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("compiler", "becomes"), [("g++", "compiled"), ("false", "as it was")])
def test_what_does_not_compile_is_left_as_it_was(
    compiler: str, becomes: str, tmp_path: Path
) -> None:
    """In a process of its own, for torch remembers a compiler that fails."""
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} here")
    environment = os.environ | {"CXX": compiler, compute.CACHE: str(tmp_path)}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-c", TRIAL]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == becomes
    assert ("not compiled" in done.stderr) is (becomes == "as it was")
