"""Rows of other tools and data sets, made by hand in their documented schemas, read unasked."""

import json
from pathlib import Path
from typing import Any

import pytest

from palate.types import Comparison, Judgement, Message, PalateError

from .rows import opened, write_jsonl

TIE, BOTH_BAD = Judgement(0, 0, 1), Judgement(0, 0, 0, 1)
ASKED = {"role": "user", "content": "Why?"}


def turns(answer: Any, *before: dict[str, Any]) -> list[dict[str, Any]]:
    return [*before, ASKED, {"role": "assistant", "content": answer}]


def read(tmp_path: Path, *rows: dict[str, Any]) -> list[Comparison]:
    good, bad = opened("own", write_jsonl(tmp_path / "a.jsonl", list(rows)), ties="keep")
    assert [b for b in bad if b.kind == "bad"] == []
    return good


def arena(winner: str, **over: Any) -> dict[str, Any]:
    return {
        "question_id": "q1",
        "model_a": "m1",
        "model_b": "m2",
        "winner": winner,
        "judge": "arena_user_7",
        "conversation_a": turns("Because."),
        "conversation_b": turns("No."),
        "turn": 1,
    } | over


def test_votes_of_chatbot_arena(tmp_path: Path) -> None:
    said = ("model_a", "model_b", "tie", "tie (bothbad)")
    found = read(tmp_path, *map(arena, said))
    assert [c.chosen for c in found] == ["Because.", "No.", "Because.", "Because."]
    assert [c.judgement for c in found] == [Judgement(), Judgement(), TIE, BOTH_BAD]
    assert found[0].prompt == (Message("user", "Why?"),)
    assert found[0].annotator == "arena_user_7"
    assert found[0].meta["columns"]["model_a"] == "m1"


def test_votes_of_chatbot_arena_140k(tmp_path: Path) -> None:
    def blocks(text: str) -> list[dict[str, Any]]:
        return [{"type": "text", "text": text, "image": None, "mimeType": None}]

    def side(text: str) -> list[dict[str, Any]]:
        return [
            {"role": "user", "content": blocks("Why?"), "num_tokens": 3},
            {"role": "assistant", "content": blocks(text), "num_tokens": 2},
        ]

    row = {"id": "1", "model_a": "x", "model_b": "y", "evaluation_order": 1}
    row |= {"conversation_a": side("Because."), "conversation_b": side("No.")}
    first, second = read(tmp_path, row | {"winner": "model_b"}, row | {"winner": "both_bad"})
    assert (first.chosen, second.judgement) == ("No.", BOTH_BAD)


def test_votes_on_several_turns_are_left_out(tmp_path: Path) -> None:
    long = {"conversation_a": turns("x", *turns("y")), "conversation_b": turns("x", *turns("z"))}
    path = write_jsonl(tmp_path / "a.jsonl", [arena("tie"), arena("model_a", **long)])
    good, bad = opened("own", path, ties="keep")
    assert (len(good), [b.kind for b in bad]) == (1, ["left out"])
    assert "several turns" in bad[0].reason


def arena_lists(*winner: int, **over: Any) -> dict[str, Any]:
    names = ("winner_model_a", "winner_model_b", "winner_tie")
    return {
        "id": 1,
        "model_a": "m1",
        "model_b": "m2",
        "prompt": json.dumps(["Why?"]),
        "response_a": json.dumps(["Because."]),
        "response_b": json.dumps(["No."]),
        **dict(zip(names, winner, strict=True)),
    } | over


def test_votes_of_chatbot_arena_55k(tmp_path: Path) -> None:
    two = dict.fromkeys(("prompt", "response_a", "response_b"), '["a", "b"]')
    found = read(
        tmp_path,
        arena_lists(1, 0, 0),
        arena_lists(0, 1, 0),
        arena_lists(0, 0, 1),
        arena_lists(1, 0, 0, **two),
    )
    assert [c.chosen for c in found] == ["Because.", "No.", "Because."]
    assert found[2].judgement == TIE
    path = write_jsonl(
        tmp_path / "b.jsonl", [arena_lists(1, 1, 0), arena_lists(1, 0, 0, response_a="[null]")]
    )
    _, bad = opened("own", path)
    assert "expected one winner, got two" in bad[0].reason
    assert "response_a: expected text, got nothing" in bad[1].reason


def test_rated_completions_are_one_ranking(tmp_path: Path) -> None:
    def completion(text: str, score: float | None, *ratings: str) -> dict[str, Any]:
        aspects = {f"aspect{i}": {"Rating": r} for i, r in enumerate(ratings)}
        return {"model": "m", "response": text, "overall_score": score, "annotations": aspects}

    row = {
        "source": "evol",
        "instruction": "Why?",
        "completions": [
            completion("A", 6.5),
            completion("B", None, "8", "9", "N/A"),
            completion("C", 6.5),
        ],
    }
    found = read(tmp_path, row)
    assert [(c.chosen, c.rejected) for c in found] == [("B", "A"), ("A", "C"), ("B", "C")]
    assert [c.meta["strength"] for c in found] == [2, 0, 2]
    assert found[1].judgement == TIE
    (name,) = {c.ranks.ranking for c in found if c.ranks}
    assert name.startswith("a:1:")


def test_ranked_answers(tmp_path: Path) -> None:
    answers = [{"answer": f"A{rank}", "model": "m", "rank": float(rank)} for rank in (2, 1, 4, 3)]
    found = read(tmp_path, {"prompt": "\n\nHuman: Why? \n\nAssistant: ", "answers": answers})
    assert len(found) == 6
    assert all(int(c.chosen[1]) < int(c.rejected[1]) for c in found)
    assert all(c.ranks and int(c.chosen[1]) == c.ranks.chosen + 1 for c in found)
    assert found[0].prompt == (Message("user", "Why?"),)


def test_llama_factory(tmp_path: Path) -> None:
    alpaca = {"instruction": "Shorten.", "input": "A text.", "chosen": "A", "rejected": "B"}
    (found,) = read(tmp_path, alpaca | {"system": "Be brief.", "history": [["Hi", "Hello"]]})
    assert [(m.role, m.content) for m in found.prompt] == [
        ("system", "Be brief."),
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", "Shorten.\nA text."),
    ]
    assert (found.chosen, found.rejected) == ("A", "B")
    sharegpt = {
        "conversations": [{"from": "human", "value": "Why?"}],
        "chosen": {"from": "gpt", "value": "A"},
        "rejected": {"from": "gpt", "value": "B"},
    }
    (found,) = read(tmp_path, sharegpt)
    assert (found.prompt, found.chosen, found.rejected) == ((Message("user", "Why?"),), "A", "B")
    wrong = sharegpt | {"conversations": [{"from": "observation", "value": "x"}]}
    _, bad = opened("own", write_jsonl(tmp_path / "b.jsonl", [wrong]))
    assert "expected human, gpt or system, got 'observation'" in bad[0].reason


def test_ms_swift(tmp_path: Path) -> None:
    row = {"messages": turns("A")}
    found = read(
        tmp_path, row | {"rejected_response": "B"}, row | {"rejected_messages": turns("B")}
    )
    assert [(c.chosen, c.rejected) for c in found] == [("A", "B")] * 2
    assert found[0].prompt == found[1].prompt == (Message("user", "Why?"),)


@pytest.mark.parametrize("form", ["trl", "messages", "alpaca", "safe"])
def test_thumbs_with_both_signs_for_a_prompt_make_pairs(tmp_path: Path, form: str) -> None:
    def row(response: str, good: bool, asked: str = "Why?") -> dict[str, Any]:
        match form:
            case "trl":
                return {"prompt": asked, "completion": response, "label": good}
            case "messages":
                said = [{"role": "user", "content": asked}]
                return {
                    "messages": [*said, {"role": "assistant", "content": response}],
                    "label": good,
                }
            case "alpaca":
                return {"instruction": asked, "input": "", "output": response, "kto_tag": good}
            case _:
                return {"prompt": asked, "response": response, "category": {}, "is_safe": good}

    rows = [row("A", True), row("B", False), row("C", False), row("C", False), row("C", True)]
    rows += [row("D", True), row("D", False), row("E", True, "Who?")]
    good, bad = opened("own", write_jsonl(tmp_path / "a.jsonl", rows))
    assert [(c.chosen, c.rejected) for c in good] == [("A", "B"), ("A", "C")]
    assert [b.kind for b in bad] == ["left out"] * 3
    assert (good[0].bin is not None) == (form == "safe")


def test_thumbs_without_a_counterpart_are_refused(tmp_path: Path) -> None:
    rows = [{"prompt": f"{i}", "completion": "x", "label": i % 2 == 0} for i in range(4)]
    with pytest.raises(PalateError, match="none of its 4 prompts has both a good and a bad one"):
        opened("own", write_jsonl(tmp_path / "a.jsonl", rows))


def test_columns_that_bear_the_names_of_roles(tmp_path: Path) -> None:
    row = {"prompt": "Why?", "response_a": "A", "response_b": "B", "votes_a": 1, "votes_b": 3}
    (found,) = read(tmp_path, row)
    assert (found.chosen, found.judgement) == ("B", Judgement(3, 1))


def test_a_layout_is_that_of_the_first_row_that_fits_one(tmp_path: Path) -> None:
    rows = [{"note": "x"}, arena("model_a")]
    good, bad = opened("own", write_jsonl(tmp_path / "a.jsonl", rows))
    assert (len(good), [b.row for b in bad]) == (1, [1])


def test_columns_of_other_names_point_to_the_command_that_maps_them(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"question": "?", "one": "A", "two": "B"}])
    _, bad = opened("own", path)
    assert f"`palate data inspect {path}` proposes a mapping" in bad[0].reason
