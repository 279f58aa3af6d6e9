"""Parquet tables: round trip, provenance, fingerprints, damage."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from made import made
from palate.records import (
    comparison_from_row,
    comparison_to_row,
    read_comparisons,
    read_header,
    read_rows,
    write_comparisons,
)
from palate.types import Comparison, Message, PalateError, Rating

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
MESSAGES = st.lists(st.builds(Message, st.sampled_from(["user", "assistant"]), TEXT), min_size=1)
COMPARISONS = st.builds(
    Comparison,
    id=TEXT,
    source=TEXT,
    prompt=MESSAGES.map(tuple),
    chosen=TEXT,
    rejected=TEXT,
    prompt_id=TEXT,
    batch=TEXT,
    rating=st.none() | st.sampled_from(Rating),
    chosen_safe=st.none() | st.booleans(),
    rejected_safe=st.none() | st.booleans(),
    annotator=st.none() | TEXT,
    meta=st.dictionaries(TEXT, st.integers() | TEXT, max_size=3),
)


@given(COMPARISONS)
def test_a_comparison_survives_its_row(comparison: Comparison) -> None:
    assert comparison_from_row(comparison_to_row(comparison)) == comparison


def test_a_file_says_where_it_came_from_and_reads_back_in_order(tmp_path: Path) -> None:
    path, rows = tmp_path / "c.parquet", [made(f"Question {i}?") for i in range(5000)]
    header = write_comparisons(path, rows, inputs={"raw": "abc"}, details={"seed": 3})
    assert list(read_comparisons(path)) == rows
    assert read_header(path) == header
    assert (header.rows, header.inputs, header.details["seed"]) == (5000, {"raw": "abc"}, 3)
    assert {"palate", "pyarrow"} <= set(header.packages)


def test_the_fingerprint_is_of_ordered_contents(tmp_path: Path) -> None:
    a, b = made("One?"), made("Two?")
    prints = [
        write_comparisons(tmp_path / f"{i}.parquet", rows).fingerprint
        for i, rows in enumerate(([a, b], [a, b], [b, a], [a]))
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


def test_columns_can_be_read_alone(tmp_path: Path) -> None:
    write_comparisons(tmp_path / "c.parquet", [made("One?")])
    (row,) = read_rows(tmp_path / "c.parquet", ["id"])
    assert list(row) == ["id"]


def test_a_missing_cut_or_foreign_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    with pytest.raises(PalateError, match="no such file"):
        read_header(path)
    write_comparisons(path, [made("One?")])
    with pytest.raises(PalateError, match="holds comparisons, expected verdicts"):
        read_header(path, "verdicts")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(PalateError, match="not a whole Parquet file"):
        read_header(path)
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(PalateError, match="palate data import"):
        read_header(path)
