"""report(): the whole made-up run, its files, and broken inputs."""

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from palate.evaluate.metrics import read_judge_results, summarise
from palate.report import Report, report
from palate.report.render import texts
from palate.report.table import Table
from palate.types import Outcome, PalateError

Write = Callable[..., Path]


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


def test_every_table_is_written_in_every_form_and_listed(made: Report) -> None:
    names = [table.name for table in made.tables]
    assert names == [
        "table-7",
        "table-8",
        "table-29",
        "table-29-thresholds",
        "verdict",
        "differences",
        "length",
        "parts",
        "gaps",
        "calibration",
        "reliability",
        "outcomes",
        "training",
        "training-curve",
    ]
    folder = made.run_dir / "tables"
    expected = {f"{n}{e}" for n in names for e in (".md", ".csv", ".tex")}
    assert {p.name for p in folder.iterdir()} == expected | {"tables.md", "tables.json"}
    assert set(made.files) == set(folder.iterdir())


def test_the_same_verdicts_give_the_same_bytes(run_dir: Path) -> None:
    first = {path: path.read_bytes() for path in report(run_dir).files}
    assert {path: path.read_bytes() for path in report(run_dir).files} == first


def test_json_has_every_estimate_whole(made: Report) -> None:
    tables = json.loads((made.run_dir / "tables" / "tables.json").read_text())["tables"]
    estimates = [
        cell["estimate"]
        for table in tables
        for row in table["rows"]
        for cell in row["cells"]
        if "estimate" in cell
    ]
    assert len(estimates) > 50
    for estimate in estimates:
        assert estimate["fingerprint"]
        assert estimate["n"] > 0
        assert math.isfinite(estimate["error"])
        assert estimate["low"] <= estimate["value"] <= estimate["high"]


def test_csv_has_interval_and_n_in_columns(made: Report) -> None:
    text = (made.run_dir / "tables" / "table-7.csv").read_text()
    rows = {row["Judge"]: row for row in csv.DictReader(io.StringIO(text))}
    ours = rows["helpful"]
    low, value, high = (float(ours[f"Own Safety{end}"]) for end in (" low", "", " high"))
    assert low < value < high
    assert ours["Own Safety n"] == "500"
    assert rows["Safety RM"]["Anthropic Helpful"] == "55.4"
    assert rows["Safety RM"]["group"] == "paper's figures"
    text = (made.run_dir / "tables" / "table-8.csv").read_text()
    assert "items scored" not in text


def test_tables_of_an_earlier_report_do_not_linger(run_dir: Path) -> None:
    report(run_dir)
    for path in (run_dir / "verdicts").glob("*Own-Safety*"):
        path.unlink()
    report(run_dir)
    assert not (run_dir / "tables" / "table-29.md").exists()


def test_training_shows_final_against_best(made: Report) -> None:
    table = made.table("training")
    assert table is not None
    (shown,) = texts(table)
    row = dict(zip([c.name.strip() for c in table.columns], shown, strict=False))
    assert shown[:6] == ["helpful", "Held-out Helpful", "20", "1,280", "200,000", "400"]
    assert row["Best accuracy (%)"].startswith("66.0 ± ")
    assert row["Final accuracy (%)"].startswith("63.0 ± ")
    assert row["Lowest loss"] == "0.6200"
    assert row["Rise"] == "+0.0400"
    curve = made.table("training-curve")
    assert curve is not None
    assert [row.group.rsplit(" ", 1)[1] for row in curve.rows] == ["1", "1", "2", "2"]


def test_torn_metrics_are_counted_not_fatal(run_dir: Path) -> None:
    path = run_dir / "train" / "helpful" / "metrics.jsonl"
    whole = report(run_dir).table("training")
    path.write_text(path.read_text() + '[1]\n{"step": 21, "lo')
    torn = report(run_dir)
    assert torn.table("training") == whole
    assert "2 lines are not metrics" in torn.problems[0]


def test_an_evaluation_without_n_is_no_figure(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "train" / "m"
    folder.mkdir(parents=True)
    line = {"step": 5, "eval": {"name": "h", "accuracy": 0.7, "loss": 0.6}}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    table = report(tmp_path / "run").table("training")
    assert table is not None
    assert "0.7" not in texts(table)[0]
    assert any("no figure" in note for note in table.notes())


def test_broken_verdict_files_are_named_and_the_rest_is_kept(
    tmp_path: Path, write_file: Write
) -> None:
    whole = write_file("a", "bench")
    cut = write_file("b", "bench")
    cut.write_bytes(cut.read_bytes()[:-30])
    write_file("a", "bench", file="copy")
    made = report(tmp_path / "run")
    assert list(rows_of(made.table("table-7"))) == ["a"]
    assert len(made.problems) == 2
    assert "stands in another file" in "\n".join(made.problems)
    whole.unlink()
    (tmp_path / "run" / "verdicts" / "copy.parquet").unlink()
    with pytest.raises(PalateError, match="remake"):
        report(tmp_path / "run")


def test_nothing_to_report_names_the_cure(tmp_path: Path) -> None:
    with pytest.raises(PalateError, match="palate evaluate"):
        report(tmp_path)


def test_a_judge_that_scored_nothing_has_a_dash(tmp_path: Path, write_file: Write) -> None:
    write_file("m", "b", n=10, outcome=lambda i: Outcome.UNSCORED)
    made = report(tmp_path / "run")
    assert rows_of(made.table("table-7"))["m"] == ["–"] * 3
    assert by_judge_outcomes(made)[4] == "10"


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_a_narrow_terminal_loses_no_figure(run_dir: Path, width: int) -> None:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, color_system=None)
    made = report(run_dir, console)
    shown = file.getvalue()
    for name in ("table-7", "table-8", "table-29"):
        table = made.table(name)
        assert table is not None
        printed = [text for row in texts(table) for text in row]
        for cell, text in zip(table.cells(), printed, strict=True):
            if cell.estimate:
                assert text in shown
    assert all(len(line) <= width for line in shown.splitlines())


def test_a_pipe_gets_whole_rows(run_dir: Path) -> None:
    file = io.StringIO()
    report(run_dir, Console(file=file))
    line = next(li for li in file.getvalue().splitlines() if li.strip().startswith("safety"))
    assert line.count("±") == 5
