"""Exports of Label Studio: real ones where they are at hand, and each mistake in one line."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from palate.data.inspection import inspect
from palate.data.sources.label_studio import recognise
from palate.types import Comparison, PalateError, Rating

from .rows import opened

SIDES = {"left": "answer1", "right": "answer2"}
CONFIG = """<View><Text name="q" value="$question"/><Text name="l" value="$answer2"/>
<Text name="r" value="$answer1"/><Pairwise name="better" toName="l,r"/>
<Rating name="stars" toName="q" maxRating="7"/></View>"""


@pytest.fixture
def exports(data_root: Path) -> Path:
    folder = data_root.parent / "exports"
    if not (folder / "label-studio-1.23.2.JSON.json").exists():
        pytest.skip(f"no exports of annotation tools at {folder}")
    return folder


def said(comparisons: list[Comparison]) -> set[tuple[Any, ...]]:
    return {
        (c.id, c.chosen, c.rejected, c.judgement.decides, c.rating, c.annotator, c.meta.get("of"))
        for c in comparisons
    }


def test_every_form_of_a_real_export_gives_the_same_comparisons(exports: Path) -> None:
    name = "label-studio-1.23.2."
    good, out = opened("label-studio", exports / f"{name}JSON.json", ties="keep")
    assert [(c.chosen, c.annotator) for c in good] == [
        ("An apple.", "1"), ("An apple.", "2"), ("Four.", "1"), ("Five.", "2"), ("Bonjour!", "2"),
        ("Rome.", "2"),
    ]  # fmt: skip
    assert good[-1].judgement.decides == "tie"
    assert {c.batch for c in good} == {"w1"}
    assert Counter(row.reason.partition(": ")[2] for row in out) == {
        "skipped by its annotator": 1,
        "submitted without a choice": 2,
        "a draft that was not submitted": 1,
    }
    assert {row.kind for row in out} == {"left out"}
    for form in ("JSON-annotated-only.json", "JSON_MIN.json", "CSV.csv", "TSV.tsv"):
        options = {} if "annotated" in form else SIDES
        other, _ = opened("label-studio", exports / f"{name}{form}", ties="keep", options=options)
        assert said(other) == said(good), form
        assert recognise(exports / f"{name}{form}")


def test_a_form_without_sides_is_refused_whole_with_the_cure(tmp_path: Path) -> None:
    row = {"id": 1, "annotation_id": 5, "annotator": 1, "lead_time": 2.5, "created_at": "2026"}
    row |= {"updated_at": "2026", "prompt": "Q", "answer1": "A", "answer2": "B"}
    path = tmp_path / "min.json"
    path.write_text(json.dumps([row | {"better": [{"selected": "left"}]}]))
    cure = r"min\.json: .*--option config=labelling\.xml.*--option left=COLUMN --option right=COL"
    for read in (lambda: opened("label-studio", path), lambda: inspect(path)):
        with pytest.raises(PalateError, match=cure) as caught:
            read()
        assert "\n" not in str(caught.value)
        assert str(caught.value).endswith("the tasks have: prompt, answer1, answer2")
    (found,), _ = opened("label-studio", path, options=SIDES)
    assert found.chosen == "A"


def test_stars_and_ties_of_a_real_export(exports: Path) -> None:
    name = "label-studio-1.23.2.graded."
    good, out = opened("label-studio", exports / f"{name}JSON.json", ties="keep")
    assert out == []
    assert [(c.chosen, c.rating, c.judgement.decides) for c in good] == [
        ("An apple.", Rating.SIGNIFICANTLY, "chosen"),
        ("An apple.", None, "tie"),
        ("Four.", Rating.SLIGHTLY, "chosen"),
    ]
    for form in ("JSON_MIN.json", "CSV.csv"):
        options = {**SIDES, "choices": "tie"}
        other, _ = opened("label-studio", exports / f"{name}{form}", ties="keep", options=options)
        assert said(other) == said(good), form
        _, out = opened("label-studio", exports / f"{name}{form}", options=SIDES)
        assert "if tie holds it, name it by the option choices" in out[0].reason


def test_a_real_ranking_is_its_pairs(exports: Path) -> None:
    for form in ("JSON.json", "JSON_MIN.json", "CSV.csv"):
        good, out = opened("label-studio", exports / f"label-studio-1.23.2.ranker.{form}")
        assert out == []
        assert {(c.chosen, c.rejected, c.ranks and c.ranks.rejected) for c in good} == {
            ("A cherry.", "An apple.", 1),
            ("A cherry.", "A stone.", 2),
            ("An apple.", "A stone.", 2),
        }
        assert len({c.ranks.ranking for c in good if c.ranks}) == 1


def task(*results: tuple[str, str, Any], **over: Any) -> dict[str, Any]:
    """A task of JSON with one annotation; a result is its question, its key and its value."""
    about = {"selected": "answer1,answer2"}
    result = [
        {
            "from_name": name,
            "to_name": about.get(key, "prompt"),
            "type": "pairwise" if key == "selected" else key,
            "value": {key: value},
        }
        for name, key, value in results
    ]
    annotation = {"id": 5, "completed_by": 1, "result": result, "was_cancelled": False}
    data = {"prompt": "Q", "answer1": "A", "answer2": "B"}
    return {"id": 3, "annotations": [annotation], "drafts": [], "data": data} | over


def written(tmp_path: Path, *rows: dict[str, Any]) -> Path:
    path = tmp_path / "export.json"
    path.write_text(json.dumps(list(rows)))
    return path


LEFT = ("better", "selected", "left")


@pytest.mark.parametrize(
    ("row", "options", "reason"),
    [
        (task(("better", "selected", "up")), {}, "better: expected left, right or middle"),
        (task(LEFT, LEFT), {}, "better: expected one answer, got 2"),
        (task(LEFT, ("x", "choices", ["Tie"])), {}, "two winners: better says a, x says tie"),
        (task(("x", "choices", ["Hm"])), {}, "x: expected a, b, tie or both_bad, got 'Hm'"),
        (task(LEFT, ("other", "selected", "left")), {}, "expected one question, got better, other"),
        (task(LEFT, ("s", "rating", 9)), {}, "s: expected 1 to 5 stars, got 9"),
        (task(LEFT, data={"answer1": "A", "answer2": "B"}), {}, "which column is the prompt"),
        (task(LEFT, data={"prompt": "Q", "answer2": "B"}), {}, "which column is left and which"),
        (task(LEFT), {"left": "answer2", "right": "answer1"}, "the export says answer1 and"),
        (task(("r", "ranker", {"a": ["1"], "b": []})), {}, "a Ranker with buckets is not read"),
        ({"id": 1, "completions": []}, {}, "export it again in one of these forms"),
        ({"id": 1, "annotations": [{"id": 2}], "data": {}}, {}, "annotations with a `result` list"),
    ],
)  # fmt: skip
def test_each_mistake_is_one_line(
    tmp_path: Path, row: dict[str, Any], options: dict[str, Any], reason: str
) -> None:
    good, bad = opened("label-studio", written(tmp_path, row), options=options)
    assert good == []
    assert [(b.row, b.kind) for b in bad] == [(1, "bad")]
    assert reason in bad[0].reason
    assert "\n" not in str(bad[0])


def test_pitfall_the_configuration_says_left_and_right_not_the_order_of_columns(
    tmp_path: Path,
) -> None:
    config = tmp_path / "labelling.xml"
    config.write_text(CONFIG)
    row = {"id": 1, "question": "Q", "answer1": "A", "answer2": "B", "stars": [{"rating": 7}]}
    facts = {"annotator": 2, "annotation_id": 9, "created_at": "", "updated_at": ""}
    row |= {"better": [{"selected": "left"}], "lead_time": None, **facts}
    good, bad = opened("label-studio", written(tmp_path, row), options={"config": str(config)})
    assert bad == []
    assert [(c.prompt[0].content, c.chosen, c.rating) for c in good] == [
        ("Q", "B", Rating.SIGNIFICANTLY)
    ]


def test_words_and_cuts_are_options(tmp_path: Path) -> None:
    path = written(tmp_path, task(("x", "choices", ["B by far"])), task(LEFT, ("s", "rating", 2)))
    good, _ = opened(
        "label-studio",
        path,
        options={"values": {"B by far": -3}, "cuts": [1, 2, 5], **SIDES},
    )
    assert [(c.chosen, c.rating) for c in good] == [
        ("B", Rating.SIGNIFICANTLY), ("A", Rating.BETTER),
    ]  # fmt: skip
    for options, reason in (
        ({"cuts": [3, 2, 1]}, "cuts: expected three rising numbers"),
        ({"values": {"x": "up"}}, "x means 'up'"),
        ({"left": "answer1"}, "expected the columns of both"),
        ({"config": str(tmp_path / "no.xml")}, "cannot be read"),
        ({"config": str(path)}, "expected the XML of a labelling configuration"),
    ):
        with pytest.raises(PalateError, match=reason):
            opened("label-studio", path, options=options)


def test_other_files_are_not_recognised(tmp_path: Path) -> None:
    assert recognise(written(tmp_path, task(LEFT)))
    assert not recognise(written(tmp_path, {"prompt": "Q", "chosen": "A", "rejected": "B"}))
    assert not recognise(tmp_path / "none.json")
