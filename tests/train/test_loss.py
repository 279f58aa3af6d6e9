"""The objective as arithmetic, and the laws it obeys."""

import math
from dataclasses import replace
from itertools import combinations
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.optimize import minimize_scalar

from palate.train.batching import Microbatch
from palate.train.loss import (
    LOSSES,
    accuracy,
    attribute_loss,
    load_balancing_loss,
    objective,
    plackett_luce_loss,
    ranking_loss,
    safety_loss,
    with_tie_share,
)
from palate.train.options import TrainOptions
from palate.types import Rating

Shares = tuple[float, float, float]
PAIRWISE = ("ranking", "bradley-terry")
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


def test_attributes_are_squared_errors_in_units_of_their_variance() -> None:
    values = torch.tensor([[4.0, 1.0], [2.0, 2.5], [1.0, 0.0]])
    ratings = torch.tensor([[3.0, math.nan], [2.0, 1.0], [math.nan, math.nan]])
    losses = attribute_loss(values, ratings, torch.tensor([2.0, 0.5]))
    assert losses.tolist() == [[0.25, 0.0], [0.0, 9.0], [0.0, 0.0]]


@settings(deadline=None)  # The first call of a gradient takes longer than others.
@given(st.integers(0, 9), st.integers(1, 4), st.integers(0, 99))
def test_attributes_agree_with_a_slow_reference_and_missing_ratings_have_no_gradient(
    responses: int, heads: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    said = rng.normal(size=(responses, heads))
    values = torch.tensor(said, requires_grad=True)
    ratings, spread = rng.normal(size=(responses, heads)), rng.uniform(0.1, 3, heads)
    ratings[rng.random(ratings.shape) < 0.4] = np.nan
    losses = attribute_loss(values, torch.tensor(ratings), torch.tensor(spread))
    losses.sum().backward()
    for r in range(responses):
        for k in range(heads):
            error = (said[r, k] - ratings[r, k]) / spread[k]
            rated = not math.isnan(ratings[r, k])
            assert losses[r, k].item() == pytest.approx(error**2 if rated else 0)
            slope = 2 * error / spread[k] if rated else 0
            assert float(values.grad[r, k]) == pytest.approx(slope)


def test_a_head_that_says_the_mean_has_a_loss_of_1() -> None:
    ratings = torch.tensor([[0.0], [4.0], [3.0], [1.0], [4.0]])
    mean, spread = ratings.mean(0), ratings.std(0, correction=0)
    assert attribute_loss(mean.expand(5, 1), ratings, spread).mean() == pytest.approx(1)


def test_attributes_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[R, K\]"):
        attribute_loss(torch.zeros(3), torch.zeros(3, 1), torch.ones(1))
    with pytest.raises(ValueError, match=r"\[R, K\]"):
        attribute_loss(torch.zeros(3, 2), torch.zeros(3, 2), torch.ones(3))


def test_safety_is_binary_cross_entropy_and_unlabelled_responses_cost_nothing() -> None:
    logits = torch.tensor([2.0, -1.0, 7.0])
    losses = safety_loss(logits, torch.tensor([1.0, 1.0, 0.0]), torch.tensor([1.0, 1.0, 0.0]))
    expected = [math.log1p(math.exp(-2)), math.log1p(math.exp(1)), 0.0]
    assert losses.tolist() == pytest.approx(expected)


def test_accuracy_counts_a_tie_one_half() -> None:
    got = accuracy(torch.tensor([1.0, 0.0, 2.0]), torch.tensor([0.0, 1.0, 2.0]))
    assert got.tolist() == [1.0, 0.0, 0.5]


# Soft labels, ties and rankings, against slow references in plain Python.


def soft(name: str, chosen: float, rejected: float, shares: Shares, **options: Any) -> float:
    """The loss of one pair outside rankings."""
    wanted = TrainOptions(loss=name, **options)
    batch = batch_of([(0, 1, shares, 1.0)])
    return float(objective(torch.tensor([chosen, rejected], dtype=torch.float64), batch, wanted))


def batch_of(
    pairs: list[tuple[int, int, Shares, float]],
    ranking: list[int] | None = None,
    entries: list[tuple[int, int, int]] | None = None,
) -> Microbatch:
    """Pairs as (chosen, rejected, shares, weight)."""
    chosen, rejected, shares, weight = (list(c) for c in zip(*pairs, strict=True))
    count = len(pairs)
    return Microbatch(
        groups=(),
        places=torch.arange(count),
        chosen=torch.tensor(chosen),
        rejected=torch.tensor(rejected),
        margin=torch.zeros(count, dtype=torch.float64),
        safe=torch.empty(0),
        labelled=torch.empty(0),
        ratings=torch.empty(0, 0),
        shares=torch.tensor(shares, dtype=torch.float64),
        decided=torch.ones(count),
        weight=torch.tensor(weight, dtype=torch.float64),
        ranking=torch.tensor(ranking or [-1] * count),
        entries=torch.tensor(entries or [], dtype=torch.long).reshape(-1, 3),
        drawn=torch.empty(0, 0),
    )


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


small = st.floats(-8, 8)
votes = st.tuples(*[st.floats(0.01, 5)] * 3).map(lambda v: tuple(x / sum(v) for x in v))


@given(small, small, votes, st.floats(0, 0.4))
def test_bradley_terry_is_the_cross_entropy_of_soft_labels(a, b, shares, e) -> None:
    p = sigmoid(a - b)
    label = shares[0] + shares[1] / 2
    label = (1 - e) * label + e * (1 - label)
    expected = -label * math.log(p) - (1 - label) * math.log(1 - p)
    got = soft("bradley-terry", a, b, shares, label_smoothing=e)
    assert got == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_bradley_terry_is_least_where_the_rewards_give_the_votes_and_smoothing_bounds_it() -> None:
    """3 votes of 4: at d = ln 3. A label that is wrong with probability 0.1: at d = ln 9."""

    def best(shares: Shares, **options: Any) -> float:
        found = minimize_scalar(lambda d: soft("bradley-terry", d, 0.0, shares, **options))
        return float(found.x)

    assert best((0.75, 0.0, 0.25)) == pytest.approx(math.log(3), abs=1e-4)
    assert best((0.5, 0.5, 0.0)) == pytest.approx(math.log(3), abs=1e-4)
    assert best((1.0, 0.0, 0.0), label_smoothing=0.1) == pytest.approx(math.log(9), abs=1e-4)
    assert best((0.0, 1.0, 0.0)) == pytest.approx(0, abs=1e-4)


@given(small, small, votes, st.floats(0.01, 0.95))
def test_rao_kupper_is_the_likelihood_of_its_three_outcomes(a, b, shares, tie_share) -> None:
    theta = (1 + tie_share) / (1 - tie_share)
    x, y = math.exp(a), math.exp(b)  # As in the paper, in strengths.
    wins, loses = x / (x + theta * y), y / (theta * x + y)
    ties = x * y * (theta**2 - 1) / ((x + theta * y) * (theta * x + y))
    assert wins + ties + loses == pytest.approx(1)
    expected = -sum(s * math.log(p) for s, p in zip(shares, (wins, ties, loses), strict=True))
    got = soft("rao-kupper", a, b, shares, tie_share=tie_share)
    assert got == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(small, small, votes, st.floats(0.01, 0.95))
def test_davidson_is_the_likelihood_of_its_three_outcomes(a, b, shares, tie_share) -> None:
    v = 2 * tie_share / (1 - tie_share)
    x, y = math.exp(a), math.exp(b)
    parts = (x, v * math.sqrt(x * y), y)
    expected = -sum(s * math.log(p / sum(parts)) for s, p in zip(shares, parts, strict=True))
    got = soft("davidson", a, b, shares, tie_share=tie_share)
    assert got == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", ["rao-kupper", "davidson"])
def test_the_tie_share_is_the_probability_of_a_tie_between_equals(name: str) -> None:
    tie = soft(name, 0.7, 0.7, (0.0, 1.0, 0.0), tie_share=0.3)
    assert math.exp(-tie) == pytest.approx(0.3)
    assert math.exp(-soft(name, 0.7, 0.7, (1.0, 0.0, 0.0), tie_share=0.3)) == pytest.approx(0.35)


def test_the_tie_share_is_that_of_the_rows_unless_it_is_stated() -> None:
    ties = np.array([1.0, 0.0, 0.5, 0.0])
    assert with_tie_share(TrainOptions(loss="davidson"), ties).tie_share == 2 / 5
    assert with_tie_share(TrainOptions(loss="davidson"), np.zeros(9)).tie_share == 0.05
    stated = TrainOptions(loss="rao-kupper", tie_share=0.1)
    assert with_tie_share(stated, ties) == stated
    assert with_tie_share(TrainOptions(), ties) == TrainOptions()


@pytest.mark.parametrize("name", ["bradley-terry", "rao-kupper", "davidson"])
def test_ties_and_votes_are_finite_at_ten_thousand(name: str) -> None:
    share = {} if name == "bradley-terry" else {"tie_share": 0.2}
    rewards = torch.tensor([1e4, -1e4], requires_grad=True)
    pairs = [(0, 1, (0.0, 1.0, 0.0), 1.0), (1, 0, (0.2, 0.3, 0.5), 1.0)]
    losses = objective(rewards, batch_of(pairs), TrainOptions(loss=name, **share))
    losses.sum().backward()
    assert losses.isfinite().all()
    assert rewards.grad is not None
    assert rewards.grad.isfinite().all()


def plackett_luce(places: list[tuple[float, int]]) -> float:
    """The slow one, of (reward, place): each response is chosen from all that are not better."""
    return sum(
        math.log(sum(math.exp(other) for other, at in places if at >= place)) - reward
        for reward, place in places
    )


@given(st.lists(st.tuples(small, st.integers(0, 3)), min_size=2, max_size=6))
def test_plackett_luce_is_the_product_of_choices_from_what_is_left(places) -> None:
    """Beside a second ranking, whose responses come in between, and a pair of its own."""
    ranked = sorted(places, key=lambda p: p[1])
    other = [(0.3, 0), (-0.2, 1), (0.9, 2)]
    rewards = [reward for reward, _ in ranked + other] + [1.0, 0.25]
    pairs, ranking, entries = list[Any](), list[int](), list[tuple[int, int, int]]()
    for number, (rows, start) in enumerate(((ranked, 0), (other, len(ranked)))):
        indices = range(start, start + len(rows))
        pairs += [(i, j, (1.0, 0.0, 0.0), 1.0) for i, j in combinations(indices, 2)]
        ranking += [number] * math.comb(len(rows), 2)
        entries += [(number, start + k, place) for k, (_, place) in enumerate(rows)]
    pairs.append((len(rewards) - 2, len(rewards) - 1, (1.0, 0.0, 0.0), 1.0))
    batch = batch_of(pairs, [*ranking, -1], entries)
    losses = objective(
        torch.tensor(rewards, dtype=torch.float64), batch, TrainOptions(loss="plackett-luce")
    )
    first = losses[: math.comb(len(ranked), 2)]
    assert float(first.sum()) == pytest.approx(plackett_luce(ranked), rel=1e-6)
    assert float(losses[len(first) : -1].sum()) == pytest.approx(plackett_luce(other), rel=1e-6)
    assert float(losses[-1]) == pytest.approx(math.log(1 + math.exp(-0.75)))
    assert first.tolist() == pytest.approx([float(first[0])] * len(first))


def test_plackett_luce_of_two_is_the_ranking_loss_and_of_equals_the_logarithm_of_orders() -> None:
    two = plackett_luce_loss(torch.tensor([2.0, 0.5]), torch.zeros(2), torch.tensor([0, 1]))
    assert two.tolist() == pytest.approx([loss(2.0, 0.5), 0.0])
    five = plackett_luce_loss(torch.zeros(5), torch.zeros(5), torch.arange(5))
    assert float(five.sum()) == pytest.approx(math.log(math.factorial(5)))


def test_centring_is_that_of_trl() -> None:
    """loss += coefficient * mean((rewards_chosen + rewards_rejected) ** 2), in its trainer."""
    rewards = torch.randn(8, dtype=torch.float64)
    pairs = [(i, i + 4, (1.0, 0.0, 0.0), 1.0) for i in range(4)]
    options = TrainOptions(center_rewards_coefficient=0.01)
    chosen, rejected = rewards[:4], rewards[4:]
    theirs = -torch.nn.functional.logsigmoid(chosen - rejected).mean()
    theirs += 0.01 * torch.mean((chosen + rejected) ** 2)
    assert float(objective(rewards, batch_of(pairs), options).mean()) == pytest.approx(
        float(theirs)
    )


@pytest.mark.parametrize("name", get_args(TrainOptions.model_fields["loss"].annotation))
def test_a_row_of_weight_two_counts_as_two_rows_and_weights_of_one_change_no_bit(name: str) -> None:
    options = with_tie_share(
        TrainOptions(loss=name, center_rewards_coefficient=0.1), np.array([0.3])
    )
    rewards = torch.tensor([0.3, -1.2, 0.8])
    first, second = (0, 1, (0.7, 0.3, 0.0), 1.0), (2, 1, (0.5, 0.0, 0.5), 1.0)
    twice = objective(rewards, batch_of([first, first, second]), options).sum()
    heavy = objective(rewards, batch_of([(*first[:3], 2.0), second]), options).sum()
    assert float(heavy) == pytest.approx(float(twice))
    plain = batch_of([first, second])
    bare = TrainOptions(loss=name, tie_share=options.tie_share)
    assert torch.equal(objective(rewards, plain, bare), LOSSES[name](rewards, plain, bare))
    zero = objective(rewards, batch_of([(*first[:3], 0.0), second]), options)
    assert zero[0] == 0


def test_a_plain_preference_costs_the_same_to_the_bit_under_bradley_terry() -> None:
    rewards, batch = torch.randn(2), batch_of([(0, 1, (1.0, 0.0, 0.0), 1.0)])
    batch = replace(batch, margin=torch.tensor([0.3]))
    ours, theirs = (objective(rewards, batch, TrainOptions(loss=n)) for n in PAIRWISE)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"loss": "davidson", "margin": "large"}, "margin: the loss davidson has none"),
        ({"label_smoothing": 0.1}, "set loss to bradley-terry"),
        ({"loss": "plackett-luce", "tie_share": 0.1}, "set loss to rao-kupper or davidson"),
        ({"loss": "bradley-terry", "label_smoothing": 0.5}, "less than 0.5"),
        ({"loss": "davidson", "tie_share": 1.0}, "less than 1"),
    ],
)
def test_an_option_that_the_loss_does_not_have_is_refused(options: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TrainOptions(**options)


def test_every_loss_that_a_recipe_can_choose_is_there_and_gives_one_value_a_pair() -> None:
    choices = get_args(TrainOptions.model_fields["loss"].annotation)
    assert set(choices) == set(LOSSES)
    batch = replace(
        batch_of([(0, 1, (1.0, 0.0, 0.0), 1.0), (0, 2, (0.0, 1.0, 0.0), 1.0)]),
        margin=torch.tensor([0.0, 1.0]),
    )
    rewards = torch.tensor([1.0, 0.5, 2.0])
    for name in choices:
        options = with_tie_share(TrainOptions(loss=name), np.array([0.5]))
        assert LOSSES[name](rewards, batch, options).shape == (2,)
    expected = ranking_loss(rewards[batch.chosen], rewards[batch.rejected], batch.margin)
    assert torch.equal(LOSSES["ranking"](rewards, batch, TrainOptions()), expected)


def test_options_at_their_default_leave_the_fingerprint_of_a_run_as_it_was() -> None:
    new = {"loss", "label_smoothing", "tie_share", "center_rewards_coefficient"}
    new |= {"keep", "patience", "metric"}
    assert not new & set(TrainOptions().decisive())
    changed = TrainOptions(loss="davidson", tie_share=0.2, center_rewards_coefficient=0.01)
    assert {"loss", "tie_share", "center_rewards_coefficient"} <= set(changed.decisive())
    assert "eval_every_steps" not in changed.decisive()
    assert {"keep", "eval_every_steps"} <= set(TrainOptions(keep="best").decisive())


def test_the_router_loss_is_least_where_experts_are_even_and_counts_layers_apart() -> None:
    even = torch.eye(4).repeat(3, 1) * 20  # Twelve tokens, three to each of four experts.
    crowded = torch.zeros(12, 4)
    crowded[:, 2] = 20
    assert load_balancing_loss([even], 1).item() == pytest.approx(1.0)
    assert load_balancing_loss([crowded], 1).item() == pytest.approx(4.0)
    # Two layers, each with all tokens at one expert: no better than either.
    other = crowded.roll(1, dims=1)
    assert load_balancing_loss([crowded, other], 1).item() == pytest.approx(4.0)
    assert load_balancing_loss([even, crowded], 1).item() == pytest.approx(2.5)


def test_the_router_loss_draws_tokens_away_from_the_crowded_expert() -> None:
    logits = torch.tensor([[2.0, 0.0, 1.0], [2.0, 1.0, 0.0], [0.0, 1.0, 2.0]], requires_grad=True)
    load_balancing_loss([logits], 1).backward()
    probabilities = logits.detach().softmax(1)
    share = torch.tensor([2 / 3, 0.0, 1 / 3])
    mean = (probabilities * share).sum(1, keepdim=True)
    torch.testing.assert_close(logits.grad, 3 / 3 * probabilities * (share - mean))
