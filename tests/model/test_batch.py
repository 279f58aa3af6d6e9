"""The planner and the packed row."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.model.batch import Tokens, group, pack, plan
from palate.types import PalateError


def tokens(*ids: int) -> Tokens:
    return np.array(ids, np.int32)


def test_pitfall_05_the_prefix_is_the_longest_common_one_and_leaves_each_response_a_token() -> None:
    shared = group([tokens(1, 2, 3, 4, 9), tokens(1, 2, 3, 5, 9)])
    assert shared.prefix.tolist() == [1, 2, 3]
    assert [s.tolist() for s in shared.suffixes] == [[4, 9], [5, 9]]
    nested = group([tokens(1, 2), tokens(1, 2, 3)])
    assert nested.prefix.tolist() == [1]
    apart = group([tokens(1, 2), tokens(3, 4)])
    assert apart.prefix.size == 0
    assert group([tokens(1, 2), tokens(1, 3)], shared=False).prefix.size == 0


def test_an_empty_conversation_is_refused() -> None:
    with pytest.raises(ValueError, match="without tokens"):
        group([tokens(), tokens(1)])


def test_positions_of_each_response_continue_its_prompt() -> None:
    packed = pack([group([tokens(1, 2, 3, 4), tokens(1, 2, 5)]), group([tokens(7, 8)])])
    assert packed.ids.tolist() == [[1, 2, 3, 4, 5, 7, 8]]
    assert packed.positions.tolist() == [[0, 1, 2, 3, 2, 0, 1]]
    assert packed.ends.tolist() == [3, 4, 6]


@given(st.lists(st.integers(1, 300), max_size=60), st.integers(1, 256))
def test_plan_holds_every_group_once_within_the_budget(lengths: list[int], budget: int) -> None:
    bins = plan(lengths, budget)
    assert sorted(i for b in bins for i in b) == list(range(len(lengths)))
    for held in bins:
        assert len(held) == 1 or sum(lengths[i] for i in held) <= budget
    assert bins == plan(lengths, budget)


def test_plan_fills_above_95_percent_on_lengths_like_hh() -> None:
    """Log-normal lengths with HH's mean and spread: 217 tokens a pair, some above 800."""
    lengths = np.random.default_rng(0).lognormal(5.1, 0.75, 2000).clip(20, 2048).astype(int)
    bins = plan(lengths.tolist(), 4096)
    assert lengths.sum() / (len(bins) * 4096) > 0.95


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(PalateError, match="at least 1"):
        plan([1], 0)
