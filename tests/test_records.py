"""Tables and files on disk: round trip, provenance, fingerprints, damage; comparisons as rows."""

import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from made import made
from older import downgrade
from palate import records
from palate.data.sources import files
from palate.records import (
    HEADER_KEY,
    atomic,
    atomic_folder,
    comparison_from_row,
    comparison_to_row,
    count_groups,
    file_digest,
    read_columns,
    read_comparisons,
    read_header,
    read_rows,
    read_verdicts,
    verdict_from_row,
    verdict_to_row,
    write_comparisons,
    write_json,
    write_text,
    write_verdicts,
)
from palate.types import (
    Bin,
    Comparison,
    Judgement,
    Message,
    Outcome,
    PalateError,
    Ranks,
    Rating,
    Verdict,
)

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
    later = ["judgement", "ranks", "chosen_attributes", "rejected_attributes"]
    earlier = pq.read_table(path).drop_columns(later).replace_schema_metadata(head)
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


# Files appear whole or not at all, also on a disk that is really full.


def test_a_failure_in_the_middle_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "kept.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), atomic(path) as partial:
        partial.write_text(f"new, but cut {1 / 0}")
    with pytest.raises(ZeroDivisionError), atomic(tmp_path / "made" / "for" / "nothing") as partial:
        partial.write_text(f"cut {1 / 0}")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with atomic_folder(folder) as partial:
        write_json(partial / "a.json", {"version": 1})
    with pytest.raises(ZeroDivisionError), atomic_folder(folder) as partial:
        write_json(partial / "a.json", {"version": 1 / 0})
    assert '"version": 1' in (folder / "a.json").read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_pitfall_37_the_umask_says_who_reads_a_folder_whatever_wrote_it(
    tmp_path: Path, umask: int, mode: int
) -> None:
    """In a process of its own, since the umask is one for all threads."""
    script = f"""
import os
from pathlib import Path
import torch
from palate.records import atomic_folder
from safetensors.torch import save_file
os.umask({umask})
with atomic_folder(Path({str(tmp_path)!r}) / "model") as partial:
    save_file({{"weight": torch.zeros(1)}}, partial / "model.safetensors")
    (partial / "below").mkdir()
    save_file({{"weight": torch.zeros(1)}}, partial / "below" / "head.safetensors")
    (partial / "config.json").write_text("{{}}")
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    files = [path for path in (tmp_path / "model").rglob("*") if path.is_file()]
    assert len(files) == 3
    assert {path.stat().st_mode & 0o777 for path in files} == {mode}


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    """The system refuses to write past 1 MB, as a full disk would."""
    script = f"""
import os, resource, signal
from pathlib import Path
from palate.records import write_comparisons
from palate.types import Comparison, Message, PalateError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
rows = (
    Comparison(str(i), "s", (Message("user", "x"),), os.urandom(2000).hex(), "b", "p")
    for i in range(5000)
)
try:
    write_comparisons(Path({str(tmp_path)!r}) / "full.parquet", rows)
except PalateError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "full.parquet: cannot be written" in done.stdout, done.stderr
    assert done.stdout.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_parent_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PalateError, match="cannot be written"):
        write_text(tmp_path / "file" / "below.txt", "x")


def test_a_large_file_is_sampled_and_still_told_apart(tmp_path: Path, monkeypatch) -> None:
    path, whole = tmp_path / "weights", bytes(range(256)) * 4096
    path.write_bytes(whole)
    full = file_digest(path)
    monkeypatch.setattr("palate.records.WHOLE_DIGEST_BYTES", 1000)
    sampled = file_digest(path)
    assert sampled == file_digest(path)
    assert len(sampled) == len(full) == 32
    path.write_bytes(whole[:-1] + b"x")
    assert file_digest(path) != sampled


# Verdicts on disk: what a judge said comes back, however hostile; earlier formats are named.

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


def test_reading_a_large_file_holds_one_group_of_rows(tmp_path: Path, monkeypatch) -> None:
    """Arrow's own default keeps all groups that were read."""
    monkeypatch.setattr(records, "BYTES_PER_GROUP", 2**18)
    monkeypatch.setattr(files, "ROWS_PER_READ", 4)
    text = "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=2**16))
    path = tmp_path / "large.parquet"
    write_comparisons(path, (made(f"{n} {text[n:]}", id=f"c{n}") for n in range(120)))
    assert count_groups(path) > 20
    for reader in (read_comparisons, files.read_file):
        before, most = pa.total_allocated_bytes(), 0
        for _ in reader(path):
            most = max(most, pa.total_allocated_bytes() - before)
        assert most < path.stat().st_size / 3
