"""Items on which annotators tied: in no accuracy, counted, and judged without a loss of answers."""

from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from palate.evaluate.benchmark import Benchmark, majority_first
from palate.evaluate.metrics import (
    Counts,
    bayes_limit,
    judge_benchmark,
    read_judge_results,
)
from palate.evaluate.run import evaluate, record_from, record_of, verdict_of
from palate.judges import open_judge
from palate.records import read_verdicts, verdict_from_row, write_comparisons
from palate.types import Comparison, Judgement, Message, Outcome, Preference


def comparison(number: int, chosen: str, rejected: str, judgement: Judgement) -> Comparison:
    prompt = (Message("user", f"Question {number}?"),)
    return Comparison(
        f"i{number}", "s", prompt, chosen, rejected, f"p{number}", judgement=judgement
    )


TIE = Judgement(chosen=0, tie=1)
SPLIT = Judgement(chosen=2, rejected=1)
ROWS = [
    comparison(0, "long one", "short", Judgement()),
    comparison(1, "long one", "short", TIE),
    comparison(2, "short", "long one", SPLIT),
    comparison(3, "long one", "short", Judgement(chosen=1, rejected=2)),
    comparison(4, "same", "size", Judgement(chosen=1, rejected=1)),
    comparison(5, "short", "long one", Judgement(chosen=0, both_bad=1)),
]


@pytest.fixture
def benchmark(tmp_path):
    write_comparisons(tmp_path / "b.parquet", ROWS)
    return Benchmark("b", tmp_path / "b.parquet")


def test_accuracy_is_of_decided_items_and_ties_are_counted_apart(benchmark, tmp_path):
    result = judge_benchmark(open_judge("longer"), benchmark, tmp_path)
    assert result.counts == Counts(1, 2, 0, {}, truncated=0, undecided=3)
    assert (result.counts.decided, result.counts.items) == (3, 6)
    assert (result.overall.n, result.overall.value) == (3, 1 / 3)


def test_a_verdict_keeps_the_votes_and_the_answer_of_an_undecided_item(benchmark, tmp_path):
    verdicts = list(read_verdicts(evaluate(open_judge("longer"), benchmark, tmp_path)))
    tied = {v.comparison_id: v for v in verdicts if v.outcome is Outcome.UNDECIDED}
    preferred = {name: v.preferred for name, v in tied.items()}
    assert preferred == {"i1": "chosen", "i4": "tie", "i5": "rejected"}
    assert verdicts[2].judgement == SPLIT
    assert verdicts[2].preferred is None
    # Most preferred the other response of the fourth item: that one is the chosen one here.
    assert verdicts[3].judgement == SPLIT


@pytest.mark.parametrize("choice", ["first", "second", "tie", None])
@pytest.mark.parametrize("judgement", [Judgement(), TIE])
def test_a_record_comes_back_from_its_verdict(benchmark, choice, judgement):
    details = {"judge": "j", "benchmark": "b", "protocol_fingerprint": "p"}
    for item in benchmark.items(order="both"):
        asked = replace(item, comparison=replace(item.comparison, judgement=judgement))
        record = record_of("j", Preference("x", choice, reason="" if choice else "empty"))
        assert record_from(verdict_of(asked, record, details)) == record


def test_results_hold_all_items_beside_the_decided(benchmark, tmp_path):
    results = read_judge_results(evaluate(open_judge("longer"), benchmark, tmp_path, order="both"))
    assert results.ids.tolist() == ["i0", "i2", "i3"]
    assert results.undecided == 3
    assert results.judgements.answers.tolist() == [1, 1, 0, 0, 0.5, 0]
    assert results.judgements.shares[2].tolist() == [2 / 3, 0, 1 / 3]
    assert results.one_order().judgements.answers.tolist() == [1, 1, 0, 0, 0.5, 0]


def test_plain_verdicts_have_the_rows_of_before(make_benchmark, tmp_path):
    path = evaluate(open_judge("longer"), make_benchmark(6), tmp_path / "v")
    table = pq.read_table(path)
    assert table["judgement"].null_count == table["preferred"].null_count == 6
    assert read_judge_results(path).judgements is None
    row = {k: v for k, v in table.to_pylist()[0].items() if k not in ("judgement", "preferred")}
    assert verdict_from_row(row) == next(iter(read_verdicts(path)))


def test_the_majority_is_the_chosen_side():
    turned = majority_first(replace(ROWS[3], chosen_safe=True, rejected_safe=False))
    assert (turned.chosen, turned.chosen_safe, turned.judgement) == ("short", False, SPLIT)
    assert majority_first(ROWS[1]) is ROWS[1]


def test_a_limit_leaves_ties_out():
    rows = [replace(ROWS[0], id=f"d{n}", meta={"bayes": 0.8}) for n in range(3)]
    tied = replace(ROWS[1], meta={"bayes": 0.5})
    assert bayes_limit("b", [*rows, tied]).overall.n == 3
    assert bayes_limit("b", [tied]) is None
