"""Heads of rated attributes in training: what they learn from, and that nothing else changes."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from palate.model.options import BaseOptions
from palate.model.reward_model import RewardModel
from palate.model.tokenizer import ChatTokens
from palate.records import write_comparisons
from palate.train.batching import split_step
from palate.train.dataset import Examples, tokenise
from palate.train.loop import train
from palate.train.options import TrainOptions
from palate.types import Comparison, Judgement, Message, PalateError
from tiny import tiny_model, tiny_tokenizer

CHAT = ChatTokens(tiny_tokenizer(), BaseOptions(max_tokens=128))
ANSWERS = ("The sea is blue.", "The sea is deep and wide.", "I cannot help.", "Bread.")
NAMES = ("helpfulness", "verbosity")


def comparison(index: int, **fields: Any) -> Comparison:
    """Helpfulness follows the answer, verbosity is rated of the chosen response alone."""
    first, second = index % 4, (index + 1 + index // 4 % 3) % 4
    return Comparison(
        id=f"c{index}",
        source="made",
        prompt=(Message("user", f"What of the sea, number {index}?"),),
        chosen=ANSWERS[first],
        rejected=ANSWERS[second],
        prompt_id=f"p{index}",
        **{
            "chosen_attributes": {"helpfulness": float(first), "verbosity": 2.0 + first % 2},
            "rejected_attributes": {"helpfulness": float(second)},
        }
        | fields,
    )


def examples_of(folder: Path, rows: list[Comparison]) -> Examples:
    folder.mkdir(exist_ok=True)
    write_comparisons(folder / "m.parquet", rows)
    return tokenise(folder / "m.parquet", CHAT, folder / "t.arrow")


def options(**changes: Any) -> TrainOptions:
    usual: dict[str, Any] = {
        "pairs_per_step": 8, "tokens_per_microbatch": 256, "learning_rate": 5e-3, "trackers": (),
        "attributes": dict.fromkeys(NAMES, 0.5),
    }  # fmt: skip
    return TrainOptions(**usual | changes)


def model(names: tuple[str, ...] = NAMES) -> RewardModel:
    return RewardModel(tiny_model("llama"), CHAT, attributes=names)


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_token_file_keeps_the_attributes_of_each_side(tmp_path: Path) -> None:
    rows = [comparison(i) for i in range(3)]
    rows[1] = replace(rows[1], chosen_attributes={}, rejected_attributes={})
    rows[2] = replace(rows[2], judgement=Judgement(chosen=0, rejected=1))
    examples = examples_of(tmp_path, rows)
    assert examples[0].chosen_attributes == rows[0].chosen_attributes
    assert (examples[1].chosen_attributes, examples[1].rejected_attributes) == ({}, {})
    assert examples[2].chosen_attributes == rows[2].rejected_attributes, "as most votes have it"
    ratings = examples.ratings(NAMES)
    assert ratings.shape == (3, 2, 2)
    np.testing.assert_array_equal(ratings[0], [[0, 2], [1, np.nan]])
    assert np.isnan(ratings[1]).all()


def test_a_step_counts_each_response_once_and_says_what_is_rated(tmp_path: Path) -> None:
    one = comparison(0)
    again = replace(one, id="again", rejected=ANSWERS[3], rejected_attributes={})
    examples = examples_of(tmp_path, [one, again])
    step = split_step(list(examples), {None: 0.0}, 10_000, attributes=NAMES)
    assert step.rated == (2, 1)
    (part,) = step.parts
    assert part.ratings.shape == (3, 2)
    assert torch.isnan(part.ratings).sum() == 3
    assert split_step(list(examples), {None: 0.0}, 10_000).parts[0].ratings.shape == (3, 0)


def test_heads_learn_what_was_rated_beside_the_ranking(tmp_path: Path) -> None:
    examples = examples_of(tmp_path, [comparison(i) for i in range(12)])
    one, settings = model(), options(epochs=25)
    train(one, examples, {"same": examples}, settings, tmp_path / "run", resume=False)
    heads = one.attribute_heads
    ratings = examples.ratings(NAMES).reshape(-1, 2)
    np.testing.assert_allclose(heads.centre, np.nanmean(ratings, 0), rtol=1e-6)
    np.testing.assert_allclose(heads.spread, np.nanstd(ratings, 0), rtol=1e-6)
    first, *_, last = (row["eval"] for row in metrics(tmp_path / "run") if "eval" in row)
    for name in NAMES:
        assert first[f"attribute_loss/{name}"] == pytest.approx(1, abs=0.05), "as good as the mean"
        assert last[f"attribute_loss/{name}"] < 0.15
    assert last["loss"] < first["loss"]
    step = next(row for row in metrics(tmp_path / "run") if "pairs" in row and "eval" not in row)
    assert {f"attribute_loss/{name}" for name in NAMES} < step.keys()
    (part,) = split_step(list(examples), {None: 0.0}, 10_000, attributes=NAMES).parts
    said = one(part.groups).attributes
    errors = (said - part.ratings)[~torch.isnan(part.ratings)]
    assert errors.abs().mean() < 0.5, "in the units of the ratings"


def test_pitfall_12_the_gradient_of_attributes_does_not_depend_on_micro_batching(
    tmp_path: Path,
) -> None:
    rows = [comparison(i) for i in range(13)]
    rows[5] = replace(rows[5], chosen_attributes={}, rejected_attributes={})
    examples, trained = examples_of(tmp_path, rows), []
    for budget in (64, 10_000):
        one, folder = model(), tmp_path / str(budget)
        settings = options(tokens_per_microbatch=budget, learning_rate=1e-3)
        train(one, examples, {}, settings, folder, resume=False)
        steps = [row for row in metrics(folder) if "gradient_norm" in row]
        trained.append((torch.cat([p.detach().flatten() for p in one.parameters()]), steps))
    torch.testing.assert_close(trained[0][0], trained[1][0], rtol=1e-3, atol=2e-5)
    for a, b in zip(trained[0][1], trained[1][1], strict=True):
        for key in ("loss", "gradient_norm", *(f"attribute_loss/{name}" for name in NAMES)):
            assert a[key] == pytest.approx(b[key], rel=1e-3), key


def test_a_stopped_training_goes_on_with_its_heads(tmp_path: Path) -> None:
    examples, ends = examples_of(tmp_path, [comparison(i) for i in range(16)]), []
    for folder in ("whole", "resumed"):
        one = model()
        train(one, examples, {}, options(epochs=2), tmp_path / folder, resume=False)
        ends.append(one)
    again = model()
    train(again, examples, {}, options(epochs=2), tmp_path / "resumed")
    for name, value in ends[0].state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_what_cannot_be_learnt_is_one_line(tmp_path: Path) -> None:
    rows = [comparison(i) for i in range(4)]
    examples = examples_of(tmp_path / "a", rows)
    with pytest.raises(PalateError, match=r"none of 8 training responses has a rating of 'humour'"):
        train(model(("humour",)), examples, {}, options(attributes={"humour": 1}), tmp_path)
    same = [
        replace(row, chosen_attributes={"verbosity": 3}, rejected_attributes={}) for row in rows
    ]
    constant = examples_of(tmp_path / "b", same)
    with pytest.raises(PalateError, match="every rating of 'verbosity' is 3"):
        train(model(("verbosity",)), constant, {}, options(attributes={"verbosity": 1}), tmp_path)
    with pytest.raises(PalateError, match="expected heads of helpfulness, verbosity"):
        train(model(()), examples, {}, options(), tmp_path)


@pytest.mark.parametrize("weight", [0, -1, math.inf, math.nan, "much"])
def test_a_weight_is_a_number_above_0(weight: Any) -> None:
    with pytest.raises(ValidationError, match="helpfulness"):
        TrainOptions(attributes={"helpfulness": weight})


def test_without_attributes_the_options_are_those_of_before() -> None:
    assert "attributes" not in TrainOptions().decisive()
    asked = TrainOptions(attributes={"b": 1.0, "a": 0.5}).decisive()["attributes"]
    assert asked == {"a": 0.5, "b": 1.0}
