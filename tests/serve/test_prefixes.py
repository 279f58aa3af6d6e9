"""Conversations are grouped by prompt so that a micro-batch holds the fewest tokens."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asked import conversation, conversations
from palate.model.packing import Tokens, common_prefix
from palate.serve.scheduler import LEAST_SHARED_TOKENS, by_prompt, prompt_group


def tokens(found: list[list[int]], asked: list[Tokens]) -> int:
    return sum(prompt_group([asked[i] for i in places]).tokens for places in found)


def fewest(asked: list[Tokens]) -> int:
    """The fewest tokens of all partitions into runs, by trying each."""
    rows = sorted(asked, key=lambda c: c.astype(">i4").tobytes())
    cuts = len(rows) - 1
    best = sum(map(len, rows))
    for chosen in range(2**cuts):
        ends = [0, *(i + 1 for i in range(cuts) if chosen >> i & 1), len(rows)]
        runs = [rows[a:b] for a, b in pairwise(ends)]
        shares = [min([common_prefix(x, y) for x, y in pairwise(r)], default=0) for r in runs]
        if all(s >= LEAST_SHARED_TOKENS or len(r) == 1 for s, r in zip(shares, runs, strict=True)):
            best = min(best, sum(prompt_group(r).tokens for r in runs))
    return best


@settings(max_examples=40, deadline=None)
@given(st.lists(conversations, min_size=1, max_size=7))
def test_no_partition_into_runs_holds_fewer_tokens(asked: list[Tokens]) -> None:
    found = by_prompt(asked)
    assert sorted(i for places in found for i in places) == list(range(len(asked)))
    assert tokens(found, asked) == fewest(asked)


@settings(max_examples=40, deadline=None)
@given(st.lists(conversations, min_size=1, max_size=20), st.randoms())
def test_the_order_of_asking_changes_no_cost(asked: list[Tokens], rng: object) -> None:
    mixed = list(asked)
    rng.shuffle(mixed)
    assert tokens(by_prompt(mixed), mixed) == tokens(by_prompt(asked), asked)


def test_a_prompt_is_shared_rather_than_the_template_it_begins_with() -> None:
    """All begin with 70 tokens; two have 12 more in common, so all four in one group cost less."""
    asked = [conversation(2, [1]), conversation(4, [1]), conversation(4, [2]), conversation(2, [2])]
    assert len(by_prompt(asked)) == 1
    template = np.arange(20, dtype=np.int32)
    pairs = [
        np.concatenate((template, np.full(100, prompt), [response])).astype(np.int32)
        for prompt in (30, 31)
        for response in (1, 2)
    ]
    assert by_prompt(pairs) == [[0, 1], [2, 3]]


@pytest.mark.parametrize("other", [[1, 2, 3], [1, 2], [1]])
def test_every_conversation_keeps_a_token_of_its_own(other: list[int]) -> None:
    first, second = (np.array(ids, np.int32) for ids in ([1, 2, 3], other))
    assert common_prefix(first, second) == len(other) - 1
