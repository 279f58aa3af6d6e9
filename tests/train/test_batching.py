"""Comparisons of one prompt share one group, and a response is encoded once."""

import threading
from collections import Counter
from itertools import combinations, islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from palate.model.options import BaseOptions
from palate.model.reward_model import RewardModel
from palate.model.tokenizer import ChatTokens
from palate.records import ROWS_PER_GROUP, write_comparisons
from palate.train.batching import (
    cuts,
    epoch_order,
    longest_ranking,
    prefetch,
    refuse_long_rankings,
    split_step,
    steps,
    steps_per_epoch,
)
from palate.train.dataset import Example, Examples, tokenise
from palate.train.loop import _losses
from palate.train.loss import safety_loss
from palate.train.options import SafetyLoss, TrainOptions
from palate.types import Comparison, Message, PalateError, Ranks, Rating
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
    assert not figures.any()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


# The order of an epoch, steps as its slices, and the step made ahead.

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


RANKINGS = st.lists(st.integers(0, 5), max_size=12).map(
    lambda sizes: np.array(
        [n + 1 if s else 0 for n, s in enumerate(sizes) for _ in range(max(1, s))], np.uint64
    )
)  # Sizes of rankings that lie together; 0 is a pair outside.


@given(RANKINGS, st.integers(5, 9))
def test_no_step_cuts_a_ranking_and_there_are_as_many_steps(rankings, pairs) -> None:
    ends = cuts(rankings, pairs)
    assert len(ends) - 1 == steps_per_epoch(len(rankings), pairs)
    assert (ends[0], ends[-1]) == (0, len(rankings))
    assert all(a < b for a, b in pairwise(ends))
    for at in ends[1:-1]:
        assert rankings[at] == 0 or rankings[at - 1] != rankings[at]
    if not rankings.any():
        assert ends[:-1] == list(range(0, len(rankings), pairs))


def ranked_rows(prompts: int, annotators: int, places: int) -> list[Comparison]:
    """Each annotator ranks the same responses of a prompt; then a pair outside rankings."""
    rows = [
        Comparison(
            f"{p}-{a}-{i}{j}", "made", (Message("user", f"{p}?"),), f"sea {i}", f"sea {j}",
            f"p{p}", ranks=Ranks(f"{p}-{a}", i, j),
        )
        for p in range(prompts) for a in range(annotators)
        for i, j in combinations(range(places), 2)
    ]  # fmt: skip
    alone = (Message("user", "0?"),)
    return [*rows, Comparison("alone", "made", alone, "blue", "no", "p0")]


def test_rankings_are_whole_in_each_step_and_micro_batch(tmp_path: Path) -> None:
    rows = ranked_rows(prompts=3, annotators=2, places=3)
    write_comparisons(tmp_path / "m.parquet", rows)
    examples = tokenise(tmp_path / "m.parquet", CHAT, tmp_path / "t.arrow")
    assert longest_ranking(examples.ranking_keys()) == 3
    whole = [batch for _, batch in steps(examples, 4, epochs=2, seed=3)]
    assert len(whole) == 2 * steps_per_epoch(len(rows), 4)
    assert sum(map(len, whole)) == 2 * len(rows)
    for batch in whole:
        names = Counter(e.ranks.ranking for e in batch if e.ranks)
        assert set(names.values()) <= {3}
        for part in split_step(batch, MARGINS, budget=8).parts:
            assert set(Counter(part.ranking[part.ranking >= 0].tolist()).values()) <= {3}
            assert len(part.entries) == 3 * len(set(part.entries[:, 0].tolist()))
    with pytest.raises(PalateError, match=r"set train\.pairs_per_step=3 or more"):
        refuse_long_rankings(examples.ranking_keys(), 2)


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
