"""How a model's decoder layers are computed: activations kept or made again, parts compiled.

In bfloat16 the matrix products of a CPU are fast and what lies between them is not: norms, rotary
embeddings and activations, each a pass or more over memory. Compiled they are a pass together.
Compiling takes a minute, so that short trainings go without.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence

import torch
from torch import nn

from palate.model.attention import decoder_layers
from palate.model.backbone import cache_root
from palate.model.options import Compute
from palate.model.packing import Group
from palate.model.reward_model import RewardModel
from palate.types import PalateError

# Operations from which on a training is compiled: half an hour at the 300 GFLOP/s that the step of
# a CPU of two cores makes in bfloat16 (measured; LOG.md, 2026-11-28).
LONG = 5e14
CACHE = "TORCHINDUCTOR_CACHE_DIR"

log = logging.getLogger(__name__)


def apply_compute(model: RewardModel, options: Compute) -> None:
    """Make the decoder layers of `model` compute as `options` say, in training mode.

    `compile: auto` is left to `worth_compiling` and `compile_and_try`.

    Call it once what learns is chosen: adapters wrap the backbone, and hook its inputs where they
    find checkpointing on, which would run the backward pass through layers that are frozen.

    Raises:
        PalateError: an architecture whose layers transformers cannot checkpoint.
    """
    layers = decoder_layers(model.backbone)
    changed = options.compile is True or options.activation_checkpointing != "none"
    if not layers and changed:
        kind = type(model.backbone).__name__
        raise PalateError(
            f"compute: the layers of {kind} can be neither checkpointed nor compiled; "
            "leave compute.activation_checkpointing and compute.compile at their defaults"
        )
    if options.activation_checkpointing != "none":
        every = 2 if options.activation_checkpointing == "selective" else 1
        model.backbone.activation_checkpointing_enable({"use_reentrant": False}, every)
        # transformers makes the embeddings require gradients, which only reentrant ones need.
        model.backbone.disable_input_require_grads()
        if model.narrow:  # It keeps little, and hooks that a second forward pass would not meet.
            layers[-1].gradient_checkpointing = False
    if options.compile is True:
        compile_parts(model)


def worth_compiling(model: RewardModel, tokens: int) -> bool:
    """Whether `auto` compiles a training over so many tokens, all epochs together.

    On a CPU with a C++ compiler, in bfloat16, and where it lasts long enough. In float32 the
    products take nine tenths of the time, and on a GPU nothing was measured.
    """
    weights = [p for layer in decoder_layers(model.backbone) for p in layer.parameters()]
    # Forward two operations a weight and token, backward twice as many where it learns.
    operations = tokens * sum((6 if p.requires_grad else 2) * p.numel() for p in weights)
    return (
        model.device.type == "cpu"
        and model.dtype == torch.bfloat16
        and operations >= LONG
        and _compiler() is not None
    )


def _compiler() -> str | None:
    """The C++ compiler that torch would take."""
    named = os.environ.get("CXX")
    return next(filter(None, map(shutil.which, filter(None, (named, "g++", "clang++")))), None)


def compile_parts(model: RewardModel) -> None:
    """Compile the parts of each decoder layer at their next call, once for all lengths.

    The parts and not the layer: torch silently gives up compiling a checkpointed layer that
    attention steps out of.
    """
    os.environ.setdefault(CACHE, str(cache_root() / "compiled"))
    for part in _parts(model):
        part.compile(dynamic=True)


def _parts(model: RewardModel) -> list[nn.Module]:
    layers = decoder_layers(model.backbone)
    # A last layer that works for a few tokens has hooks that differ from call to call.
    return [
        part for layer in (layers[:-1] if model.narrow else layers) for part in layer.children()
    ]


def compile_and_try(model: RewardModel, groups: Sequence[Group]) -> bool:
    """Compile the layers of `model` and run `groups` both ways through them; whether it holds.

    What does not compile here, or computes something else compiled, is left as it was.
    """
    with torch.no_grad():
        plain = model(groups).reward
    compile_parts(model)
    try:
        compiled = model(groups).reward
        compiled.sum().backward()
        apart = float((compiled.detach() - plain).abs().max())
        # bfloat16 moves a reward by hundredths of its size.
        bound = 0.05 * (1 + float(plain.abs().max()))
        reason = "" if apart <= bound else f"rewards {apart:.3g} apart"
    except Exception as error:  # Whatever a compiler makes of an architecture.
        reason = " ".join(str(error).split())[:160] or type(error).__name__
    finally:
        model.zero_grad(set_to_none=True)
    if reason:
        log.warning("the layers are not compiled (%s)", reason)
        uncompile(model)
    return not reason


def uncompile(model: RewardModel) -> None:
    """Compute the layers of `model` as they are again: who scores it later does."""
    for part in _parts(model):
        part._compiled_call_impl = None
