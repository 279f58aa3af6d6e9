"""The queue takes everything once and in turn; prompts meet in groups of the fewest tokens."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asked import clients, conversation, conversations, several
from palate.model.packing import Tokens, common_prefix
from palate.serve.scheduler import (
    LEAST_SHARED_TOKENS,
    FairQueue,
    WorkItem,
    by_prompt,
    prompt_group,
    work_items,
)

BUDGET = 200
asks: Any = st.lists(st.tuples(clients, several), min_size=1, max_size=25)


def unit(client: str, tokens: int, first: int = 0) -> WorkItem[str]:
    conversation = np.arange(first, first + tokens, dtype=np.int32)
    return WorkItem(client, client, (0,), (conversation,), tokens - 1, tokens)


def batches(waiting: FairQueue[Any], budget: int = BUDGET) -> list[list[WorkItem[Any]]]:
    taken = []
    while found := waiting.take(budget):
        taken.append(found)
    return taken


def computed(taken: list[WorkItem[Any]]) -> int:
    rows = {c.tobytes(): c for one in taken for c in one.conversations}
    found = by_prompt(list(rows.values()))
    return sum(prompt_group([list(rows.values())[i] for i in places]).tokens for places in found)


@settings(max_examples=30, deadline=None)
@given(asks, st.data())
def test_what_waits_is_taken_once_and_what_is_dropped_never(asked: Any, data: Any) -> None:
    waiting: FairQueue[int] = FairQueue()
    pushed = [work_items(n, client, rows, BUDGET) for n, (client, rows) in enumerate(asked)]
    for units in pushed:
        waiting.push(units)
    early = waiting.take(BUDGET)
    gone = data.draw(st.sets(st.integers(0, len(pushed) - 1)))
    for number in gone:
        waiting.drop(pushed[number])
        waiting.drop(pushed[number])
    taken = [one for found in [early, *batches(waiting)] for one in found]
    assert waiting.tokens == len(waiting) == 0
    assert len({id(one) for one in taken}) == len(taken)
    expected = [u for n, units in enumerate(pushed) for u in units if n not in gone or u in early]
    assert {id(one) for one in taken} == {id(one) for one in expected}
    places = [(one.owner, place) for one in taken for place in one.places]
    assert len(set(places)) == len(places)


@settings(max_examples=40, deadline=None)
@given(asks)
def test_a_micro_batch_keeps_to_its_budget_unless_one_unit_is_longer(asked: Any) -> None:
    waiting: FairQueue[int] = FairQueue()
    for number, (client, rows) in enumerate(asked):
        waiting.push(work_items(number, client, rows, BUDGET))
    for taken in batches(waiting):
        assert len(taken) == 1 or computed(taken) <= BUDGET


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(10, 100), min_size=40, max_size=80), st.integers(1, 30))
def test_a_client_that_asks_much_delays_itself_and_no_one_else(sizes: Any, small: int) -> None:
    waiting: FairQueue[str] = FairQueue()
    waiting.push(unit("much", size, 1_000 * n) for n, size in enumerate(sizes))
    waiting.push(unit("little", small, 500_000 + 100 * n) for n in range(3))
    rounds = batches(waiting)
    last = max(n for n, taken in enumerate(rounds) if any(u.client == "little" for u in taken))
    assert last <= 1


def test_turns_count_tokens_and_not_asks() -> None:
    waiting: FairQueue[str] = FairQueue()
    waiting.push(unit("long", 100, 1_000 * n) for n in range(8))
    waiting.push(unit("short", 25, 100_000 + 100 * n) for n in range(32))
    given_tokens = {"long": 0, "short": 0}
    for taken in batches(waiting)[:-1]:
        for one in taken:
            given_tokens[one.client] += one.tokens
        assert abs(given_tokens["long"] - given_tokens["short"]) <= 100


def test_idleness_earns_nothing() -> None:
    waiting: FairQueue[str] = FairQueue()
    waiting.push(unit("steady", 100, 1_000 * n) for n in range(20))
    for _ in range(6):
        waiting.take(BUDGET)
    waiting.push(unit("late", 100, 100_000 + 1_000 * n) for n in range(6))
    following = [one.client for _ in range(3) for one in waiting.take(BUDGET)]
    assert 2 <= following.count("late") <= 4


def test_a_unit_that_did_not_fit_is_first_in_the_next_micro_batch() -> None:
    waiting: FairQueue[str] = FairQueue()
    waiting.push([unit("a", 60), unit("a", 60, 1_000)])
    waiting.push([unit("big", 190, 2_000)])
    assert [u.client for u in waiting.take(BUDGET)] == ["a", "a"]
    waiting.push(unit("a", 60, 3_000 + 100 * n) for n in range(3))
    assert [u.client for u in waiting.take(BUDGET)] == ["big"]


def test_asks_of_one_prompt_go_together_whoever_sent_them() -> None:
    waiting: FairQueue[int] = FairQueue()
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, 400, 150) for _ in range(4)]
    for response in range(4):
        for number, prompt in enumerate(prompts):
            row = np.concatenate((prompt, [response] * 10)).astype(np.int32)
            waiting.push(work_items(number, f"client {response}", (row,), BUDGET))
    assert [[one.owner for one in taken] for taken in batches(waiting)] == [
        [number] * 4 for number in range(4)
    ]


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
