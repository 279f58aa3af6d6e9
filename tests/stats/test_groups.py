"""Letters: two judges share one exactly if they were not told apart."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from palate import stats


def test_letters_by_hand():
    apart = {("a", "c"): 0.01, ("a", "b"): 0.4, ("b", "c"): 0.06}
    assert stats.letters(["a", "b", "c"], apart) == {"a": "a", "b": "ab", "c": "b"}
    all_apart = dict.fromkeys(apart, 0.0)
    assert stats.letters(["a", "b", "c"], all_apart) == {"a": "a", "b": "b", "c": "c"}
    assert stats.letters(["a", "b"], {}) == {"a": "a", "b": "a"}
    assert stats.letters([], {}) == {}


def test_the_order_of_a_pair_does_not_matter():
    assert stats.letters(["x", "y"], {("y", "x"): 0.001}) == {"x": "a", "y": "b"}


@given(st.lists(st.booleans(), min_size=21, max_size=21))
def test_letters_are_shared_exactly_by_judges_that_do_not_differ(apart):
    names = list("tuvwxyz")
    pairs = stats.pairs(names)
    assert pairs == list(combinations(names, 2))
    differ = dict(zip(pairs, apart, strict=True))
    found = stats.letters(names, {pair: 0.0 if d else 1.0 for pair, d in differ.items()})
    for one, two in pairs:
        assert bool(set(found[one]) & set(found[two])) != differ[one, two]
