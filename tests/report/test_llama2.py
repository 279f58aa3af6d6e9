"""The paper's figures."""

import pytest

from palate.report import llama2


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
