"""How far a judge moves where nothing should matter: judges of which the answer is known."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from packed import tiny_reward_model
from palate.evaluate.sensitivity import Sensitivity, sample, sensitivity, variants
from palate.judges import open_judge
from palate.model.export import Card, export
from palate.types import Comparison, Message, PalateError


def rows(count: int) -> list[Comparison]:
    return [
        Comparison(
            f"i{n}", "made", (Message("user", f"What of {n}?"),), f"So {n}{'!' * (n % 3)}",
            f"No {n}", f"p{n // 2}",
        )
        for n in range(count)
    ]  # fmt: skip


def moved(judge: str | Mapping[str, Any], folder: Path, count: int = 40) -> Sensitivity:
    return sensitivity("made", rows(count), judge, folder, open_judge, pairs=count)


def test_a_judge_of_length_does_not_move(tmp_path: Path) -> None:
    found = moved("longer", tmp_path)
    assert {one.kind for one in found.moved} == {"order", "wording"}
    assert all(one.flips == 0 and one.difference.value == 0 for one in found.moved)
    assert found.low == found.high == found.accuracy.value


def test_a_judge_of_position_is_turned_by_the_order(tmp_path: Path) -> None:
    found = moved("first", tmp_path)
    order = next(one for one in found.moved if one.kind == "order")
    assert order.accuracy.value == pytest.approx(1 - found.accuracy.value)
    assert order.flips == 1
    assert all(one.flips == 0 for one in found.moved if one.kind != "order")


def test_whole_prompts_are_drawn_and_ties_are_not(tmp_path: Path) -> None:
    drawn = sample(rows(40), 7)
    assert len(drawn) == 8
    assert len({c.prompt_id for c in drawn}) == 4
    assert {c.id for c in drawn} == {c.id for c in sample(rows(40)[::-1], 8)}
    with pytest.raises(PalateError, match="no decided pair"):
        sensitivity("none", [], "longer", tmp_path, open_judge)


def test_a_reward_model_is_measured_by_every_kind_and_asked_once(tmp_path: Path) -> None:
    model = export(tiny_reward_model("llama").eval(), tmp_path / "m", card=Card("m", "tiny", "0"))
    found = moved({"reward-model": str(model)}, tmp_path / "v", 8)
    assert found.skipped == ()
    kinds = [one.kind for one in found.moved]
    assert set(kinds) == {"order", "wording", "length", "number format", "batch"}
    order = next(one for one in found.moved if one.kind == "order")
    assert order.flips == 0, "a scorer cannot know the order"
    again = moved({"reward-model": str(model)}, tmp_path / "v", 8)
    assert again == found, "verdicts were kept"


def test_a_variant_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    asked = {"sequence-classifier": {"model": "x", "format": "chat"}}
    kinds = [one.kind for one in variants(asked)]
    assert kinds == ["order", "wording", "wording", "length", "length", "batch"]

    def opening(spec: Mapping[str, Any]) -> Any:
        if "max_tokens" in spec["sequence-classifier"]:
            raise PalateError("no such length")
        return open_judge("longer")

    found = sensitivity("made", rows(6), asked, tmp_path, opening, pairs=6)
    assert [line.partition(":")[0] for line in found.skipped] == ["512 tokens", "1,024 tokens"]
    assert [one.kind for one in found.moved] == ["order", "wording", "wording", "batch"]


def test_a_prompt_s_wording_is_another_prompt_that_asks_the_same() -> None:
    asked = {"chat": {"model": "m", "preset": "rating"}}
    wordings = {one.name for one in variants(asked) if one.kind == "wording"}
    assert {"prompt rating-explained", "prompt rating-ties"} <= wordings
    assert not {"prompt safety", "prompt best-of-k", "prompt rubric"} & wordings
