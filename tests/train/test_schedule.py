"""Pitfalls 16 and 17: the learning rate of every step, and what decays."""

import pytest

from palate.model.options import BaseOptions
from palate.model.reward_model import RewardModel
from palate.model.tokenizer import ChatTokens
from palate.train.loop import Schedule, make_optimizer, set_learning_rate
from palate.train.options import TrainOptions
from tiny import tiny_model, tiny_tokenizer


def test_pitfall_16_first_peak_and_last_learning_rate() -> None:
    schedule = Schedule.of(TrainOptions(), steps=1000)
    assert schedule.warmup == 30
    assert schedule.factor(1) == pytest.approx(1 / 30)
    assert schedule.factor(30) == 1.0
    assert schedule.factor(515) == pytest.approx(0.55, abs=1e-3)
    assert schedule.factor(1000) == pytest.approx(0.1)


def test_pitfall_16_warm_up_has_a_floor_and_a_ceiling() -> None:
    assert Schedule.of(TrainOptions(), steps=40).warmup == 5
    assert Schedule.of(TrainOptions(), steps=3).warmup == 3
    assert Schedule.of(TrainOptions(), steps=3).factor(3) == 1.0


def test_steps_outside_the_run_are_refused() -> None:
    schedule = Schedule.of(TrainOptions(), steps=10)
    for step in (0, 11):
        with pytest.raises(ValueError, match="outside"):
            schedule.factor(step)


def test_pitfall_17_only_matrices_decay_and_the_head_may_have_its_own_rate() -> None:
    model = RewardModel(tiny_model("llama"), ChatTokens(tiny_tokenizer(), BaseOptions()))
    options = TrainOptions(learning_rate=1e-5, head_learning_rate=1e-3)
    optimizer = make_optimizer(model, options)
    for group in optimizer.param_groups:
        assert all((p.ndim >= 2) == (group["weight_decay"] > 0) for p in group["params"])
    head = [g for g in optimizer.param_groups if any(p is model.head.weight for p in g["params"])]
    assert [g["peak_lr"] for g in head] == [1e-3]
    counted = sum(p.numel() for g in optimizer.param_groups for p in g["params"])
    assert counted == sum(p.numel() for p in model.parameters())
    set_learning_rate(optimizer, 0.5)
    assert head[0]["lr"] == 5e-4
    assert optimizer.defaults["betas"] == (0.9, 0.95)
    assert optimizer.defaults["eps"] == 1e-5
