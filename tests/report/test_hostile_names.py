"""Names that try to be more than names in tables of every format."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from palate.report import report

HOSTILE = [
    "<script>alert(1)</script>",
    "[red]bold[/red]",
    "a|b\n| --- |\n# heading",
    "[x](javascript:alert(1))",
    "https://evil.example www.evil.example a@evil.example",
    "=HYPERLINK(1)",
    "@SUM(A1)",
    "\x1b[31mred\x07",
    "right\u202eleft",
    "x" * 1_000_000,
    r"\input{/etc/passwd} $x$ %",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_judge_name_stays_in_its_cell(
    tmp_path: Path, write_file: Callable[..., Path], name: str
) -> None:
    write_file(name, f"bench {name}", n=8, file="v", paper_column=name)
    file = io.StringIO()
    made = report(tmp_path / "run", Console(file=file, width=100, force_terminal=True))
    shown = file.getvalue()
    assert "\x07" not in shown
    assert "\u202e" not in shown
    if name.startswith("[red]"):
        assert "[red]bold" in shown
    for path in made.files:
        text = path.read_text(encoding="utf-8")
        assert len(text) < 60_000
        if path.suffix == ".md":
            assert "<script" not in text
            bars = {
                line.replace(r"\|", "").count("|")
                for line in text.splitlines()
                if line.startswith("|")
            }
            assert path.name == "tables.md" or len(bars) == 1
        if path.suffix == ".csv":
            for row in csv.reader(io.StringIO(text)):
                assert not any(field.startswith(("=", "@")) for field in row)
