"""Where two responses differ: what is marked, and that nothing of a text is lost."""

from hypothesis import given, settings
from hypothesis import strategies as st

from palate.data.difference import differences


def test_differences_are_what_the_other_side_has_not():
    one, two = differences(
        "Paris is the capital of France, and it lies on the Seine.",
        "Paris is the capital of Italy, and it lies on the Tiber today.",
    )
    assert [p.text for p in one if p.only] == ["France", "Seine."]
    assert [p.text for p in two if p.only] == ["Italy", "Tiber today."]


@settings(max_examples=40)
@given(st.lists(st.sampled_from(["a", "b", "c,", ".", "é\u202e", "\n", "word"]), max_size=30))
def test_pieces_put_together_are_the_text(words):
    first, second = " ".join(words), " ".join(words[::2] + words[:5])
    found = differences(first, second)
    if found is not None:
        assert ["".join(p.text for p in side) for side in found] == [first, second]


def test_little_in_common_too_long_or_empty_is_not_compared():
    assert differences("one two three four five", "six seven eight nine ten") is None
    assert differences("", "one two three") is None
    assert differences("w " * 2_000, "w " * 2_000) is None
    assert not any(p.only for side in differences("same as it was", "same as it was") for p in side)
