"""Heads taught against length: what an arm does to rows and loss, and what is said of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from benchmarks.lengths import (
    ARMS,
    RANKING,
    Arm,
    Rows,
    Task,
    alone,
    balance,
    best,
    bins,
    correlation,
    judged,
    order,
    sweep,
    train,
)


def made(pairs: int, seed: int, lean: float = 0.8, width: int = 36) -> Rows:
    """Pairs of two prompts' size; the first number of a state is worth, the second is length."""
    rng = np.random.default_rng(seed)
    lengths = rng.normal(size=pairs) + lean
    states = rng.normal(size=(pairs, width))
    states[:, 0] += 0.7
    states[:, 1] = lengths
    prompts = np.arange(pairs, dtype=np.uint64) // 2 + 1_000_000 * seed
    as_tensor = torch.from_numpy(lengths).float()
    return Rows(torch.from_numpy(states).float(), as_tensor, prompts)


def test_longer_and_shorter_responses_win_as_often_within_each_bin():
    rows = made(203, 1)
    rows.lengths[:3] = 0
    lengths, weights = rows.lengths.numpy(), balance(rows).numpy()
    drawn = order(rows, ARMS["balanced, drawn"], seed=0, epoch=0)
    assert len(set(drawn.tolist())) == len(drawn) < 203
    assert {0, 1, 2} <= set(drawn.tolist())
    assert (weights[:3] == 1).all()
    for inside in bins(lengths):
        assert len(inside) == 40
        longer = lengths[inside] > 0
        assert weights[inside][longer].sum() == pytest.approx(20)
        assert weights[inside][~longer].sum() == pytest.approx(20)
        kept = lengths[np.intersect1d(inside, drawn)]
        assert (kept > 0).sum() == (kept < 0).sum() == min(longer.sum(), (~longer).sum())
    again = order(rows, ARMS["balanced, drawn"], seed=0, epoch=1)
    assert set(again.tolist()) != set(drawn.tolist()), "an epoch draws anew"
    assert sorted(order(rows, Arm(), 0, 0)) == list(range(203))


def test_each_arm_against_length_takes_it_out_of_the_reward():
    rows = made(200, 2, lean=0.3)
    assert correlation(torch.tensor([1.0, 2.0]), torch.tensor([2.0, -1.0])) == 0
    assert correlation(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 6.0])) == pytest.approx(1)
    plain = train(rows, Arm(step=16), 0)
    for name in ("penalty 0.3", "covariate", "balanced, drawn", "balanced, weighted"):
        head = train(rows, replace(ARMS[name], step=16), 0)
        assert head[1] / head[0] < 0.7 * plain[1] / plain[0], name
    lengths = np.array([1.0, -1.0, 1.0, 1.0], np.float32)
    assert alone(torch.from_numpy(lengths)) == pytest.approx(np.log(3), abs=1e-5)


def test_a_sweep_chooses_by_held_out_loss_and_asks_the_benchmarks_of_the_chosen(monkeypatch):
    few = {name: ARMS[name] for name in (RANKING, "covariate")}
    monkeypatch.setattr("benchmarks.lengths.ARMS", few)
    task = Task("made", ("own",), None, ("other", "absent"), ("asked",))
    rows = {"own": made(200, 3), "other": made(60, 4), "asked": made(50, 5, lean=0)}
    found = sweep(task, rows, seeds=2)
    arms = found["arms"]
    assert "with other" in arms
    assert "with absent" not in arms
    assert found["pairs"] + found["held_out"] == 200
    assert found["chosen"] == best(arms, arms)
    assert arms[found["chosen"]]["loss"] == min(arm["loss"] for arm in arms.values())
    assert arms[RANKING]["mean_less_first"]["value"] == 0
    asked = found["benchmarks"]["asked"]
    assert {"longer", RANKING, found["chosen"], "with other"} <= set(asked)
    assert "less_first" not in asked[RANKING]
    assert [point["pairs"] for point in found["curve"][RANKING]] == [found["pairs"]]


def test_a_benchmark_is_asked_of_the_mean_of_seeds_beside_longer_wins():
    states = torch.tensor([[1.0, 0.0], [1.0, -3.0], [-1.0, 0.0], [1.0, 1.0]])
    rows = Rows(states, torch.tensor([1.0, -1.0, 0.0, -1.0]), np.arange(4, dtype=np.uint64))
    heads = {RANKING: torch.tensor([[1.0, 0.0], [3.0, 2.0]]), "other": torch.tensor([[1.0, 0.0]])}
    found = judged(heads, rows)
    assert found["longer"]["value"] == 37.5, "equal lengths are half right"
    assert found[RANKING]["accuracy"]["value"] == 50, "the mean of the heads is [2, 1]"
    assert found["other"]["accuracy"]["value"] == 75
    assert found["other"]["less_longer"]["value"] == 37.5
    assert found["other"]["less_first"]["value"] == 25
