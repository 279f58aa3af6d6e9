"""Which trainings are compiled, and what becomes of those that cannot be."""

import numpy as np
import pytest
import torch

from packed import conversations, tiny_reward_model
from palate.model import compute
from palate.model.compute import LONG, compile_and_try, worth_compiling
from palate.model.packing import group
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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # torch's own.
@pytest.mark.parametrize("works", [True, False])
def test_what_does_not_compile_is_left_as_it_was(
    works: bool, monkeypatch: pytest.MonkeyPatch, tmp_path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.compiler.reset()
    monkeypatch.setenv(compute.CACHE, str(tmp_path))
    if not works:
        monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("false",))
    model = tiny_reward_model("llama", dtype=torch.bfloat16).train()
    groups = [group(responses) for responses in conversations()]
    before = model(groups).reward.detach()
    assert compile_and_try(model, groups) is works
    assert all(p.grad is None for p in model.parameters())
    after = model(groups).reward.detach()
    assert (after - before).abs().max() <= (0.05 * (1 + before.abs().max()) if works else 0)
    assert ("not compiled" in caplog.text) is not works
    assert np.isfinite(after.numpy()).all()
