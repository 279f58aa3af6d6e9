"""Two judges on the same items, by part; flips; what may not be compared."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import published
from palate.cli import app
from palate.data.benchmarks import import_benchmark
from palate.data.simulation import CampaignOptions, simulate
from palate.data.sources.base import Request
from palate.evaluate.benchmark import Benchmark
from palate.evaluate.compare import (
    by_chance,
    compare_judges,
    facts,
    flipped_rows,
    preferred,
    verdict_files,
)
from palate.evaluate.metrics import read_judge_results
from palate.evaluate.run import evaluate
from palate.evaluate.scores import read_score
from palate.judges import open_judge
from palate.records import (
    read_benchmark_items,
    read_comparisons,
    write_comparisons,
    write_items,
)
from palate.types import BenchmarkItem, Bin, Comparison, Message, PalateError


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
    with pytest.raises(PalateError, match=r"no verdicts of 'lnger'; it has 'longer' on 'held out'"):
        verdict_files(run, ("lnger", "random"), None)
    with pytest.raises(PalateError, match="none: no such folder of a run"):
        verdict_files(run / "none", ("longer", "random"), None)
    with pytest.raises(PalateError, match="holds no verdicts; `palate judge JUDGE FILES --out"):
        verdict_files(run / "benchmarks", ("longer", "random"), None)
    # A folder that `palate judge` filled is read as a run's is.
    judged = run / "verdicts"
    assert verdict_files(judged, ("longer",), None) == [judged / "longer--held-out.parquet"]
    other = Benchmark("other", run / "benchmarks" / "held out.parquet")
    for name in ("longer", "shorter"):
        evaluate(open_judge(name), other, judged)
    with pytest.raises(PalateError, match="expected --benchmark, one of held out, other"):
        verdict_files(run, ("longer", "shorter"), None)
    assert len(verdict_files(run, ("longer", "random"), None)) == 2
    (judged / "random--held-out.parquet").unlink()
    evaluate(open_judge("first"), other, judged)
    (judged / "longer--other.parquet").unlink()
    with pytest.raises(PalateError, match="'longer' and 'first' have no benchmark in common"):
        verdict_files(run, ("longer", "first"), None)


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
    same = CliRunner().invoke(app, ["compare", files[0], files[0]])
    assert "given twice" in str(same.exception)
    # Of two files of one judge each is named by its file: a column would replace the other.
    again = run / "again" / "longer--held-out.parquet"
    evaluate(
        open_judge("longer"),
        Benchmark("held out", run / "benchmarks" / "held out.parquet"),
        again.parent,
    )
    found = CliRunner().invoke(app, ["compare", files[0], str(again), "--format", "json"])
    row = json.loads(found.stdout)[0]
    assert row[files[0]] == row[str(again)] > 0
    found = CliRunner().invoke(app, ["compare", "longer", "random"])
    assert isinstance(found.exception, PalateError)
    assert "no such verdict file" in str(found.exception)


# Items of K.


@pytest.fixture
def items(tmp_path: Path) -> Path:
    """Verdicts of trivial judges on 80 items of four: in half of them the right one is longest."""
    rows = [
        published.rewardbench_2("Math" if n % 2 else "Focus", str(n))
        | {"prompt": f"Question {n // 2}?", "chosen": [f"right {n}" + " so" * (5 * (n % 4 < 2))]}
        for n in range(80)
    ]
    path = tmp_path / "benchmarks" / "rewardbench-2.parquet"
    file = published.write_rows(tmp_path / "test.json", rows)
    import_benchmark("rewardbench-2", path, Request(file), partial=True)
    for name in ("longer", "shorter", "random", "first"):
        evaluate(open_judge(name), Benchmark("rewardbench-2", path), tmp_path)
    return tmp_path


def test_two_judges_on_items_of_four_by_their_share_of_right_answers(items: Path) -> None:
    paths = [items / f"{name}--rewardbench-2.parquet" for name in ("longer", "random")]
    longer, random = map(read_judge_results, paths)
    rows = list(read_benchmark_items(items / "benchmarks" / "rewardbench-2.parquet"))
    scores = tuple(map(read_score, paths))
    compared = compare_judges(longer, random, rows, np.random.default_rng(0), scores)
    whole, own, *parts = compared.parts
    assert (whole.first.value, whole.chance, whole.difference.estimate.n_clusters) == (
        0.5,
        0.25,
        40,
    )
    assert whole.difference.estimate.value == np.mean(longer.values - random.values)
    # Two subsets of one size: the mean of subsets is the mean of items, and its test the same.
    assert (own.by, own.level, own.chance) == ("its own score", "Score", 0.25)
    assert own.difference.estimate.value == pytest.approx(whole.difference.estimate.value)
    levels = {(part.by, part.level): part.first.value for part in parts}
    assert levels["length", "a right one is longest"] == 1
    assert levels["source", "Math"] == 0.5
    assert {part.by for part in parts} == {"source", "length"}, "all have four, one is right"
    assert max(p.difference.estimate.confidence for p in parts) == 1 - 0.05 / len(parts)


def test_a_judge_against_chance(items: Path) -> None:
    results = read_judge_results(items / "longer--rewardbench-2.parquet")
    compared = compare_judges(results, by_chance(results), [], np.random.default_rng(0))
    difference = compared.whole.difference
    assert (difference.estimate.value, difference.estimate.low > 0) == (0.25, True)
    shorter = read_judge_results(items / "shorter--rewardbench-2.parquet")
    compared = compare_judges(shorter, by_chance(shorter), [], np.random.default_rng(0))
    assert compared.whole.first.value == 0.5


def test_items_without_a_score_are_counted_and_in_no_difference(items: Path) -> None:
    first, second = (
        read_judge_results(items / f"{name}--rewardbench-2.parquet") for name in ("longer", "first")
    )
    values = first.values.copy()
    values[:3] = np.nan
    compared = compare_judges(replace(first, values=values), second, [], np.random.default_rng(0))
    assert (compared.unscored, compared.whole.difference.estimate.n) == ((3, 0), 77)
    assert {f.first for f in compared.flips[:3]} == {"unscored"}


def test_parts_of_one_item() -> None:
    turns = ((Message("user", "Go?"), Message("assistant", "x"), Message("user", "On?")),) * 2
    item = BenchmarkItem(
        "i", "hard", (Message("user", "Hi?"),), ("aa", "b"), (1, 0), "p", turns=turns
    )
    assert facts(item) == {
        "source": "hard",
        "number of responses": "2",
        "right responses": "one",
        "turns of the prompt": "4 to 5",
        "length": "a wrong one is longest",
    }
    many = BenchmarkItem("i", "s", (Message("user", "Hi?"),), ("a",) * 9, (0, 0, *(1,) * 7), "p")
    assert facts(many)["number of responses"] == "more than 8"
    assert facts(many)["right responses"] == "several"
    assert facts(many)["length"] == "right and wrong are as long"


def test_command_compares_items_with_each_other_and_with_chance(items: Path) -> None:
    paths = [str(items / f"{name}--rewardbench-2.parquet") for name in ("longer", "first")]
    out = items / "flips.jsonl"
    found = CliRunner().invoke(app, ["compare", *paths, "--format", "json", "--flips", str(out)])
    assert found.exit_code == 0, found.output
    whole, own, *parts = json.loads(found.stdout)
    assert (whole["chance"], own["by"], own["p"] is None) == (25.0, "its own score", False)
    assert parts, "the items that stand beside the verdicts give the parts"
    flips = [json.loads(line) for line in out.read_text().splitlines()]
    assert f"{len(flips)} items were answered differently" in found.stderr
    for flip in flips:
        top = max(flip["scores_of_longer"])
        right = flip["places"][flip["scores_of_longer"].index(top)] == 0
        assert flip["answer_of_longer"] == ("right" if right else "wrong")
        assert len(flip["responses"]) == 4
    found = CliRunner().invoke(app, ["compare", paths[0], "chance", "--format", "json"])
    assert found.exit_code == 0, found.output
    whole, own, *_ = json.loads(found.stdout)
    assert (whole["longer"], whole["chance"], whole["difference"]) == (50.0, 25.0, 25.0)
    assert (own["chance"], own["difference"]) == (25.0, 25.0)
    found = CliRunner().invoke(app, ["compare", "chance", paths[0]])
    assert str(found.exception) == "chance: is B alone; give the judge first, as A"


def test_texts_that_are_not_what_was_judged_are_refused(items: Path) -> None:
    paths = [str(items / f"{name}--rewardbench-2.parquet") for name in ("longer", "first")]
    other = items / "other.parquet"
    rows = list(read_benchmark_items(items / "benchmarks" / "rewardbench-2.parquet"))
    write_items(other, rows[:70])
    found = CliRunner().invoke(app, ["compare", *paths, "--items", str(other)])
    assert isinstance(found.exception, PalateError)
    said = str(found.exception)
    assert "hold 70 of the 80 items that 'longer' was asked on 'rewardbench-2'" in said
    assert "give the file that was judged" in said
