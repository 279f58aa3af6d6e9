"""Trading time for memory, and compilation, decoder layer by decoder layer."""

from __future__ import annotations

from palate.model.last_layer import decoder_layers
from palate.model.options import Compute
from palate.model.reward_model import RewardModel
from palate.types import PalateError


def apply_compute(model: RewardModel, options: Compute) -> None:
    """Make the decoder layers of `model` compute as `options` say, in training mode.

    Call it once what learns is chosen: adapters wrap the backbone, and hook its inputs where they
    find checkpointing on, which would run the backward pass through layers that are frozen.

    Raises:
        PalateError: an architecture whose layers transformers cannot checkpoint.
    """
    layers = decoder_layers(model.backbone)
    changed = options.compile or options.activation_checkpointing != "none"
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
    if options.compile:
        # The parts and not the layer: torch gives up compiling a checkpointed layer that attention
        # steps out of, without a word.
        whole = layers[:-1] if model.narrow else layers
        for part in (part for layer in whole for part in layer.children()):
            part.compile(dynamic=True)
