"""Ratings of single responses: read where they are asked for, within their scale, or one line."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from palate.cli import app
from palate.data.annotators import aggregate
from palate.data.comparisons import load_comparisons, save_comparisons, to_pandas
from palate.data.sources import BadRow
from palate.evaluate.benchmark import majority_first
from palate.recipe.schema import SourceConfig
from palate.records import has_values, read_comparisons, read_header, write_comparisons
from palate.types import Comparison, Judgement, Message, PalateError

from .rows import opened, write_jsonl

HELPSTEER2 = {"correctness": 3, "coherence": 4, "complexity": 2, "verbosity": 1}
ATTRIBUTES = {"helpfulness": (0.0, 4.0), "verbosity": (0.0, 4.0)}


def helpsteer2(prompt: str, response: str, helpfulness: int, **over: Any) -> dict[str, Any]:
    row = {"prompt": prompt, "response": response, "helpfulness": helpfulness}
    return row | HELPSTEER2 | over


ROWS = [
    helpsteer2("How?", "So.", 1),
    helpsteer2("How?", "Thus.", 4, verbosity=3),
    helpsteer2("Why?", "Because.", 2),
    helpsteer2("Why?", "For.", 2),
    helpsteer2("When?", "Now.", 3),
]


def sides(c: Comparison) -> tuple[str, str, dict[str, float], dict[str, float]]:
    return c.chosen, c.rejected, dict(c.chosen_attributes), dict(c.rejected_attributes)


def test_helpsteer2_compares_the_responses_of_a_prompt_by_helpfulness(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "train.jsonl", ROWS)
    good, bad = opened("helpsteer", path, attributes=ATTRIBUTES, ties="keep")
    better, tie = good
    assert sides(better) == (
        "Thus.", "So.", {"helpfulness": 4, "verbosity": 3}, {"helpfulness": 1, "verbosity": 1},
    )  # fmt: skip
    assert better.prompt == (Message("user", "How?"),)
    assert (better.ranks, better.judgement.decides, tie.judgement.decides) == (
        None,
        "chosen",
        "tie",
    )
    (alone,) = bad
    assert (alone.row, alone.kind) == (5, "left out")
    assert "its prompt has no other" in alone.reason
    assert opened("helpsteer", path)[0] == [], "as before where none is asked for"


def test_three_rated_responses_are_a_ranking_and_repeated_ones_have_their_mean(
    tmp_path: Path,
) -> None:
    rows = [
        {"question": "How?", "answer": text, "stars": stars, "clarity": clarity}
        for text, stars, clarity in [("a", 5, 3), ("b", 2, None), ("c", 1, 1), ("a", 4, 2)]
    ]
    columns = {"prompt": "question", "response": "answer", "score": "stars"}
    scales = {"stars": (1.0, 5.0), "clarity": (1.0, 3.0)}
    good, bad = opened("own", write_jsonl(tmp_path / "r.jsonl", rows), columns=columns,
                       attributes=scales)  # fmt: skip
    assert bad == []
    assert [(c.chosen, c.rejected) for c in good] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [(c.ranks.chosen, c.ranks.rejected) for c in good if c.ranks] == [(0, 1), (0, 2), (1, 2)]
    assert good[0].chosen_attributes == {"stars": 4.5, "clarity": 2.5}
    assert good[0].rejected_attributes == {"stars": 2}
    assert "columns" not in good[0].meta, "what is read is not kept a second time"


PAIR = {"prompt": "How?", "chosen": "So.", "rejected": "Thus."}


def test_pairs_have_attributes_in_palates_columns_or_in_any_others(tmp_path: Path) -> None:
    objects = PAIR | {"chosen_attributes": {"h": 4, "v": 1}, "rejected_attributes": {"h": "1"}}
    path = write_jsonl(tmp_path / "a.jsonl", [objects])
    (own,), _ = opened("own", path, attributes={"h": (0.0, 4.0)})
    assert sides(own)[2:] == ({"h": 4}, {"h": 1})
    (unasked,), _ = opened("own", path)
    assert sides(unasked)[2:] == ({}, {})
    assert unasked.meta["columns"]["rejected_attributes"] == {"h": "1"}

    row = {"prompt": "How?", "a": "So.", "b": "Thus.", "w": "b", "h_a": 4, "h_b": 1}
    columns = {"response_a": "a", "response_b": "b", "winner": "w"}
    columns |= {"response_a.h": "h_a", "response_b.h": "h_b"}
    path = write_jsonl(tmp_path / "b.jsonl", [row])
    (mapped,), _ = opened("own", path, columns=columns, attributes={"h": (0.0, 4.0)})
    assert sides(mapped) == ("Thus.", "So.", {"h": 1}, {"h": 4}), "turned with their response"

    several = {"prompt": "How?", "responses": ["x", "y"], "scores": [1, 2], "h": [3, None]}
    path = write_jsonl(tmp_path / "c.jsonl", [several])
    (ranked,), _ = opened("own", path, attributes={"h": (0.0, 4.0)})
    assert sides(ranked) == ("y", "x", {}, {"h": 3})
    path = write_jsonl(tmp_path / "d.jsonl", [several | {"h": [3]}])
    assert "expected 2 ratings" in opened("own", path, attributes={"h": (0.0, 4.0)})[1][0].reason


def test_ultrafeedbacks_aspects_and_oassts_labels(tmp_path: Path) -> None:
    def completion(text: str, score: float, rating: str) -> dict[str, Any]:
        aspects = {"honesty": {"Rating": rating}, "helpfulness": {"Rating": "5"}}
        return {"response": text, "overall_score": score, "annotations": aspects}

    row = {
        "instruction": "How?",
        "completions": [completion("x", 3, "N/A"), completion("y", 7, "4")],
    }
    path = write_jsonl(tmp_path / "u.jsonl", [row])
    (found,), _ = opened("own", path, attributes={"honesty": (1.0, 5.0)})
    assert sides(found) == ("y", "x", {"honesty": 4}, {})

    def message(name: str, parent: str | None, rank: int | None, **over: Any) -> dict[str, Any]:
        role = "prompter" if parent is None else "assistant"
        base = {"message_id": name, "parent_id": parent, "message_tree_id": "m", "lang": "en"}
        return base | {"text": name, "role": role, "rank": rank} | over

    labels = {"labels": {"name": ["quality", "humor"], "value": [0.75, 0.0]}}
    tree = [message("m", None, None), message("x", "m", 0, **labels), message("y", "m", 1)]
    path = write_jsonl(tmp_path / "o.jsonl", tree)
    (pair,), _ = opened("oasst", path, attributes={"quality": (0.0, 1.0)})
    assert sides(pair) == ("x", "y", {"quality": 0.75}, {})


@pytest.mark.parametrize("value", [5, -1, "many", float("nan"), True])
def test_a_rating_outside_its_scale_is_one_line_with_its_row(tmp_path: Path, value: Any) -> None:
    rows = [*ROWS[:3], helpsteer2("Why?", "For.", 2, verbosity=value)]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    bad = [row for row in opened("helpsteer", path, attributes=ATTRIBUTES)[1] if row.kind == "bad"]
    assert [row.row for row in bad] == [4]
    assert bad[0].reason.startswith("verbosity: expected a rating of 0 to 4, got ")


def test_an_attribute_that_is_nowhere_is_one_line(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [PAIR | {"chosen_attributes": {"h": 1}}])
    with pytest.raises(PalateError, match=r"none of 1 comparisons has 'humour'; they have h"):
        load_comparisons(path, attributes={"h": (0, 4), "humour": (0, 4)})
    with pytest.raises(PalateError, match="helpsteer: no attribute 'humour'"):
        opened("helpsteer", path, attributes={"humour": (0.0, 4.0)})
    with pytest.raises(PalateError, match="pandalm: attributes: nothing was rated of single"):
        opened("pandalm", path, attributes={"humour": (0.0, 4.0)})
    alone = [helpsteer2(f"{n}?", "So.", 1) for n in range(3)]
    with pytest.raises(PalateError, match="none of its 3 prompts has two"):
        opened("helpsteer", write_jsonl(tmp_path / "b.jsonl", alone), attributes=ATTRIBUTES)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"attributes": {"h": [4, 0]}}, "attributes: h: expected the lowest and the highest"),
        ({"attributes": {"h": [0, float("inf")]}}, "attributes: h: expected the lowest"),
        ({"columns": {"chosen.h": "x"}}, "columns: chosen.h: no scale of 'h'; state it in"),
        ({"columns": {"first.h": "x"}}, "columns: no role 'first.h'"),
    ],
)
def test_a_source_that_cannot_be_is_refused(config: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        SourceConfig(source="own", path="a.csv", **config)


def test_without_attributes_a_source_and_a_file_are_what_they_were(tmp_path: Path) -> None:
    assert "attributes" not in SourceConfig(source="own").model_dump()
    plain = Comparison("1", "s", (Message("user", "?"),), "a", "b", "p")
    rated = replace(plain, id="2", chosen_attributes={"v": 1.0, "h": 2.0})
    plain_only = write_comparisons(tmp_path / "p.parquet", [plain])
    assert plain_only.fingerprint == "2552cb62198d9bcde042954686c243cf"
    assert not has_values(tmp_path / "p.parquet", "chosen_attributes")
    write_comparisons(tmp_path / "r.parquet", [plain, rated])
    assert has_values(tmp_path / "r.parquet", "chosen_attributes")
    assert list(read_comparisons(tmp_path / "r.parquet")) == [plain, rated]
    turned = replace(rated, chosen_attributes=dict(reversed(rated.chosen_attributes.items())))
    assert (
        write_comparisons(tmp_path / "t.parquet", [plain, turned]).fingerprint
        == read_header(tmp_path / "r.parquet").fingerprint
    )
    assert load_comparisons(to_pandas([plain, rated])) == [plain, rated]
    assert load_comparisons(save_comparisons([rated], tmp_path / "s.parquet")) == [rated]


def test_attributes_turn_with_their_responses_and_are_the_mean_of_several_rows() -> None:
    prompt = (Message("user", "?"),)
    said = {"chosen_attributes": {"h": 1.0}, "rejected_attributes": {"h": 4.0}}
    lost = Comparison("1", "s", prompt, "a", "b", "p", judgement=Judgement(0, 1), **said)
    assert sides(majority_first(lost)) == ("b", "a", {"h": 4}, {"h": 1})
    again = replace(
        majority_first(lost), id="2", chosen_attributes={"h": 3.0}, judgement=Judgement()
    )
    (both,) = aggregate([lost, again], "votes")
    assert sides(both) == ("b", "a", {"h": 3.5}, {"h": 1})


def test_the_command_reads_them_and_its_mistakes_are_one_line(tmp_path: Path) -> None:
    path, out = write_jsonl(tmp_path / "train.jsonl", ROWS), tmp_path / "out.parquet"
    command = ["data", "import", "helpsteer", "--path", str(path), "--out", str(out)]
    run = CliRunner().invoke(app, [*command, "--attribute", "helpfulness=0..4", "--ties", "keep"])
    assert run.exit_code == 0, run.output
    assert [c.chosen_attributes for c in read_comparisons(out)] == [{"helpfulness": 4},
                                                                   {"helpfulness": 2}]  # fmt: skip
    for scale, reason in (
        ("h=4", "expected NAME=LOW..HIGH"),
        ("h=4..0", "expected LOW below HIGH"),
    ):
        run = CliRunner().invoke(app, [*command, "--attribute", scale])
        assert reason in str(run.exception)


def test_the_simulated_campaign_gives_its_latent_truth(tmp_path: Path) -> None:
    scales = {"helpfulness": (-50.0, 50.0)}
    options = {"weeks": 1, "comparisons_per_week": 3}
    good, bad = opened("simulated", tmp_path, options=options, attributes=scales)
    assert not bad
    for c in good:
        assert not isinstance(c, BadRow)
        assert c.chosen_attributes == {"helpfulness": c.meta["latent"]["chosen"]["helpfulness"]}
