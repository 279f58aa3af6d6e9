"""Keys for older readers stand beside today's, and today's transformers reads the same model."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoTokenizer

from palate.model.backbone import load_backbone
from palate.model.export import Card, export
from palate.model.loading import load_reward_model
from palate.model.options import BaseOptions
from palate.model.reward_model import RewardModel
from palate.model.tokenizer import ChatTokens
from tiny import START, save_tiny

LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 4.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
}  # fmt: skip
NEOX = {"rope_type": "default", "rope_theta": 777.0, "partial_rotary_factor": 0.5}


def exported(folder: Path, family: str, rope: dict[str, Any]) -> tuple[RewardModel, Path]:
    base = save_tiny(folder / "base", family, rope_parameters=rope)
    opened = load_backbone(str(base))
    model = RewardModel(opened.model, ChatTokens(opened.tokenizer, BaseOptions(model=str(base))))
    return model.eval(), export(model, folder / "out", card=Card("tiny", "tiny/base", "0"))


@pytest.mark.parametrize(
    ("family", "rope", "older"),
    [
        ("llama", {"rope_type": "default", "rope_theta": 777.0}, {"rope_scaling": None}),
        ("qwen2", LLAMA3, {"rope_scaling": {k: v for k, v in LLAMA3.items() if k != "rope_theta"}}),
        ("gpt_neox", NEOX, {"rotary_emb_base": 777.0, "rotary_pct": 0.5, "rope_scaling": None}),
    ],
)
def test_pitfall_29_old_and_new_keys_name_the_same_positions(
    family: str, rope: dict[str, Any], older: dict[str, Any], tmp_path: Path
) -> None:
    model, folder = exported(tmp_path, family, rope)
    config = json.loads((folder / "config.json").read_text())
    assert config["rope_theta"] == rope["rope_theta"]
    assert config["torch_dtype"] == config["dtype"] == "float32"
    assert {name: config[name] for name in older} == older
    assert AutoConfig.from_pretrained(folder).rope_parameters == rope
    ids = [torch.arange(5, 300).numpy().astype("int32")]  # Long enough for a scaling to matter.
    with torch.no_grad():
        expected = model.forward_padded(ids).reward
        assert load_reward_model(folder).forward_padded(ids).reward.equal(expected)


def test_pitfall_29_the_tokenizer_is_named_as_both_generations_know_it(tmp_path: Path) -> None:
    _, folder = exported(tmp_path, "llama", {"rope_type": "default", "rope_theta": 1e4})
    written = json.loads((folder / "tokenizer_config.json").read_text())
    assert written["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert written["model_input_names"] == ["input_ids", "attention_mask"]
    assert written["chat_template"] == (folder / "chat_template.jinja").read_text()
    assert "extra_special_tokens" not in written
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert START in tokenizer.all_special_tokens
    assert set(tokenizer("x")) == {"input_ids", "attention_mask"}


def test_pitfall_30_servers_are_told_to_leave_the_reward_raw(tmp_path: Path) -> None:
    _, folder = exported(tmp_path, "llama", {"rope_type": "default", "rope_theta": 1e4})
    config = json.loads((folder / "config.json").read_text())
    assert config["problem_type"] == "regression"  # vLLM's /classify.
    assert config["sbert_ce_default_activation_function"].endswith("Identity")  # Its /score.
