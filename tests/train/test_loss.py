"""The objective as arithmetic, and the laws it obeys."""

import math
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from palate.train.batching import Microbatch
from palate.train.loss import LOSSES, accuracy, ranking_loss, safety_loss
from palate.train.options import TrainOptions
from palate.types import Rating

numbers = st.floats(-50, 50, width=32)


def loss(chosen: float, rejected: float, margin: float = 0.0) -> float:
    values = [torch.tensor([v]) for v in (chosen, rejected, margin)]
    return float(ranking_loss(*values))


def test_equal_rewards_cost_ln_2() -> None:
    assert loss(0.0, 0.0) == pytest.approx(math.log(2))


def test_the_margin_moves_the_curve_to_the_right() -> None:
    assert loss(3.0, 1.0, 2.0) == pytest.approx(math.log(2))
    assert loss(2.0, 1.0, 1 / 3) == pytest.approx(-math.log(1 / (1 + math.exp(-(1 - 1 / 3)))))


@given(numbers, numbers)
def test_the_gap_is_the_difference_of_the_two_orders(chosen: float, rejected: float) -> None:
    difference = loss(chosen, rejected) - loss(rejected, chosen)
    assert difference == pytest.approx(rejected - chosen, abs=1e-4)


@given(numbers, numbers, st.floats(-5, 5, width=32))
def test_only_the_difference_counts(chosen: float, rejected: float, shift: float) -> None:
    assert loss(chosen + shift, rejected + shift) == pytest.approx(loss(chosen, rejected), abs=1e-4)


def test_pitfall_10_finite_at_ten_thousand() -> None:
    assert loss(1e4, -1e4) == 0.0
    assert loss(-1e4, 1e4) == 2e4


def test_pitfall_11_a_batch_is_the_mean_of_its_singles_and_broadcasting_is_refused() -> None:
    chosen, rejected = torch.randn(5), torch.randn(5)
    margin = torch.rand(5)
    batch = ranking_loss(chosen, rejected, margin).mean()
    rows = zip(chosen.tolist(), rejected.tolist(), margin.tolist(), strict=True)
    singles = [loss(*row) for row in rows]
    assert float(batch) == pytest.approx(sum(singles) / 5, rel=1e-5)
    with pytest.raises(ValueError, match=r"\[B\]"):
        ranking_loss(chosen[:, None], rejected, margin)


def test_pitfall_13_margins_of_table_27_belong_to_each_row() -> None:
    small, large = (TrainOptions(margin=m).margins() for m in ("small", "large"))
    assert [small[r] for r in Rating] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert [large[r] for r in Rating] == [0, 1, 2, 3]
    own = TrainOptions(margin={"significantly": 2.5}).margins()
    assert own[Rating.SIGNIFICANTLY] == 2.5
    assert own[Rating.BETTER] == 0


def test_safety_is_binary_cross_entropy_and_unlabelled_responses_cost_nothing() -> None:
    logits = torch.tensor([2.0, -1.0, 7.0])
    losses = safety_loss(logits, torch.tensor([1.0, 1.0, 0.0]), torch.tensor([1.0, 1.0, 0.0]))
    expected = [math.log1p(math.exp(-2)), math.log1p(math.exp(1)), 0.0]
    assert losses.tolist() == pytest.approx(expected)


def test_accuracy_counts_a_tie_one_half() -> None:
    got = accuracy(torch.tensor([1.0, 0.0, 2.0]), torch.tensor([0.0, 1.0, 2.0]))
    assert got.tolist() == [1.0, 0.0, 0.5]


def test_every_loss_that_a_recipe_can_choose_is_there_and_gives_one_value_a_pair() -> None:
    choices = get_args(TrainOptions.model_fields["loss"].annotation)
    assert set(choices) == set(LOSSES)
    none = torch.empty(0)
    pairs = torch.tensor([0, 0]), torch.tensor([1, 2])
    batch = Microbatch((), torch.arange(2), *pairs, torch.tensor([0.0, 1.0]), none, none)
    rewards = torch.tensor([1.0, 0.5, 2.0])
    for name in choices:
        assert LOSSES[name](rewards, batch).shape == (2,)
    expected = ranking_loss(rewards[pairs[0]], rewards[pairs[1]], batch.margin)
    assert torch.equal(LOSSES["ranking"](rewards, batch), expected)
    assert "loss" not in TrainOptions().decisive()  # A run of before keeps its fingerprint.
