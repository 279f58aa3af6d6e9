"""Columns of any name: who won in every way that files say it, and each mistake in one line."""

import csv
from pathlib import Path
from typing import Any

import pytest

from palate.data.comparisons import load_comparisons
from palate.data.sources.mapping import ROLES, check, words
from palate.records import write_comparisons
from palate.types import Comparison, Judgement, Message, PalateError, Rating

from .rows import opened, write_jsonl

PAIR = {"question": "Why?", "left_text": "Because.", "right_text": "No."}
COLUMNS = {"prompt": "question", "response_a": "left_text", "response_b": "right_text"}
TIE, BOTH_BAD = Judgement(0, 0, 1), Judgement(0, 0, 0, 1)


def read(
    tmp_path: Path, *rows: dict[str, Any], values: dict[Any, Any] | None = None, **columns: str
) -> list[Comparison]:
    path = write_jsonl(tmp_path / "a.jsonl", [PAIR | row for row in rows])
    good, bad = opened(
        "own", path, columns=COLUMNS | columns, values=words(values or {}), ties="keep"
    )
    assert bad == []
    return good


def refused(tmp_path: Path, row: dict[str, Any], **request: Any) -> str:
    path = write_jsonl(tmp_path / "a.jsonl", [PAIR | row])
    good, bad = opened("own", path, **request)
    assert good == []
    assert [b.row for b in bad] == [1]
    return f"{bad[0].kind}: {bad[0].reason}"


def side(comparison: Comparison) -> str:
    if comparison.judgement.decides == "tie":
        assert (comparison.chosen, comparison.rejected) == ("Because.", "No.")
        return "both_bad" if comparison.judgement == BOTH_BAD else "tie"
    return {"Because.": "a", "No.": "b"}[comparison.chosen]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("a b tie", "a b tie"),
        ("A B Tie", "a b tie"),
        ("model_a|model_b|tie|tie (bothbad)|both_bad", "a b tie both_bad both_bad"),
        ("left|right|middle", "a b tie"),
        ("response_1|response_2", "a b"),
        ("response1|response2", "a b"),
        ("Answer 1|Answer 2|both bad", "a b both_bad"),
        ("1 2 0", "a b tie"),
        ("left_text|right_text", "a b"),
        ("Response A|Assistant-B|draw", "a b tie"),
    ],
)
def test_known_words_for_the_winner(tmp_path: Path, said: str, expected: str) -> None:
    values = said.split("|") if "|" in said else said.split()
    found = read(tmp_path, *({"winner": value} for value in values), winner="winner")
    assert [side(c) for c in found] == expected.split()
    assert found[0].prompt == (Message("user", "Why?"),)


def test_numbers_for_the_winner(tmp_path: Path) -> None:
    rows = [{"winner": n} for n in (1, 2.0, 0)]
    assert [side(c) for c in read(tmp_path, *rows, winner="winner")] == ["a", "b", "tie"]
    rows = [{"winner": n} for n in (0, 1)]
    with pytest.raises(PalateError, match=r"0, 1 may count from 0 or from 1; say it: values: \{0"):
        read(tmp_path, *rows, winner="winner")
    found = read(tmp_path, *rows, winner="winner", values={0: "a", 1: "b"})
    assert [side(c) for c in found] == ["a", "b"]
    rows = [{"winner": n} for n in (-1, 0, 1)]
    with pytest.raises(PalateError, match=r"got -1 among numbers.*\{-1: a, 0: tie, 1: b\}"):
        read(tmp_path, *rows, winner="winner")
    found = read(tmp_path, *rows, winner="winner", values={-1: "b", 0: "tie", 1: "a"})
    assert [side(c) for c in found] == ["b", "tie", "a"]


@pytest.mark.parametrize(
    ("columns", "said", "expected"),
    [
        (("right_answer", "left_answer"), "left", "b"),
        (("right", "left"), "right", "a"),
        (("answer_2", "answer_1"), "1", "b"),
        (("response_b", "response_a"), "model_b", "a"),
        (("answer_0", "answer_1"), "0", "a"),
        (("answer_0", "answer_1"), "1", "b"),
        (("texts.0", "texts.1"), "a", "a"),
    ],
)
def test_a_word_of_one_responses_column_means_that_response(
    columns: tuple[str, str], said: str, expected: str
) -> None:
    row = {"prompt": "p", columns[0]: "A", columns[1]: "B", "who": said, "texts": ["A", "B"]}
    mapping = {"response_a": columns[0], "response_b": columns[1], "winner": "who"}
    (read,) = load_comparisons([row], columns=mapping)
    assert read.chosen == expected.upper()


@pytest.mark.parametrize("columns", [("answer_0", "answer_1"), ("answer_a", "answer_b")])
def test_numbers_that_may_count_from_0_are_asked_about(
    columns: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"prompt": f"p{n}", columns[0]: "A", columns[1]: "B", "who": n} for n in (0, 1, 2)]
    mapping = {"response_a": columns[0], "response_b": columns[1], "winner": "who"}
    if columns[0] == "answer_0":
        with pytest.raises(PalateError, match="may count from 0 or from 1; say it: values"):
            load_comparisons(rows, columns=mapping)
        values = {0: "a", 1: "b", 2: "tie"}
        assert len(load_comparisons(rows, columns=mapping, values=values)) == 2
        return
    assert [c.chosen for c in load_comparisons(rows, columns=mapping)] == ["A", "B"]
    assert "0 is read as a tie, 1 as the first response" in caplog.text


def test_words_of_the_users_own(tmp_path: Path) -> None:
    values = {"neither": "both_bad", "Left, clearly": "a", True: "b", "?": "tie"}
    rows = [{"w": said} for said in ("neither", "left,  clearly", "yes", True, "?")]
    found = read(tmp_path, *rows, winner="w", values=values)
    assert [side(c) for c in found] == ["both_bad", "a", "b", "b", "tie"]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"x": 1, "y": 0, "z": 0, "u": 0}, Judgement()),
        ({"x": "0", "y": "1.0", "z": "0", "u": "0"}, Judgement()),
        ({"x": False, "y": False, "z": True, "u": False}, TIE),
        ({"x": 0, "y": 0, "z": 0, "u": 1}, BOTH_BAD),
    ],
)
def test_one_column_for_each_outcome(
    tmp_path: Path, row: dict[str, Any], expected: Judgement
) -> None:
    columns = {"winner_a": "x", "winner_b": "y", "winner_tie": "z", "winner_both_bad": "u"}
    (found,) = read(tmp_path, row, **columns)
    assert found.judgement == expected


def test_votes_and_weights(tmp_path: Path) -> None:
    rows = [{"l": 1, "r": "4", "t": 2, "w": 0.5}, {"l": 2, "r": 2, "t": None, "w": None}]
    first, second = read(tmp_path, *rows, votes_a="l", votes_b="r", votes_tie="t", weight="w")
    assert (first.chosen, first.judgement) == ("No.", Judgement(4, 1, 2, weight=0.5))
    assert (second.chosen, second.judgement) == ("Because.", Judgement(2, 2))
    assert second.judgement.decides == "tie"


def test_probabilities_of_the_first_and_of_the_chosen(tmp_path: Path) -> None:
    rows = [{"p": 0.75}, {"p": "0.25"}, {"p": 1}]
    found = read(tmp_path, *rows, probability="p")
    assert [c.chosen for c in found] == ["Because.", "No.", "Because."]
    assert [c.judgement for c in found] == [Judgement(0.75, 0.25)] * 2 + [Judgement()]
    path = write_jsonl(tmp_path / "b.jsonl", [PAIR | {"p": 0.25}])
    columns = {"prompt": "question", "chosen": "left_text", "rejected": "right_text"}
    (one,) = opened("own", path, columns=columns | {"probability": "p"})[0]
    assert (one.chosen, one.judgement) == ("No.", Judgement(0.75, 0.25))


def test_a_signed_strength_with_its_sign_stated(tmp_path: Path) -> None:
    rows = [{"s": n} for n in (-3, "2", 1.0, 0)]
    found = read(tmp_path, *rows, strength_b="s")
    assert [side(c) for c in found] == ["a", "b", "b", "tie"]
    levels = [Rating.SIGNIFICANTLY, Rating.BETTER, Rating.SLIGHTLY, None]
    assert [c.rating for c in found] == levels
    assert [c.meta["strength"] for c in found] == [3, 2, 1, 0]
    turned = read(tmp_path, *rows, strength_a="s")
    assert [side(c) for c in turned] == ["b", "a", "a", "tie"]
    seven = {n: 4 - n for n in range(1, 8)}
    found = read(tmp_path, {"s": 1}, {"s": 4}, {"s": 7}, strength_a="s", values=seven)
    assert [side(c) for c in found] == ["a", "tie", "b"]


def test_every_other_role(tmp_path: Path) -> None:
    row = {"w": "b", "grade": "slightly", "who": 7, "week": "w1", "sa": "yes", "sb": "no", "q": 12}
    (found,) = read(
        tmp_path, row, winner="w", rating="grade", annotator="who", batch="week", safe_a="sa",
        safe_b="sb", prompt_id="q",
    )  # fmt: skip
    assert (found.rating, found.annotator, found.batch) == (Rating.SLIGHTLY, "7", "w1")
    assert (found.chosen_safe, found.rejected_safe) == (False, True)
    assert "columns" not in found.meta
    assert found.prompt_id != read(tmp_path, {"w": "b"}, winner="w")[0].prompt_id


def test_columns_by_their_own_names_and_keys_within(tmp_path: Path) -> None:
    row = {
        "task": {"q": "Why?", "answers": ["Because.", "No."]},
        "winner": "b",
        "annotator": "ann",
        "note": "x",
    }
    columns = {
        "prompt": "task.q",
        "response_a": "task.answers.0",
        "response_b": "task.answers.1",
    }
    (found,) = opened("own", write_jsonl(tmp_path / "a.jsonl", [row]), columns=columns)[0]
    assert (found.chosen, found.annotator) == ("No.", "ann")
    assert found.meta["columns"] == {"note": "x"}


def test_only_the_prompt_may_have_another_name(tmp_path: Path) -> None:
    row = {"question": "Why?", "chosen": "A", "rejected": "B", "rating": "better", "winner": "?"}
    path = write_jsonl(tmp_path / "a.jsonl", [row | {"weight": 3}])
    (found,) = opened("own", path, columns={"prompt": "question"})[0]
    assert (found.chosen, found.rating, found.judgement) == ("A", Rating.BETTER, Judgement())
    assert found.meta["columns"] == {"winner": "?", "weight": 3}


def test_ranked_responses_in_a_row(tmp_path: Path) -> None:
    row = {"q": "Why?", "answers": ["A", "B", "C"], "place": [2, 1, 2]}
    path = write_jsonl(tmp_path / "a.jsonl", [row])
    columns = {"prompt": "q", "responses": "answers", "ranks": "place"}
    good, _ = opened("own", path, columns=columns, ties="keep")
    assert [(c.chosen, c.rejected, c.judgement.decides) for c in good] == [
        ("B", "A", "chosen"),
        ("A", "C", "tie"),
        ("B", "C", "chosen"),
    ]
    assert [(c.ranks.chosen, c.ranks.rejected) for c in good if c.ranks] == [(0, 1), (1, 1), (0, 1)]
    assert len({c.ranks.ranking for c in good if c.ranks}) == 1
    assert len({c.id for c in good}) == 3


@pytest.mark.parametrize(
    ("row", "columns", "reason"),
    [
        ({"w": ""}, {"winner": "w"}, "left out: w: empty, so nothing was preferred"),
        ({"w": None}, {"strength_a": "w"}, "left out: w: empty"),
        (
            {"w": "neither"},
            {"winner": "w"},
            "bad: w: expected a, b, tie or both_bad, got 'neither'",
        ),
        ({"w": "neither"}, {"winner": "w"}, "say what it means: values: {neither: tie}"),
        ({"w": -2}, {"winner": "w"}, "a signed strength is strength_a or strength_b"),
        ({"w": 4}, {"strength_a": "w"}, "bad: w: expected a whole strength of -3 to 3, got 4"),
        ({"w": 0.5}, {"strength_a": "w"}, "a whole strength of -3 to 3, got 0.5"),
        ({"w": 70}, {"probability": "w"}, "w: expected a probability of 0 to 1, got 70"),
        ({"w": float("nan")}, {"probability": "w"}, "a probability of 0 to 1, got nan"),
        ({"w": 1, "v": 1}, {"winner_a": "w", "winner_b": "v"}, "expected one winner, got two"),
        (
            {"w": 0, "v": 0},
            {"winner_a": "w", "winner_b": "v"},
            "expected one winner, got none; a c",
        ),
        ({"w": 2, "v": 0}, {"winner_a": "w", "winner_b": "v"}, "w: expected 0 or 1, got 2"),
        ({"w": 0, "v": 0}, {"votes_a": "w", "votes_b": "v"}, "left out: w, v: nobody voted"),
        ({"w": 0.5, "v": 0}, {"votes_a": "w", "votes_b": "v"}, "whole number of 0 or more"),
        ({"w": "a", "v": -1}, {"winner": "w", "weight": "v"}, "v: expected a weight of 0 or more"),
        ({"w": "a", "left_text": 3}, {"winner": "w"}, "chosen: expected text or one assistant"),
        ({"w": "a", "rating": "huge"}, {"winner": "w"}, "rating: expected significantly"),
    ],
)
def test_a_wrong_row_says_what_was_expected(
    tmp_path: Path, row: dict[str, Any], columns: dict[str, str], reason: str
) -> None:
    assert reason in refused(tmp_path, row, columns=COLUMNS | columns)


def test_a_word_that_is_to_be_skipped(tmp_path: Path) -> None:
    values = {"unsure": "skip"}
    said = refused(tmp_path, {"w": "Unsure"}, columns=COLUMNS | {"winner": "w"}, values=values)
    assert said == "left out: w: 'Unsure' is to be skipped"


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"promt": "question"}, "columns: no role 'promt'; did you mean 'prompt'?"),
        ({"prompt": "questoin"}, "no column 'questoin' (columns.prompt); did you mean 'question'?"),
        ({"prompt": 3}, "columns: prompt: expected a column's name, got 3"),
        ({7: "question"}, "columns: no role 7"),
        (COLUMNS | {"response_b": "left_text"}, "response_a and response_b are both 'left_text'"),
        (COLUMNS | {"winner": "w", "votes_a": "v"}, "winner and votes_a both say who won"),
        (COLUMNS | {"chosen": "w"}, "chosen and response_a are both responses"),
        (COLUMNS, "no column says who won; name it in `columns`: winner, winner_a"),
        (COLUMNS | {"votes_a": "w"}, "no column is votes_b; name it in `columns`; the file has: q"),
        ({"prompt": "question", "winner": "w"}, "no column is a response; name chosen and"),
        ({"response_a": "left_text", "winner": "w"}, "no column is response_b"),
        (
            {"chosen": "left_text", "rejected": "right_text", "winner": "w"},
            "name these two instead",
        ),
        ({"responses": "left_text"}, "name ranks or scores of responses"),
    ],
)
def test_a_mapping_that_cannot_be_is_one_line(
    tmp_path: Path, columns: dict[Any, Any], reason: str
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [PAIR | {"w": "a", "v": 1}] * 2)
    out = tmp_path / "out.parquet"
    with pytest.raises(PalateError) as caught:
        write_comparisons(out, load_comparisons(path, columns=columns))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_values_that_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"values: good means 'c', expected one of a, b, tie"):
        check({"winner": "w"}, {"good": "c"})
    with pytest.raises(ValueError, match="expected one of -3, -2"):
        check({"strength_a": "w"}, {"good": "a"})
    with pytest.raises(ValueError, match="votes_a needs none"):
        check({"votes_a": "w"}, {"good": "a"})


def test_two_ways_to_say_who_won_in_the_file_itself(tmp_path: Path) -> None:
    row = {"prompt": "?", "response_a": "x", "response_b": "y", "winner": "a", "probability": 0.9}
    path = write_jsonl(tmp_path / "a.jsonl", [row])
    with pytest.raises(PalateError, match="winner and probability both say who won; name one"):
        opened("own", path, columns={"prompt": "prompt"})
    (found,) = opened("own", path, columns={"probability": "probability"})[0]
    assert found.judgement == Judgement(0.9, 1 - 0.9)


def test_only_own_files_are_mapped(tmp_path: Path) -> None:
    with pytest.raises(PalateError, match="shp: its columns are known"):
        opened("shp", tmp_path, columns=COLUMNS)
    good = load_comparisons([{"prompt": "a", "chosen": "b", "rejected": "c"}])
    write_comparisons(tmp_path / "ours.parquet", good)
    with pytest.raises(PalateError, match="in Palate's form"):
        opened("own", tmp_path / "ours.parquet", columns=COLUMNS)


def test_a_frame_and_a_csv_and_lines_give_the_same(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    rows = [PAIR | {"w": said} for said in ("a", "b", "tie", "both_bad")]
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    wanted = {"columns": COLUMNS | {"winner": "w"}, "ties": "keep"}
    from_frame = load_comparisons(pandas.DataFrame(rows), **wanted)
    from_csv = load_comparisons(tmp_path / "a.csv", **wanted)
    assert [(c.chosen, c.judgement) for c in from_frame] == [
        (c.chosen, c.judgement) for c in from_csv
    ]
    assert len(load_comparisons(rows, columns=COLUMNS | {"winner": "w"}, max_bad_share=0)) == 2


def test_what_was_read_as_what_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [PAIR | {"w": "a", "model": "m"}])
    with caplog.at_level("INFO", "palate"):
        opened("own", path, columns=COLUMNS | {"winner": "w"})
    (line,) = caplog.messages
    assert line == (
        f"{path}: read question as prompt, left_text as response_a, right_text as response_b, "
        "w as winner; not read, kept in meta: model"
    )


def test_every_role_can_be_named() -> None:
    for role in ROLES:
        check({role: "x"}, {})


def test_two_annotators_files_of_one_name_hold_two_rankings(tmp_path: Path) -> None:
    row = {"prompt": "Why?", "responses": ["A", "B", "C"]}
    names: set[str] = set()
    for annotator, ranks in (("ann", [1, 2, 3]), ("bob", [3, 1, 2]), ("eve", [1, 2, 3])):
        folder = tmp_path / annotator
        folder.mkdir()
        rows = [row | {"ranks": ranks, "annotator": annotator}]
        good, _ = opened("own", write_jsonl(folder / "ranks.jsonl", rows))
        assert len({c.ranks.ranking for c in good if c.ranks}) == 1
        names |= {c.ranks.ranking for c in good if c.ranks}
    assert len(names) == 3


def test_a_tie_that_is_left_out_is_named_by_its_file_and_row(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    path = write_jsonl(folder / "a.jsonl", [PAIR | {"winner": said} for said in ("a", "tie")])
    frame = [PAIR | {"winner": "tie"}, PAIR | {"winner": "b"}]
    for source, file in ((path, f"{path}:2"), (folder, f"{path}:2"), (frame, "list:1")):
        left_out: list[Any] = []
        load_comparisons(source, columns=COLUMNS, on_bad=left_out.append)
        assert [f"{row.file}:{row.row} {row.kind}" for row in left_out] == [f"{file} tie"]
