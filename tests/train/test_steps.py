"""The order of an epoch, steps as its slices, and the step made ahead."""

import threading
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.model.options import BaseOptions
from palate.model.tokenizer import ChatTokens
from palate.records import ROWS_PER_GROUP, write_comparisons
from palate.train.batching import epoch_order, prefetch, steps
from palate.train.dataset import Examples, tokenise
from palate.types import Comparison, Message
from tiny import tiny_tokenizer

CHAT = ChatTokens(tiny_tokenizer(), BaseOptions(max_tokens=64))
KEYS = st.lists(st.integers(0, 9), max_size=40).map(lambda keys: np.array(keys, np.uint64))


@given(KEYS, st.integers(0, 5), st.integers(0, 3))
def test_an_epoch_holds_every_row_once_and_prompts_together(keys, seed, epoch) -> None:
    order = epoch_order(keys, seed, epoch)
    assert sorted(order) == list(range(len(keys)))
    in_order = keys[order].tolist()
    changes = sum(a != b for a, b in pairwise(in_order))
    assert changes == max(0, len(set(in_order)) - 1)
    assert order.tolist() == epoch_order(keys, seed, epoch).tolist()


def test_epochs_and_seeds_differ_and_ranked_sets_are_shuffled_inside() -> None:
    keys = np.repeat(np.arange(50, dtype=np.uint64), 6)
    orders = [epoch_order(keys, *which) for which in ((0, 0), (0, 1), (1, 0))]
    assert len({order.tobytes() for order in orders}) == 3
    assert any((np.diff(group) != 1).any() for group in orders[0].reshape(50, 6))


def examples_of(folder: Path, prompts: int, each: int) -> Examples:
    rows = (
        Comparison(f"{p}-{k}", "made", (Message("user", f"{p}?"),), f"sea {k}", "no", f"p{p}")
        for k in range(each)
        for p in range(prompts)
    )
    write_comparisons(folder / "m.parquet", rows)
    return tokenise(folder / "m.parquet", CHAT, folder / "t.arrow")


def test_prompt_keys_are_equal_where_prompts_are(tmp_path: Path) -> None:
    examples = examples_of(tmp_path, prompts=ROWS_PER_GROUP // 2 + 9, each=2)
    keys = examples.prompt_keys()
    names = [examples[i].prompt for i in range(len(examples))]
    assert len(examples) == len(keys) > ROWS_PER_GROUP
    assert len(set(zip(keys.tolist(), names, strict=True))) == len(set(names)) == len(set(keys))


def test_steps_are_exact_slices_and_go_on_where_they_stopped(tmp_path: Path) -> None:
    examples = examples_of(tmp_path, prompts=5, each=3)
    whole = [(n, [e.id for e in batch]) for n, batch in steps(examples, 4, epochs=2, seed=7)]
    assert [n for n, _ in whole] == list(range(1, 9))
    assert [len(ids) for _, ids in whole] == [4, 4, 4, 3] * 2
    for epoch in (whole[:4], whole[4:]):
        assert len({i for _, ids in epoch for i in ids}) == 15
    for start in (1, 4, 6, 8):
        rest = [(n, [e.id for e in batch]) for n, batch in steps(examples, 4, 2, 7, start=start)]
        assert rest == whole[start:]


def test_one_item_is_made_ahead_in_another_thread_and_no_more() -> None:
    makers, asked = set(), []

    def items():
        for index in range(5):
            makers.add(threading.current_thread())
            asked.append(index)
            yield index

    coming = prefetch(items())
    assert list(islice(coming, 2)) == [0, 1]
    coming.close()
    assert len(asked) == 3
    assert threading.current_thread() not in makers
    assert not any(thread.is_alive() for thread in makers), "closing ends the thread"
    assert list(prefetch(iter("abc"))) == ["a", "b", "c"]


def test_what_the_thread_raises_is_raised_where_it_is_used() -> None:
    def broken():
        yield 1
        raise OSError("the disk is gone")

    coming = prefetch(broken())
    assert next(coming) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(coming)
