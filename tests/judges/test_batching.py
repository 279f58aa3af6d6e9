"""Rows in windows and batches: equal ones once, in the order asked, within the budget."""

import math

import pytest

from palate.judges.batching import (
    BATCHES,
    batched_answers,
    batched_scores,
    batches,
    by_batches,
    padded,
)
from palate.judges.prompting import Encoded, Refused
from palate.types import Candidates, Message, Score


def row(*ids, types=None):
    return Encoded(ids, types)


def test_batches_keep_every_row_within_the_budget():
    rows = [row(*(1,) * n) for n in (3, 50, 7, 7, 120, 1)]
    made = list(batches(rows, 100))
    assert sorted(len(r.ids) for batch in made for r in batch) == sorted(len(r.ids) for r in rows)
    assert all(len(batch) == 1 or len(batch) * len(batch[0].ids) <= 100 for batch in made)


def test_rows_are_padded_on_either_side_with_a_mask():
    ids, mask = padded([(5, 6, 4), (7,)], 0)
    assert ids.tolist() == [[5, 6, 4], [7, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    ids, mask = padded([(5, 6, 4), (7,)], 9, left=True)
    assert ids.tolist() == [[5, 6, 4], [9, 9, 7]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


@pytest.mark.parametrize("window", [1, 2, 9])
def test_equal_rows_of_a_window_are_run_once_and_answered_in_order(window):
    questions = [(1, 2), (3,), (1, 2), (), (4, 4)]
    runs = []

    def run(batch):
        runs.extend(r.ids for r in batch)
        return [sum(r.ids) for r in batch]

    def encode(ids):
        return [row(*ids) if ids else Refused("no tokens")]

    found = list(batched_answers(questions, encode, by_batches(run, 100), window, 100))
    assert [question for question, _ in found] == questions
    assert found[3][1] == [Refused("no tokens")]
    assert [answers[0][1] for question, answers in found if question] == [3, 3, 3, 8]
    assert runs.count((1, 2)) == (1 if window == 9 else 2)


@pytest.mark.parametrize(("most", "windows"), [(1, [2, 2, 1]), (100, [4, 1])])
def test_long_rows_and_many_of_them_end_a_window_early(most, windows):
    """Best of many of long conversations: nobody waits for 256 prompts of them."""
    read, runs = [], []

    def questions():
        for number in range(5):
            read.append(number)
            yield number

    def encode(number):
        return [row(number, answer, *(0,) * (BATCHES // 4 - 2)) for answer in (1, 2)]

    def run(rows):
        runs.append(len({question for question, _ in rows}))
        return [(row, 0.0) for _, row in rows]

    answered = batched_answers(questions(), encode, run, 4, most)
    next(answered)
    assert len(read) == windows[0]
    list(answered)
    assert runs == windows


def test_rows_that_differ_in_their_types_alone_are_two():
    rows = [row(1, 2, types=(0, 0)), row(1, 2, types=(0, 1))]
    run = by_batches(lambda batch: [r.types[1] for r in batch], 100)
    ((_, answers),) = batched_answers(["q"], lambda _: rows, run, 1, 100)
    assert [value for _, value in answers] == [0, 1]


def test_a_score_has_a_value_or_its_reason():
    def encode(_prompt, response):
        return Refused("too long", 9) if response == "long" else row(int(response))

    shown = Candidates((Message("user", "q"),), ("1", "long", "2"))
    run = by_batches(lambda batch: [{1: 0.5, 2: math.inf}[r.ids[0]] for r in batch], 10)
    (scores,) = batched_scores([shown], encode, run, 4, 100)
    too_long = Score(None, "too long", tokens=9)
    assert scores == (Score(0.5, tokens=1), too_long, Score(None, "non-finite", tokens=1))
