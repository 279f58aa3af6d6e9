"""A table on a terminal, as CSV and as JSON."""

import csv
import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from palate.report import Report, report
from palate.report.render import texts


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
