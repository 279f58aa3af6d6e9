"""Which weights learn: all, the last layers, or low-rank adapters."""

from __future__ import annotations

import warnings
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel

from palate.model.reward_model import RewardModel
from palate.train.options import LoraOptions, TrainOptions
from palate.types import PalateError


def choose_trainable(model: RewardModel, options: TrainOptions) -> None:
    """Freeze what `options.trainable` leaves out; the heads and the final norm always learn."""
    if options.trainable == "full":
        return
    if options.trainable.lora is not None:
        _add_adapters(model, options.trainable.lora, options.seed)
    elif options.trainable.last_layers is not None:
        _freeze_below(model.backbone, options.trainable.last_layers)


def _freeze_below(backbone: PreTrainedModel, last: int) -> None:
    layers = getattr(backbone, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        kind = type(backbone).__name__
        raise PalateError(f"trainable.last_layers: {kind} has no plain stack of layers; use lora")
    if last > len(layers):
        raise PalateError(f"trainable.last_layers={last}, but the backbone has {len(layers)}")
    frozen = [backbone.get_input_embeddings(), *layers[: len(layers) - last]]
    for module in frozen:
        module.requires_grad_(False)


def _add_adapters(model: RewardModel, options: LoraOptions, seed: int) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=options.rank, lora_alpha=options.alpha, lora_dropout=0.0, target_modules="all-linear"
    )
    # Untyped in peft; the wrapper forwards everything the reward model asks of a backbone.
    with warnings.catch_warnings(), torch.random.fork_rng():
        torch.manual_seed(seed)  # A run killed before its first checkpoint must start the same.
        # peft 0.21 asks transformers 5.23 by a name it deprecates.
        warnings.simplefilter("ignore", FutureWarning)
        model.backbone = cast(PreTrainedModel, get_peft_model(model.backbone, config))
