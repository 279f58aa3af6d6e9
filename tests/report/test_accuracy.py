"""Tables 7, 8 and 29, outcomes, letters, models against the best trivial judge."""

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path

from palate.evaluate.metrics import (
    read_judge_results,
    summarise,
)
from palate.evaluate.run import write_skipped
from palate.report import Report, report
from palate.report.render import texts
from palate.report.table import (
    Table,
)
from palate.types import (
    Outcome,
)

Write = Callable[..., Path]


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


def rows_of(table: Table | None) -> dict[str, list[str]]:
    assert table is not None
    return {name: figures for name, *figures in texts(table)}


def by_judge(table: Table | None, test_set: str) -> dict[str, list[str]]:
    assert table is not None
    return {judge: figures for name, judge, *figures in texts(table) if name == test_set}


def test_table_7_has_the_figures_of_the_verdicts(made: Report) -> None:
    rows = rows_of(made.table("table-7"))
    votes = read_judge_results(made.run_dir / "verdicts" / "helpful--Anthropic-Helpful.parquet")
    found = summarise(votes).overall
    shown, letters = rows["helpful"][2].rsplit(" ", 1)
    assert shown == f"{100 * found.value:.1f} ± {100 * found.half_width:.1f}"
    assert letters.isalpha()
    names = [column.name for column in made.table("table-7").columns]
    assert names[1:4] == ["Held-out Helpful", "Own Safety", "Anthropic Helpful"]
    assert names[4:] == ["Macro average", "Micro average"]
    assert made.table("table-7").columns[3].detail == "n = 600"


def test_judges_stand_trivial_foreign_ours_limit_paper(made: Report) -> None:
    assert list(rows_of(made.table("table-7"))) == [
        "Random",
        "Longer wins",
        "oa-deberta",
        "helpful",
        "safety",
        "Bayes limit",
        "SteamSHP-XL",
        "Open Assistant",
        "GPT-4 (zero-shot)",
        "Safety RM",
        "Helpfulness RM",
    ]


def test_paper_figures_stand_only_in_their_own_columns_and_are_marked(made: Report) -> None:
    rows = rows_of(made.table("table-7"))
    assert rows["Helpfulness RM"] == ["–", "62.8", "72.0", "–", "–"]
    text = (made.run_dir / "tables" / "table-7.md").read_text()
    assert "*72.0†*" in text
    assert "arXiv 2307.09288" in text


def test_a_run_without_the_papers_benchmarks_has_no_paper_rows(
    tmp_path: Path, write_file: Write
) -> None:
    write_file("random", "b", kind="random")
    assert list(rows_of(report(tmp_path / "run").table("table-7"))) == ["Random"]
    assert "†" not in (tmp_path / "run" / "tables" / "table-7.md").read_text()


def test_a_judge_without_every_column_has_no_average(made: Report) -> None:
    assert rows_of(made.table("table-7"))["Bayes limit"][3:] == ["–", "–"]
    assert "no average" in made.table("table-7").notes()[0]


def test_table_8_by_rating_with_trend_and_paper(made: Report) -> None:
    table = made.table("table-8")
    safety = by_judge(table, "Own Safety")
    assert safety["items scored"][:5] == ["n = 125"] * 4 + ["n = 500"]
    assert safety["Safety RM"][:5] == ["94.3", "76.3", "65.7", "55.3", "64.5"]
    assert safety["safety"][5].startswith("z = ")
    assert "Bayes limit" in by_judge(table, "Held-out Helpful")
    assert not by_judge(table, "Anthropic Helpful")


def test_table_29_has_bins_and_recall_of_models_only(made: Report) -> None:
    rows = by_judge(made.table("table-29"), "Own Safety")
    assert rows["Random"][-1] == "–"
    assert "±" in rows["safety"][-1]
    assert rows["Safety RM with auxiliary loss"] == ["64.5", "94.3", "56.9", "59.9", "90.4"]


def test_models_are_compared_with_the_best_trivial_judge(made: Report) -> None:
    table = made.table("differences")
    assert table is not None
    assert {row.cells[2].value for row in table.rows} == {"Longer wins"}
    assert len(table.rows) == 9
    safety = next(row for row in texts(table) if row[1] == "safety")
    assert safety[3].startswith("+16.2 ± ")


def test_pitfall_25_outcomes_have_columns_and_bounds(tmp_path: Path, write_file: Write) -> None:
    forced = {0: Outcome.TIE, 1: Outcome.UNSCORED, 2: Outcome.UNSCORED}
    write_file("m", "b", n=200, outcome=forced.get)
    row = by_judge_outcomes(report(tmp_path / "run"))
    items, correct, wrong, tie, unscored, reasons, truncated, worst, _, best = row
    assert (items, tie, unscored, reasons, truncated) == ("200", "1", "2", "too long: 2", "4")
    assert int(correct) + int(wrong) == 197
    assert worst == f"{int(correct) / 2:.1f}"
    assert best == f"{(200 - int(wrong)) / 2:.1f}"


def by_judge_outcomes(made: Report) -> list[str]:
    table = made.table("outcomes")
    assert table is not None
    return texts(table)[0][2:]


def test_pitfall_28_unequal_protocols_are_marked(tmp_path: Path, write_file: Write) -> None:
    for judge in ("a", "b", "c"):
        write_file(judge, "bench")
    write_file("d", "bench", prefix="other", protocol={"order": "both", "seed": 1})
    table = report(tmp_path / "run").table("table-7")
    assert table is not None
    marked = {row.cells[0].value for row in table.rows if row.cells[1].notes}
    assert marked == {"d"}
    text = (tmp_path / "run" / "tables" / "table-7.md").read_text()
    assert "other items" in text
    assert "order of sides both, most of the column seeded" in text
    assert "sides seeded with 1, most of the column with 0" in text


def test_pitfall_28_models_on_other_items_are_not_tested_against_the_trivial(
    tmp_path: Path, write_file: Write
) -> None:
    write_file("longer", "bench", kind="longer")
    write_file("m", "bench", prefix="other")
    assert report(tmp_path / "run").table("differences") is None


def test_a_judge_that_scored_nothing_has_a_dash(tmp_path: Path, write_file: Write) -> None:
    write_file("m", "b", n=10, outcome=lambda i: Outcome.UNSCORED)
    made = report(tmp_path / "run")
    assert rows_of(made.table("table-7"))["m"] == ["–"] * 3
    assert by_judge_outcomes(made)[4] == "10"
