"""The data of a run as tables, and what was found wrong with it."""

import io
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console

from made import made as comparison
from palate.data.lint import LintReport, lint
from palate.records import write_comparisons, write_json
from palate.report import Report, report
from palate.report.render import texts
from palate.types import (
    PalateError,
    Rating,
)


@pytest.fixture
def with_data(run_dir: Path) -> Path:
    """The made-up run with a mixture, sources, findings and overlaps."""
    rows = [
        comparison(
            f"q{i}", "a" * 10, "b" * 20, source="pku", batch=f"week-{i % 2}",
            rating=Rating(1 + i % 2) if i else None, chosen_safe=True, rejected_safe=i % 2 == 0,
        )
        for i in range(8)
    ]  # fmt: skip
    write_comparisons(run_dir / "mixtures" / "all.parquet", rows)
    share = {
        "group": "all", "pool": "", "available": 8, "rows_asked": 8, "rows": 8,
        "share_asked": 1.0, "share_rows": 1.0, "share_tokens": 1.0,
    }  # fmt: skip
    of_pool = share | {"pool": "pku", "rows_asked": None, "share_asked": None}
    write_json(run_dir / "mixtures" / "all.shares.json", {"shares": [share, of_pool]})
    imported = [*rows, comparison("empty one", "", "b", source="pku")]
    write_comparisons(
        run_dir / "data" / "imported" / "pku.parquet", imported, details={"bad_rows": 3}
    )
    found = LintReport()
    clean = run_dir / "data" / "clean" / "pku.parquet"
    write_comparisons(clean, lint(imported, found), details=found.to_json)
    found.write(clean.with_suffix(".findings.parquet"))
    overlap = {
        "benchmark": "Own Safety", "source": "pku", "rows": 8, "overlapping": 2, "exact": 1,
        "contains": 1, "near": 0, "benchmark_prompts": 1, "examples": [["x", "y"]],
    }  # fmt: skip
    none = overlap | {"benchmark": "Held-out Helpful", "overlapping": 0, "examples": []}
    write_json(
        run_dir / "data" / "pools" / "overlap.json",
        {"excluded": {"pku": 2}, "overlaps": [overlap, none]},
    )
    recipe = {"name": "made", "data": {"sources": {"pku": {"source": "pku-saferlhf"}}}}
    (run_dir / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return run_dir


def printed_table(made: Report, name: str) -> list[list[str]]:
    table = made.table(name)
    assert table is not None
    return texts(table)


def test_data_tables(with_data: Path) -> None:
    made = report(with_data)
    assert printed_table(made, "mixture")[0][2:] == [
        "whole group", "8", "8", "8", "100.0", "100.0", "100.0",
    ]  # fmt: skip
    assert printed_table(made, "mixture")[1][2:6] == ["pku", "8", "–", "8"]
    (contents,) = printed_table(made, "contents")
    assert contents == [
        "all", "mixture", "8", "8", "–", "–", "4", "3", "1", "4", "4", "–", "10", "20",
    ]  # fmt: skip
    assert [row[1:3] for row in printed_table(made, "batches")] == [
        ["week-0", "4"],
        ["week-1", "4"],
    ]
    (source,) = printed_table(made, "sources")
    assert source == ["pku", "PKU-SafeRLHF", "CC BY-NC 4.0", "9", "3", "1", "2"]
    (finding,) = printed_table(made, "lint")
    assert finding[:4] == ["pku", "empty-chosen", "1", "11.1"]
    assert finding[4:] == ["left out", "the chosen reply is empty", "empty one"]
    (overlap,) = printed_table(made, "overlap")
    assert overlap[:4] == ["Own Safety", "pku", "8", "2"]
    assert "No overlap was found with Held-out Helpful." in made.table("overlap").remarks


def test_broken_data_is_a_problem_and_the_rest_is_kept(with_data: Path) -> None:
    path = with_data / "mixtures" / "all.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    (with_data / "mixtures" / "all.shares.json").write_text("{")
    (with_data / "recipe.yaml").write_text("a: [")
    made = report(with_data)
    assert any("all.parquet" in problem for problem in made.problems)
    assert made.table("table-7") is not None
    assert made.table("mixture") is None
    assert made.table("sources") is None


def test_disagreement_of_annotators_is_reported_though_their_rows_stay(with_data: Path) -> None:
    rows = [
        comparison(f"q{i}", *sides, source="pku", annotator=name, id=f"{i}{name}")
        for i in range(4)
        for name, sides in (("ann", "ab"), ("bob", "ab" if i else "ba"))
    ]
    found = LintReport()
    clean = with_data / "data" / "clean" / "pku.parquet"
    write_comparisons(clean, lint(rows, found), details=found.to_json)
    found.write(clean.with_suffix(".findings.parquet"))
    made = report(with_data)
    (finding,) = printed_table(made, "lint")
    assert finding[1:5] == ["annotators-disagree", "1", "12.5", "kept"]
    (remark,) = made.table("lint").remarks
    assert "4 of 4 pairs stand in several rows; in 1 of these (25.0%)" in remark


def test_annotators_stand_beside_the_others(with_data: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        comparison(
            f"q{i}", *("ab" if rng.random() < share else "ba"), source="pku", annotator=name,
            id=f"{i}{name}", batch=f"week-{i % 2}",
        )
        for i in range(100)
        for name, share in (("ann", 0.9), ("bob", 0.9), ("cy", 0.9), ("d|e", 0.4))
    ]  # fmt: skip
    found = LintReport()
    list(lint(rows, found))
    found.write(with_data / "data" / "clean" / "pku.findings.parquet")
    made = report(with_data)
    whole, *weeks = printed_table(made, "agreement")
    assert whole[:6] == ["pku", "all", "4", "400", "100", "100"]
    assert [week[1] for week in weeks] == ["week-0", "week-1"]
    first = printed_table(made, "annotators")[0]
    assert first[1:4] == ["d|e", "100", "100"]
    assert "p < 0.001" in first
    (note,) = made.table("annotators").notes()
    assert "look at these votes" in note


def test_a_run_that_cannot_be_written_shows_its_tables_and_the_way_out(
    with_data: Path, tmp_path: Path
) -> None:
    (with_data / "tables").write_text("in the way, as a folder without permission is")
    shown = io.StringIO()
    with pytest.raises(PalateError, match=r"cannot be written \(.*elsewhere with --out FOLDER"):
        report(with_data, Console(file=shown, width=120))
    assert "Table 7" in shown.getvalue()
    assert report(with_data, out=tmp_path / "elsewhere").files
