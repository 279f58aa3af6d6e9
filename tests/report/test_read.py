"""What is read of a run: broken files are named and the rest is kept."""

from collections.abc import Callable
from pathlib import Path

import pytest

from palate.evaluate.run import FILE, read_skipped
from palate.report import report
from palate.report.render import texts
from palate.report.table import (
    Table,
)
from palate.types import PalateError


def rows_of(table: Table | None) -> dict[str, list[str]]:
    assert table is not None
    return {name: figures for name, *figures in texts(table)}


Write = Callable[..., Path]


@pytest.mark.parametrize("text", ["", "[1]", "{", "3"])
def test_a_damaged_list_of_absent_judges_is_a_problem_and_the_rest_is_kept(run_dir, text):
    (run_dir / "verdicts" / FILE).write_text(text)
    made = report(run_dir)
    assert "cannot be read; evaluate again" in made.problems[0]
    assert len(made.table("table-7").rows) > 5
    with pytest.raises(PalateError, match="evaluate again"):
        read_skipped(run_dir / "verdicts")


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
