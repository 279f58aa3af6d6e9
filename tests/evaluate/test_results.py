"""Results of a judge: both orders of the sides, position bias, and which may be compared."""

from dataclasses import replace

import numpy as np
import pytest

from palate.evaluate.benchmark import order_for
from palate.evaluate.metrics import compare, judge_results, order_figures, summarise
from palate.evaluate.results import differences_in_protocol, on_equal_terms, read_judge_results
from palate.evaluate.run import evaluate
from palate.judges import open_judge
from palate.records import read_verdicts
from palate.types import Outcome, PalateError, Preference, Verdict


class Letter:
    """Answers A to every pair, with A's share of the probability where it is given one."""

    sees_both = True
    name, protocol = "letter", {"judge": "letter"}

    def __init__(self, share=None):
        self.share = share

    def judge(self, pairs):
        shares = (None, None) if self.share is None else (self.share, 1 - self.share)
        return (Preference(pair.id, "first", *shares, answer="A") for pair in pairs)


def said(id, outcome, chosen=None, rejected=None, *, first=True) -> Verdict:
    reason = "unparsed" if outcome == "unscored" else ""
    return Verdict(
        "j", "b", id, Outcome(outcome), chosen, rejected, reason, False,
        f"prompt of {id}", "s", None, None, first, "p",
    )  # fmt: skip


def both(*rows: tuple) -> list[Verdict]:
    """Verdicts of items `a`, `b`, ...: (outcome, ...) in the seeded order, then in the other."""
    return [
        said("abcdefgh"[number], *told, first=first)
        for number, row in enumerate(rows)
        for first, told in zip((True, False), row, strict=True)
    ]


def test_auto_asks_both_orders_of_a_judge_that_sees_both():
    assert order_for(Letter(), "auto") == "both"
    assert [order_for(Letter(), plan) for plan in ("seeded", "both")] == ["seeded", "both"]
    for name in ("random", "longer", "shorter", "first"):
        assert order_for(open_judge(name), "auto") == "seeded"
    with pytest.raises(PalateError, match="expected auto, seeded or both, got 'random'"):
        order_for(Letter(), "random")


def test_pitfall_26_both_readings_are_kept():
    votes = judge_results(
        both(
            (("correct",), ("correct",)),
            (("correct",), ("wrong",)),
            (("wrong",), ("wrong",)),
            (("tie",), ("correct",)),
            (("unscored",), ("correct",)),
            (("wrong",), ("unscored",)),
            (("unscored",), ("unscored",)),
        )
    )
    assert votes.both
    np.testing.assert_array_equal(votes.values, [1, 0.5, 0, 0.75, 1, 0, np.nan])
    one = votes.one_order()
    np.testing.assert_array_equal(one.values, [1, 1, 0, 0.5, np.nan, 0, np.nan])
    assert not one.both
    assert one.one_order() is one
    assert one.fingerprint != votes.fingerprint
    assert summarise(one).counts.unscored == {"unparsed": 2}
    assert summarise(votes).counts.unscored == {"unparsed": 1}


def test_the_seeded_order_of_both_equals_a_run_of_that_order_alone(make_benchmark, tmp_path):
    benchmark, judge = make_benchmark(30), open_judge("random")
    path = evaluate(judge, benchmark, tmp_path / "both", order="both")
    alone = read_judge_results(evaluate(judge, benchmark, tmp_path / "one"))
    one = read_judge_results(path).one_order()
    for name in ("ids", "values", "clusters", "ratings", "truncated"):
        np.testing.assert_array_equal(getattr(one, name), getattr(alone, name))
    assert one.terms == alone.terms


def test_where_there_are_scores_the_probability_is_averaged():
    shares = both(
        (("correct", 0.9, 0.1), ("wrong", 0.3, 0.7)),  # 0.6 for the chosen one
        (("correct", 0.6, 0.4), ("wrong", 0.1, 0.9)),  # 0.35
        (("correct", 0.8, 0.2), ("wrong", 0.2, 0.8)),  # 0.5
        (("correct", 0.8, 0.2), ("wrong",)),  # one without: the mean of the outcomes
        (("unscored",), ("wrong", 0.2, 0.8)),
    )
    votes = judge_results(shares)
    np.testing.assert_array_equal(votes.values, [1, 0, 0.5, 0.5, 0])
    np.testing.assert_allclose(votes.orders.preference_margins[0], [0.8, -0.4])
    np.testing.assert_allclose(votes.chosen_scores, [0.6, 0.35, 0.5, 0.8, 0.2])
    logits = both(
        (("correct", 3.0, 0.0), ("wrong", -1.0, 0.0)),  # sigmoid: 0.953 and 0.269
        (("wrong", 0.0, 9.0), ("correct", 1.0, -1.0)),  # 0.000 and 0.881
        (("correct", 1e308, -1e308), ("correct", 1.0, 0.5)),
    )
    votes = judge_results(logits)
    np.testing.assert_array_equal(votes.values, [1, 0, 1])
    sigmoid = 1 / (1 + np.exp(-np.array([3.0, -1.0])))
    np.testing.assert_allclose(votes.orders.preference_margins[0], 2 * sigmoid - 1)


def test_a_judge_asked_in_one_order_is_read_by_its_outcomes():
    votes = judge_results([said("a", "wrong", 0.9, 0.1)])
    assert list(votes.values) == [0]
    assert not votes.both
    assert order_figures(votes) is None


def test_consistency_and_first_position_by_hand():
    rows = both(
        (("correct",), ("correct",)),  # consistent
        (("wrong",), ("wrong",)),  # consistent
        (("correct",), ("wrong",)),  # first, then first
        (("wrong",), ("correct",)),  # second, then second
        (("correct",), ("wrong",)),
        (("tie",), ("tie",)),  # consistent
        (("tie",), ("wrong",)),  # a half, then first
        (("unscored",), ("correct",)),  # not in both
    )
    found = order_figures(judge_results(rows))
    assert found.consistent.value == pytest.approx(3 / 7)
    assert (found.consistent.n, found.consistent.n_unscored) == (7, 1)
    assert found.first.value == pytest.approx((4 * 0.5 + 1 + 0 + 1 + 0.75 - 0.5) / 7)
    assert found.one.value == pytest.approx((1 + 0 + 1 + 0 + 1 + 0.5 + 0.5) / 7)
    assert found.both.value == pytest.approx((1 + 0 + 3 * 0.5 + 0.5 + 0.25 + 1) / 8)
    for estimate in (found.one, found.both, found.consistent, found.first):
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.fingerprint


def test_the_side_on_which_the_chosen_one_stood_is_taken_from_the_verdict():
    rows = both((("correct",), ("wrong",)))
    turned = [replace(row, chosen_first=not row.chosen_first) for row in rows]
    assert order_figures(judge_results(rows)).first.value == 1
    assert order_figures(judge_results(turned)).first.value == 0


@pytest.mark.parametrize("share", [None, 0.9, 0.3000001, 1.0])
@pytest.mark.parametrize("rows", [1, 30])
def test_pitfall_26_a_judge_that_answers_nothing_but_a(make_benchmark, tmp_path, rows, share):
    judge = Letter(share)
    path = evaluate(judge, make_benchmark(rows), tmp_path, order=order_for(judge, "auto"))
    assert {verdict.answer for verdict in read_verdicts(path)} == {"A"}
    votes = read_judge_results(path)
    result, found = summarise(votes), order_figures(votes)
    assert set(votes.values) == {0.5}, "every item is a tie, never half of them right"
    assert (result.counts.tie, result.counts.correct, result.overall.value) == (rows, 0, 0.5)
    assert (result.bounds.worst, result.bounds.best) == (0, 1)
    assert (found.consistent.value, found.first.value) == (0, 1)
    assert 0 < found.consistent.high < 1
    assert 0 < found.first.low < 1


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
