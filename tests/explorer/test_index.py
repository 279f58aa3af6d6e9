"""A run as columns, beside what the rest of Palate reads from the same files."""

import numpy as np
import pytest

from older import downgrade
from palate.evaluate.results import read_judge_results
from palate.explorer.index import OUTCOMES, open_index, read_item
from palate.explorer.run import OpenRun
from palate.records import read_comparisons, write_comparisons
from palate.types import PalateError


def test_items_are_the_rows_of_all_files_in_order(opened, saved_run):
    index = opened.index
    assert [(p.name, p.rows) for p in index.parts] == [("exam", 60), ("all (mixture)", 40)]
    rows = [*read_comparisons(saved_run / "benchmarks/exam.parquet")]
    rows += read_comparisons(saved_run / "mixtures/all.parquet")
    assert index.size == len(rows) == 100
    for number in (0, 1, 59, 60, 99):
        assert read_item(index, number).row == rows[number]
    for name, value in (("source", lambda c: c.source), ("bin", lambda c: c.bin)):
        facet = index.facets[name]
        values = [facet.names[code] if code >= 0 else None for code in facet.codes]
        assert values == [value(row) for row in rows]
    ratings = index.facets["rating"]
    assert ratings.names == ("significantly", "better", "slightly", "negligibly")
    values = [ratings.names[code] if code >= 0 else None for code in ratings.codes]
    assert values == [row.rating.label if row.rating else None for row in rows]


@pytest.mark.parametrize("judge", ["helpful", "chat"])
def test_pitfall_26_a_judge_is_read_as_the_tables_read_it(opened, saved_run, judge):
    """In one order and in both, where the second counts for half and not for one more item."""
    votes = read_judge_results(saved_run / "verdicts" / f"{judge}--exam.parquet")
    opinions = opened.index.judges[judge]
    codes = {1.0: "correct", 0.0: "wrong", 0.5: "tie"}
    expected = ["unscored" if np.isnan(v) else codes[float(v)] for v in votes.values]
    assert [OUTCOMES[code] for code in opinions.outcomes[:60]] == expected
    assert {"correct", "wrong", "tie"} <= set(expected)
    assert set(opinions.outcomes[60:]) == {0}
    margins = votes.chosen_scores - votes.rejected_scores
    known = ~np.isnan(margins)
    np.testing.assert_allclose(opinions.margins[:60][known], margins[known], atol=1e-6)


def test_trivial_judges_come_last_and_are_known_by_their_protocol(opened):
    assert list(opened.index.judges) == ["chat", "helpful", "safe", "longer"]
    assert [o.trivial for o in opened.index.judges.values()] == [False, False, False, True]


def test_verdicts_of_an_earlier_format_are_read(run):
    downgrade(run / "verdicts/helpful--exam.parquet")
    index = open_index(run)
    assert not index.problems
    (verdict,) = read_item(index, 4).verdicts["helpful"]
    assert (verdict.answer, verdict.margin) == ("", index.judges["helpful"].margins[4])


def test_what_cannot_be_read_is_named_and_the_rest_is_shown(run):
    (run / "verdicts/safe--exam.parquet").write_bytes(b"PAR1 nonsense")
    (run / "benchmarks/broken.parquet").write_bytes(b"")
    (run / "verdicts/helpful--exam.parquet").rename(run / "verdicts/one.parquet")
    (run / "verdicts/two.parquet").write_bytes((run / "verdicts/one.parquet").read_bytes())
    index = open_index(run)
    assert set(index.judges) == {"chat", "helpful", "longer"}
    problems = "\n".join(index.problems)
    for name in ("safe--exam.parquet", "broken.parquet", "two.parquet"):
        assert name in problems
    assert len(index.problems) == 3


def test_damage_behind_a_whole_header_costs_that_file_alone(run):
    path = run / "verdicts/safe--exam.parquet"
    data = bytearray(path.read_bytes())
    data[4:400] = bytes(396)  # The pages of its columns; the footer is whole.
    path.write_bytes(data)
    index = open_index(run)
    assert set(index.judges) == {"chat", "helpful", "longer"}
    assert "safe--exam.parquet" in index.problems[0]


def test_a_folder_without_comparisons_says_what_to_do(tmp_path):
    with pytest.raises(PalateError, match="make them with `palate run`"):
        open_index(tmp_path)


def test_looking_writes_nothing_to_the_run(run, browse):
    before = sorted((p, p.stat().st_mtime_ns) for p in run.rglob("*"))
    browser = browse(OpenRun(run))
    for page in ("", "?q=bread", "item/3", "marks", "?marked=yes"):
        assert browser.get(f"/r/0/{page}").status_code == 200
    assert sorted((p, p.stat().st_mtime_ns) for p in run.rglob("*")) == before


def test_a_file_replaced_under_the_explorer_is_noticed(run):
    index = open_index(run)
    rows = list(read_comparisons(run / "benchmarks/exam.parquet"))
    write_comparisons(run / "benchmarks/exam.parquet", rows[::-1])
    with pytest.raises(PalateError, match="start `palate view` again"):
        read_item(index, 2)
