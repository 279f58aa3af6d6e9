"""Comparisons of a frame, a Dataset, dicts and a file are the same ones; and go back."""

from dataclasses import replace

import datasets
import numpy as np
import pandas
import pytest

from palate.data.comparisons import load_comparisons, save_comparisons, to_dataset, to_pandas
from palate.data.sources import SOURCES
from palate.records import read_comparisons
from palate.types import UNREAD_COLUMNS, Judgement, Message, PalateError, Ranks, Rating, parts_of

ROWS = [
    {
        "prompt": f"What is {n} plus 1?",
        "chosen": f"{n + 1}.",
        "rejected": "I do not know.",
        "rating": ("slightly", "significantly better", None)[n % 3],
        "chosen_safe": True,
        "score": n / 2,
    }
    for n in range(200)
]
TURNS = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "A fruit?"},
]


@pytest.mark.parametrize("make", [pandas.DataFrame, datasets.Dataset.from_list, iter])
def test_rows_in_memory_are_read_as_those_of_a_file(make):
    expected = load_comparisons(ROWS)
    assert load_comparisons(make(ROWS)) == expected
    assert len({one.id for one in expected}) == 200
    assert [one.rating for one in expected[:3]] == [Rating.SLIGHTLY, Rating.SIGNIFICANTLY, None]
    assert expected[3].meta[UNREAD_COLUMNS] == {"score": 1.5}


def test_messages_are_read_from_a_frame_of_arrays(tmp_path):
    rows = [{"prompt": TURNS, "chosen": "Apple.", "rejected": "Bread."}]
    pandas.DataFrame(rows).to_parquet(tmp_path / "rows.parquet")
    frame = pandas.read_parquet(tmp_path / "rows.parquet")
    assert isinstance(frame.prompt[0], np.ndarray)
    (one,) = load_comparisons(frame)
    assert one.prompt == tuple(Message(turn["role"], turn["content"]) for turn in TURNS)
    assert load_comparisons(tmp_path / "rows.parquet")[0].prompt == one.prompt


@pytest.mark.parametrize("back", [to_pandas, to_dataset])
def test_what_goes_out_comes_back_with_ids_clusters_and_meta(back):
    rows = [*ROWS, {"prompt": TURNS, "chosen": "a", "rejected": "b", "prompt_id": "tree 7"}]
    comparisons = load_comparisons(rows)
    assert load_comparisons(back(comparisons)) == comparisons
    assert back(comparisons).shape == (201, 16)


@pytest.mark.parametrize("back", [to_pandas, to_dataset])
def test_ties_votes_and_ranks_come_back(back):
    comparisons = load_comparisons([*ROWS])
    comparisons[0] = replace(comparisons[0], judgement=Judgement(chosen=0, tie=1))
    comparisons[1] = replace(comparisons[1], judgement=Judgement(2, 1, weight=0.5))
    comparisons[2] = replace(comparisons[2], ranks=Ranks("r", 0, 3))
    assert load_comparisons(back(comparisons), ties="keep") == comparisons
    assert load_comparisons(back(comparisons)) == comparisons[1:]


@pytest.mark.parametrize("back", [to_pandas, to_dataset])
def test_calls_tools_and_reasoning_come_back(back):
    call = {"name": "add", "arguments": {"a": 1, "b": None}}
    rows = [
        {"prompt": TURNS, "chosen": [speaks({"tool_calls": [call]})], "rejected": "3"},
        {
            "prompt": [*TURNS, speaks({"tool_calls": [call]}), {"role": "tool", "content": "3"}],
            "chosen": [speaks({"reasoning_content": "Add.", "content": "3"})],
            "rejected": [speaks({"content": "4"})],
        },
    ]
    comparisons = load_comparisons([row | {"tools": [{"name": "add"}]} for row in rows])
    assert load_comparisons(back(comparisons)) == comparisons
    assert load_comparisons(back([*comparisons, *load_comparisons(ROWS)]))[:2] == comparisons


def test_a_columnar_file_gives_a_call_no_arguments_of_other_calls(tmp_path):
    calls = [{"name": "add", "arguments": {"a": 1}}, {"name": "sing", "arguments": {"song": "x"}}]
    rows = [
        {
            "prompt": TURNS,
            "chosen": [speaks({"content": "", "tool_calls": [call]})],
            "rejected": "3",
        }
        for call in calls
    ]
    written = [parts_of(c.chosen)[1]["tool_calls"][0]["function"] for c in load_comparisons(rows)]
    assert written == calls
    dataset = datasets.Dataset.from_list(rows)
    dataset.to_parquet(tmp_path / "a.parquet")
    dataset.save_to_disk(tmp_path / "saved")
    read = [load_comparisons(s) for s in (dataset, tmp_path / "a.parquet", tmp_path / "saved")]
    for comparisons in read:
        assert [c.chosen for c in comparisons] == [c.chosen for c in load_comparisons(rows)]


def speaks(message):
    return {"role": "assistant", **message}


def test_a_saved_file_is_the_comparisons(tmp_path):
    comparisons = load_comparisons(ROWS)
    path = save_comparisons(iter(comparisons), str(tmp_path / "mine.parquet"))
    assert [*read_comparisons(path)] == load_comparisons(str(path)) == comparisons
    with pytest.raises(PalateError, match=r"expected a name that ends in \.parquet"):
        save_comparisons(comparisons, tmp_path / "mine.jsonl")


def test_an_empty_cell_is_a_bad_row_that_is_counted(caplog):
    frame = pandas.DataFrame(ROWS)
    frame.loc[3, "chosen"] = np.nan
    assert len(load_comparisons(frame)) == 199
    said = caplog.text
    assert "DataFrame:4: chosen: expected text" in said
    assert "199 comparisons, 1 rows not read" in said
    found = []
    load_comparisons(frame, on_bad=found.append)
    assert [row.row for row in found] == [4]
    with pytest.raises(PalateError, match=r"1 of 200 rows are bad, more than 0\.0%"):
        load_comparisons(frame, max_bad_share=0)


def test_a_source_is_read_by_name_and_by_hub_id(tmp_path):
    options = {"task": "safety", "weeks": 1, "comparisons_per_week": 30}
    assert len(load_comparisons("simulated", options=options)) == 30
    folder = tmp_path / SOURCES["anthropic-hh"].folder / "helpful-base"
    folder.mkdir(parents=True)
    said = "\n\nHuman: Hi\n\nAssistant: "
    pandas.DataFrame([{"chosen": f"{said}Hello!", "rejected": f"{said}What?"}]).to_json(
        folder / "test.jsonl", orient="records", lines=True
    )
    asked = {"data": tmp_path, "subset": "helpful-base", "split": "test"}
    by_name = load_comparisons("anthropic-hh", **asked)
    assert by_name == load_comparisons("Anthropic/hh-rlhf", **asked)
    assert by_name[0].source == "anthropic-hh"


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        (5, {}, "int: expected a pandas frame"),
        ({"train": ROWS}, {}, "got a mapping of train; give one split"),
        (["text"], {}, "list:1: expected a row by column, got a str"),
        ([], {}, "found none"),
        (ROWS, {"split": "test"}, "filter the rows first"),
        (ROWS, {"options": {"sauce": "me"}}, "no option 'sauce'"),
        ("anthropic-h", {}, "did you mean 'anthropic-hh'"),
        ("nowhere.jsonl", {}, "nowhere.jsonl: no such file"),
        ("anthropic-hh", {"data": "nowhere"}, "nowhere: no such data folder"),
    ],
)
def test_what_is_no_comparison_is_one_line_with_the_cure(source, options, said):
    with pytest.raises(PalateError, match=said) as caught:
        load_comparisons(source, **options)
    assert "\n" not in str(caught.value)
