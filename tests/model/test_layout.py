"""The segments of a packed row: what each token may see, from its group alone."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from palate.model.packing import Segments

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
    for i, (group, response) in enumerate(tokens):
        for j, (other, part) in enumerate(tokens[: i + 1]):
            mask[i, j] = group == other and part in (0, response)
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
