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
    read_columns,
    read_comparisons,
    read_header,
    read_rows,
    write_comparisons,
)
from palate.types import Comparison, Judgement, Message, PalateError, Ranks, Rating

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
MESSAGES = st.lists(st.builds(Message, st.sampled_from(["user", "assistant"]), TEXT), min_size=1)
AMOUNT = st.integers(1, 5) | st.floats(0.01, 1)

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
    judgement=st.builds(Judgement, chosen=AMOUNT, rejected=AMOUNT, tie=AMOUNT | st.just(0.5)),
    ranks=st.none() | st.builds(Ranks, TEXT, st.just(0), st.integers(0, 9)),
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


def test_a_file_without_the_later_columns_reads_as_plain_preferences(tmp_path: Path) -> None:
    path, rows = tmp_path / "c.parquet", [made("One?"), made("Two?")]
    header = write_comparisons(path, rows)
    assert header.fingerprint == "2d94ee4dc7d1f2c77a41b9f8bf52546e"  # Of 0.1, without the columns.
    head = {b"palate": pq.read_metadata(path).metadata[b"palate"]}
    earlier = pq.read_table(path).drop_columns(["judgement", "ranks"]).replace_schema_metadata(head)
    pq.write_table(earlier, path)
    assert list(read_comparisons(path)) == rows
    names = read_columns(path, ["id", "judgement"], "comparisons").column_names
    assert names == ["id"]


@pytest.mark.parametrize(
    ("amounts", "shares", "decides"),
    [
        ({}, (1, 0, 0), "chosen"),
        ({"chosen": 2, "rejected": 1}, (2 / 3, 0, 1 / 3), "chosen"),
        ({"chosen": 0, "tie": 1}, (0, 1, 0), "tie"),
        ({"chosen": 0, "both_bad": 1}, (0, 1, 0), "tie"),
        ({"chosen": 1, "rejected": 1}, (0.5, 0, 0.5), "tie"),
        ({"chosen": 1, "rejected": 3, "tie": 1}, (0.2, 0.2, 0.6), "rejected"),
    ],
)
def test_a_judgement_has_shares(amounts, shares, decides) -> None:
    judgement = Judgement(**amounts)
    assert judgement.shares == pytest.approx(shares)
    assert judgement.decides == decides
    assert judgement.is_plain == (not amounts)


@pytest.mark.parametrize(
    "amounts", [{"chosen": -1}, {"chosen": 0}, {"tie": float("nan")}, {"weight": float("inf")}]
)
def test_a_judgement_without_a_vote_or_with_a_wrong_one_is_refused(amounts) -> None:
    with pytest.raises(PalateError, match="expected"):
        Judgement(**amounts)


def test_places_of_a_ranking_are_in_order() -> None:
    assert Ranks("r", 0, 0).rejected == 0
    with pytest.raises(PalateError, match="ranking r: expected"):
        Ranks("r", 2, 1)


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
