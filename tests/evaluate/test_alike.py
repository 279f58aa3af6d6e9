"""What was not asked alike is not compared, and is told apart by name."""

from dataclasses import replace

import numpy as np
import pytest

from palate.evaluate.metrics import compare
from palate.evaluate.results import differences_in_protocol, on_equal_terms, read_judge_results
from palate.evaluate.run import evaluate
from palate.judges import open_judge
from palate.types import PalateError


@pytest.fixture
def asked(make_benchmark, tmp_path):
    """`asked(name, rows=20, **options)`: the tally of a trivial judge."""

    def ask(name, rows=20, **options):
        folder = tmp_path / f"{rows} {options}"
        return read_judge_results(
            evaluate(open_judge(name), make_benchmark(rows), folder, **options)
        )

    return ask


def refusal(one, other) -> str:
    with pytest.raises(PalateError, match="were not asked the same") as caught:
        compare(one, other, np.random.default_rng(0))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_same_questions_are_compared(asked):
    one, other = asked("longer"), asked("shorter")
    assert differences_in_protocol(one, other) == []
    found = compare(one, other, np.random.default_rng(0)).estimate
    assert found.value == pytest.approx(np.mean(one.values - other.values))


def test_pitfall_28_other_items_are_refused_and_counted(asked):
    text = refusal(asked("longer"), asked("shorter", rows=23))
    assert "the benchmark's data (" in text
    assert "items (20 and 23, 20 in common)" in text


def test_pitfall_28_changed_data_under_the_same_ids_is_refused(asked):
    one, other = asked("longer"), asked("shorter")
    other = replace(other, terms=replace(other.terms, data="another"))
    text = refusal(one, other)
    assert f"the benchmark's data ({one.terms.data}, another)" in text
    assert "items" not in text


def test_pitfall_28_another_seed_or_order_or_benchmark_is_refused(asked):
    assert "seed (0, 3)" in refusal(asked("longer"), asked("shorter", seed=3))
    assert "order of sides (seeded, both)" in refusal(asked("longer"), asked("first", order="both"))
    other = replace(asked("shorter"), benchmark="elsewhere")
    assert "benchmark (made, elsewhere)" in refusal(asked("longer"), other)


def test_a_judge_asked_in_both_orders_meets_another_in_the_one_they_share(asked):
    one, both = asked("longer"), asked("first", order="both")
    first, second = on_equal_terms(one, both)
    assert first is one
    np.testing.assert_array_equal(second.values, asked("first").values)
    assert differences_in_protocol(first, second) == []
    assert on_equal_terms(both, both) == (both, both)


def test_what_is_not_known_is_no_difference(asked):
    one, other = asked("longer"), asked("shorter")
    other = replace(other, terms=replace(other.terms, data="", seed="", tie_rule=""))
    assert differences_in_protocol(one, other) == []
