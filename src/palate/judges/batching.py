"""Local models: a window of questions at a time, equal rows once, rows of like length together.

A window is read ahead and encoded: so many questions, or fewer whose rows fill `BATCHES`. Its
distinct rows, by their tokens, are run in batches, and the questions are answered in the order
asked. So memory is bounded by the window, equal texts get exactly equal scores, and a batch holds
little padding. Shape letters: B rows, T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from palate.judges.prompting import Refused
from palate.judges.scorer import NON_FINITE
from palate.types import Attributes, Candidates, Message, Score

# Of a window, whose answers come together: enough that batches of like rows are nearly full, few
# enough that long rows and many responses to a prompt show progress, and that a kill loses little.
BATCHES = 16


class Tokenised(Protocol):
    """Tokens of one row, and whether the conversation was cut to fit."""

    @property
    def ids(self) -> Any:
        """Token ids, a tuple or an array."""
        ...

    @property
    def truncated(self) -> bool: ...


Question = TypeVar("Question")
Row = TypeVar("Row", bound=Tokenised)
Value = TypeVar("Value")
Scored = tuple[float, Attributes, tuple[float, ...]]
"""A score, what heads beside it say, and what an ensemble's members say."""


def batched_answers(
    questions: Iterable[Question],
    encode: Callable[[Question], Sequence[Row | Refused]],
    run: Callable[[list[tuple[Question, Row]]], Iterable[tuple[Row, Value]]],
    window: int,
    most_tokens: float,
) -> Iterator[tuple[Question, list[tuple[Row, Value] | Refused]]]:
    """Each question with its rows and their values, in the order asked.

    Args:
        questions: read ahead by one window.
        encode: a question's rows, such as one for each response; a refused row is not run.
        run: the value of each distinct row of a window, in any order, given with the question in
            which it came first.
        window: how many questions are run together, at most.
        most_tokens: of one batch; rows of `BATCHES` batches end a window too.
    """
    for encoded in _windows(questions, encode, window, BATCHES * most_tokens):
        distinct: dict[Hashable, tuple[Question, Row]] = {}
        for question, rows in encoded:
            for row in rows:
                if not isinstance(row, Refused):
                    distinct.setdefault(_key(row), (question, row))
        values = {_key(row): value for row, value in run(list(distinct.values()))}
        for question, rows in encoded:
            yield (
                question,
                [row if isinstance(row, Refused) else (row, values[_key(row)]) for row in rows],
            )


def _windows(
    questions: Iterable[Question],
    encode: Callable[[Question], Sequence[Row | Refused]],
    window: int,
    tokens: float,
) -> Iterator[list[tuple[Question, Sequence[Row | Refused]]]]:
    some: list[tuple[Question, Sequence[Row | Refused]]] = []
    length = 0
    for question in questions:
        rows = encode(question)
        some.append((question, rows))
        length += sum(len(row.ids) for row in rows if not isinstance(row, Refused))
        if len(some) == window or length >= tokens:
            yield some
            some, length = [], 0
    if some:
        yield some


def batched_scores(
    candidates: Iterable[Candidates],
    encode: Callable[[Sequence[Message], str], Row | Refused],
    run: Callable[[list[tuple[Candidates, Row]]], Iterable[tuple[Row, float | Scored]]],
    window: int,
    most_tokens: float,
) -> Iterator[tuple[Score, ...]]:
    """Scores in the order asked, see `batched_answers`; `encode` takes a prompt and a response.

    `run` gives a number for each row, or with it what heads beside the score and members say.
    """

    def rows_of(shown: Candidates) -> list[Row | Refused]:
        return [encode(shown.prompt, response) for response in shown.responses]

    for _, answers in batched_answers(candidates, rows_of, run, window, most_tokens):
        yield tuple(map(_score, answers))


def _score(answered: tuple[Row, float | Scored] | Refused) -> Score:
    if isinstance(answered, Refused):
        return Score(None, answered.reason, tokens=answered.tokens)
    row, scored = answered
    value, attributes, members = (scored, {}, ()) if isinstance(scored, float | int) else scored
    if not all(map(math.isfinite, (value, *members))):
        return Score(None, NON_FINITE, row.truncated, len(row.ids))
    return Score(value, "", row.truncated, len(row.ids), attributes, members)


def _key(row: Tokenised) -> Hashable:
    """The tokens, and their types where there are several: what a model sees of a row."""
    ids = row.ids if isinstance(row.ids, tuple) else row.ids.tobytes()
    return ids, getattr(row, "types", None)


def by_batches(
    run: Callable[[list[Row]], Sequence[Value]], max_tokens: int
) -> Callable[[list[tuple[Question, Row]]], Iterator[tuple[Row, Value]]]:
    """What `batched_answers` takes, made of the values `run` gives of one batch."""

    def run_all(rows: list[tuple[Question, Row]]) -> Iterator[tuple[Row, Value]]:
        for batch in batches([row for _, row in rows], max_tokens):
            yield from zip(batch, run(batch), strict=True)

    return run_all


def batches(rows: Sequence[Row], max_tokens: int) -> Iterator[list[Row]]:
    """Batches of rows of like length, longest first, of at most `max_tokens` padded tokens."""
    batch: list[Row] = []
    for row in sorted(rows, key=lambda row: len(row.ids), reverse=True):
        if batch and (len(batch) + 1) * len(batch[0].ids) > max_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def padded(rows: Sequence[Any], pad: int, *, left: bool = False) -> tuple[Tensor, Tensor]:
    """Rows as int64 [B, T], padded on the right or on the left, and 1 where a token is, else 0."""
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), pad)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        place = slice(longest - len(row), None) if left else slice(len(row))
        ids[number, place] = torch.as_tensor(row)
        mask[number, place] = 1
    return ids, mask
