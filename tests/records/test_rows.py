"""Verdicts on disk: what a judge said comes back, however hostile; earlier formats are named."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from older import downgrade
from palate import records
from palate.records import (
    HEADER_KEY,
    count_groups,
    read_header,
    read_verdicts,
    verdict_from_row,
    verdict_to_row,
    write_comparisons,
    write_verdicts,
)
from palate.types import Bin, Outcome, PalateError, Rating, Verdict

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCORES = st.none() | st.floats(allow_nan=False, allow_infinity=False)
VERDICTS = st.builds(
    Verdict,
    judge=TEXT,
    benchmark=TEXT,
    comparison_id=TEXT,
    outcome=st.sampled_from(Outcome),
    chosen_score=SCORES,
    rejected_score=SCORES,
    reason=TEXT,
    truncated=st.booleans(),
    cluster=TEXT,
    source=TEXT,
    rating=st.none() | st.sampled_from(Rating),
    bin=st.none() | st.sampled_from(Bin),
    chosen_first=st.booleans(),
    protocol=TEXT,
    answer=TEXT,
    seconds=st.none() | st.floats(0, 1e6),
)
PLAIN = Verdict(
    "j", "b", "i", Outcome.CORRECT, 1.0, 0.0, "", False, "c", "s", None, None, True, "p"
)
HOSTILE = {
    "nul": "A\x00B",
    "lines": 'A\n"]\r\n["k", 1]\u2028',
    "direction": "\u202eB\u202c",
    "megabyte": "x" * 1_000_000,
    "not utf-8": "A\udc80\ud83d",
}


@given(VERDICTS)
def test_a_verdict_survives_its_row(verdict: Verdict) -> None:
    assert verdict_from_row(verdict_to_row(verdict)) == verdict


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_comes_back_word_for_word(tmp_path: Path, name: str) -> None:
    said = replace(PLAIN, answer=HOSTILE[name], reason=HOSTILE[name], seconds=0.25)
    write_verdicts(tmp_path / "v.parquet", [said, PLAIN])
    first, second = read_verdicts(tmp_path / "v.parquet")
    written = "A\\udc80\\ud83d" if name == "not utf-8" else HOSTILE[name]
    assert first == replace(said, answer=written, reason=written)
    assert second == PLAIN


def test_large_answers_are_written_in_small_groups(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(records, "BYTES_PER_GROUP", 50_000)
    said = [replace(PLAIN, comparison_id=str(i), answer=str(i) * 20_000) for i in range(9)]
    write_verdicts(tmp_path / "v.parquet", said)
    assert count_groups(tmp_path / "v.parquet") == 3
    assert list(read_verdicts(tmp_path / "v.parquet")) == said


def test_an_earlier_format_is_one_line_with_a_cure_and_readable_on_request(tmp_path: Path) -> None:
    path = tmp_path / "v.parquet"
    write_verdicts(path, [replace(PLAIN, answer="A", seconds=2.0)], details={"judge": "j"})
    downgrade(path)
    with pytest.raises(PalateError, match=r"format 1, this Palate reads 3; evaluate again, its"):
        read_verdicts(path)
    assert read_header(path, "verdicts", older=True).details == {"judge": "j"}
    assert list(read_verdicts(path, older=True)) == [PLAIN]


def test_a_later_format_is_not_guessed_at(tmp_path: Path) -> None:
    path = tmp_path / "v.parquet"
    write_verdicts(path, [PLAIN])
    downgrade(path, version=9)
    for older in (False, True):
        with pytest.raises(PalateError, match="format 9, this Palate reads 3; update Palate"):
            read_header(path, "verdicts", older=older)


def test_a_new_column_of_verdicts_leaves_other_files_as_they_are(tmp_path: Path) -> None:
    assert write_comparisons(tmp_path / "c.parquet", []).version == 1
    assert write_verdicts(tmp_path / "v.parquet", [PLAIN]).version == 3


def test_a_verdict_file_cut_in_half_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "v.parquet"
    write_verdicts(path, [PLAIN] * 100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(PalateError, match=r"not a whole Parquet file .*remove it and evaluate"):
        read_header(path, "verdicts")


@pytest.mark.parametrize("header", [b"{", b"[]", b'{"kind": "verdicts", "colour": 1}'])
def test_a_header_that_is_not_ours_is_one_line(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "v.parquet"
    write_verdicts(path, [PLAIN])
    held = pq.read_table(path).replace_schema_metadata({HEADER_KEY: header})
    pq.write_table(held, path)
    with pytest.raises(PalateError, match="header cannot be read"):
        read_header(path)
