"""The nouns."""

import pytest

from made import made
from palate.types import Bin, Message, Rating, comparison_id, digest


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        (True, False, Bin.SAFE_UNSAFE),
        (True, True, Bin.BOTH_SAFE),
        (False, False, Bin.BOTH_UNSAFE),
        (False, True, None),
        (None, True, None),
    ],
)
def test_the_safety_bin_follows_from_the_labels(chosen, rejected, expected) -> None:
    assert made("Q?", chosen_safe=chosen, rejected_safe=rejected).bin is expected


def test_ratings_are_ordered_and_named_as_in_the_paper() -> None:
    assert [r.label for r in sorted(Rating)] == [
        "negligibly",
        "slightly",
        "better",
        "significantly",
    ]


def test_ids_move_with_content_and_only_with_content() -> None:
    turns = (Message("user", "Q?"),)
    one = comparison_id("s", turns, "a", "b")
    assert one == comparison_id("s", turns, "a", "b")
    others = {
        comparison_id("t", turns, "a", "b"),
        comparison_id("s", turns, "b", "a"),
        comparison_id("s", turns, "a", "b", row="2"),
        comparison_id("s", (Message("assistant", "Q?"),), "a", "b"),
    }
    assert len(others | {one}) == 5
    assert digest("ab", "c") != digest("a", "bc")
