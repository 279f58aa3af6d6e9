"""`make bench-statistics` in small: intervals and tests on simulated truth, a report of a run."""

import numpy as np
import pytest
from benchmarks.statistics import scale, simulate


def rng():
    return np.random.default_rng(0)


def test_intervals_hold_the_truth_as_often_as_they_say():
    assert simulate.mean(simulate.coverage_wilson(rng(), 2_000)) == pytest.approx(0.95, abs=0.015)
    assert simulate.mean(simulate.coverage_clustered(rng(), 400)) == pytest.approx(0.95, abs=0.025)


def test_equal_judges_are_told_apart_as_seldom_as_the_level_says():
    found = simulate.false_positive_paired(rng(), 150)
    assert len(found) == 6
    assert 0.02 < simulate.mean(found) < 0.075
    assert simulate.farthest(found, 0.05) < 0.12


def test_planted_biases_are_found_and_others_are_not():
    assert simulate.position_found(rng(), 100, 0.3) > 0.9
    assert simulate.position_found(rng(), 200, 0.0) < 0.11
    controlled, plain = simulate.length_held(rng(), 40, 1.5)
    assert controlled >= 0.85
    assert plain < 0.6


def test_the_large_run_in_small(tmp_path):
    scale.make_run(tmp_path / "run", 200, 4)
    first = (tmp_path / "run" / "size.json").stat().st_mtime_ns
    scale.make_run(tmp_path / "run", 200, 4)
    assert (tmp_path / "run" / "size.json").stat().st_mtime_ns == first
    seconds, tables = scale.seconds_of_report(tmp_path / "run")
    assert seconds > 0
    named = {"table-7", "table-8", "table-29", "table-29-thresholds", "differences", "length"}
    named |= {"calibration", "reliability", "outcomes", "verdict", "parts", "gaps"}
    assert set(tables) == named


def test_a_share_corrected_for_its_judge_holds_its_level():
    corrected, beside = simulate.coverage_judge_corrected(rng(), 100)
    assert simulate.mean(corrected) == pytest.approx(0.95, abs=0.045)
    own = [value for name, value in beside.items() if "uncorrected" in name]
    assert min(own) < 0.1, "the judge's own share misses it"
    assert max(value for name, value in beside.items() if "refused" in name) < 0.08


def test_best_of_k_in_subsets_holds_its_level(monkeypatch):
    monkeypatch.setattr(simulate, "BEST_OF_K", ((20, 40),))
    assert simulate.mean(simulate.coverage_best_of_k(rng(), 200)) == pytest.approx(0.95, abs=0.04)
    assert simulate.mean(simulate.false_positive_best_of_k(rng(), 150)) < 0.1


def test_what_is_said_of_items_of_four_in_small(tmp_path):
    scale.make_run(tmp_path / "run", 200, 4, scale.verdicts_of_four)
    seconds, figures = scale.seconds_of_scores(tmp_path / "run")
    assert seconds > 0
    assert figures == 4 * (1 + len(scale.SUBSETS))
