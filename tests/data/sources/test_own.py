"""Own data: every layout read, every kind of damage told by file and row."""

import codecs
import csv
import datetime
import gzip
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palate.data.sources import Request, files, open_source, readable
from palate.data.sources.base import BadRow
from palate.data.sources.files import read_file
from palate.records import write_comparisons
from palate.types import Message, PalateError, Rating

from .rows import opened, write_jsonl

ROW = {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}
USER = {"role": "user", "content": "Why?"}
OTHER = {"role": "user", "content": "Who?"}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def only(path: Path, **request: Any) -> Any:
    good, bad = opened("own", path, **request)
    assert bad == []
    assert len(good) == 1
    return good[0]


def test_palate_columns(tmp_path: Path) -> None:
    row = ROW | {
        "rating": "significantly better",
        "batch": "week-3",
        "chosen_safe": True,
        "rejected_safe": False,
        "prompt_id": 17,
        "annotator": "ann",
        "source": "mine",
    }
    found = only(write_jsonl(tmp_path / "a.jsonl", [row]))
    assert (found.source, found.batch, found.annotator) == ("mine", "week-3", "ann")
    assert found.rating is Rating.SIGNIFICANTLY
    assert (found.chosen_safe, found.rejected_safe) == (True, False)
    assert found.prompt == (Message("user", "Why?"),)
    assert found.meta == {"file": "a", "row": 1}


def test_batch_is_the_file_name_without_the_column(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "week-1.jsonl", [ROW])
    write_jsonl(tmp_path / "week-2.jsonl", [ROW])
    good, _ = opened("own", tmp_path)
    assert [c.batch for c in good] == ["week-1", "week-2"]
    assert good[0].prompt_id == good[1].prompt_id
    assert good[0].id != good[1].id


def test_trl_explicit_prompt(tmp_path: Path) -> None:
    row = {"prompt": [USER], "chosen": [assistant("A")], "rejected": [assistant("B")]}
    found = only(write_jsonl(tmp_path / "a.jsonl", [row]))
    assert (found.chosen, found.rejected) == ("A", "B")
    assert found.prompt == (Message("user", "Why?"),)


def test_trl_implicit_prompt(tmp_path: Path) -> None:
    before = [USER, assistant("x"), {"role": "user", "content": "And?"}]
    row = {"chosen": [*before, assistant("A")], "rejected": [*before, assistant("A")]}
    found = only(write_jsonl(tmp_path / "a.jsonl", [row]))
    assert [turn.content for turn in found.prompt] == ["Why?", "x", "And?"]
    assert (found.chosen, found.rejected) == ("A", "A")  # Identical replies are lint's.


def test_trl_implicit_prompts_that_differ_are_marked(tmp_path: Path) -> None:
    other = [{"role": "user", "content": "Who?"}, assistant("B")]
    row = {"chosen": [USER, assistant("A")], "rejected": other}
    found = only(write_jsonl(tmp_path / "a.jsonl", [row]))
    assert found.meta["rejected_prompt_differs"] is True
    assert (found.chosen, found.rejected) == ("A", "B")


def test_transcripts_without_prompt(tmp_path: Path) -> None:
    row = {
        "chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d",
        "rejected": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: e",
    }
    found = only(write_jsonl(tmp_path / "a.jsonl", [row]))
    assert [turn.content for turn in found.prompt] == ["a", "b", "c"]
    assert (found.chosen, found.rejected) == ("d", "e")


@pytest.mark.parametrize("form", ["csv", "parquet", "json", "jsonl.gz"])
def test_same_rows_in_every_format(tmp_path: Path, form: str) -> None:
    rows = [ROW | {"rating": "better"}, ROW | {"prompt": 'Größe, "so"\nund so?', "rating": "1"}]
    path = tmp_path / f"a.{form}"
    if form == "csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif form == "json":
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    else:
        path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    good, bad = opened("own", path)
    assert bad == []
    assert [c.rating for c in good] == [Rating.BETTER, Rating.NEGLIGIBLY]
    assert [c.prompt[0].content for c in good] == [row["prompt"] for row in rows]


@pytest.mark.parametrize("form", ["file", "stream"])
def test_arrow_as_a_file_and_as_a_stream(tmp_path: Path, form: str) -> None:
    table = pa.Table.from_pylist([ROW] * 3_000)
    new = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
    path = tmp_path / "data-00000-of-00001.arrow"
    with pa.OSFile(str(path), "wb") as sink, new(sink, table.schema) as writer:
        writer.write_table(table)
    good, bad = opened("own", tmp_path)
    assert (len(good), bad) == (3_000, [])
    assert [c.meta["row"] for c in good[-2:]] == [2_999, 3_000]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(PalateError, match="not a whole Arrow file"):
        opened("own", path)


def test_parquet_with_messages_and_nulls(tmp_path: Path) -> None:
    rows = [
        {"prompt": [USER], "chosen": "A", "rejected": "B", "rating": 4, "chosen_safe": None},
        {"prompt": [USER], "chosen": "A", "rejected": "C", "rating": None, "chosen_safe": True},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    good, bad = opened("own", tmp_path)
    assert bad == []
    assert [c.rating for c in good] == [Rating.SIGNIFICANTLY, None]
    assert [c.chosen_safe for c in good] == [None, True]


def test_a_palate_file_comes_back_as_it_was(tmp_path: Path) -> None:
    good, _ = opened("own", write_jsonl(tmp_path / "raw" / "a.jsonl", [ROW]))
    write_comparisons(tmp_path / "kept.parquet", good)
    assert opened("own", tmp_path / "kept.parquet")[0] == good


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "a", "chosen": "b"}, "missing column 'rejected'"),
        ({"chosen": "b", "rejected": "c"}, "missing column 'prompt'"),
        (ROW | {"chosen": 3}, "chosen: expected text or one assistant message, got 3"),
        (ROW | {"chosen": None}, "chosen: expected text or one assistant message, got nothing"),
        (ROW | {"prompt": 5}, "prompt: expected a list of messages, got 5"),
        (ROW | {"prompt": []}, "prompt: expected a list of messages, got an empty list"),
        (ROW | {"prompt": [{"role": "user", "content": ["a"]}]}, "expected text or a part"),
        (
            ROW | {"prompt": [{"role": "bot", "content": "a"}]},
            "expected system, user, assistant or tool",
        ),
        (ROW | {"prompt": [USER, assistant("x")]}, "expected the last message to be the user's"),
        (ROW | {"chosen": [OTHER, assistant("x")]}, "expected one assistant message"),
        (ROW | {"chosen": [USER, OTHER]}, "expected the last message to be assistant, got user"),
        (ROW | {"chosen": "\ud83d"}, "expected UTF-8 text, got broken characters"),
        (ROW | {"rating": "great"}, "rating: expected significantly, better"),
        (ROW | {"rating": 5}, "got 5"),
        (ROW | {"rating": 0}, "got 0"),
        (ROW | {"rating": True}, "got True"),
        (ROW | {"rating": 2.5}, "got 2.5"),
        (ROW | {"rating": float("nan")}, "got nan"),
        (ROW | {"rating": 10**400}, "rating: expected significantly, better"),
        (ROW | {"chosen_safe": "perhaps"}, "chosen_safe: expected true or false"),
        (ROW | {"annotator": ["x"]}, "annotator: expected text, got a list"),
        ({"chosen": [USER], "rejected": [USER]}, "expected the last message to be assistant"),
        ({"chosen": [assistant("a")], "rejected": [assistant("b")]}, "expected a prompt before"),
        ([1], "expected a JSON object, got a list"),
        ("text", "expected a JSON object, got 'text'"),
    ],
)
def test_a_bad_row_says_what_was_expected(tmp_path: Path, row: Any, reason: str) -> None:
    good, bad = opened("own", write_jsonl(tmp_path / "a.jsonl", [ROW, row, ROW]))
    assert len(good) == 2
    assert [b.row for b in bad] == [2]
    assert reason in bad[0].reason
    assert str(bad[0]).startswith(f"{tmp_path / 'a.jsonl'}:2: ")


@pytest.mark.parametrize(
    ("value", "level"),
    [
        ("significantly", 4),
        ("Significantly Better", 4),
        ("better", 3),
        ("slightly_better", 2),
        ("negligibly better / unsure", 1),
        ("unsure", 1),
        ("4", 4),
        (3, 3),
        (2.0, 2),
        ("", None),
        (None, None),
    ],
)
def test_ratings_by_name_or_number(tmp_path: Path, value: object, level: int | None) -> None:
    found = only(write_jsonl(tmp_path / "a.jsonl", [ROW | {"rating": value}]))
    assert found.rating == level


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"prompt": ', "broken JSON"),
        (b"\xe9{}", "expected UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"prompt": ' + b"9" * 5_000 + b"}", "broken JSON"),
    ],
)
def test_a_broken_line_does_not_stop_the_rest(tmp_path: Path, line: bytes, reason: str) -> None:
    good_line = json.dumps(ROW).encode()
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([good_line, line, b"", good_line]))
    good, bad = opened("own", tmp_path / "a.jsonl")
    assert [c.meta["row"] for c in good] == [1, 4]
    assert [(b.row, reason in b.reason) for b in bad] == [(2, True)]


def test_a_line_without_end_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palate.data.sources.files.MAX_LINE_CHARACTERS", 200)
    rows = [ROW, ROW | {"chosen": "x" * 1_000}, ROW]
    good, bad = opened("own", write_jsonl(tmp_path / "a.jsonl", rows))
    assert [c.meta["row"] for c in good] == [1, 3]
    assert [b.row for b in bad] == [2]


def test_bad_csv_rows(tmp_path: Path) -> None:
    text = b'prompt,chosen,rejected\na,b\n"a"x,b,c\na,\xff,c\na,b,c\n'
    (tmp_path / "a.csv").write_bytes(text)
    good, bad = opened("own", tmp_path / "a.csv")
    assert len(good) == 1
    assert [b.row for b in bad] == [2, 3, 4]
    assert "expected 3 cells, got 2" in bad[0].reason
    assert "expected UTF-8, got other bytes (Windows-1252" in bad[2].reason


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", b"", "the file is empty"),
        ("a.csv", b"prompt,chosen,rejected\n", "expected rows, found a header and none below it"),
        ("a.csv", b"\n", "the file is empty"),
        ("a.json", b"[]", "expected rows, found an empty list"),
        ("a.json", b'[{"a": ', "broken JSON"),
        ("a.jsonl.gz", b"no gzip", "cut or not gzip"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 99, mtime=0)[:-9], "cut or not gzip"),
        ("a.parquet", b"PAR1", "not a whole Parquet file"),
        ("a.jsonl", codecs.BOM_UTF16_LE + b"{", "a.jsonl: cut or not utf-16"),
        ("a.txt", b"x", "expected one of .jsonl"),
        ("a.jsonl", b"PAR1\x15", "is a Parquet file; let its name end in .parquet"),
        ("a.jsonl", gzip.compress(b"{}", mtime=0), "is packed; let its name end in .gz"),
        (
            "a.csv",
            b"prompt,chosen,rejected,chosen\na,b,c,d\n",
            "column 'chosen' stands twice in the header",
        ),
    ],
)
def test_a_file_wrong_as_a_whole_is_one_line(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PalateError, match=reason) as caught:
        opened("own", tmp_path / name)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_missing_file_and_missing_split(tmp_path: Path) -> None:
    with pytest.raises(PalateError, match="no such file or folder"):
        opened("own", tmp_path / "none.jsonl")
    write_jsonl(tmp_path / "train.jsonl", [ROW])
    with pytest.raises(PalateError, match=r"expected data files split=test, found train\.jsonl"):
        opened("own", tmp_path, split="test")
    assert len(opened("own", tmp_path, split="train")[0]) == 1


def test_no_location() -> None:
    with pytest.raises(PalateError, match=r"^expected a local file or folder or a hub id"):
        list(open_source("own"))


def test_one_bad_row_in_a_hundred_is_borne_and_two_are_not(tmp_path: Path) -> None:
    path, seen = write_jsonl(tmp_path / "a.jsonl", [*[ROW] * 99, {}]), []
    rows = open_source("own", Request(path))
    assert len(list(readable(rows, on_bad=seen.append))) == 99
    assert [bad.row for bad in seen] == [100]
    write_jsonl(path, [*[ROW] * 98, {}, {}])
    with pytest.raises(
        PalateError, match=r"2 of 100 rows are bad, more than 1.0%; the first: .*99"
    ):
        list(readable(open_source("own", Request(path))))


def test_a_file_of_something_else_is_given_up_early(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "x"}] * 5_000)
    with pytest.raises(PalateError, match="1000 of 1000 rows are bad"):
        list(readable(open_source("own", Request(path))))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            {"chosen": [assistant("A") | {"tool_calls": [{"id": "1"}]}]},
            "chosen[0].tool_calls[0]: expected",
        ),
        ({"prompt": [USER | {"thinking": "x"}]}, "prompt[0]: 'thinking'"),
        ({"prompt": [USER | {"images": ["a"]}]}, "prompt[0]: 'images'"),
        ({"tools": [{"type": "function"}]}, "tools[0]: expected a function with a name"),
    ],
)
def test_content_that_is_not_read_is_a_bad_row(
    tmp_path: Path, row: dict[str, Any], reason: str
) -> None:
    good, bad = opened("own", write_jsonl(tmp_path / "a.jsonl", [ROW, ROW | row]))
    assert (len(good), [b.row for b in bad]) == (1, [2])
    assert reason in bad[0].reason


def test_columns_that_are_not_read_are_named_once_a_file_and_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [
        ROW | {"margin": 1.5, "status": "discarded", "note": None},
        ROW | {"margin": 0, "status": "submitted", "messages": [USER] * 200, "\x1b[2J": "x"},
        ROW | {"margin": float("nan"), "status": "submitted", "rating": "better"},
    ]
    with caplog.at_level("INFO", "palate"):
        good, bad = opened("own", write_jsonl(tmp_path / "a.jsonl", rows))
    assert bad == []
    assert [c.meta["columns"] for c in good] == [
        {"margin": 1.5, "status": "discarded"},
        {"margin": 0, "status": "submitted", " [2J": "x"},
        {"margin": "nan", "status": "submitted"},
    ]
    (line,) = caplog.messages
    assert line.startswith(
        f"{tmp_path / 'a.jsonl'}: read prompt, chosen, rejected, rating; not read"
    )
    assert "status (submitted × 2, discarded × 1)" in line
    assert "messages (too long to keep in 1 rows)" in line
    assert "Palate takes margins from `rating`" in line
    assert line.isprintable()
    assert "note" not in line


def test_what_a_parquet_column_holds_is_kept_as_json(tmp_path: Path) -> None:
    row = ROW | {"day": datetime.date(2026, 1, 2), "score_chosen": 7.0, "score_rejected": 8.0}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    found = only(tmp_path / "a.parquet")
    kept = {"day": "2026-01-02", "score_chosen": 7.0, "score_rejected": 8.0}
    assert found.meta["columns"] == kept
    write_comparisons(tmp_path / "kept.parquet", [found])
    assert only(tmp_path / "kept.parquet").meta["columns"] == kept


TEXTS = ['Größe, "so";\tund\nso | é?', "Because.", "No."]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("form", ["a.csv", "a;csv", "a\tcsv", "a|csv", "a\ttsv", "sep=;", "jsonl"])
def test_separators_and_encodings_are_seen(tmp_path: Path, form: str, encoding: str) -> None:
    if form == "jsonl":
        text = json.dumps(dict(zip(ROW, TEXTS, strict=True)), ensure_ascii=False) + "\n"
        path = tmp_path / "a.jsonl"
    else:
        separator = ";" if form == "sep=;" else form[1].replace(".", ",")
        file = io.StringIO()
        csv.writer(file, delimiter=separator).writerows([list(ROW), TEXTS])
        text = ("sep=;\r\n" if form == "sep=;" else "") + file.getvalue()
        path = tmp_path / ("a.tsv" if form.endswith("tsv") else "a.csv")
    mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""
    path.write_bytes(mark + text.encode(encoding))
    found = only(path)
    assert [found.prompt[0].content, found.chosen, found.rejected] == TEXTS


def test_an_encoding_that_cannot_be_seen_is_named(tmp_path: Path) -> None:
    for name, text in (("a.csv", "prompt;chosen;rejected\nCafé?;a;b\n"), ("a.jsonl", '{"a": "é"}')):
        (tmp_path / name).write_bytes(text.encode("latin-1"))
        _, bad = opened("own", tmp_path / name)
        assert "iconv -f WINDOWS-1252 -t UTF-8" in bad[0].reason


@pytest.mark.parametrize("write", [json.dumps, str])
def test_messages_in_the_cells_of_a_csv(tmp_path: Path, write: Any) -> None:
    before = [USER, assistant("It's so."), {"role": "user", "content": "And?"}]
    rows = [{"prompt": write(before), "chosen": write([assistant("A")]), "rejected": "B"}]
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    found = only(tmp_path / "a.csv")
    assert [turn.content for turn in found.prompt] == ["Why?", "It's so.", "And?"]
    assert (found.chosen, found.rejected) == ("A", "B")


def test_rows_in_palates_columns_are_read_as_before_mappings(tmp_path: Path) -> None:
    """The fingerprint is that of the commit before: columns named like roles stay unread."""
    before = [USER, assistant("y")]
    rows = [
        {"prompt": "a", "chosen": "b", "rejected": "c", "weight": 2, "winner": "a"}
        | {"rating": "better", "annotator": 3},
        {"prompt": [{"role": "user", "content": "x"}], "chosen": "b", "rejected": "c"}
        | {"probability": 0.2},
        {"chosen": before, "rejected": before, "messages": [], "instruction": "i"},
    ]
    good, bad = opened("own", write_jsonl(tmp_path / "plain.jsonl", rows))
    assert bad == []
    assert (
        write_comparisons(tmp_path / "out.parquet", good).fingerprint
        == "86f3f29367065e354788035c49983013"
    )


def test_reading_an_arrow_file_does_not_keep_it_in_memory(tmp_path: Path) -> None:
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("no /proc")

    def mapped_megabytes() -> int:
        (line,) = (row for row in status.read_text().splitlines() if row.startswith("RssFile"))
        return int(line.split()[1]) // 1024

    table = pa.table({name: ["x" * 2**14] * 2_048 for name in ("prompt", "chosen")})
    with pa.ipc.new_stream(str(tmp_path / "a.arrow"), table.schema) as writer:
        writer.write_table(table)
    before = mapped_megabytes()
    read = ((row.row, mapped_megabytes()) for row in read_file(tmp_path / "a.arrow"))
    rows, most = zip(*(one for one in read if one[0] % 512 == 0), strict=True)
    assert rows == (512, 1024, 1536, 2048)
    assert max(most) < before + 48  # Of 64.


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(st.dictionaries(st.text(max_size=4), VALUES, max_size=4), min_size=1, max_size=6),
    indent=st.sampled_from([None, 1]), ascii_only=st.booleans(), size=st.integers(1, 9),
)  # fmt: skip
def test_a_json_array_is_what_it_is_whole_wherever_its_pieces_end(
    tmp_path: Path, rows: list[Any], indent: Any, ascii_only: bool, size: int
) -> None:
    path = tmp_path / "a.json"
    path.write_text(
        "\n " + json.dumps(rows, indent=indent, ensure_ascii=ascii_only) + "\n ", "utf-8"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "CHARACTERS_PER_READ", size)
        patch.setattr(files, "HEADER_CHARACTERS", 3 + size)
        read = list(read_file(path))
    assert [record.data for record in read] == rows
    assert [record.row for record in read] == list(range(1, len(rows) + 1))


@pytest.mark.parametrize("size", [1, 7, 1_000])
@pytest.mark.parametrize(
    ("text", "before", "words"),
    [
        ('[{"a": 1}, {"a": "x', 1, "in item 2 (Unterminated string"),
        ('[{"a": 1}, {"a": 1}', 1, "in item 2 (it ends early)"),
        ('[{"a": 1}, ', 1, "in item 2 (Expecting value)"),
        ('[{"a": 1} {"a": 2}]', 1, "in item 2 (expected , or ] behind the item before)"),
        ('[{"a": 1},]', 1, "in item 2 (Expecting value)"),
        ('[{"a": 1}] {}', 1, "in item 2 (more behind its end)"),
        ('[{"a": tru, "b": "more characters than are looked at twice"}]', 0, "(Expecting value)"),
        ("[", 0, "(it ends early)"),
    ],
)  # fmt: skip
def test_a_broken_array_is_read_to_the_item_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, text: str, before: int, words: str
) -> None:
    monkeypatch.setattr(files, "CHARACTERS_PER_READ", size)
    monkeypatch.setattr(files, "HEADER_CHARACTERS", size)
    path = tmp_path / "a.json"
    path.write_text(text)
    read = read_file(path)
    assert len([next(read) for _ in range(before)]) == before
    with pytest.raises(PalateError, match="expected a JSON array, got broken JSON") as refused:
        next(read)
    assert words in str(refused.value)


def test_an_item_of_an_array_that_is_no_utf_8_is_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'[{"a": "\xe9"}, {"a": 1}, 7]')
    first, second, third = read_file(path)
    assert isinstance(first, BadRow)
    assert "iconv" in first.reason
    assert second.data == {"a": 1}
    assert isinstance(third, BadRow)


def test_of_a_long_array_a_few_items_are_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "CHARACTERS_PER_READ", 5_000)
    monkeypatch.setattr(files, "HEADER_CHARACTERS", 5_000)
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"a": "x" * 990} for _ in range(2_000)]))  # Two million.
    assert sum(1 for _ in read_file(path)) == 2_000
    tracemalloc.start()
    count = sum(1 for _ in read_file(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 2_000
    assert peak < 200_000
