"""Which weights learn: all, the last layers, or low-rank adapters."""

from __future__ import annotations

import warnings
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel

from palate.model.quantization import quantize
from palate.model.reward_model import RewardModel
from palate.train.options import TrainOptions
from palate.types import PalateError


def choose_trainable(model: RewardModel, options: TrainOptions) -> None:
    """Freeze what `options.trainable` leaves out; the heads and the final norm always learn.

    Raises:
        PalateError: a backbone without a plain stack of layers, or with fewer than are to learn;
            bitsandbytes is missing where the backbone is to be quantised.
    """
    if options.trainable == "full":
        return
    backbone, lora, last = model.backbone, options.trainable.lora, options.trainable.last_layers
    if lora is not None:
        from peft import LoraConfig, get_peft_model

        if options.quantizes and not next(backbone.parameters()).is_meta:  # A plan has no weights.
            quantize(backbone, model.dtype)
        config = LoraConfig(
            r=lora.rank, lora_alpha=lora.alpha, lora_dropout=0.0, target_modules="all-linear"
        )
        # Untyped in peft; the wrapper forwards everything the reward model asks of a backbone.
        with warnings.catch_warnings(), torch.random.fork_rng():
            # A run killed before its first checkpoint must start the same.
            torch.manual_seed(options.seed)
            # peft 0.21 asks transformers 5.23 by a name it deprecates.
            warnings.simplefilter("ignore", FutureWarning)
            # It looks for fused experts, whose ranks it has set itself, among the modules alone.
            unused = "The following (rank|alpha)_pattern"
            warnings.filterwarnings("ignore", unused, RuntimeWarning)
            model.backbone = cast(PreTrainedModel, get_peft_model(backbone, config))
    elif last is not None:
        layers = layers_below(backbone, last)
        for module in [backbone.get_input_embeddings(), *layers]:
            module.requires_grad_(False)


def layers_below(backbone: nn.Module, last: int) -> list[nn.Module]:
    """The layers before the `last` that learn.

    Raises:
        PalateError: a backbone without a plain stack of layers, or with fewer.
    """
    layers = getattr(backbone, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise PalateError(
            f"trainable.last_layers: {type(backbone).__name__} has no plain stack of layers; use "
            "lora"
        )
    if last > len(layers):
        raise PalateError(
            f"train.trainable.last_layers={last}, but the backbone has {len(layers)} layers; set "
            f"{len(layers)} or fewer"
        )
    return [*layers[: len(layers) - last]]
