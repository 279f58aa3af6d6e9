"""Adapters kept as adapters: Palate's own, opened by Palate and by peft and transformers alone."""

import json
import logging
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

from palate.cli import app
from palate.model.backbone import quiet
from palate.model.export import Card, export, export_adapter, files_of, folder_named
from palate.model.loading import load_adapter, load_reward_model, reopen, start_model
from palate.model.options import BaseOptions
from palate.model.packing import group
from palate.model.reward_model import RewardModel
from palate.train.options import LoraOptions, Trainable, TrainOptions
from palate.train.trainable import choose_trainable
from palate.types import Message, PalateError
from tiny import save_tiny

PROMPT, RESPONSES = (Message("user", "How do I bake bread?"),), ("Mix flour.", "No.", "The sea.")
LORA = TrainOptions(trainable=Trainable(lora=LoraOptions(rank=4)))


def trained(base: Path, *, layers: int | None = None, safety: bool = False) -> RewardModel:
    """A reward model with adapters that have learnt something, and the card of its base."""
    options = BaseOptions(model=str(base), layers=layers)
    model, _ = start_model(options, safety_head=safety)
    choose_trainable(model, LORA)
    generator = torch.Generator().manual_seed(3)
    for name, weight in model.named_parameters():
        if "lora_B" in name or "head" in name:
            torch.nn.init.normal_(weight, std=0.2, generator=generator)
    return model.eval()


@torch.no_grad()
def scores(model: RewardModel) -> torch.Tensor:
    tokens = [encoded.ids for r in RESPONSES if (encoded := model.chat.encode(PROMPT, r))]
    return model([group(tokens)]).reward


def card_of(base: Path, layers: int | None = None) -> Card:
    _, opened = start_model(BaseOptions(model=str(base), layers=layers))
    return Card("tiny", str(base), opened.revision, base_layers=layers)


@pytest.mark.parametrize(
    ("family", "layers"), [("llama", 2), ("qwen3", None), ("gpt_neox", None), ("qwen3_moe", None)]
)
def test_a_kept_adapter_scores_as_the_model_did_with_palate_and_without(
    family: str, layers: int | None, tmp_path: Path
) -> None:
    base = save_tiny(tmp_path / "base", family)
    model = trained(base, layers=layers, safety=True)
    expected = scores(model)
    whole = export(model, tmp_path / "whole", card=card_of(base, layers))
    kept = export_adapter(whole, tmp_path / "kept")
    torch.testing.assert_close(scores(load_reward_model(whole)), expected, atol=1e-5, rtol=0)

    again, opened = load_adapter(kept)
    torch.testing.assert_close(scores(again), expected, atol=1e-5, rtol=0)
    assert opened.maker == "palate"
    assert again.chat.fingerprint == model.chat.fingerprint
    assert again.safety_head is not None
    assert model.safety_head is not None
    assert torch.equal(again.safety_head.weight, model.safety_head.weight)

    # As its card says, with no line of Palate.
    tokenizer = AutoTokenizer.from_pretrained(kept)
    with quiet():
        plain = AutoModelForSequenceClassification.from_pretrained(
            base, num_labels=1, pad_token_id=tokenizer.pad_token_id, dtype=torch.float32,
            **({} if layers is None else {"num_hidden_layers": layers}),
        )  # fmt: skip
        plain = PeftModel.from_pretrained(plain, str(kept)).eval()
    turns = [{"role": "user", "content": "How do I bake bread?"}]
    texts = [
        tokenizer.apply_chat_template(
            [*turns, {"role": "assistant", "content": response}], tokenize=False
        )
        for response in RESPONSES
    ]
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    inputs.pop("token_type_ids", None)
    with torch.no_grad():
        torch.testing.assert_close(plain(**inputs).logits[:, 0], expected, atol=1e-5, rtol=0)


def test_its_card_and_size_are_an_adapter_s(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", "llama")
    whole = export(trained(base, layers=2), tmp_path / "whole", card=card_of(base, 2))
    kept = export_adapter(whole, tmp_path / "kept", base="me/base")
    config = json.loads((kept / "adapter_config.json").read_text())
    assert config["task_type"] == "SEQ_CLS"
    assert config["modules_to_save"] == ["score"]
    assert config["base_model_name_or_path"] == "me/base"
    text = (kept / "README.md").read_text()
    assert "PeftModel.from_pretrained(model, folder)" in text
    assert "num_hidden_layers=2" in text
    assert "library_name: peft" in text
    assert "vLLM" not in text
    assert not (kept / "config.json").exists()
    pushed = {path.name for path in files_of(kept)}
    assert {"adapter_config.json", "adapter_model.safetensors", "palate.json"} < pushed
    assert folder_named(kept) is None
    assert folder_named(whole / "adapter") == str(base)
    assert not any("adapter" in str(path.relative_to(whole)) for path in files_of(whole))
    # Merged once more: a whole model, its adapter no longer one.
    model, card = reopen(str(kept), base=str(base))
    assert card.base_layers == 2
    merged = export(model, tmp_path / "merged", card=card)
    assert not (merged / "adapter").exists()
    again = scores(load_reward_model(merged))
    torch.testing.assert_close(again, scores(load_reward_model(whole)), atol=1e-5, rtol=0)


def test_another_base_than_it_was_trained_on_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = save_tiny(tmp_path / "base", "llama")
    whole = export(trained(base), tmp_path / "whole", card=card_of(base))
    other = save_tiny(tmp_path / "other", "llama", seed=1)
    with caplog.at_level(logging.WARNING):
        load_adapter(whole / "adapter")
        assert not any("trained on" in line for line in caplog.messages)
        load_adapter(whole / "adapter", base=str(other))
    assert any("trained on" in line and "now another" in line for line in caplog.messages)


def test_the_command_writes_it_and_says_where_there_is_none(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", "llama")
    whole = export(trained(base), tmp_path / "whole", card=card_of(base))

    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["export", *words, "--format", "adapter"])
        return done.exit_code, str(done.exception or done.output)

    assert run(str(whole), "--to", str(tmp_path / "kept"))[0] == 0
    assert run(str(whole), "--to", str(tmp_path / "kept"))[0] == 0, "replaced"
    moved = str(tmp_path / "moved")
    assert run(str(tmp_path / "kept"), "--to", moved, "--base", "me/base")[0] == 0
    (whole / "adapter" / "adapter_config.json").unlink()
    for words, message in (
        ((str(base), "--to", moved), "no adapter in it"),
        ((str(tmp_path / "no"), "--to", moved), "no such folder"),
        ((str(tmp_path / "kept"), "--to", moved, "--dtype", "float16"), "kept as trained"),
        ((str(tmp_path / "kept"), "--to", str(tmp_path / "kept")), "replace its own"),
    ):
        code, text = run(*words)
        assert code != 0
        assert message in text
    (tmp_path / "kept" / "palate.json").write_text("[1, 2")
    with pytest.raises(PalateError, match=r"palate.json: no JSON object"):
        load_adapter(tmp_path / "kept")
