"""Two judges on the same items, by part; flips; what may not be compared."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from palate.cli import app
from palate.data.simulation import CampaignOptions, simulate
from palate.evaluate.benchmark import Benchmark
from palate.evaluate.compare import (
    compare_judges,
    facts,
    flipped_rows,
    preferred,
    verdict_files,
)
from palate.evaluate.metrics import read_judge_results
from palate.evaluate.run import evaluate
from palate.judges import open_judge
from palate.records import read_comparisons, write_comparisons
from palate.types import Bin, Comparison, PalateError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder in which trivial judges have answered a simulated safety campaign."""
    rows = simulate(CampaignOptions(task="safety", weeks=1, comparisons_per_week=300), seed=3)
    path = tmp_path / "benchmarks" / "held out.parquet"
    write_comparisons(path, rows)
    for name in ("longer", "shorter", "random"):
        evaluate(open_judge(name), Benchmark("held out", path), tmp_path / "verdicts")
    return tmp_path


def asked(run: Path) -> list[Comparison]:
    return list(read_comparisons(run / "benchmarks" / "held out.parquet"))


def test_the_whole_is_the_difference_of_both_accuracies(run: Path) -> None:
    tallies = [read_judge_results(p) for p in verdict_files(run, ("longer", "shorter"), None)]
    compared = compare_judges(*tallies, asked(run), np.random.default_rng(0))
    whole = compared.whole
    assert whole.difference.estimate.value == pytest.approx(whole.first.value - whole.second.value)
    assert whole.difference.estimate.n == 300


def test_parts_cover_all_items_and_are_adjusted_together(run: Path) -> None:
    tallies = [read_judge_results(p) for p in verdict_files(run, ("longer", "random"), None)]
    rows = [replace(c, source=f"week-{i % 2}") for i, c in enumerate(asked(run))]
    compared = compare_judges(*tallies, rows, np.random.default_rng(0))
    by = {part.by for part in compared.parts}
    assert by == {"all", "rating", "safety bin", "source", "length"}, "all prompts have one turn"
    for way in by - {"safety bin"}:  # A chosen response that alone is unsafe is in no bin.
        assert sum(p.difference.estimate.n for p in compared.parts if p.by == way) == 300
    split = compared.parts[1:]
    alone = [compare_judges(*tallies, [], np.random.default_rng(0)).whole.difference]
    assert compared.whole.difference == alone[0], "the question asked beforehand is not adjusted"
    for part in split:
        e = part.difference.estimate
        assert (part.difference.p_value < 0.05) == (e.low > 0 or e.high < 0)
    confidences = {part.difference.estimate.confidence for part in split}
    assert max(confidences) == 1 - 0.05 / len(split)
    longer = next(p for p in compared.parts if p.level == "chosen is longer")
    assert longer.first.value == 1, "the judge of length is right wherever the longer was chosen"


def test_ratings_stand_in_their_order_not_in_that_of_their_names(run: Path) -> None:
    tallies = [read_judge_results(p) for p in verdict_files(run, ("longer", "random"), None)]
    compared = compare_judges(*tallies, asked(run), np.random.default_rng(0))
    levels = [part.level for part in compared.parts if part.by == "rating"]
    assert levels == ["significantly", "better", "slightly", "negligibly"]
    bins = [part.level for part in compared.parts if part.by == "safety bin"]
    assert bins == [bin.value for bin in Bin if bin.value in bins]
    by_length = [part.level for part in compared.parts if part.by == "length"]
    assert by_length == sorted(by_length)


def test_flips_are_the_items_answered_differently_with_their_texts(run: Path) -> None:
    tallies = [read_judge_results(p) for p in verdict_files(run, ("longer", "random"), None)]
    compared = compare_judges(*tallies, asked(run), np.random.default_rng(0))
    one, two = (dict(zip(t.ids, t.values, strict=True)) for t in tallies)
    assert {f.id for f in compared.flips} == {i for i in one if one[i] != two[i]}
    rows = {row["id"]: row for row in flipped_rows(compared, asked(run))}
    for flip in compared.flips:
        assert rows[flip.id]["preferred_by_longer"] == preferred(one[flip.id])
        assert rows[flip.id]["chosen"]


def test_without_comparisons_there_is_only_the_whole(run: Path) -> None:
    tallies = [read_judge_results(p) for p in verdict_files(run, ("longer", "random"), None)]
    compared = compare_judges(*tallies, [], np.random.default_rng(0))
    assert [part.by for part in compared.parts] == ["all"]


def test_what_is_not_there_is_named_with_what_is(run: Path) -> None:
    with pytest.raises(PalateError, match=r"no verdicts of 'lnger' on .*'longer' on 'held out'"):
        verdict_files(run, ("lnger", "random"), None)
    with pytest.raises(PalateError, match="holds no verdicts; make them"):
        verdict_files(run / "none", ("longer", "random"), None)


def test_parts_of_one_comparison(run: Path) -> None:
    comparison = asked(run)[0]
    found = facts(comparison)
    assert found["source"] == "simulated-safety"
    assert found["turns of the prompt"] == "1"
    longer = len(comparison.chosen) > len(comparison.rejected)
    assert found["length"] == ("chosen is longer" if longer else "rejected is longer")


def test_command_prints_parts_and_writes_flips(run: Path) -> None:
    out = run / "flips.jsonl"
    arguments = ["compare", "longer", "random", "--run", str(run), "--format", "json"]
    found = CliRunner().invoke(app, [*arguments, "--flips", str(out)])
    assert found.exit_code == 0, found.output
    rows = json.loads(found.stdout)
    assert rows[0]["by"] == "all"
    assert rows[0]["n"] == 300
    assert {"longer", "random", "difference", "low", "high", "p", "p_holm"} <= rows[0].keys()
    assert all((row["p"] is None) != (row["p_holm"] is None) for row in rows), "one p a row"
    assert (rows[0]["p_holm"], rows[1]["p"]) == (None, None)
    assert f"{len(out.read_text().splitlines())} items were answered differently" in found.stderr


def test_command_compares_two_files_and_refuses_what_is_no_file(run: Path) -> None:
    files = [str(p) for p in verdict_files(run, ("longer", "random"), None)]
    assert CliRunner().invoke(app, ["compare", *files]).exit_code == 0
    found = CliRunner().invoke(app, ["compare", "longer", "random"])
    assert isinstance(found.exception, PalateError)
    assert "no such verdict file" in str(found.exception)
