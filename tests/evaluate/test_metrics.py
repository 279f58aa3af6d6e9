"""Verdicts to figures: every count by hand, every rule that a pitfall asks for."""

import math
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from palate import stats
from palate.evaluate import metrics
from palate.evaluate.metrics import Counts, averages, compare, judge_results, summarise
from palate.evaluate.results import items_digest
from palate.records import write_verdicts
from palate.types import Bin, Comparison, Outcome, PalateError, Rating, Verdict


def verdict(id: str, outcome: str, **changes: object) -> Verdict:
    made = Verdict(
        judge="model",
        benchmark="bench",
        comparison_id=id,
        outcome=Outcome(outcome),
        chosen_score=1.0,
        rejected_score=-1.0,
        reason="",
        truncated=False,
        cluster=f"prompt of {id}",
        source="s",
        rating=None,
        bin=None,
        chosen_first=True,
        protocol="p",
    )
    return replace(made, **changes)


def many(rng: random.Random, n: int, share: float, **changes: object) -> list[Verdict]:
    return [
        verdict(f"i{i}", "correct" if rng.random() < share else "wrong", **changes)
        for i in range(n)
    ]


def test_pitfall_25_every_outcome_has_its_own_count() -> None:
    votes = judge_results(
        [
            verdict("a", "correct"),
            verdict("b", "wrong", truncated=True),
            verdict("c", "tie"),
            verdict("d", "unscored", reason="too long", truncated=True),
            verdict("e", "unscored", reason="refused"),
            verdict("f", "unscored", reason="too long"),
            verdict("g", "unscored"),
        ]
    )
    result = summarise(votes)
    unscored = {"no reason given": 1, "refused": 1, "too long": 2}
    assert result.counts == Counts(1, 1, 1, unscored, truncated=2)
    assert result.counts.items == 7
    assert result.overall.value == 0.5
    assert (result.overall.n, result.overall.n_unscored) == (3, 4)
    assert result.bounds == stats.Bounds(worst=1 / 7, best=6 / 7)
    assert result.trend is None
    assert result.unsafe_recall is None


def test_pitfall_23_an_item_asked_twice_counts_once() -> None:
    votes = judge_results([verdict("a", "correct"), verdict("b", "wrong"), verdict("a", "correct")])
    assert list(votes.values) == [1, 0]
    assert list(votes.ids) == ["a", "b"]


def test_pitfall_26_both_orders_of_an_item_are_one_item() -> None:
    rows = [
        verdict("a", "correct"),
        verdict("b", "wrong"),
        verdict("c", "unscored", reason="x"),
        verdict("a", "wrong", chosen_first=False),
        verdict("b", "wrong", chosen_first=False),
        verdict("c", "correct", chosen_first=False, truncated=True),
    ]
    votes = judge_results(replace(row, chosen_score=None, rejected_score=None) for row in rows)
    result = summarise(votes)
    assert list(votes.values) == [0.5, 0, 1]
    assert result.counts == Counts(1, 1, 1, {}, truncated=1)
    assert result.overall.n == 3


def test_pitfall_28_every_figure_carries_protocol_and_items() -> None:
    base = [verdict("a", "correct"), verdict("b", "wrong")]
    one = judge_results(base)
    assert one.fingerprint == judge_results(list(reversed(base))).fingerprint
    named = [verdict(name, "correct") for name in ("b", "ä", "B", "", "𝄞", "a\x00", "\uffff")]
    assert judge_results(named).items == items_digest(v.comparison_id for v in named)
    others = [
        judge_results([replace(v, protocol="q") for v in base]),
        judge_results([replace(v, judge="other") for v in base]),
        judge_results([base[0], verdict("c", "wrong")]),
    ]
    assert len({one.fingerprint, *(o.fingerprint for o in others)}) == 4
    result = summarise(one)
    assert result.overall.fingerprint == one.fingerprint


def test_mixed_or_missing_verdicts_are_one_line_errors() -> None:
    with pytest.raises(PalateError, match="expected verdicts of one protocol, got 2"):
        judge_results([verdict("a", "correct"), verdict("b", "correct", protocol="q")])
    with pytest.raises(PalateError, match="expected verdicts of one judge, got 0"):
        judge_results([])


def test_by_rating_by_bin_and_trend() -> None:
    rows = [
        verdict(f"{rating}{i}", "correct" if i < right else "wrong", rating=rating, bin=bin)
        for rating, right, bin in (
            (Rating.NEGLIGIBLY, 11, Bin.BOTH_SAFE),
            (Rating.SLIGHTLY, 13, Bin.BOTH_SAFE),
            (Rating.SIGNIFICANTLY, 18, Bin.SAFE_UNSAFE),
        )
        for i in range(20)
    ]
    result = summarise(judge_results(rows))
    assert {r: e.value for r, e in result.by_rating.items()} == {
        Rating.SIGNIFICANTLY: 0.9,
        Rating.SLIGHTLY: 0.65,
        Rating.NEGLIGIBLY: 0.55,
    }
    assert list(result.by_rating) == [Rating.SIGNIFICANTLY, Rating.SLIGHTLY, Rating.NEGLIGIBLY]
    assert result.by_bin[Bin.BOTH_SAFE].value == 24 / 40
    assert result.by_bin[Bin.BOTH_SAFE].n == 40
    assert Bin.BOTH_UNSAFE not in result.by_bin
    expected = stats.cochran_armitage(
        [1] * 11 + [0] * 9 + [1] * 13 + [0] * 7 + [1] * 18 + [0] * 2, [1] * 20 + [2] * 20 + [4] * 20
    )
    assert result.trend == expected


def test_unsafe_recall_takes_the_unsafe_sides_only() -> None:
    scored = {"chosen_score": -1.0, "rejected_score": 2.0}
    votes = judge_results(
        [
            verdict("a", "correct", bin=Bin.SAFE_UNSAFE),  # rejected -1: found
            verdict("b", "wrong", bin=Bin.SAFE_UNSAFE, **scored),  # rejected 2: missed
            verdict("c", "wrong", bin=Bin.BOTH_UNSAFE, **scored),  # chosen found, rejected missed
            verdict("d", "correct", bin=Bin.BOTH_SAFE, **scored),
            verdict("e", "correct"),
            verdict("f", "unscored", bin=Bin.SAFE_UNSAFE, rejected_score=None, reason="x"),
            verdict("g", "tie", bin=Bin.SAFE_UNSAFE, rejected_score=0.0),  # 0.5 is not below 0.5
        ]
    )
    found = metrics.unsafe_recall(votes)
    assert found is not None
    assert (found.value, found.n, found.n_unscored) == (2 / 5, 5, 1)
    assert found.n_clusters == 4


def test_unsafe_recall_needs_scores_and_bins() -> None:
    blind = verdict("a", "correct", bin=Bin.BOTH_UNSAFE, chosen_score=None, rejected_score=None)
    assert metrics.unsafe_recall(judge_results([blind])) is None
    assert (
        metrics.unsafe_recall(judge_results([verdict("a", "correct", bin=Bin.BOTH_SAFE)])) is None
    )


def test_clusters_widen_the_interval() -> None:
    rows = many(random.Random(0), 300, 0.7)
    copies = [replace(v, comparison_id=f"{v.comparison_id}-{k}") for v in rows for k in range(4)]
    narrow = summarise(judge_results([replace(v, cluster=v.comparison_id) for v in copies])).overall
    wide = summarise(judge_results(copies)).overall
    assert wide.n_clusters == 300
    assert wide.half_width == pytest.approx(2 * narrow.half_width, rel=0.05)


def test_averages_of_columns_and_of_examples() -> None:
    rng = random.Random(1)
    results = [
        summarise(judge_results(many(rng, n, share, benchmark=name)))
        for name, n, share in (("a", 100, 0.9), ("b", 900, 0.5))
    ]
    both = averages(results)
    values = [r.overall.value for r in results]
    assert both.macro.value == pytest.approx(sum(values) / 2)
    assert both.micro.value == pytest.approx((100 * values[0] + 900 * values[1]) / 1000)
    assert both.macro.fingerprint


def test_compare_aligns_items_by_id() -> None:
    one = [verdict("a", "correct"), verdict("b", "wrong"), verdict("c", "correct")]
    two = [verdict(id, "wrong", judge="x") for id in "ba"] + [verdict("c", "correct", judge="x")]
    found = compare(judge_results(one), judge_results(two), np.random.default_rng(0))
    assert (found.estimate.value, found.estimate.n) == (pytest.approx(1 / 3), 3)
    assert found.estimate.fingerprint
    with pytest.raises(PalateError, match=r"items \(3 and 2, 2 in common\)"):
        compare(judge_results(one), judge_results(two[1:]), np.random.default_rng(0))


def test_reading_a_file_equals_tallying_its_verdicts(tmp_path: Path) -> None:
    rng = random.Random(2)
    rows = many(rng, 50, 0.6, rating=Rating.BETTER, bin=Bin.BOTH_UNSAFE)
    rows.append(verdict("u", "unscored", chosen_score=None, rejected_score=None, reason="r"))
    path = tmp_path / "v.parquet"
    write_verdicts(path, rows)
    assert summarise(metrics.read_judge_results(path)) == summarise(judge_results(rows))


def test_a_cut_file_is_a_one_line_error(tmp_path: Path) -> None:
    path = tmp_path / "v.parquet"
    write_verdicts(path, many(random.Random(0), 50, 0.6))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(PalateError, match="remake"):
        metrics.read_judge_results(path)


def simulated(i: int, chance: float | None) -> Comparison:
    meta = {} if chance is None else {"bayes": chance, "bayes_given_rating": chance / 2}
    rating = Rating.BETTER if i % 2 else Rating.SLIGHTLY
    return Comparison(
        f"c{i}", "simulated", (), "a", "b", f"p{i}", rating=rating,
        chosen_safe=True, rejected_safe=True, meta=meta,
    )  # fmt: skip


def test_bayes_limit_is_the_mean_chance_and_covers_the_bayes_judge() -> None:
    rng = np.random.default_rng(0)
    chances = rng.uniform(0.5, 1.0, 400)
    items = [simulated(i, float(p)) for i, p in enumerate(chances)]
    limit = metrics.bayes_limit("bench", items)
    assert limit is not None
    assert limit.overall.value == pytest.approx(chances.mean())
    assert limit.kind == "limit"
    given = limit.by_rating[Rating.BETTER].value
    assert given == pytest.approx(chances[1::2].mean() / 2), "a rating's cell is given the rating"
    assert limit.by_bin[Bin.BOTH_SAFE].value == pytest.approx(chances.mean())
    runs = (rng.random((4000, 400)) < chances).mean(axis=1)
    covered = ((runs >= limit.overall.low) & (runs <= limit.overall.high)).mean()
    assert covered == pytest.approx(0.95, abs=0.015)
    asked = judge_results([verdict(c.id, "correct") for c in items])
    assert limit.items == asked.items
    assert metrics.bayes_limit("bench", [simulated(0, None)]) is None
    assert metrics.bayes_limit("bench", []) is None


def test_results_survive_the_disk(tmp_path: Path) -> None:
    rows = [verdict("a", "correct", rating=Rating.BETTER), verdict("b", "wrong")]
    none_scored = judge_results([verdict("a", "unscored", reason="x")])
    results = [summarise(judge_results(rows), paper_column="X", protocol={"order": "seeded"})]
    path = tmp_path / "results" / "x.json"
    metrics.write_results(path, [*results, summarise(none_scored)])
    read = metrics.read_results(path)
    assert read[0] == results[0]
    assert math.isnan(read[1].overall.value)
    path.write_text('[{"judge": 1}]')
    with pytest.raises(PalateError, match=r"x\.json: 0\.judge"):
        metrics.read_results(path)
