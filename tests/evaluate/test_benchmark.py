import dataclasses

import pytest

from palate.data.prompts import prompt_key
from palate.evaluate.benchmark import Benchmark, forbid_training_overlap, training_keys
from palate.records import read_comparisons, read_header, write_comparisons
from palate.types import Comparison, Message, Pair, PalateError, comparison_id


def test_pairs_hold_both_responses_and_nothing_else(make_benchmark):
    benchmark = make_benchmark(20)
    for item, pair in zip(benchmark.items(3), benchmark.pairs(3), strict=True):
        assert pair == item.pair
        assert {pair.first, pair.second} == {item.comparison.chosen, item.comparison.rejected}
        assert (pair.first == item.comparison.chosen) == item.chosen_first


def test_a_pair_has_no_field_for_a_label():
    assert {f.name for f in dataclasses.fields(Pair)} == {"id", "prompt", "first", "second"}


def test_the_label_cannot_be_read_from_the_id(make_benchmark):
    """A comparison's id is made of (chosen, rejected); a judge could try both ways round."""
    for item in make_benchmark(30).items():
        pair, source = item.pair, item.comparison.source
        tried = {
            comparison_id(source, pair.prompt, pair.first, pair.second),
            comparison_id(source, pair.prompt, pair.second, pair.first),
        }
        assert item.comparison.id in tried
        assert pair.id not in tried


def test_pitfall_26_sides_are_seeded_and_do_not_depend_on_other_rows(make_benchmark, tmp_path):
    benchmark = make_benchmark(200)
    sides = {item.comparison.id: item.chosen_first for item in benchmark.items(1)}
    rows = list(read_comparisons(benchmark.path))
    write_comparisons(tmp_path / "some.parquet", rows[150:20:-3])
    some = Benchmark("some", tmp_path / "some.parquet").items(1)
    assert all(sides[item.comparison.id] == item.chosen_first for item in some)
    assert 70 < sum(sides.values()) < 130
    assert sides != {item.comparison.id: item.chosen_first for item in benchmark.items(2)}


def test_pitfall_26_both_orders_show_each_side_first_once(make_benchmark):
    items = list(make_benchmark(10).items(order="both"))
    assert len(items) == 20
    for one, other in zip(items[::2], items[1::2], strict=True):
        assert (one.pair.first, one.pair.second) == (other.pair.second, other.pair.first)
        assert one.chosen_first is not other.chosen_first
        assert one.pair.id != other.pair.id


def test_fingerprint_is_the_files(make_benchmark):
    benchmark = make_benchmark(5)
    assert benchmark.fingerprint == read_header(benchmark.path).fingerprint
    assert benchmark.fingerprint != make_benchmark(6).fingerprint


def test_a_comparison_that_stands_twice_is_an_error(make_benchmark, tmp_path):
    rows = list(read_comparisons(make_benchmark(3).path))
    write_comparisons(tmp_path / "twice.parquet", [*rows, rows[0]])
    with pytest.raises(PalateError, match=r"twice\.parquet: rows 1 and 4 have one id, .*; lint"):
        list(Benchmark("twice", tmp_path / "twice.parquet").items())


def test_a_missing_benchmark_is_one_line(tmp_path):
    with pytest.raises(PalateError, match="no such file"):
        _ = Benchmark("none", tmp_path / "none.parquet").fingerprint


def test_pitfall_22_a_benchmark_that_was_trained_on_is_refused(make_benchmark, tmp_path):
    benchmark = make_benchmark(10)
    rows = list(read_comparisons(benchmark.path))
    same_prompt = Comparison(
        id="other",
        source="other",
        prompt=(Message("user", "QUESTION number 9,   please"),),
        chosen="a",
        rejected="b",
        prompt_id="x",
    )
    write_comparisons(tmp_path / "training.parquet", [*rows[:3], same_prompt])
    ids, prompts = training_keys(tmp_path / "training.parquet")
    with pytest.raises(PalateError, match="of 10 comparisons 3 were trained on and 4 have a"):
        forbid_training_overlap(benchmark, ids=ids, prompts=prompts)


def test_a_benchmark_that_shares_nothing_with_training_is_let_through(make_benchmark):
    other = prompt_key((Message("user", "Something else entirely, thank you."),))
    forbid_training_overlap(make_benchmark(10), ids={"x"}, prompts={other})
