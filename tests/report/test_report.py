"""report(): one run or several, the files of its tables."""

import json
from pathlib import Path

import pytest

from palate.report import Report, report
from palate.types import (
    PalateError,
)


def test_several_runs_stand_side_by_side(whole_run: Path, write_any, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_any(other, "helpful", "Own Safety", 500, 0.9, "reward-model", "Meta Safety")
    write_any(other, "random", "Own Safety", 500, 0.5, "random", "Meta Safety")
    made = report([whole_run, other], out=tmp_path / "both")
    names = [row.cells[0].value for row in made.table("table-7").rows]
    assert "run: helpful" in names
    assert "other: helpful" in names
    assert names.count("Random") == 1, "the same trivial judge on the same items stands once"
    assert (tmp_path / "both" / "tables" / "table-7.md").is_file()
    assert not (whole_run / "tables").exists()
    leads = [f.sentence for f in made.verdict.of("shown")]
    assert any("other: helpful is more accurate than run: helpful" in s for s in leads)
    json.loads((tmp_path / "both" / "tables" / "tables.json").read_text())


def test_several_runs_need_a_folder_and_are_given_once(whole_run: Path, tmp_path: Path) -> None:
    with pytest.raises(PalateError, match="--out"):
        report([whole_run, tmp_path])
    with pytest.raises(PalateError, match="given twice"):
        report([whole_run, whole_run], out=tmp_path)


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


def test_tables_of_an_earlier_report_do_not_linger(run_dir: Path) -> None:
    report(run_dir)
    for path in (run_dir / "verdicts").glob("*Own-Safety*"):
        path.unlink()
    report(run_dir)
    assert not (run_dir / "tables" / "table-29.md").exists()


def test_nothing_to_report_names_the_cure(tmp_path: Path) -> None:
    with pytest.raises(PalateError, match="palate evaluate"):
        report(tmp_path)
