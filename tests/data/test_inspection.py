"""`palate data inspect`: a file's form, layout and mapping, as its first rows tell them."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from palate.cli import app
from palate.data.comparisons import load_comparisons
from palate.data.inspection import inspect
from palate.types import PalateError

from .sources.rows import mtbench, write_jsonl


def write_csv(path: Path, rows: list[dict[str, Any]], separator: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize(
    ("row", "mapping"),
    [
        (
            {"question": "Q", "answer_1": "A", "answer_2": "B", "better": "answer_2", "note": "n"},
            {
                "prompt": "question",
                "response_a": "answer_1",
                "response_b": "answer_2",
                "winner": "better",
            },
        ),
        (
            {"Prompt text": "Q", "leftModel": "x", "rightModel": "y", "leftAnswer": "A",
             "rightAnswer": "B", "Choice": "right", "rater": "ann"},
            {
                "prompt": "Prompt text",
                "response_a": "leftAnswer",
                "response_b": "rightAnswer",
                "winner": "Choice",
                "annotator": "rater",
            },
        ),
        (
            {"query": "Q", "preferred_reply": "B", "other_reply": "A"},
            {"prompt": "query", "chosen": "preferred_reply", "rejected": "other_reply"},
        ),
        (
            {"instruction": "Q", "response1": "A", "response2": "B", "preference": -1},
            {
                "prompt": "instruction",
                "response_a": "response1",
                "response_b": "response2",
                "strength_b": "preference",
            },
        ),
    ],
)  # fmt: skip
def test_a_mapping_is_proposed_and_reads(
    tmp_path: Path, row: dict[str, Any], mapping: dict[str, str]
) -> None:
    path = write_csv(tmp_path / "votes.csv", [row] * 3, ";")
    found = inspect(path)
    assert found.columns == mapping
    assert found.form == {"format": "csv", "encoding": "utf-8", "separator": "semicolon"}
    assert set(found.unused) == set(row) - set(mapping.values())
    loaded = load_comparisons(path, columns=found.columns)
    assert tuple(c.chosen for c in loaded) == tuple(c.chosen for c in found.comparisons)
    assert loaded[0].prompt[0].content == "Q"
    signed = "preference" in mapping.values()
    assert loaded[0].chosen == ("A" if signed else "B")
    assert ("write strength_a" in str(found.notes())) == signed


def test_a_known_layout_needs_no_mapping(tmp_path: Path) -> None:
    found = inspect(write_jsonl(tmp_path / "a.jsonl", [mtbench("model_a"), mtbench("tie")]))
    assert (found.layout.name, found.columns, found.ties) == ("Chatbot Arena votes", {}, 1)
    assert {"model_a", "turn"} <= set(found.unused)
    assert found.fragment()["data"]["sources"]["a"]["ties"] == "keep"
    plain = inspect(
        write_jsonl(tmp_path / "b.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    )
    assert plain.fragment() == {
        "data": {"sources": {"b": {"source": "own", "path": str(tmp_path / "b.jsonl")}}}
    }


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([{"a": 1, "b": 2}], "no column says who won"),
        ([{"left": "x", "right": "y"}], "the nearest: columns: {response_a: left, response_b: ri"),
        ([{"text": "x"}], "no comparison in 1 rows; the first: "),
        (
            [{"q": "Q", "answer_a": "x", "answer_b": "y", "winner": "?"}] * 2,
            "no comparison in 2 rows; the first: ",
        ),
    ],
)
def test_a_file_of_which_nothing_can_be_made(
    tmp_path: Path, rows: list[dict[str, Any]], reason: str
) -> None:
    with pytest.raises(PalateError) as caught:
        inspect(write_jsonl(tmp_path / "a.jsonl", rows))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command_writes_a_fragment_that_a_recipe_takes(tmp_path: Path) -> None:
    rows = [
        {"question": "Q " * 99, "answer_1": "A", "answer_2": "B", "better": said}
        for said in ("answer_1", "tie", "neither")
    ]
    path, out = write_csv(tmp_path / "votes.csv", rows), tmp_path / "mine.yaml"
    done = CliRunner().invoke(app, ["data", "inspect", str(path), "-o", str(out)])
    assert done.exit_code == 0
    assert 0 < done.stdout.count("Q") < 80
    text = out.read_text()
    assert text.startswith(f"# {path}:4: better: expected a, b, tie or both_bad, got 'neither'")
    source = yaml.safe_load(text)["data"]["sources"]["votes"]
    assert (source["source"], source["ties"]) == ("own", "keep")
    assert source["columns"]["winner"] == "better"
    done = CliRunner().invoke(app, ["data", "inspect", str(path), "-o", str(out)])
    assert "exists; name a new file" in str(done.exception)
    assert out.read_text() == text


def test_single_rated_responses_are_compared_by_their_score(tmp_path: Path) -> None:
    rows = [
        {"question": "Q", "answer": text, "stars": stars, "rater": "ann"}
        for text, stars in (("A", 5), ("B", 1))
    ]
    found = inspect(write_csv(tmp_path / "rated.csv", rows))
    assert found.columns == {
        "prompt": "question",
        "response": "answer",
        "score": "stars",
        "annotator": "rater",
    }
    assert [(c.chosen, c.rejected) for c in found.comparisons] == [("A", "B")]


def test_an_export_of_a_tool_names_the_source_that_reads_it(tmp_path: Path) -> None:
    task = {"id": 1, "data": {"prompt": "Q", "left": "A", "right": "B"}, "annotations": []}
    path = tmp_path / "export.json"
    path.write_text(json.dumps([task]), encoding="utf-8")
    with pytest.raises(PalateError, match="Label Studio; read it with `palate data import label-s"):
        inspect(path)
