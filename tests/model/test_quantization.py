"""QLoRA: adapters on a backbone in four bits learn, and leave as what they were trained on.

Needs bitsandbytes, which plain installs and the environment of `make test` do not have:
`pip install '.[quantization]'`.
"""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from packed import conversations, gradients, rewards
from palate.model.export import Card, export, export_adapter
from palate.model.loading import load_adapter, load_reward_model, start_model
from palate.model.options import BaseOptions
from palate.model.quantization import dequantized, quantize
from palate.model.reward_model import RewardModel
from palate.train.cost import Setup, memory_parts, model_stats
from palate.train.loop import make_optimizer, train
from palate.train.options import LoraOptions, Trainable, TrainOptions
from palate.train.trainable import choose_trainable
from palate.types import PalateError
from tiny import save_tiny, tiny_config, tiny_model
from train.test_loop import CHAT, examples_of, metrics

QLORA = TrainOptions(
    trainable=Trainable(lora=LoraOptions(rank=4, quantization="nf4")), pairs_per_step=8,
    tokens_per_microbatch=256, learning_rate=5e-3, trackers=(),
)  # fmt: skip
installed = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)
MADE = conversations(2, groups=3)


def quantised(base: Path, **options: Any) -> RewardModel:
    model, _ = start_model(BaseOptions(model=str(base)), **options)
    choose_trainable(model, QLORA)
    generator = torch.Generator().manual_seed(3)
    for name, weight in model.named_parameters():
        if "lora_B" in name or "head" in name:
            torch.nn.init.normal_(weight, std=0.2, generator=generator)
    return model.eval()


def test_without_bitsandbytes_it_is_refused_with_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # As Python sees what is missing.
    model = RewardModel(tiny_model("llama"), CHAT)
    with pytest.raises(PalateError, match=r"bitsandbytes is not installed; run: .*bitsandbytes"):
        choose_trainable(model, QLORA)
    assert type(model.backbone).__name__ == "LlamaModel", "nothing half-made"
    planned = model_stats(tiny_config("llama"), QLORA)
    linear = [m for m in model.backbone.modules() if isinstance(m, torch.nn.Linear)]
    assert planned.quantized == sum(m.weight.numel() for m in linear)


def test_what_does_not_ask_for_it_keeps_its_fingerprint() -> None:
    plain = TrainOptions(trainable=Trainable(lora=LoraOptions(rank=4)))
    assert "quantization" not in str(plain.decisive())
    assert QLORA.decisive()["trainable"]["lora"]["quantization"] == "nf4"


@installed
@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt_neox"])
def test_each_path_gives_the_rewards_of_the_rounded_weights(family: str, tmp_path: Path) -> None:
    model = quantised(save_tiny(tmp_path / "base", family))
    padded, shared = rewards(model, "padded", MADE), rewards(model, "shared", MADE)
    torch.testing.assert_close(shared, padded, rtol=1e-5, atol=1e-5)
    padded, shared = gradients(model, "padded", MADE), gradients(model, "shared", MADE)
    assert (shared - padded).norm() <= 1e-5 * padded.norm()
    whole = RewardModel(tiny_model(family, len(model.chat.tokenizer)), model.chat)
    quantize(whole.backbone, torch.float32)
    moved = [w for m in whole.backbone.modules() if (w := dequantized(m)) is not None]
    assert len(moved) == sum("lora_A" in name for name, _ in model.named_parameters())


@installed
def test_what_is_written_scores_as_what_was_trained(tmp_path: Path) -> None:
    """Merged, and as an adapter that is merged later, on the base rounded once more."""
    base = save_tiny(tmp_path / "base", "qwen3")
    model = quantised(base)
    with torch.no_grad():
        expected = rewards(model, "shared", MADE)
        whole = export(model, tmp_path / "whole", card=Card("tiny", str(base), ""))
        again = load_reward_model(whole)
        torch.testing.assert_close(rewards(again, "shared", MADE), expected, rtol=0, atol=1e-4)
        later, _ = load_adapter(export_adapter(whole, tmp_path / "kept"))
        torch.testing.assert_close(rewards(later, "shared", MADE), expected, rtol=0, atol=1e-4)
        unrounded = start_model(BaseOptions(model=str(base)))[0].backbone
        moved = unrounded.layers[0].mlp.up_proj.weight - later.backbone.layers[0].mlp.up_proj.weight
        assert moved.norm() > 0.01 * unrounded.layers[0].mlp.up_proj.weight.norm()


@installed
def test_it_learns_and_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    examples = examples_of(tmp_path, 16)
    model = RewardModel(tiny_model("llama"), CHAT)
    options = QLORA.model_copy(update={"epochs": 6})
    train(model, examples, {"same": examples}, options, tmp_path)
    assert metrics(tmp_path)[-1]["eval"]["accuracy"] > 0.9
    # Nothing is left to do, so that all comes from the base, quantised anew, and the checkpoint.
    again = RewardModel(tiny_model("llama"), CHAT)
    train(again, examples, {"same": examples}, options, tmp_path)
    assert torch.equal(rewards(again, "shared", MADE), rewards(model, "shared", MADE))


@installed
def test_its_memory_is_that_of_four_bits() -> None:
    changes = {"hidden_size": 128, "intermediate_size": 256}
    found = {
        part.name: part.bytes
        for part in memory_parts(model_stats(tiny_config("llama", **changes), QLORA), Setup())
    }
    model = RewardModel(tiny_model("llama", **changes), CHAT)
    choose_trainable(model, QLORA)
    packed = whole = 0
    for name, weight in model.named_parameters():
        state = getattr(weight, "quant_state", None)
        if state is None:
            whole += weight.nbytes
            continue
        packed += weight.nbytes + state.absmax.nbytes + state.state2.absmax.nbytes
        assert not weight.requires_grad, name
    assert found["weights"] == whole
    assert found["weights in four bits"] == pytest.approx(packed, rel=0.01)
    moments = make_optimizer(model, QLORA)
    learns = sum(p.numel() for g in moments.param_groups for p in g["params"])
    assert found["gradients"] == 4 * learns
