"""Benchmarks of items of K in a report: Table 7, the benchmark's own score, what is left out."""

import shutil
from pathlib import Path

import pytest

import choices
from palate.evaluate.scores import read_score
from palate.report import Report, report, write_page


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return choices.write_run(tmp_path_factory.mktemp("items") / "run")


@pytest.fixture(scope="module")
def of_items(items: Path) -> Report:
    return report(items)


def cells(made: Report, table: str) -> dict[str, list[object]]:
    """The values of a table by its judge."""
    found = made.table(table)
    assert found is not None
    judge = [column.name for column in found.columns].index("Judge")
    return {str(row.cells[judge].value): [cell.value for cell in row.cells] for row in found.rows}


def test_table_7_says_chance_and_what_has_no_score(of_items: Report) -> None:
    table = of_items.table("table-7")
    assert table is not None
    assert table.columns[1].detail == "n = 38 to 40, chance 25.0 %"
    assert table.columns[1].chance == 0.25
    values = cells(of_items, "table-7")
    assert [values[name][1].value for name in ("good", "Longer wins")] == [0.75, 0.5]
    assert (values["poor"][1].n, values["poor"][1].n_unscored) == (38, 2)
    said = " ".join(table.remarks)
    assert "left out here and wrong in the benchmark's own score: poor 2." in said
    # One column alone: its average is itself.
    assert values["good"][2].value == 0.75


def test_the_benchmarks_own_score_stands_beside_with_its_sections(
    items: Path, of_items: Report
) -> None:
    table = of_items.table("scores-rewardbench-2")
    assert table is not None
    names = [column.name for column in table.columns]
    assert names == ["Test set", "Judge", "Score", "Factuality", "Math", "Items", "Unscored"]
    values = cells(of_items, "scores-rewardbench-2")
    assert values["Chance"][2:5] == [0.25, 0.25, 0.25]
    for judge in ("good", "poor"):
        score = read_score(items / "verdicts" / f"{judge}--rewardbench-2.parquet")
        expected = [score.estimate(part).value for part in score.parts]
        assert [one.value for one in values[judge][2:5]] == expected
    assert values["poor"][5:] == [40, 2]
    assert any("2 of 40 items (5.0 %) have no score" in line for line in table.remarks)
    letters = {row.cells[1].value: row.cells[2].letters for row in table.rows}
    assert letters["good"]
    assert not set(letters["good"]) & set(letters["First position"])


def test_tables_of_pairs_leave_items_of_k_out_with_a_word(
    items: Path, run_dir: Path, tmp_path: Path
) -> None:
    both = Path(shutil.copytree(run_dir, tmp_path / "both"))
    for folder in ("benchmarks", "verdicts"):
        shutil.copytree(items / folder, both / folder, dirs_exist_ok=True)
    made = report(both)
    assert not made.problems
    table_7, table_8 = made.table("table-7"), made.table("table-8")
    assert table_7 is not None
    assert table_8 is not None
    word = "Not of rewardbench-2, whose items have more than two responses."
    assert word in table_8.remarks
    assert "rewardbench-2" not in {str(row.cells[0].value) for row in table_8.rows}
    for name in ("length", "calibration", "gaps"):
        table = made.table(name)
        assert table is not None
        assert word in table.remarks
        assert "rewardbench-2" not in {str(row.cells[0].value) for row in table.rows}
    # Averages are over columns of one chance: the pairs' alone, as before.
    assert table_7.columns[-2].detail == "of columns with chance 50 %"
    before = {
        str(row.cells[0].value): row.cells[-2:] for row in report(run_dir).table("table-7").rows
    }
    for row in table_7.rows:
        judge = str(row.cells[0].value)
        if judge in before and not row.cells[0].paper:
            assert [c.value for c in row.cells[-2:]] == [c.value for c in before[judge]]


def test_the_page_draws_each_panels_own_chance(items: Path, tmp_path: Path) -> None:
    made = report(items, out=tmp_path)
    text = write_page(made).read_text()
    assert '"chance":25.0' in text
    assert "RewardBench 2: its own score and sections" in text
    assert "rm-bench" not in text


def test_bounds_take_shares_as_they_are_and_the_caution_says_the_own_score(
    of_items: Report,
) -> None:
    (poor,) = [result for result in of_items.results if result.judge == "poor"]
    assert poor.bounds is not None
    assert (poor.bounds.worst, poor.bounds.best) == (19 / 40, 21 / 40)
    said = [finding.sentence for finding in of_items.verdict.of("caution")]
    assert any(
        "no score to 2 of 40 items" in line and "in which they are wrong, is 47.5 %" in line
        for line in said
    )


def test_a_benchmark_that_was_cut_is_one_line_among_the_problems(
    items: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(items, tmp_path / "run"))
    path = run / "benchmarks" / "rewardbench-2.parquet"
    path.write_bytes(path.read_bytes()[:-200])
    made = report(run)
    (problem,) = made.problems
    assert str(path) in problem
    assert "\n" not in problem
    verdicts = run / "verdicts" / "good--rewardbench-2.parquet"
    verdicts.write_bytes(verdicts.read_bytes()[:2_000])
    assert len(report(run).problems) == 2
    assert "good" not in cells(report(run), "table-7")
