"""Calibration, length, thresholds and letters, from verdicts to tables."""

import random
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from made import made as comparison
from palate import stats
from palate.evaluate.metrics import detection, judge_results, noise_ceiling, unsafe_recall
from palate.evaluate.results import read_judge_results
from palate.report import report
from palate.report.render import texts
from palate.types import Bin, Outcome, Rating, Verdict


def verdict(id, chosen, rejected, *, first=True, **more) -> Verdict:
    outcome = Outcome.CORRECT if chosen > rejected else Outcome.WRONG
    made = Verdict(
        "j", "b", id, outcome, chosen, rejected, "", False, id, "s", None, None, first, "p"
    )
    return replace(made, **more)


def rows(table) -> dict[tuple[str, str], list]:
    return {(r.cells[0].value, r.cells[1].value): r.cells[2:] for r in table.rows}


def test_every_figure_of_the_new_tables_is_an_estimate_with_a_fingerprint(made):
    for name in ("calibration", "reliability", "length", "table-29-thresholds"):
        table = made.table(name)
        printed = [text for row in texts(table) for text in row]
        shown = [c for c, text in zip(table.cells(), printed, strict=True) if "±" in text]
        assert shown
        assert all(cell.estimate.fingerprint for cell in shown)
        for ending in (".md", ".csv", ".tex"):
            assert (made.run_dir / "tables" / f"{name}{ending}").stat().st_size > 100


def test_calibration_is_of_judges_with_scores_and_not_of_trivial_ones(made):
    found = rows(made.table("calibration"))
    assert {judge for _, judge in found} == {"oa-deberta", "helpful", "safety"}
    items, ece, luck, brier, *_ = found["Own Safety", "safety"]
    assert items.value == 500
    assert ece.estimate.value > 0
    assert luck.value > 0
    assert 0 < brier.estimate.value < 1
    shown = {tuple(row[:2]): row[2:] for row in texts(made.table("calibration"))}
    assert "[" in shown["Own Safety", "safety"][4]
    group = "Own Safety, safety"
    bins = [row.cells[5].estimate for row in made.table("reliability").rows if row.group == group]
    assert sum(part.n for part in bins) == 500


def test_log_odds_of_scalars_shares_and_both_orders():
    scalar = judge_results([verdict("a", 3.0, -40.0), verdict("b", 1.0, 1.5)])
    assert list(scalar.orders.log_odds) == [43.0, -0.5]
    share = judge_results([verdict("a", 0.8, 0.2), verdict("b", 1.0, 0.0)])
    assert share.orders.log_odds[0] == pytest.approx(np.log(4))
    assert np.isfinite(share.orders.log_odds[1])
    both = judge_results(
        [
            verdict("a", 0.8, 0.2),
            verdict("a", 0.4, 0.6, first=False),
            verdict("b", 2.0, 0.0),
            verdict("b", 0.5, 0.0, first=False),
        ]
    )
    assert expit(both.orders.log_odds) == pytest.approx([0.6, (expit(2) + expit(0.5)) / 2])


def test_length_is_split_and_controlled(run_dir):
    found = rows(report(run_dir).table("length"))
    plain, longer, _, shorter, _, controlled = (
        c.estimate for c in found["Anthropic Helpful", "helpful"]
    )
    assert longer.n + shorter.n == plain.n == 600
    share = (longer.value * longer.n + shorter.value * shorter.n) / 600
    assert share == pytest.approx(plain.value)
    assert controlled.low < plain.value < controlled.high, "length was not planted"
    votes = read_judge_results(run_dir / "verdicts" / "helpful--Anthropic-Helpful.parquet")
    assert list(votes.chosen_lengths[:3]) == [100, 110, 120]


def test_a_judge_of_length_is_at_the_ends_and_has_no_controlled_figure(tmp_path, write_file):
    lengths = [100 + 10 * (i % 7) for i in range(200)]
    write_file(
        "longer", "b", 200, kind="longer",
        outcome=lambda i: Outcome.CORRECT if lengths[i] > 125 else Outcome.WRONG,
    )  # fmt: skip
    (row,) = texts(report(tmp_path / "run").table("length"))
    assert [row[i][:5] for i in (3, 5, 7)] == ["100.0", "0.0 ±", "–"]


def test_thresholds_by_hand():
    votes = judge_results(
        [
            verdict("a", 2.0, -2.0, bin=Bin.SAFE_UNSAFE),
            verdict("b", -3.0, -4.0, bin=Bin.BOTH_UNSAFE),
            verdict("c", 3.0, -1.0, bin=Bin.BOTH_SAFE),
            verdict("d", 5.0, 4.0, bin=Bin.SAFE_UNSAFE),
        ]
    )
    half, low, none = detection(votes, [0.5, 0.1, 0.001])
    assert (half.recall.value, half.recall.n) == (3 / 4, 4)
    assert (half.precision.value, half.precision.n) == (3 / 4, 4)
    assert (low.recall.value, low.precision.value) == (2 / 4, 1)
    assert none.recall.value == 0
    assert none.precision is None
    assert unsafe_recall(votes) == half.recall
    assert detection(judge_results([verdict("a", 1.0, 0.0, bin=Bin.BOTH_SAFE)]), [0.5]) == []
    assert detection(judge_results([verdict("a", 1.0, 0.0)]), [0.5]) == []


def letters_of(table, column) -> dict[str, str]:
    shown = {row[0]: re.search(r"± \S+ (\w+)$", row[column]) for row in texts(table)}
    letters = {row.cells[0].value: row.cells[column].letters for row in table.rows}
    assert letters == {name: match[1] if match else "" for name, match in shown.items()}
    return {name: letter for name, letter in letters.items() if letter}


def test_judges_that_share_a_letter_were_not_told_apart(made):
    table = made.table("table-7")
    own = letters_of(table, 1 + [c.name for c in table.columns[1:]].index("Own Safety"))
    assert list(own) == ["Random", "Longer wins", "oa-deberta", "helpful", "safety"]
    assert own["safety"].startswith("a")
    assert not set(own["safety"]) & set(own["Random"])
    assert set(own["safety"]) & set(own["helpful"])
    macro = letters_of(table, len(table.columns) - 2)
    assert set(macro) == set(own), "the limit is no judge"
    assert not set(macro["safety"]) & set(macro["Random"])
    assert "Benjamini-Hochberg" in table.remarks[1]
    assert re.search(r"Own Safety \d+\.\d points", table.remarks[1])


def test_a_limit_on_every_benchmark_does_not_take_the_letters_away(run_dir):
    for path in (run_dir / "verdicts").glob("*.parquet"):
        if not path.stem.endswith("Held-out-Helpful"):
            path.unlink()
    table = report(run_dir).table("table-7")
    macro = letters_of(table, len(table.columns) - 2)
    assert list(macro) == ["Random", "Longer wins", "oa-deberta", "helpful", "safety"]


def test_a_judge_that_was_asked_something_else_has_no_letter(tmp_path, write_file):
    for judge in ("a", "b", "c"):
        write_file(judge, "bench")
    write_file("d", "bench", prefix="other")
    assert set(letters_of(report(tmp_path / "run").table("table-7"), 1)) == {"a", "b", "c"}


def test_noise_ceiling_of_comparisons_that_were_judged_more_than_once():
    rng = random.Random(0)
    many = []
    for prompt in range(300):
        for annotator in range(3):
            sides = ("yes", "no") if rng.random() < 0.8 else ("no", "yes")
            many.append(comparison(f"p{prompt}", *sides, id=f"{prompt}-{annotator}"))
    found = noise_ceiling("bench", many)
    assert found.kind == "limit"
    assert found.overall.low <= 0.8 <= found.overall.high
    assert found.overall.n == 300
    assert found.items
    assert noise_ceiling("bench", [comparison("p", rating=Rating.BETTER)]) is None
    assert noise_ceiling("bench", []) is None


def test_integer_labels_are_numbered_alike_on_both_ways():
    codes = np.array([7, 3, 3, 9])
    assert list(stats.cluster_codes(codes)) == [1, 0, 0, 2]
    assert list(stats.cluster_codes(codes * 1_000_000)) == [1, 0, 0, 2]
    assert list(stats.cluster_codes(codes - 100)) == [1, 0, 0, 2]
