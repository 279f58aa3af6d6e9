"""The table of judges where people tied or were split."""

import json

import numpy as np
import pytest

from palate.evaluate.benchmark import Benchmark
from palate.evaluate.metrics import noise_ceiling, write_results
from palate.evaluate.run import evaluate
from palate.judges import open_judge
from palate.records import write_comparisons
from palate.report import report, write_page
from palate.types import Comparison, Judgement, Message, Preference


class Scored:
    """Gives each response the number that it is."""

    name, protocol = "scored", {"judge": "scored"}

    def judge(self, pairs):
        for pair in pairs:
            first, second = float(pair.first), float(pair.second)
            yield Preference(pair.id, "first" if first > second else "second", first, second)


def items(count, gap_of_ties, seed=0):
    """Items of which a third are ties, whose responses differ by `gap_of_ties`, the others by 2."""
    rng, rows = np.random.default_rng(seed), []
    for n in range(count):
        gap = gap_of_ties if n % 3 == 0 else 2.0
        first = float(rng.normal())
        votes = Judgement(chosen=0, tie=3) if n % 3 == 0 else Judgement(chosen=2, rejected=1)
        prompt = (Message("user", f"{seed}: {n}?"),)
        texts = f"{first:.6f}", f"{first - gap:.6f}"
        rows.append(Comparison(f"i{seed}-{n}", "s", prompt, *texts, f"p{n}", judgement=votes))
    return rows


@pytest.fixture
def run(tmp_path):
    """120 items of which a third are ties, scored close together; and what was kept of a run."""
    rows = items(120, 0.1)
    (tmp_path / "benchmarks").mkdir()
    write_comparisons(tmp_path / "benchmarks" / "b.parquet", rows)
    benchmark = Benchmark("b", tmp_path / "benchmarks" / "b.parquet")
    for judge in (Scored(), open_judge("longer")):
        evaluate(judge, benchmark, tmp_path / "verdicts")
    limits = [noise_ceiling("b", rows)]
    write_results(tmp_path / "results" / "b.json", [one for one in limits if one])
    return tmp_path


def test_ties_are_found_by_a_threshold_and_votes_by_a_temperature(run):
    made = report(run)
    by_judge = {row["Judge"].value: row for row in made.table("ties").records()}
    row = by_judge["scored"]
    assert [row[name].value for name in ("Items", "Decided", "Ties")] == [120, 80, 40]
    assert row["Accuracy"].value.value == row["Tie-aware"].value.value == 1
    assert 0.1 < row["Threshold"].value < 2
    assert row["With a vote"].value.value == pytest.approx(2 / 3)
    # sigmoid(2 / T) = 2 / 3 where T = 2 / log 2; ties hardly move it.
    assert row["Temperature"].value == pytest.approx(2 / np.log(2), rel=0.02)
    assert row["Log-likelihood"].value.value == pytest.approx(-0.655, abs=0.005)
    # Annotators who all tie on the one difference and are split on the other have no threshold.
    assert row["Tie ECE"].value.n == 120
    assert row["Tie ECE"].value.low > 3 * row["by luck"].value
    assert by_judge["Longer wins"]["Threshold"].value is None
    assert by_judge["Longer wins"]["Tie ECE"].value is None
    outcomes = made.table("outcomes").records()
    assert {row["Undecided"].value for row in outcomes} == {40}
    assert "Ties and votes" in write_page(made).read_text(encoding="utf-8")


def test_the_threshold_of_a_model_is_that_of_its_other_held_out_sets(run):
    """Ties of `b` are 0.1 apart and those of `held-out` 1: its threshold is at 1.5 for both."""
    for name, rows in {
        "held-out": items(90, 1.0, seed=1),
        "no ties": [row for row in items(90, 1.0, seed=2) if row.judgement.decides == "chosen"],
    }.items():
        write_comparisons(run / "benchmarks" / f"{name}.parquet", rows)
        evaluate(
            Scored(), Benchmark(name, run / "benchmarks" / f"{name}.parquet"), run / "verdicts"
        )

    def by_benchmark():
        table = report(run).table("ties")
        rows = [row for row in table.records() if row["Judge"].value == "scored"]
        return {row["Benchmark"].value: row["Threshold"] for row in rows}

    assert [one.notes for one in by_benchmark().values()] == [()] * 3
    (run / "train" / "scored").mkdir(parents=True)
    logged = [
        {"step": 1, "epoch": 1.0, "eval": {"name": name, "accuracy": 1.0, "loss": 0.1, "n": 90}}
        for name in ("held-out", "no ties")
    ]
    lines = "".join(json.dumps(line) + "\n" for line in logged)
    (run / "train" / "scored" / "metrics.jsonl").write_text(lines)
    found = by_benchmark()
    assert found["b"].value == pytest.approx(1.5, abs=1e-5)
    assert found["b"].notes == ("threshold of 90 items, 30 of them ties, of held-out",)
    assert found["held-out"].notes == ()  # By folds: nothing else that was held out has ties.
    assert "30 of them ties, of held-out" in write_page(report(run)).read_text(encoding="utf-8")
