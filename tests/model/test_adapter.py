"""A PEFT adapter and its base become one checkpoint that scores as the two did."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

from palate.cli import app
from palate.judges.pretrained import RewardModel
from palate.model.backbone import quiet
from palate.model.export import export
from palate.model.loading import load_adapter, open_adapter, reopen
from palate.types import PalateError
from tiny import END, save_tiny, tiny_tokenizer

IDS = torch.tensor([[7, 300, 12, 45, 99, 250]])
Folders = Callable[[str], Path]


def save_adapter(
    folder: Path, base: Path, *, task: str = "SEQ_CLS", **options: bool
) -> torch.Tensor:
    """An adapter with random weights, its head too, saved as TRL does; its reward of `IDS`."""
    torch.manual_seed(0)
    classifier = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    lora = LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], task_type=task,
        init_lora_weights=False, **options,
    )  # fmt: skip
    with quiet():
        model = get_peft_model(classifier, lora).eval()
    if task == "SEQ_CLS":
        torch.nn.init.normal_(model.base_model.model.score.modules_to_save["default"].weight)
    model.save_pretrained(folder)
    with torch.no_grad():
        return model(input_ids=IDS).logits[:, 0]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    # Its pad token ends turns: what must not leak into the merged export.
    return save_tiny(tmp_path / "base", "llama", tokenizer=tiny_tokenizer(pad=END))


@pytest.mark.parametrize("dora", [False, True])
def test_pitfall_29_the_merged_adapter_scores_as_the_two_did(
    base: Path, tmp_path: Path, dora: bool
) -> None:
    expected = save_adapter(tmp_path / "lora", base, use_dora=dora)
    model, card = reopen(str(tmp_path / "lora"))
    folder = export(model, tmp_path / "merged", card=card)
    stock, info = AutoModelForSequenceClassification.from_pretrained(
        folder, output_loading_info=True
    )
    assert not info["missing_keys"]
    with torch.no_grad():
        torch.testing.assert_close(stock(IDS).logits[:, 0], expected, atol=1e-5, rtol=0)
    assert AutoTokenizer.from_pretrained(folder).pad_token != END
    assert json.loads((folder / "config.json").read_text())["palate"]["base"] == str(base)
    assert "LORA, merged" in (folder / "README.md").read_text()


def test_a_user_opens_scores_and_saves_an_adapter(base: Path, tmp_path: Path) -> None:
    expected = save_adapter(tmp_path / "lora", base)
    moved = base.rename(tmp_path / "moved")
    model = RewardModel.from_pretrained(tmp_path / "lora", base=str(moved))
    with torch.no_grad():
        reward = model.module.forward_padded([IDS[0].numpy()]).reward.cpu()
    torch.testing.assert_close(reward, expected, atol=1e-5, rtol=0)
    asked = [("Sea?", "Blue."), ("Sea?", "Wide and deep.")]
    saved = model.save_pretrained(tmp_path / "saved")
    again = RewardModel.from_pretrained(saved)
    assert again.score(asked) == pytest.approx(model.score(asked), abs=1e-5)


def test_a_base_that_moved_is_named(base: Path, tmp_path: Path) -> None:
    expected = save_adapter(tmp_path / "lora", base)
    moved = base.rename(tmp_path / "moved")
    with pytest.raises(PalateError, match="no such folder"):
        open_adapter(tmp_path / "lora")
    model, adapter = load_adapter(tmp_path / "lora", base=str(moved))
    with torch.no_grad():
        reward = model.forward_padded([IDS[0].numpy()]).reward
    torch.testing.assert_close(reward, expected, atol=1e-5, rtol=0)
    assert adapter.base == str(moved)


def test_pitfall_29_an_adapter_without_a_head_is_refused(base: Path, tmp_path: Path) -> None:
    save_adapter(tmp_path / "lora", base, task="FEATURE_EXTRACTION")
    with pytest.raises(PalateError, match=r"neither it nor the adapter has a trained score.weight"):
        open_adapter(tmp_path / "lora")


def test_an_adapter_of_another_base_is_refused(base: Path, tmp_path: Path) -> None:
    save_adapter(tmp_path / "lora", base)
    other = save_tiny(tmp_path / "other", "llama", hidden_size=32)
    with pytest.raises(PalateError, match="name its own base model with --base"):
        open_adapter(tmp_path / "lora", base=str(other))


def test_what_is_no_safe_adapter_is_one_line(base: Path, tmp_path: Path) -> None:
    save_adapter(tmp_path / "lora", base)
    (tmp_path / "lora/adapter_model.safetensors").rename(tmp_path / "lora/adapter_model.bin")
    with pytest.raises(PalateError, match=r"only adapter_model.bin, and a pickle can run code"):
        open_adapter(tmp_path / "lora")
    with pytest.raises(PalateError, match="a whole model, not an adapter"):
        reopen(str(base), base=str(base))


def test_parity_compares_the_adapter_merged_and_not(base: Path, tmp_path: Path) -> None:
    save_adapter(tmp_path / "lora", base)
    words = ["parity", str(tmp_path / "lora"), "--n", "4", "--format", "json"]
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 0, found.output
    verdicts = {row["way"]: row["verdict"] for row in json.loads(found.stdout)}
    assert verdicts["peft: the adapter, not merged"] == "same"
    assert verdicts["transformers: text-classification pipeline"] == "same"
