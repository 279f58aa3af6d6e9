"""The queue: everything is taken once, nobody waits for ever, prompts meet."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from asked import clients, several
from palate.serve.scheduler import FairQueue, WorkItem, by_prompt, prompt_group, work_items

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
