"""Potato's states and Argilla's records: real ones where they are at hand, and each mistake."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from palate.data.sources import argilla, potato
from palate.types import PalateError, Rating

from .rows import opened, write_jsonl


@pytest.fixture
def exports(data_root: Path) -> Path:
    folder = data_root.parent / "exports"
    if not (folder / "potato-2.12.1").exists():
        pytest.skip(f"no exports of annotation tools at {folder}")
    return folder


def test_real_states_of_potato(exports: Path) -> None:
    good, out = opened("potato", exports / "potato-2.12.1", ties="keep")
    assert [(c.annotator, c.chosen, c.rating, c.judgement.decides) for c in good] == [
        ("ann", "An apple.", Rating.SIGNIFICANTLY, "chosen"),
        ("ann", "Four.", Rating.BETTER, "chosen"),
        ("ann", "Bonjour!", None, "tie"),
        ("bob", "An apple.", Rating.SLIGHTLY, "chosen"),
        ("bob", "Five.", None, "tie"),
        ("bob", "Hola!", Rating.SIGNIFICANTLY, "chosen"),
        ("bob", "Tuesday.", Rating.BETTER, "chosen"),
    ]
    assert [(row.reason, row.kind) for row in out] == [
        ("item t4: assigned, not answered", "left out")
    ]
    assert potato.recognise(exports / "potato-2.12.1")
    with pytest.raises(PalateError, match="its exports are not read"):
        opened("potato", exports / "potato-2.12.1" / "exports")


def state(tmp_path: Path, *labels: Any, item: str = "t1") -> Path:
    write_jsonl(tmp_path / "items.jsonl", [{"id": "t1", "text": ["A", "B"], "prompt": "Q"}])
    path = tmp_path / "out" / "eve" / "user_state.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"user_id": "eve", potato.LABELS: {item: list(labels)}}))
    return tmp_path / "out"


def choice(value: str, name: str = "selection", schema: str = "better") -> list[Any]:
    return [{"schema": schema, "name": name}, value]


@pytest.mark.parametrize(
    ("labels", "item", "reason"),
    [
        ([choice("C")], "t1", "better: expected a, b, tie or both_bad, got 'C'"),
        ([choice("A"), choice("2", "scale_value", "s")], "t1", "two winners: a and, by s, b"),
        ([choice("9", "scale_value", "s")], "t1", "s: expected a number of -3 to 3, got '9'"),
        ([choice("A")], "t7", "item t7: not in "),
        (["A"], "t1", "expected labels with a schema"),
    ],
)
def test_each_mistake_in_a_state_is_one_line(
    tmp_path: Path, labels: list[Any], item: str, reason: str
) -> None:
    folder = state(tmp_path, *labels, item=item)
    good, bad = opened("potato", folder, options={"items": str(tmp_path / "items.jsonl")})
    assert good == []
    assert [row.kind for row in bad] == ["bad"]
    assert reason in bad[0].reason
    with pytest.raises(PalateError, match="name the items file"):
        opened("potato", folder)


def test_real_records_of_argilla(exports: Path, tmp_path: Path) -> None:
    lines = (exports / "argilla-2.8.0.records.txt").read_text().splitlines()
    whole, ordered, tied, flat, columns = (json.loads(line) for line in lines[1:6])
    path = tmp_path / "records.json"

    def read(*records: Any, question: str) -> tuple[list[Any], list[str]]:
        path.write_text(json.dumps(list(records)))
        good, out = opened("argilla", path, ties="keep", options={"question": question})
        ranks = [(c.chosen, c.judgement.decides, c.ranks and c.ranks.rejected) for c in good]
        return ranks, [f"{row.kind}: {row.reason.partition(': ')[2]}" for row in out]

    both = [("A", "tie", None), ("A", "chosen", None)]
    assert read(whole, question="pref") == (both, [])
    assert read(whole, question="rank") == ([("A", "chosen", 1), ("B", "chosen", 1)], [])
    assert read(ordered, question="rank") == (
        [("B", "chosen", 1)],
        ["bad: rank: expected every one of a, b once, got b"],
    )
    assert read(tied, question="rank") == ([("A", "tie", 0), ("B", "chosen", 1)], [])
    assert read(*flat, question="pref") == (both[:1], ["left out: discarded, not submitted"])
    assert read(*flat, question="rank") == (
        [("A", "tie", 0)],
        ["left out: draft, not submitted"],
    )
    assert read(columns, question="pref") == (both, [])
    assert argilla.recognise(path)


def record(value: Any, status: str = "submitted", **fields: str) -> dict[str, Any]:
    answer = {"value": value, "user_id": "u1", "status": status}
    texts = {"prompt": "Q", "x": "A", "y": "B"} | fields
    return {"id": "r1", "fields": texts, "responses": {"better": [answer]}}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (record("up"), "better: expected a, b, tie or both_bad, got 'up'"),
        (record("left"), "'left' names no field; say which is first"),
        (record("x", z="C"), "which two fields are compared"),
        (record(["x", "x"]), "better: 'x' is ranked twice"),
        ({"id": "r1", "text": "Q"}, "expected `fields` and `responses`"),
        (record("x") | {"responses": {"p": [], "q": []}}, "expected one question, got p, q"),
    ],
)
def test_each_mistake_in_a_record_is_one_line(
    tmp_path: Path, row: dict[str, Any], reason: str
) -> None:
    good, bad = opened("argilla", write_jsonl(tmp_path / "a.jsonl", [row]))
    assert good == []
    assert [b.kind for b in bad] == ["bad"]
    assert reason in bad[0].reason


def test_words_of_a_label_are_of_the_fields_that_are_named(tmp_path: Path) -> None:
    rows = [record("right"), record("y"), record("draw"), record("x", "draft")]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    good, out = opened("argilla", path, ties="keep", options={"left": "x", "right": "y"})
    assert Counter(c.chosen for c in good) == {"B": 2, "A": 1}
    assert [row.kind for row in out] == ["left out"]


def test_a_label_may_mean_a_strength(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [record("much worse"), record("x")])
    options = {"left": "x", "right": "y", "values": {"much worse": -3}}
    good, out = opened("argilla", path, options=options)
    assert [(c.chosen, c.rating, c.meta.get("strength")) for c in good] == [
        ("B", Rating.SIGNIFICANTLY, 3),
        ("A", None, None),
    ]
    assert out == []


def test_metadata_are_no_responses(tmp_path: Path) -> None:
    rows = [record(["y", "x"]) | {"metadata": {"batch": "w1", "difficulty": 3}}]
    (found,), out = opened("argilla", write_jsonl(tmp_path / "a.jsonl", rows))
    assert (found.chosen, found.batch, found.meta["columns"]) == ("B", "w1", {"difficulty": 3})
    assert out == []
    flat = {"id": "r1", "metadata.batch": "w1", "prompt": "Q", "x": "A", "y": "B"}
    said = {"": [["y", "x"]], ".users": ["u1"], ".status": ["submitted"]}
    flat |= {f"better.responses{name}": values for name, values in said.items()}
    (same,), _ = opened("argilla", write_jsonl(tmp_path / "a.jsonl", [flat]))
    assert (same.id, same.batch) == (found.id, "w1")
