"""QLoRA: a backbone whose frozen matrices lie in memory in four bits, with bitsandbytes.

NF4 of QLoRA (Dettmers et al., arXiv 2305.14314, section 3): each 64 values are scaled by the
largest of them and rounded to one of 16 quantiles of a normal distribution; the scales are rounded
to 8 bits themselves (double quantisation). A matrix is made whole again, in the format of the
products, each time that it multiplies. Of a mixture of experts only the linear layers are taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from palate.extras import install_command, missing
from palate.types import PalateError

Quantization = Literal["nf4"]

BLOCK, NESTED = 64, 256  # Values a scale, and scales a scale of theirs.
BYTES = 1 / 2 + 1 / BLOCK + 4 / (BLOCK * NESTED)
"""Of one value: four bits, and its part of the scales."""


def check_quantization() -> None:
    """Raise `PalateError`, with the command that installs it, where bitsandbytes is missing."""
    if missing("quantization"):
        raise PalateError(
            "train.trainable.lora.quantization: bitsandbytes is not installed; run: "
            f"{install_command('quantization')}"
        )


def linear_layers(backbone: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """Each linear layer that is quantised, with what holds it and its name there."""
    for parent in list(backbone.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                yield parent, name, child


def quantize(backbone: Any, dtype: torch.dtype) -> None:
    """Put every linear layer's weights into NF4, in place; products are in `dtype`.

    Raises:
        PalateError: bitsandbytes is missing.
    """
    check_quantization()
    from bitsandbytes.nn import Linear4bit, Params4bit

    for parent, name, linear in linear_layers(backbone):
        device, has_bias = linear.weight.device, linear.bias is not None
        with torch.device("meta"):
            packed = Linear4bit(
                linear.in_features, linear.out_features, bias=has_bias, compute_dtype=dtype,
                compress_statistics=True, quant_type="nf4",
            )  # fmt: skip
        packed.weight = Params4bit(
            linear.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4",
            blocksize=BLOCK, module=packed,
        )  # fmt: skip
        # Else evaluations on a CPU would pack the weights anew, and want multiples of 32 rows.
        packed.support_avx512bf16_for_cpu = False
        packed.bias = linear.bias
        packed.weight = packed.weight.to(device)  # Where it is rounded, on a CPU too.
        setattr(parent, name, packed.train(linear.training))
    backbone.is_loaded_in_4bit = True  # By which peft knows how to lie adapters on it.


def dequantized(module: Any) -> Tensor | None:
    """The weights that a quantised linear layer multiplies by, [out, in]; None of another."""
    state = getattr(getattr(module, "weight", None), "quant_state", None)
    if state is None:
        return None
    from bitsandbytes.functional import dequantize_4bit

    values: Tensor = dequantize_4bit(module.weight.data, state)
    return values


@torch.no_grad()
def round_to_nf4(backbone: nn.Module) -> None:
    """Round every linear layer's weights to what NF4 keeps of them, in place.

    What an adapter that was trained on quantised weights is then merged into.

    Raises:
        PalateError: bitsandbytes is missing.
    """
    check_quantization()
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    for _, _, linear in linear_layers(backbone):
        packed, state = quantize_4bit(
            linear.weight.data, blocksize=BLOCK, compress_statistics=True, quant_type="nf4"
        )
        linear.weight.copy_(dequantize_4bit(packed, state))
