"""A figure without error, n and fingerprint does not enter a table."""

import math

import pytest

from palate.report.render import p_value, percent, text
from palate.report.table import (
    Cell,
    Column,
    Row,
    Table,
    Unit,
    figure,
    printed,
)
from palate.stats import Estimate, wilson
from palate.types import PalateError


def test_a_figure_is_printed_as_statisticians_do() -> None:
    share, points = Column("a", Unit.SHARE), Column("d", Unit.DIFFERENCE)
    cell = figure(wilson(1484, 2348, fingerprint="f"))
    assert text(share, cell) == "63.2 ± 2.0"
    difference = Estimate(0.132, 0.01, 0.112, 0.152, 100, fingerprint="f")
    assert text(points, figure(difference)) == "+13.2 ± 2.0"
    assert (percent(-0.0001), p_value(0.0004), p_value(0.0123)) == ("0.0", "p < 0.001", "p = 0.012")
    for none in (printed(None), figure(None), figure(wilson(0, 0)), figure(math.nan)):
        assert text(share, none) == "–"
    assert text(share, printed(63.2)) == "63.2"


@pytest.mark.parametrize(
    "estimate",
    [
        wilson(3, 4),
        Estimate(0.5, math.nan, 0, 1, 10, fingerprint="f"),
        Estimate(0.5, 0.1, 0.3, 0.7, -1, fingerprint="f"),
    ],
)
def test_pitfall_28_a_bare_figure_is_refused(estimate: Estimate) -> None:
    with pytest.raises(PalateError, match="no error, n or fingerprint"):
        figure(estimate)


def test_notes_are_numbered_by_first_appearance_and_rows_must_fit() -> None:
    cells = (Cell("a", notes=("x", "y")), Cell("b", notes=("y", "z")))
    table = Table("t", "T", (Column("1"), Column("2")), (Row(cells),))
    assert table.notes() == ["x", "y", "z"]
    with pytest.raises(ValueError, match="1 cells, 2 columns"):
        Table("t", "T", table.columns, (Row(cells[:1]),))
