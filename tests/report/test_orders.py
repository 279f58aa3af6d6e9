"""Judges that see both sides, judges that are absent, a benchmark of one row: in every table."""

import csv
import io
from pathlib import Path

import pytest

from made import pool
from palate.evaluate.benchmark import Benchmark, order_for
from palate.evaluate.run import FILE, evaluate, read_skipped, write_skipped
from palate.judges import open_judge
from palate.report import report
from palate.report.render import texts
from palate.types import PalateError, Preference


class Letter:
    """Answers A to every pair."""

    sees_both = True
    name, protocol = "letter", {"judge": "letter"}

    def judge(self, pairs):
        return (Preference(pair.id, "first", answer="A") for pair in pairs)


def judged(folder: Path, rows: int) -> Path:
    """A run in which three judges were asked, each in the order that is its own."""
    benchmark = Benchmark("asked", pool(folder / "asked.parquet", rows, "asked"))
    for judge in (Letter(), open_judge("longer"), open_judge("random")):
        order = order_for(judge, "auto")
        evaluate(judge, benchmark, folder / "run" / "verdicts", order=order)
    return folder / "run"


def by_judge(table) -> dict[str, list[str]]:
    return {judge: figures for _, judge, *figures in texts(table)}


def test_pitfall_26_one_order_both_consistency_and_position_stand_side_by_side(tmp_path):
    made = report(judged(tmp_path, 40))
    table = made.table("orders")
    rows = by_judge(table)
    assert list(rows) == ["letter"], "the others were asked in one order"
    one, both, items, consistent, first = rows["letter"]
    assert (both[:5], items, consistent[:4], first[:6]) == ("50.0 ", "40", "0.0 ", "100.0 ")
    shown = zip(table.rows[0].cells, texts(table)[0], strict=True)
    assert all(cell.estimate for cell, text in shown if "±" in text)
    assert one != both
    assert (made.run_dir / "tables" / "orders.md").is_file()


def test_pitfall_28_a_judge_of_both_orders_is_tested_in_the_one_that_it_shares(tmp_path):
    made = report(judged(tmp_path, 40))
    table = made.table("differences")
    (row,) = table.rows
    assert row.cells[1].value == "letter"
    assert table.notes() == ["in the seeded order alone: one of the two was not asked in both"]
    assert "order of sides both, most of the column seeded" in made.table("table-7").notes()


def test_a_run_of_one_order_has_no_table_of_orders(made):
    assert made.table("orders") is None


def test_a_benchmark_of_one_row(tmp_path):
    made = report(judged(tmp_path, 1))
    assert by_judge(made.table("orders"))["letter"][2] == "1"
    assert made.table("differences") is None, "of one prompt no spread is known"
    rows = {row.cells[0].value: row.cells[1] for row in made.table("table-7").rows}
    assert rows["Longer wins"].estimate.n == 1
    (text,) = [shown for name, shown, *_ in texts(made.table("table-7")) if name == "letter"]
    assert text.startswith("50.0 ± ")
    assert rows["letter"].estimate.low < 0.1
    assert rows["letter"].estimate.high > 0.9


def test_an_absent_judge_is_a_row_without_figures_and_with_its_reason(run_dir):
    before = report(run_dir).table("table-7")
    reason = "gpt-4: no key; set OPENAI_API_KEY\x1b[2J | <b>&"
    write_skipped(run_dir / "verdicts", {"gpt-4": reason})
    table = report(run_dir).table("table-7")
    assert len(table.rows) == len(before.rows) + 1
    row = next(row for row in table.rows if row.cells[0].value == "gpt-4")
    assert row.group == "foreign"
    assert set(texts(table)[table.rows.index(row)][1:]) == {"–"}
    assert not any(cell.estimate for cell in row.cells)
    assert row.cells[1].notes == ("missing: gpt-4: no key; set OPENAI_API_KEY [2J | <b>&",)
    markdown = (run_dir / "tables" / "table-7.md").read_text()
    assert "missing: gpt-4: no key; set OPENAI" in markdown
    assert "<b>" not in markdown
    rows = csv.DictReader(io.StringIO((run_dir / "tables" / "table-7.csv").read_text()))
    (found,) = [row for row in rows if row["Judge"] == "gpt-4"]
    assert {found[f"Own Safety{end}"] for end in ("", " low", " high", " n")} == {""}
    write_skipped(run_dir / "verdicts", {})
    assert report(run_dir).table("table-7") == before


def test_a_judge_that_lacks_one_benchmark_has_the_reason_there(run_dir):
    (run_dir / "verdicts" / "oa-deberta--Own-Safety.parquet").unlink()
    write_skipped(run_dir / "verdicts", {"oa-deberta": "the endpoint is down"})
    table = report(run_dir).table("table-7")
    row = next(row for row in table.rows if row.cells[0].value == "oa-deberta")
    notes = [cell.notes for cell in row.cells[1:4]]
    assert notes == [(), ("missing: the endpoint is down",), ()]
    assert row.cells[3].estimate


@pytest.mark.parametrize("text", ["", "[1]", "{", "3"])
def test_a_damaged_list_of_absent_judges_is_a_problem_and_the_rest_is_kept(run_dir, text):
    (run_dir / "verdicts" / FILE).write_text(text)
    made = report(run_dir)
    assert "cannot be read; evaluate again" in made.problems[0]
    assert len(made.table("table-7").rows) > 5
    with pytest.raises(PalateError, match="evaluate again"):
        read_skipped(run_dir / "verdicts")
