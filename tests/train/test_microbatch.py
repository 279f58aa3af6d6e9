"""Comparisons of one prompt share one group, and a response is encoded once."""

import numpy as np
import torch

from palate.model.options import BaseOptions
from palate.model.reward_model import RewardModel
from palate.model.tokenizer import ChatTokens
from palate.train.batching import split_step
from palate.train.dataset import Example
from palate.train.loop import _losses
from palate.train.loss import safety_loss
from palate.train.options import SafetyLoss, TrainOptions
from palate.types import Rating
from tiny import tiny_model, tiny_tokenizer

MARGINS = TrainOptions(margin="large").margins()


def example(name: str, prompt: str, chosen: list[int], rejected: list[int]) -> Example:
    tokens = [np.array([1, 2, 3, *side], np.int32) for side in (chosen, rejected)]
    return Example(name, prompt, *tokens, Rating.BETTER, True, None)


def test_a_ranked_set_becomes_one_group_with_each_response_once() -> None:
    a, b, c = [10], [11, 12], [13]
    rows = [example("ab", "p", a, b), example("bc", "p", b, c), example("ac", "p", a, c)]
    (part,) = split_step(rows, MARGINS, budget=100).parts
    (only,) = part.groups
    assert only.prefix.tolist() == [1, 2, 3]
    assert [s.tolist() for s in only.suffixes] == [a, b, c]
    assert part.chosen.tolist() == [0, 1, 0]
    assert part.rejected.tolist() == [1, 2, 2]
    assert part.margin.tolist() == [2.0, 2.0, 2.0]
    assert part.labelled.tolist() == [1.0, 1.0, 0.0]
    assert part.tokens == 7


def test_indices_count_over_the_groups_of_the_micro_batch() -> None:
    rows = [example("x", "p", [10], [11]), example("y", "q", [12], [13])]
    (part,) = split_step(rows, MARGINS, budget=100).parts
    assert sorted([part.chosen.tolist(), part.rejected.tolist()]) == [[0, 2], [1, 3]]
    parts = split_step(rows, MARGINS, budget=6).parts
    assert [p.places.tolist() for p in parts] == [[0], [1]]
    assert [p.chosen.tolist() for p in parts] == [[0], [0]]


def test_unrated_pairs_get_the_stated_margin() -> None:
    bare = Example(
        "u", "p", np.array([1, 2], np.int32), np.array([1, 3], np.int32), None, None, None
    )
    margins = TrainOptions(margin="large", unrated_margin=0.25).margins()
    (part,) = split_step([bare], margins, budget=100).parts
    assert part.margin.tolist() == [0.25]


def test_pitfall_19_a_step_without_labels_has_a_loss_of_zero_and_not_nan() -> None:
    part = split_step([example("u", "p", [10], [11])], MARGINS, budget=100).parts[0]
    empty = safety_loss(torch.zeros(2), part.safe, torch.zeros(2))
    assert (empty.sum() / max(1.0, 0.0)).item() == 0.0


def test_pitfall_19_an_idle_rank_has_a_zero_gradient_and_no_nan() -> None:
    rows = [example("x", "p", [10], [11])]
    shares = [split_step(rows, MARGINS, budget=100, rank=rank, ranks=2) for rank in (0, 1)]
    assert [len(s.parts) for s in shares] == [1, 1]
    assert [(s.ids, s.tokens, s.labelled) for s in shares] == [(("x",), 5, 1)] * 2
    (idle,) = shares[1].parts
    assert idle.tokens == 0
    model = RewardModel(tiny_model("llama"), ChatTokens(tiny_tokenizer(), BaseOptions()))
    options = TrainOptions(safety_loss=SafetyLoss())
    loss, figures = _losses(model, idle, shares[1], options)
    loss.backward()
    assert figures.tolist() == [0.0, 0.0, 0.0, 0.0]
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
