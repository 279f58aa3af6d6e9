"""Members with weights of their own: each says what it would say alone, whatever they share."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification
from typer.testing import CliRunner

from palate.cli import app
from palate.judges.reward_model import RewardScorer
from palate.model.attention import decoder_layers
from palate.model.ensemble import MemberWeights
from palate.model.export import ENSEMBLE_FILE, MEMBERS_FILE, Card, export
from palate.model.loading import load_reward_model, start_model
from palate.model.options import BaseOptions
from palate.model.packing import group
from palate.model.reward_model import RewardModel
from palate.model.tokenizer import ChatTokens
from palate.types import Candidates, Message, PalateError
from tiny import tiny_model, tiny_tokenizer

CHAT = ChatTokens(tiny_tokenizer(), BaseOptions(max_tokens=128))
ANSWERS = ("The sea is blue.", "The sea is deep and wide.", "I cannot help.", "Bread.")
CARD = Card(name="several", base="tiny", base_revision="0")
KINDS = ("seeds", "checkpoints", "lora")
M, RANK, SCALE = 3, 4, 2.0
OFFSETS = torch.tensor([0.5, -0.25, -0.25])
PROMPT = (Message("user", "Why?"),)


def groups() -> Any:
    tokens = [CHAT.encode(PROMPT, answer).ids for answer in ANSWERS]
    return [group(tokens[:3]), group(tokens[3:])]


def ensemble(kind: str, family: str = "llama", **options: Any) -> RewardModel:
    """Three members: of other last layers and another norm, or of an update of every matrix."""
    model = RewardModel(tiny_model(family), CHAT, seed=5, **options)
    rng = torch.Generator().manual_seed(1)

    def drawn(*shape: int) -> Tensor:
        return 0.1 * torch.randn(shape, generator=rng)

    tensors: dict[str, Tensor] = {}
    if kind == "lora":
        for name, part in model.backbone.named_modules():
            if isinstance(part, nn.Linear):
                tensors[f"down/{name}"] = drawn(M, RANK, part.in_features)
                tensors[f"up/{name}"] = drawn(M, part.out_features, RANK)
    else:
        first = {id(p) for layer in decoder_layers(model.backbone)[:2] for p in layer.parameters()}
        embedding = id(model.backbone.get_input_embeddings().weight)
        for name, p in model.backbone.named_parameters():
            if id(p) not in first and id(p) != embedding:
                tensors[f"weight/{name}"] = p.detach() + drawn(M, *p.shape)
    own = MemberWeights(kind, tensors, SCALE if kind == "lora" else 0.0)
    own.average_into(model.backbone)
    model.give_members(own, drawn(M, model.head.in_features), OFFSETS)
    return model


def alone(kind: str, number: int, family: str = "llama") -> RewardModel:
    """A plain model with the weights of one member, made by hand."""
    whole, plain = ensemble(kind, family), RewardModel(tiny_model(family), CHAT, seed=5)
    assert whole.own is not None
    with torch.no_grad():
        weights = dict(plain.backbone.named_parameters())
        for name, tensor in whole.own.whole.items():
            weights[name].copy_(tensor[number])
        for name, update in whole.own.updates.items():
            weights[f"{name}.weight"].add_(SCALE * update.up[number] @ update.down[number])
        plain.head.weight.copy_(whole.head.weight[number : number + 1])
    return plain


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "gemma"])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_each_member_says_what_it_says_alone_and_the_reward_is_their_mean(
    kind: str, family: str
) -> None:
    model = ensemble(kind, family)
    read = model(groups())
    assert read.members is not None
    assert (model.members, read.members.shape) == (M, (4, M))
    assert (model.common is None) == (kind == "lora")
    for number in range(M):
        expected = alone(kind, number, family)(groups()).reward - OFFSETS[number]
        torch.testing.assert_close(read.members[:, number], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(read.reward, read.members.mean(1), rtol=1e-4, atol=1e-5)
    assert float(read.members.std(1).mean()) > 0.01
    model.shared = model.narrow = False  # Padded rows, which stock attention computes.
    model._select_attention(model.stock)
    padded = model(groups()).members
    torch.testing.assert_close(padded, read.members, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_layers_that_members_share_run_once_and_the_others_once_for_each() -> None:
    model, runs = ensemble("seeds"), [0, 0, 0]
    for number, layer in enumerate(decoder_layers(model.backbone)):

        def count(*_: Any, number: int = number) -> None:
            runs[number] += 1

        layer.self_attn.register_forward_hook(count)
    assert model.common is not None
    assert model.common.count == 2
    model(groups())
    assert runs == [1, 1, M]
    cache = model.prompt_cache(1 << 20)
    torch.testing.assert_close(model(groups(), cache).members, model(groups()).members)
    assert cache.use.prompts == 0, "each member would have to be kept by itself"


@torch.no_grad()
def test_a_backbone_that_cannot_pass_layers_over_runs_every_member_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from palate.model.frozen import FrozenLayers

    expected = ensemble("seeds")(groups()).members
    monkeypatch.setattr(FrozenLayers, "given", FrozenLayers.alone)  # Takes no states.
    model = ensemble("seeds")
    assert model.common is None
    torch.testing.assert_close(model(groups()).members, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_an_export_is_the_average_as_a_plain_classifier_and_opens_as_the_ensemble(
    kind: str, tmp_path: Path
) -> None:
    model = ensemble(kind)
    before, folder = model(groups()), export(model, tmp_path / "several", card=CARD)
    again = load_reward_model(folder)
    after = again(groups())
    torch.testing.assert_close(after.members, before.members, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after.reward, before.reward, rtol=1e-4, atol=1e-5)
    twice = load_reward_model(export(again, tmp_path / "twice", card=CARD))(groups())
    torch.testing.assert_close(twice.members, before.members, rtol=1e-4, atol=1e-5)

    (scored,) = RewardScorer(folder).score([Candidates(PROMPT, ANSWERS)])
    members = torch.tensor([score.members for score in scored])
    torch.testing.assert_close(members, before.members, rtol=1e-4, atol=1e-4)
    assert scored[0].std == pytest.approx(float(np.std(scored[0].members, ddof=1)))

    stock = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    model.keep_average()
    assert (model.members, model.own) == (1, None)
    ids = [CHAT.encode(PROMPT, answer).ids for answer in ANSWERS]
    said = [stock(torch.from_numpy(i[None]).long()).logits.item() for i in ids]
    average = model(groups())
    assert average.members is None
    assert said == pytest.approx(average.reward.tolist(), abs=1e-4)
    assert not torch.allclose(average.reward, before.reward, atol=1e-3), "another model"
    card = (folder / "README.md").read_text()
    assert "3 " in card
    assert "weights are their average" in card


def refused(*words: str) -> str:
    """What a command line is told that Palate does not take."""
    result = CliRunner().invoke(app, list(words))
    assert isinstance(result.exception, PalateError)
    return str(result.exception)


@pytest.mark.parametrize("kind", ["heads", *KINDS])
@torch.no_grad()
def test_a_member_and_the_average_are_exported_as_models_like_any_other(
    kind: str, tmp_path: Path
) -> None:
    if kind == "heads":
        model = RewardModel(tiny_model("llama"), CHAT, members=M, seed=5)
        model.head.weight.normal_(generator=torch.Generator().manual_seed(1))
        model.offsets.copy_(OFFSETS)
    else:
        model = ensemble(kind)
    members, folder = model(groups()).members, export(model, tmp_path / "several", card=CARD)

    def exported(*options: str) -> Path:
        out = tmp_path / "-".join(("out", *options))
        result = CliRunner().invoke(app, ["export", str(folder), "--to", str(out), *options])
        assert result.exit_code == 0, result.output
        return out

    second = exported("--member", "2")
    assert not any((second / name).exists() for name in (ENSEMBLE_FILE, MEMBERS_FILE))
    one = load_reward_model(second)
    assert one.members == 1
    # Its offset is a constant, which no stock head has.
    torch.testing.assert_close(
        one(groups()).reward - OFFSETS[1], members[:, 1], rtol=1e-4, atol=1e-4
    )
    card = (second / "README.md").read_text()
    assert f"| ensemble | member 2 of 3 ({kind}) alone |" in card
    average = load_reward_model(exported("--average"))
    model.keep_average()
    torch.testing.assert_close(
        average(groups()).reward, model(groups()).reward, rtol=1e-4, atol=1e-4
    )
    for options, words in (
        (["--member", "4"], "--member 4 of 3; expected 1 to 3"),
        (["--member", "1", "--average"], "one model each"),
        (["--average", "--format", "adapter"], "leave --member and --average out"),
    ):
        assert words in refused("export", str(folder), "--to", str(tmp_path / "no"), *options)
    line = refused("export", str(second), "--to", str(tmp_path / "no"), "--average")
    assert "a single model; leave --member" in line


def test_a_file_of_members_that_is_not_the_models_is_named(tmp_path: Path) -> None:
    folder = export(ensemble("seeds"), tmp_path / "several", card=CARD)
    path = folder / MEMBERS_FILE
    whole = load_file(path)
    name = next(key for key in whole if key.startswith("weight/"))
    for tensors, words in (
        ({**whole, "head": whole["head"] + 0.1}, "not those whose mean the model's is"),
        ({**whole, "head": whole["head"][:2]}, "expected heads of 3 members"),
        ({**whole, name: whole[name][:2]}, f"{name} is not of 3 members of this model"),
        ({**whole, "weight/other": whole[name]}, "weight/other is not of 3 members"),
    ):
        save_file({key: tensor.clone() for key, tensor in tensors.items()}, path)
        with pytest.raises(PalateError, match=words):
            load_reward_model(folder)
    path.unlink()
    with pytest.raises(PalateError, match=rf"{MEMBERS_FILE} is missing; export it again"):
        load_reward_model(folder)


def test_a_training_goes_on_with_the_average(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = ensemble("lora")
    folder = export(model, tmp_path / "several", card=CARD)
    started, _ = start_model(BaseOptions(model=str(folder)))
    model.keep_average()
    assert started.members == 1
    with torch.no_grad():
        torch.testing.assert_close(
            started(groups()).reward, model(groups()).reward, rtol=1e-4, atol=1e-4
        )
    assert "an ensemble of lora: training goes on with the average of its 3" in caplog.text


def test_parity_says_what_other_readers_compute(tmp_path: Path) -> None:
    folder = export(ensemble("checkpoints"), tmp_path / "several", card=CARD)
    assert "no other reader computes; compare one model" in refused("parity", str(folder))
