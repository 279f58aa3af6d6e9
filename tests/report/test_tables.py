"""A figure without error, n and fingerprint does not enter a table; the paper's figures."""

import math

import pytest

from palate.report import llama2
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


def test_paper_figures_hang_together() -> None:
    # The paper's own total line says 2,919,326: its rows add up to 1,577 more.
    assert sum(llama2.TABLE_6.values()) == 2_920_903
    for (system, test_set), row in llama2.TABLE_8.items():
        assert row[-1] == llama2.TABLE_7[system][llama2.COLUMNS.index(test_set)]
    assert llama2.TABLE_29["Safety RM with auxiliary loss"][0] == llama2.TABLE_7["Safety RM"][1]
    assert set(llama2.TABLE_7_AVERAGE) == set(llama2.TABLE_7) - {"GPT-4 (zero-shot)"}
    ours = [v for v in llama2.TABLE_7["Helpfulness RM"] if v is not None]
    assert sum(ours) / 6 == pytest.approx(70.75)  # Not the 70.6 that the paper calls "Avg".


def test_columns_of_the_paper_are_known_by_several_spellings() -> None:
    assert llama2.column("openai summarize") == "OpenAI Summ."
    assert llama2.column("Meta Helpful.") == llama2.column("Meta Helpfulness") == "Meta Helpful."
    assert llama2.column("something else") is None
    assert llama2.column(None) is None
    assert all(llama2.column(name) == name for name in llama2.COLUMNS)
    assert llama2.figures("Stanford SHP")["SteamSHP-XL"] == 75.7
    assert llama2.figures("mine") == {}
