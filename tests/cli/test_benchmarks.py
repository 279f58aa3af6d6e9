"""`palate judge` on benchmarks of the field."""

import json

import published
from command import one_line, palate
from palate.records import read_header


def test_a_benchmark_is_scored_beside_chance_and_trivial_judges(tmp_path):
    rows = [published.rewardbench_2("Math", str(n)) for n in range(8)]
    file = published.write_rows(tmp_path / "test.jsonl", rows)
    arguments = ("judge", "shorter", f"rewardbench-2={file}", "--partial", "--format", "json")
    done = palate(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, *_ = json.loads(done.stdout)
    assert (first["part"], first["judge"], first["chance"], first["n"]) == (
        "Score", "shorter", 0.25, 8,
    )  # fmt: skip
    kept = tmp_path / "verdicts" / "shorter--rewardbench-2.parquet"
    assert read_header(kept, "verdicts").details["named"] == "rewardbench-2"
    whole = palate(*(a for a in arguments if a != "--partial"), cwd=tmp_path)
    assert "Math has 8 of 183 items" in one_line(whole)


def test_a_mistyped_benchmark_names_the_nearest(tmp_path):
    assert "did you mean 'rewardbench-2'" in one_line(palate("judge", "first", "rewardbench2"))
    assert "no such file or folder" in one_line(palate("judge", "first", "llmbar=/nowhere"))
    assert "is on no hub" in one_line(palate("judge", "first", "rmb"))


def test_benchmarks_are_listed():
    listed = json.loads(palate("data", "benchmarks", "--format", "json").stdout)
    assert {"rewardbench", "rewardbench-2", "rm-bench"} <= {row["benchmark"] for row in listed}
