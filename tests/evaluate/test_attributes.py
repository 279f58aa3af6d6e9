"""What heads say of held-out responses: in verdicts, in files of scores, in the report's table."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from palate.evaluate.benchmark import Benchmark
from palate.evaluate.metrics import read_judge_results
from palate.evaluate.run import evaluate, record_from, verdict_of
from palate.evaluate.scoring import rank_file, score_file
from palate.judges import ScorerJudge
from palate.records import read_verdicts, write_comparisons
from palate.report import report
from palate.types import Candidates, Comparison, Message, Score


class Heads:
    """The reward is a response's number, and so is what its head says, a little off."""

    name, protocol, attributes = "heads", {"judge": "heads"}, ("size",)

    def score(self, candidates: Iterable[Candidates]) -> Iterator[tuple[Score, ...]]:
        for shown in candidates:
            yield tuple(
                Score(float(text), attributes={"size": float(text) + 0.25})
                if text != "?"
                else Score(None, "too long")
                for text in shown.responses
            )


@pytest.fixture
def benchmark(tmp_path: Path) -> Benchmark:
    rng, rows = np.random.default_rng(0), []
    for n in range(60):
        high, low = sorted(rng.normal(size=2).round(4).tolist(), reverse=True)
        rated = {"chosen_attributes": {"size": high, "other": 1.0}} if n % 3 else {}
        prompt, texts = (Message("user", f"{n // 2}?"),), (str(high), str(low))
        low_size = {"rejected_attributes": {"size": low}}
        rows.append(Comparison(f"i{n}", "s", prompt, *texts, f"p{n // 2}", **rated, **low_size))
    rows.append(replace(rows[-1], id="again", rejected="-9", rejected_attributes={}))
    (tmp_path / "benchmarks").mkdir()
    write_comparisons(tmp_path / "benchmarks" / "b.parquet", rows)
    return Benchmark("b", tmp_path / "benchmarks" / "b.parquet")


@pytest.mark.parametrize("order", ["seeded", "both"])
def test_verdicts_hold_what_was_rated_beside_what_was_said(
    benchmark: Benchmark, tmp_path: Path, order: str
) -> None:
    path = evaluate(ScorerJudge(Heads()), benchmark, tmp_path / "verdicts", order=order)
    verdicts = list(read_verdicts(path))
    for verdict in verdicts:
        for rated in verdict.attributes:
            assert (rated.name, rated.predicted) == ("size", pytest.approx(rated.rated + 0.25))
    assert {len(v.attributes) for v in verdicts} == {1, 2}
    items = {i.pair.id: i for i in benchmark.items(0, order)}
    details = {"judge": "heads", "benchmark": "b", "protocol_fingerprint": verdicts[0].protocol}
    for item, verdict in zip(items.values(), verdicts, strict=True):
        assert verdict_of(item, record_from(verdict), details) == verdict
    results = read_judge_results(path)
    assert results.attributes.keys() == {"size"}
    assert results.attributes["size"].rated.size == 100, "each response once"


def test_the_report_has_error_and_correlations_of_each_head(
    benchmark: Benchmark, tmp_path: Path
) -> None:
    evaluate(ScorerJudge(Heads()), benchmark, tmp_path / "verdicts")
    (row,) = report(tmp_path).table("attributes").records()
    assert (row["Attribute"].value, row["Responses"].value) == ("size", 100)
    assert row["Error"].value.value == pytest.approx(0.25)
    assert row["Error of the mean"].value > 0.5
    assert row["Pearson"].value is None or row["Pearson"].value.value > 0.999
    assert row["Spearman"].value is None or row["Spearman"].value.value > 0.999


def test_scored_files_have_the_attributes_and_others_do_not(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "response": "1"}, {"prompt": "b", "responses": ["2", "?"]}]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = score_file(Heads(), path, tmp_path / "out.jsonl")
    one, many = map(json.loads, out.read_text().splitlines())
    assert (one["reward"], one["reward_attributes"]) == (1, {"size": 1.25})
    assert many["rewards_attributes"] == [{"size": 2.25}, None]
    pq.write_table(pa.Table.from_pylist(rows[:1]), tmp_path / "in.parquet")
    score_file(Heads(), tmp_path / "in.parquet", tmp_path / "out.parquet")
    (row,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert row["reward_attributes"] == {"size": 1.25}
    path.write_text(json.dumps(rows[1]) + "\n")
    rank_file(Heads(), path, tmp_path / "ranked.jsonl")
    assert "rewards_attributes" not in json.loads((tmp_path / "ranked.jsonl").read_text())
