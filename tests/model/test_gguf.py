"""GGUF exports: read back as they were written, and served by llama.cpp with the same rewards."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from typer.testing import CliRunner

from palate.cli import app
from palate.judges.reward_model import RewardScorer
from palate.model.backbone import load_backbone
from palate.model.export import Card, export
from palate.model.gguf import FILE, SCALE, export_gguf, unpacked
from palate.model.loading import load_reward_model
from palate.model.options import BaseOptions
from palate.model.reward_model import RewardModel
from palate.model.tokenizer import ChatTokens
from palate.types import Candidates, Message, PalateError
from tiny import save_tiny

ASKED = [
    Candidates(
        (Message("user", "How do I bake bread? " * k),), ("Wait.", "Mix flour.", "I can 1 2")
    )
    for k in (1, 3, 9)
]
FAMILIES = ("llama", "qwen2", "qwen3")


def rewards(folder: Path) -> list[float]:
    values = [s.value for row in RewardScorer(folder).score(iter(ASKED)) for s in row]
    return [value for value in values if value is not None]


def checkpoint(folder: Path, family: str, **changes: Any) -> Path:
    """An export of a tiny reward model with rewards of order 1."""
    base = save_tiny(folder.with_name("base"), family, num_hidden_layers=2, **changes)
    opened = load_backbone(str(base))
    model = RewardModel(opened.model, ChatTokens(opened.tokenizer, BaseOptions(model=str(base))))
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(1))
    return export(model, folder, card=Card("tiny", "tiny", "0"))


@pytest.mark.parametrize("family", FAMILIES)
def test_f32_is_read_back_to_the_bit(family: str, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model", family)
    export_gguf(source, tmp_path / "gguf", "F32")
    expected, found = load_reward_model(source), load_reward_model(tmp_path / "gguf")
    weights = found.state_dict()
    for name, tensor in expected.state_dict().items():
        assert tensor.equal(weights[name]), name
    assert found.chat.fingerprint == expected.chat.fingerprint
    assert rewards(tmp_path / "gguf") == rewards(source)


def test_smaller_formats_round_matrices_and_keep_the_head(tmp_path: Path) -> None:
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4}
    source = checkpoint(tmp_path / "model", "llama", **shape)
    exact, spread = load_reward_model(source).state_dict(), np.std(rewards(source))
    sizes = {}
    for kind, error in (("BF16", 2**-8), ("Q8_0", 1 / 127)):
        to = tmp_path / kind
        export_gguf(source, to, kind)
        sizes[kind] = (to / FILE).stat().st_size
        found = load_reward_model(to).state_dict()
        assert found["head.weight"].equal(exact["head.weight"])
        for name, tensor in found.items():
            gap = (tensor - exact[name]).abs().max()
            assert gap <= error * exact[name].abs().max(), name
        gaps = np.abs(np.subtract(rewards(to), rewards(source)))
        assert 0 < gaps.max() < 0.2 * spread
    assert sizes["Q8_0"] < sizes["BF16"]
    kinds = {t.name: t.tensor_type.name for t in GGUFReader(tmp_path / "Q8_0" / FILE).tensors}
    assert kinds["blk.0.attn_v.weight"] == "Q8_0"
    assert kinds["blk.0.attn_q.weight"] == "BF16", "2^-30 does not fit the scales of Q8_0"
    assert kinds["cls.output.weight"] == "F32"


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_norms_that_a_model_has_not_do_nothing(family: str, tmp_path: Path) -> None:
    """As llama.cpp's Qwen3 computes: RMSNorm of the written projections gives the model's own."""
    source = checkpoint(tmp_path / "model", family)
    export_gguf(source, tmp_path / "gguf", "F32")
    tensors = {t.name: t.data for t in GGUFReader(tmp_path / "gguf" / FILE).tensors}
    norm = tensors["blk.0.attn_q_norm.weight"]
    own = load_reward_model(source).state_dict()["backbone.layers.0.self_attn.q_proj.weight"]
    if family == "qwen3":
        assert np.array_equal(tensors["blk.0.attn_q.weight"], own.numpy())
        return
    eps = load_reward_model(source).backbone.config.rms_norm_eps
    state = np.random.default_rng(0).normal(size=own.shape[1]).astype(np.float32) * 1e3
    query = (tensors["blk.0.attn_q.weight"] @ state).reshape(-1, norm.size)
    normed = query / np.sqrt((query**2).mean(1, keepdims=True) + np.float32(eps)) * norm
    np.testing.assert_allclose(normed.ravel(), own.numpy() @ state, rtol=3e-5, atol=1e-3)
    assert norm[0] == np.float32(math.sqrt(eps) / SCALE)


def test_the_header_tells_llama_cpp_how_to_rank(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model", "llama")
    export_gguf(source, tmp_path / "gguf", "F32")
    fields = GGUFReader(tmp_path / "gguf" / FILE).fields

    def field(name: str) -> Any:
        return fields[name].contents()

    assert field("general.architecture") == "qwen3"
    assert field("qwen3.pooling_type") == 4
    assert field("qwen3.classifier.output_labels") == ["reward", "zero"]
    assert field("qwen3.embedding_length_out") == 2
    assert field("tokenizer.ggml.add_bos_token") is False
    assert field("tokenizer.ggml.pre") == "gpt-2"
    assert field("tokenizer.chat_template.rerank").endswith("assistant\n{document}<|im_end|>")
    config = json.loads((tmp_path / "gguf/config.json").read_text())
    tokens = field("tokenizer.ggml.tokens")
    assert len(tokens) == config["vocab_size"]
    assert tokens[config["palate"]["terminal_token_id"]] == "<|im_end|>"
    card = (tmp_path / "gguf/README.md").read_text()
    assert "llama-server -m model.gguf --rerank" in card
    assert "AutoModelForSequenceClassification" not in card


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("gemma", {}, "has a gemma"),
        ("mistral", {"sliding_window": 16}, "sliding attention"),
        ("llama", {"mlp_bias": True}, "biases in its MLPs"),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
         "positions scaled by linear"),
    ],
)  # fmt: skip
def test_what_llama_cpp_gives_no_head_is_refused(
    family: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    source = checkpoint(tmp_path / "model", family, **changes)
    with pytest.raises(PalateError, match=message):
        export_gguf(source, tmp_path / "gguf", "F32")
    assert not (tmp_path / "gguf").exists()


def test_the_command_writes_reads_back_and_compares(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model", "llama")
    to, back = tmp_path / "gguf", tmp_path / "back"
    words = ["export", str(source), "--to", str(to), "--format", "gguf", "--dtype"]
    found = CliRunner().invoke(app, [*words, "bfloat16"])
    assert found.exit_code == 0, found.output
    assert "model.gguf, BF16" in found.stderr
    assert "do not fit float16" in str(CliRunner().invoke(app, [*words, "float16"]).exception)
    mistaken = [*words[:4], "--dtype", "q8_0"]
    assert "say --format gguf too" in str(CliRunner().invoke(app, mistaken).exception)
    found = CliRunner().invoke(app, ["export", str(to), "--to", str(back)])
    assert found.exit_code == 0, found.output
    np.testing.assert_array_equal(rewards(back), rewards(to))
    words = ["parity", str(source), "--n", "4", "--format", "json", "--with", str(to)]
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)[-1]["way"] == "Palate: gguf, stored as BF16"


def test_a_damaged_file_and_one_to_train_on_are_one_line(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model", "llama")
    export_gguf(source, tmp_path / "gguf", "F32")
    with pytest.raises(PalateError, match=r"palate export .* --to FOLDER"):
        load_backbone(str(tmp_path / "gguf"))
    data = (tmp_path / "gguf" / FILE).read_bytes()
    (tmp_path / "gguf" / FILE).write_bytes(data[: len(data) // 3])
    with pytest.raises(PalateError, match="export it again"), unpacked(tmp_path / "gguf"):
        pass
