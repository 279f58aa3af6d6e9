"""An ensemble of heads: what its members learn from, and that one alone is the plain model."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from palate.evaluate.scoring import rank_file, score_file
from palate.judges.reward_model import RewardScorer
from palate.model.export import ENSEMBLE_FILE, Card, export
from palate.model.loading import load_reward_model
from palate.model.options import BaseOptions
from palate.model.reward_model import RewardModel
from palate.model.tokenizer import ChatTokens
from palate.recipe.schema import valid
from palate.records import write_comparisons
from palate.train import batching
from palate.train.batching import draws, split_step
from palate.train.dataset import Examples, tokenise
from palate.train.loop import train
from palate.train.options import TrainOptions
from palate.types import Candidates, Comparison, Message, PalateError
from tiny import tiny_model, tiny_tokenizer

CHAT = ChatTokens(tiny_tokenizer(), BaseOptions(max_tokens=128))
ANSWERS = ("The sea is blue.", "The sea is deep and wide.", "I cannot help.", "Bread.")
CARD = Card(name="several", base="tiny", base_revision="0")


def comparison(index: int) -> Comparison:
    first, second = index % 4, (index + 1 + index // 4 % 3) % 4
    return Comparison(
        id=f"c{index}",
        source="made",
        prompt=(Message("user", f"What of the sea, number {index // 2}?"),),
        chosen=ANSWERS[first],
        rejected=ANSWERS[second],
        prompt_id=f"p{index // 2}",
        chosen_safe=first < 2,
        rejected_safe=second < 2,
    )


def examples_of(folder: Path, count: int = 16) -> Examples:
    folder.mkdir(exist_ok=True)
    write_comparisons(folder / "m.parquet", [comparison(i) for i in range(count)])
    return tokenise(folder / "m.parquet", CHAT, folder / "t.arrow")


def options(**changes: Any) -> TrainOptions:
    usual: dict[str, Any] = {
        "pairs_per_step": 8, "tokens_per_microbatch": 256, "learning_rate": 5e-3, "trackers": (),
        "ensemble": 3,
    }  # fmt: skip
    return TrainOptions(**usual | changes)


def model(members: int = 3) -> RewardModel:
    return RewardModel(tiny_model("llama"), CHAT, members=members, seed=5)


def test_the_first_head_is_that_of_a_model_alone_and_one_member_is_the_model() -> None:
    plain, one, three = (RewardModel(tiny_model("llama"), CHAT, seed=5), model(1), model())
    assert torch.equal(plain.head.weight, one.head.weight)
    assert torch.equal(plain.head.weight[0], three.head.weight[0])
    assert not torch.equal(three.head.weight[0], three.head.weight[1])
    assert (one.members, three.members) == (1, 3)
    groups = split_step_groups()
    assert one(groups).members is None
    read = three(groups)
    torch.testing.assert_close(read.reward, read.members.mean(1))


def split_step_groups() -> Any:
    from palate.model.packing import group

    tokens = [CHAT.encode((Message("user", "Why?"),), answer).ids for answer in ANSWERS]
    return [group(tokens)]


def test_a_member_draws_prompts_as_a_bootstrap_does_whatever_else_is_read() -> None:
    counts = np.array([draws(f"{number:032x}", 7, 5) for number in range(4_000)])
    # Poisson with mean 1: the standard errors are 0.016 of a mean, 0.028 of a variance.
    assert np.abs(counts.mean(0) - 1).max() < 5 * 0.016
    assert np.abs(counts.var(0) - 1).max() < 5 * 0.028
    assert (counts == 0).mean() == pytest.approx(np.exp(-1), abs=0.02)
    assert np.abs(np.corrcoef(counts.T) - np.eye(5)).max() < 5 * 0.016
    assert draws("ab", 7, 5) == draws("ab", 7, 5) != draws("ab", 8, 5)
    assert draws("ab", 7, 5)[:3] == draws("ab", 7, 3), "more members change none"


def test_both_comparisons_of_a_prompt_are_drawn_together(tmp_path: Path) -> None:
    examples = examples_of(tmp_path, 8)
    step = split_step(list(examples), {None: 0.0}, 10_000, members=3, seed=1)
    (part,) = step.parts
    assert part.drawn.shape == (len(part.safe), 3)
    for row, place in enumerate(part.places.tolist()):
        expected = torch.tensor(draws(examples[place].prompt, 1, 3), dtype=torch.float32)
        assert torch.equal(part.drawn[part.chosen[row]], expected)
        assert torch.equal(part.drawn[part.rejected[row]], expected)
    assert split_step(list(examples), {None: 0.0}, 10_000).parts[0].drawn.shape[1] == 0


@pytest.mark.parametrize("safety", [None, {"on": "reward"}, {"on": "head"}])
def test_members_that_differ_in_nothing_are_the_plain_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, safety: Any
) -> None:
    """The same head and every prompt drawn once: the mean of equal losses is the loss."""
    monkeypatch.setattr(batching, "draws", lambda _prompt, _seed, members: [1] * members)
    examples, trained = examples_of(tmp_path), []
    head = safety is not None and safety["on"] == "head"
    for count, several in ((1, None), (3, 3)):
        one = RewardModel(tiny_model("llama"), CHAT, members=count, safety_head=head, seed=5)
        with torch.no_grad():
            one.head.weight.copy_(one.head.weight[0].clone())
            if one.safety_head is not None:
                one.safety_head.weight.fill_(0.01)
        # A head's gradient is a third of it, which Adam's epsilon must not see.
        settings = options(ensemble=several, safety_loss=safety, adam_epsilon=1e-12, clip_norm=1e9)
        train(one, examples, {}, settings, tmp_path / str(count), resume=False)
        weights = {name: p.detach() for name, p in one.named_parameters()}
        weights["head.weight"] = weights["head.weight"][:1]
        trained.append(weights)
    for name, plain in trained[0].items():
        torch.testing.assert_close(trained[1][name], plain, rtol=1e-3, atol=2e-5, msg=name)


def test_pitfall_12_what_members_learn_does_not_depend_on_micro_batching(tmp_path: Path) -> None:
    examples, trained = examples_of(tmp_path, 13), []
    for budget in (64, 10_000):
        one = model()
        settings = options(tokens_per_microbatch=budget, learning_rate=1e-3)
        train(one, examples, {}, settings, tmp_path / str(budget), resume=False)
        trained.append([*(p.detach().flatten() for p in one.parameters()), one.offsets])
    for few, many in zip(*trained, strict=True):
        torch.testing.assert_close(few, many, rtol=1e-3, atol=2e-5)


def test_a_stopped_training_goes_on_and_members_are_centred_on_what_they_learnt_from(
    tmp_path: Path,
) -> None:
    examples, whole = examples_of(tmp_path), model()
    train(whole, examples, {"same": examples}, options(epochs=2), tmp_path / "run", resume=False)
    again = model()  # Its last checkpoint is there: nothing is left but to centre the members.
    train(again, examples, {"same": examples}, options(epochs=2), tmp_path / "run")
    for name, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    few = [examples[row] for row in (0, 5, 10, 15)]  # One in eight, but at least four.
    (part,) = split_step(few, {None: 0.0}, 10_000).parts
    read = whole(part.groups)
    means = read.members.mean(0)
    torch.testing.assert_close(means, means.mean().expand(3), atol=1e-5, rtol=0)
    assert float(whole.offsets.sum()) == pytest.approx(0, abs=1e-6)
    assert float(read.members.detach().std(1).mean()) > 0
    with pytest.raises(PalateError, match="expected 2 members, the model has 3"):
        train(model(), examples, {}, options(ensemble=2), tmp_path / "other")


def test_an_export_is_a_plain_classifier_of_the_mean_with_the_members_beside(
    tmp_path: Path,
) -> None:
    one = model()
    with torch.no_grad():
        one.head.weight.normal_(generator=torch.Generator().manual_seed(1))
        one.offsets.copy_(torch.tensor([0.5, -0.25, -0.25]))
    folder = export(one, tmp_path / "several", card=CARD)
    again, groups = load_reward_model(folder), split_step_groups()
    assert torch.equal(again.head.weight, one.head.weight)
    before, after = one(groups), again(groups)
    torch.testing.assert_close(after.members, before.members)
    stock = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    assert stock.config.num_labels == 1
    ids = [CHAT.encode((Message("user", "Why?"),), answer).ids for answer in ANSWERS]
    said = [stock(torch.from_numpy(i[None]).long()).logits.item() for i in ids]
    assert said == pytest.approx(before.reward.tolist(), abs=1e-4)
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert ENSEMBLE_FILE not in index.values(), "engines would find heads that they do not know"

    (scored,) = RewardScorer(folder).score([Candidates((Message("user", "Why?"),), ANSWERS)])
    for score, members in zip(scored, before.members.tolist(), strict=True):
        assert score.members == pytest.approx(members, abs=1e-4)
        assert score.value == pytest.approx(np.mean(members), abs=1e-4)
        assert score.std == pytest.approx(np.std(members, ddof=1), abs=1e-4)

    heads = load_file(folder / ENSEMBLE_FILE)
    save_file({**heads, "weight": heads["weight"] + 0.1}, folder / ENSEMBLE_FILE)
    with pytest.raises(PalateError, match="not those whose mean the model's is"):
        load_reward_model(folder)
    (folder / ENSEMBLE_FILE).unlink()
    with pytest.raises(PalateError, match=r"ensemble_heads\.safetensors is missing"):
        load_reward_model(folder)


def test_a_scored_file_says_how_sure_a_reward_is_and_a_ranking_goes_by_it(tmp_path: Path) -> None:
    one = model()
    with torch.no_grad():
        one.head.weight.normal_(generator=torch.Generator().manual_seed(1))
    scorer = RewardScorer(export(one, tmp_path / "several", card=CARD))
    rows = [{"prompt": "Why?", "responses": list(ANSWERS)}, {"prompt": "Why?", "response": "No."}]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scored = score_file(scorer, path, tmp_path / "out.jsonl")
    many, single = map(json.loads, scored.read_text().splitlines())
    assert single["reward_low"] < single["reward"] < single["reward_high"]
    assert single["reward_std"] == pytest.approx(np.std(single["reward_members"], ddof=1))
    assert [len(m) for m in many["rewards_members"]] == [3] * 4

    path.write_text(json.dumps(rows[0]) + "\n")
    members = np.array(many["rewards_members"])
    apart = (members - members.mean(0)).std(1, ddof=1)
    for deviations in (0.0, 3.0):
        out = tmp_path / f"{deviations}.jsonl"
        rank_file(scorer, path, out, deviations=deviations)
        row = json.loads(out.read_text())
        order = np.argsort(-(members.mean(1) - deviations * apart), kind="stable")
        assert row["rewards_order"] == order.tolist()
        np.testing.assert_allclose(row["rewards_members"], members[order])
    # Of a file that has its rewards the same, and what lies beside them moves with them.
    held = tmp_path / "held.jsonl"
    held.write_text(json.dumps(many) + "\n")
    rank_file(None, held, tmp_path / "again.jsonl", deviations=3.0)
    again = json.loads((tmp_path / "again.jsonl").read_text())
    assert again["rewards_order"] == row["rewards_order"]
    assert again["rewards_std"] == [many["rewards_std"][place] for place in again["rewards_order"]]
    plain = {name: value for name, value in many.items() if name != "rewards_members"}
    held.write_text(json.dumps(plain) + "\n")
    with pytest.raises(PalateError, match=r"held.jsonl:1: --lower-bound needs `rewards_members`"):
        rank_file(None, held, tmp_path / "none.jsonl", deviations=1.0)
    single_model = RewardScorer(export(model(1), tmp_path / "one", card=CARD))
    with pytest.raises(PalateError, match="one: a single model, which does not say how sure"):
        rank_file(single_model, path, tmp_path / "none.jsonl", deviations=1.0)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1, "expected 2 to 64 members; one model is no ensemble: leave it out"),
        (0, "expected 2 to 64 members; 5 are usual"),
        ({"size": 65}, "expected 2 to 64 members; 5 are usual"),
        (True, "ensemble"),
        ({"members": 5}, "members"),
    ],
)
def test_an_ensemble_has_several_members(value: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TrainOptions(ensemble=value)


def test_without_an_ensemble_the_options_are_those_of_before() -> None:
    assert "ensemble" not in TrainOptions().decisive()
    assert TrainOptions(ensemble=5).decisive()["ensemble"] == {"size": 5}


@pytest.mark.parametrize(
    ("ensemble", "expected"),
    [
        (1, "train: ensemble.size: expected 2 to 64 members; one model is no ensemble: "
            "leave it out, got 1"),
        (2.5, "train: ensemble: expected the number of members, 5 or {size: 5}, got 2.5"),
        (True, "train: ensemble: expected the number of members, 5 or {size: 5}, got True"),
        ({"size": 5, "x": 1}, "train: ensemble.x: unknown key; known: size"),
    ],
)  # fmt: skip
def test_a_mistake_in_its_size_is_one_line(ensemble: object, expected: str) -> None:
    with pytest.raises(PalateError, match=f"^{re.escape(expected)}$"):
        valid(TrainOptions, {"ensemble": ensemble}, "train")


@pytest.mark.parametrize("name", ["ensemble_heads", "attribute_heads", "safety_head"])
def test_a_file_of_heads_that_was_cut_is_named(name: str, tmp_path: Path) -> None:
    one = RewardModel(tiny_model("llama"), CHAT, safety_head=True, attributes=("calm",), members=3)
    path = export(one, tmp_path / "several", card=CARD) / f"{name}.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(PalateError, match=rf"{name}\.safetensors: cannot be read .*export the"):
        load_reward_model(tmp_path / "several")
