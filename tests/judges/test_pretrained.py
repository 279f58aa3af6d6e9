"""A reward model in plain Python gives the scorer's rewards, saves as exports do, is pushed."""

from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from hub import TOKEN, hub
from palate.judges.pretrained import RewardModel, rank
from palate.judges.reward_model import RewardScorer
from palate.model.export import Card, export
from palate.model.options import BaseOptions
from palate.model.reward_model import RewardModel as Network
from palate.model.tokenizer import TOO_LONG, ChatTokens
from palate.types import Candidates, Message, PalateError
from tiny import tiny_model, tiny_tokenizer

SEA = [{"role": "user", "content": "Sea?"}, {"role": "assistant", "content": "Blue."}]
LONG = ("Sea?", "sea " * 200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = Network(tiny_model("llama"), ChatTokens(tiny_tokenizer(), BaseOptions(max_tokens=64)))
    torch.nn.init.normal_(network.head.weight, generator=torch.Generator().manual_seed(1))
    network.backbone.to(torch.bfloat16)
    target = tmp_path_factory.mktemp("rm") / "mine"
    return export(network, target, card=Card("mine", "tiny", "0"))


@pytest.fixture(scope="module")
def model(folder: Path) -> RewardModel:
    return RewardModel.from_pretrained(folder)


def test_every_form_of_a_conversation_has_the_scorers_reward(folder, model):
    asked = Candidates((Message("user", "Sea?"),), ("Blue.",))
    ((expected,),) = RewardScorer(folder).score([asked])
    forms = [
        ("Sea?", "Blue."),
        ["Sea?", "Blue."],
        (SEA[:1], "Blue."),
        SEA,
        [Message("user", "Sea?"), Message("assistant", "Blue.")],
        "\n\nHuman: Sea?\n\nAssistant: Blue.",
    ]
    assert model.score(forms) == pytest.approx([expected.value] * 6, abs=1e-6)
    assert model.scores(iter(forms[:1])) == [expected]
    assert model.score(SEA) == model.score(forms[5]) == model.score(forms[:1])
    assert model.score([]) == []


def test_a_response_without_a_reward_is_an_error_and_scores_says_why(model):
    with pytest.raises(PalateError, match=r"conversations\[1\]: no reward: .*\(1 of 2 have none\)"):
        model.score([SEA, LONG])
    known, none = model.scores([SEA, LONG])
    assert known.value == model.score(SEA)[0]
    assert (none.value, none.reason) == (None, TOO_LONG)


def test_rank_puts_the_best_first_and_what_has_no_reward_last(model):
    responses = ["Blue.", "Wide and deep.", LONG[1], "Blue."]
    ranked = rank(model, "Sea?", responses)
    values = [score.value for _, score in ranked]
    assert values[3] is None
    assert values[:3] == sorted(values[:3], reverse=True)
    alone = model.score([("Sea?", "Blue.")])
    assert dict(ranked)["Blue."].value == pytest.approx(alone[0], abs=1e-4)


@pytest.mark.parametrize(
    ("conversations", "said"),
    [
        (["Sea?"], r"conversations\[0\]: expected a pair"),
        ("Sea?", r"write \[\(prompt, response\)\]"),
        ([SEA, 5], r"conversations\[1\]: expected a list of messages, got 5"),
        ([SEA[:1]], "end in the assistant's after at least one other, got user"),
        ([([], "Blue.")], r"conversations\[0\] prompt: expected a list of messages"),
        (5, "expected a list of them, got a int"),
    ],
)
def test_what_is_no_conversation_is_one_line_with_its_place(model, conversations, said):
    with pytest.raises(PalateError, match=said):
        model.score(conversations)


def test_a_saved_model_keeps_its_number_format_and_its_rewards(folder, model, tmp_path):
    saved = model.save_pretrained(str(tmp_path / "saved"))
    weights = "model.safetensors"
    assert (saved / weights).stat().st_size == (folder / weights).stat().st_size
    assert RewardModel.from_pretrained(str(saved)).score(SEA) == model.score(SEA)
    with pytest.raises(PalateError, match="would replace its own model"):
        model.save_pretrained(folder)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/mine.txt").write_text("kept")
    with pytest.raises(PalateError, match="something else than a model"):
        model.save_pretrained(tmp_path / "notes")


def test_a_push_is_what_is_saved_and_private(model, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with hub() as there:
        monkeypatch.setattr(constants, "ENDPOINT", there.url)
        assert model.push_to_hub("me/mine").url == f"{there.url}/me/mine"
        assert there.private == {"me/mine": True}
        saved = model.save_pretrained(tmp_path / "saved")
        for name, content in there.files["me/mine"].items():
            assert content == (saved / name).read_bytes()
    with pytest.raises(PalateError, match="expected OWNER/NAME"):
        model.push_to_hub("mine")


def test_what_cannot_be_opened_says_so(folder, tmp_path):
    with pytest.raises(PalateError, match="not an adapter; leave base out"):
        RewardModel.from_pretrained(folder, base="tiny")
    with pytest.raises(PalateError, match="expected one of auto, float32, bfloat16"):
        RewardModel.from_pretrained(folder, dtype="float16")
    (tmp_path / "model.onnx").touch()
    with pytest.raises(PalateError, match="an ONNX graph"):
        RewardModel.from_pretrained(tmp_path)
