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
from palate.train import batching, states
from palate.train.batching import draws, split_step
from palate.train.dataset import Examples, tokenise
from palate.train.distributed import Distributed
from palate.train.ensemble import MEMBERS, train_ensemble
from palate.train.loop import Interrupted, train
from palate.train.options import LoraOptions, Trainable, TrainOptions
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
        ({"members": 65}, "expected 2 to 64 members; 5 are usual"),
        (True, "ensemble"),
        ({"size": 5}, "size"),
    ],
)
def test_an_ensemble_has_several_members(value: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TrainOptions(ensemble=value)


NUMBER = "train: ensemble: expected the number of members, 5 or {members: 5, of: seeds}"


def test_without_an_ensemble_the_options_are_those_of_before() -> None:
    assert "ensemble" not in TrainOptions().decisive()
    assert TrainOptions(ensemble=5).decisive()["ensemble"] == {"members": 5, "of": "heads"}


@pytest.mark.parametrize(
    ("ensemble", "expected"),
    [
        (1, "train: ensemble.members: expected 2 to 64 members; one model is no ensemble: "
            "leave it out, got 1"),
        (2.5, f"{NUMBER}, got 2.5"),
        (True, f"{NUMBER}, got True"),
        ({"members": 5, "x": 1}, "train: ensemble.x: unknown key; known: members, of"),
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


# Members with weights of their own.

LAST = Trainable(last_layers=1)
ADAPTERS = Trainable(lora=LoraOptions(rank=2))


def started(of: TrainOptions) -> RewardModel:
    return RewardModel(tiny_model("llama"), CHAT, members=of.heads, seed=of.seed)


def several(of: str, **changes: Any) -> TrainOptions:
    usual = {"trainable": ADAPTERS if of == "lora" else LAST, "epochs": 2}
    return options(ensemble={"members": 3, "of": of}, **usual | changes)


def trained(of: TrainOptions, examples: Examples, folder: Path, **more: Any) -> RewardModel:
    sets = {"same": examples}
    return train_ensemble(started, examples, sets, of, folder, world=Distributed(), **more)


def test_the_first_of_several_trainings_is_that_of_a_model_alone_and_others_have_seeds(
    tmp_path: Path,
) -> None:
    examples, asked = examples_of(tmp_path), several("seeds")
    one = trained(asked, examples, tmp_path / "run")
    plain = started(asked.of_member(0))
    train(plain, examples, {"same": examples}, asked.of_member(0), tmp_path / "alone")
    assert one.own is not None
    learnt = {name for name, p in plain.backbone.named_parameters() if p.requires_grad}
    assert set(one.own.whole) == learnt
    assert any(name.startswith("layers.2.") for name in learnt)
    assert not any(name.startswith("layers.1.") for name in learnt)
    for name, p in plain.backbone.named_parameters():
        if name in learnt:
            torch.testing.assert_close(one.own.whole[name][0], p, rtol=1e-4, atol=1e-5)
            assert not torch.equal(one.own.whole[name][0], one.own.whole[name][1])
    torch.testing.assert_close(one.head.weight[:1], plain.head.weight, rtol=1e-4, atol=1e-5)
    few = [examples[row] for row in (0, 5, 10, 15)]
    (part,) = split_step(few, {None: 0.0}, 10_000).parts
    with torch.no_grad():
        means = one(part.groups).members.mean(0)
    torch.testing.assert_close(means, means.mean().expand(3), atol=1e-4, rtol=0)
    assert [asked.of_member(number).seed for number in range(3)] == [0, 1_000_003, 2_000_006]


def test_frozen_layers_run_once_for_all_members_and_what_is_trained_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples, made = examples_of(tmp_path), list[int]()
    run_frozen = states.run_frozen

    def counted(*arguments: Any) -> Any:
        made.append(1)
        return run_frozen(*arguments)

    monkeypatch.setattr(states, "run_frozen", counted)
    plain = several("seeds").of_member(0)  # Two epochs, so that it keeps what it makes.
    train(started(plain), examples, {"same": examples}, plain, tmp_path / "alone")
    alone = len(made)
    made.clear()
    asked = several("seeds", epochs=1)  # Of one epoch a model alone would keep nothing of the rows.
    one = trained(asked, examples, tmp_path / "run")
    # Each training tries one micro-batch both ways before it trusts what is kept.
    assert len(made) == alone + 2
    assert not (tmp_path / "run" / states.FILE).exists()
    assert not (tmp_path / "run" / MEMBERS / "2" / "checkpoints").exists()
    (tmp_path / "run" / MEMBERS / "3.safetensors").unlink()
    again = trained(asked, examples, tmp_path / "run")
    assert again.own is not None
    assert one.own is not None
    for name, tensor in one.own.whole.items():
        torch.testing.assert_close(again.own.whole[name], tensor, rtol=1e-4, atol=1e-5)
    made.clear()
    trained(asked, examples, tmp_path / "run")
    assert made == [], "every member was there"
    with pytest.raises(PalateError, match="made by other data or options"):
        trained(several("seeds", epochs=1, learning_rate=1e-3), examples, tmp_path / "run")


def test_a_stopped_member_goes_on_and_the_ensemble_is_that_of_a_run_without_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from palate.train import loop

    examples, asked = examples_of(tmp_path), several("lora")
    whole = trained(asked, examples, tmp_path / "whole")
    steps, own = [0], loop._gradients

    def stops(*arguments: Any) -> Any:
        steps[0] += 1
        if steps[0] == 6:  # In the second member, of four steps each.
            raise KeyboardInterrupt
        return own(*arguments)

    monkeypatch.setattr(loop, "_gradients", stops)
    with pytest.raises(Interrupted):
        trained(asked, examples, tmp_path / "run")
    monkeypatch.setattr(loop, "_gradients", own)
    again = trained(asked, examples, tmp_path / "run")
    assert whole.own is not None
    assert again.own is not None
    assert whole.own.tensors.keys() == again.own.tensors.keys()
    for name, tensor in whole.own.tensors.items():
        torch.testing.assert_close(again.own.tensors[name], tensor, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(again.head.weight, whole.head.weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("learns", [LAST, ADAPTERS, "full"])
def test_checkpoints_of_one_training_are_members_and_the_last_is_the_model(
    tmp_path: Path, learns: Any
) -> None:
    examples = examples_of(tmp_path)
    asked = several("checkpoints", trainable=learns, pairs_per_step=4)  # Eight steps.
    one = trained(asked, examples, tmp_path / "run")
    plain, alone = started(asked), options(trainable=learns, pairs_per_step=4, epochs=2)
    train(plain, examples, {"same": examples}, alone.model_copy(update={"ensemble": None}),
          tmp_path / "alone")  # fmt: skip
    assert one.own is not None
    torch.testing.assert_close(one.head.weight[2:], plain.head.weight, rtol=1e-4, atol=1e-6)
    files = sorted(path.name for path in (tmp_path / "run" / "snapshots").iterdir())
    assert files == [f"step-0000000{step}.safetensors" for step in (6, 7, 8)]
    assert bool(one.own.updates) == (learns == ADAPTERS)
    again = trained(asked, examples, tmp_path / "run")
    torch.testing.assert_close(again.head.weight, one.head.weight)
    (tmp_path / "run" / "snapshots" / files[0]).unlink()
    with pytest.raises(PalateError, match=r"2 of 3 checkpoints .* train with --no-resume"):
        trained(asked, examples, tmp_path / "run")


def test_the_best_checkpoints_are_those_of_the_best_evaluations(tmp_path: Path) -> None:
    examples = examples_of(tmp_path)
    asked = several("checkpoints", keep="best", eval_every_steps=1, pairs_per_step=4)
    trained(asked, examples, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    losses = {row["step"]: row["eval"]["loss"] for row in rows if row.get("eval") and row["step"]}
    best = sorted(losses, key=lambda step: losses[step])[:3]
    kept = (tmp_path / "run" / "snapshots").iterdir()
    assert sorted(int(p.stem.removeprefix("step-")) for p in kept) == sorted(best)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"of": "lora", "trainable": LAST}, "trainable has no adapters; set trainable={lora: {}}"),
        ({"of": "seeds", "trainable": ADAPTERS}, "trainable is of adapters; say of: lora"),
        ({"of": "seeds", "attributes": {"calm": 0.5}}, "attributes goes with an ensemble of heads"),
        ({"of": "seeds", "safety_loss": {"on": "head"}}, "safety_loss.on: head goes with"),
        ({"of": "checkpoints", "patience": 4}, "set keep=best, or leave it out"),
        ({"of": "checkpoints", "patience": 1, "keep": "best"}, "set it to 2 or more"),
        ({"of": "lora", "trainable": Trainable(lora=LoraOptions(quantization="nf4"))},
         "cannot be kept in four bits"),
    ],
)  # fmt: skip
def test_an_ensemble_that_cannot_be_trained_is_refused_with_the_cure(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=re.escape(words)):
        several(changes.pop("of"), **changes)


def test_a_training_too_short_for_its_checkpoints_is_refused_before_its_first_step(
    tmp_path: Path,
) -> None:
    examples = examples_of(tmp_path)
    with pytest.raises(PalateError, match="3 checkpoints of a training of 2 steps"):
        trained(several("checkpoints", epochs=1), examples, tmp_path / "run")
    best = several("checkpoints", keep="best", pairs_per_step=2)
    with pytest.raises(PalateError, match=r"2 evaluations; set train.eval_every_steps=2 or fewer"):
        trained(best, examples, tmp_path / "best")
