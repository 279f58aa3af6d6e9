"""What of a model decides its memory and its work, counted on a model without weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoModel, PreTrainedModel

from palate.model.attention import of_keys
from palate.model.backbone import decoder_config, quiet
from palate.model.reward_model import RewardModel
from palate.model.tokenizer import ChatTokens
from palate.train.options import TrainOptions
from palate.train.trainable import choose_trainable


@dataclass(frozen=True, slots=True)
class Anatomy:
    """Numbers of parameters, by what becomes of them, and widths of a decoder layer in values.

    Matrices are those that multiply every token, so without the embeddings, which are looked up.
    The gradient passes through the layers from the first that learns, and those alone keep
    activations.
    """

    parameters: int
    trainable: int
    trainable_tensors: int
    matrices: int
    matrices_trained: int
    matrices_passed: int
    matrices_of_ends: int  # Those of the last layer that only the tokens that are read go through.
    matrices_of_ends_trained: int
    largest_layer: int
    outside: int  # Embeddings and final norm: one unit of FSDP.
    vocabulary: int
    layers: int
    layers_passed: int
    narrow: bool  # Whether the last layer works for the tokens that are read, and for no other.
    width: int
    heads: int
    query_width: int
    key_width: int
    norm_width: int  # All that a layer's norms keep of a token.
    mlp_width: int  # All that its MLP keeps of a token.


def anatomy(config: Any, options: TrainOptions) -> Anatomy:
    """The anatomy of the reward model that `options` would train on a backbone of `config`."""
    model = _weightless(config, options)
    text = decoder_config(config)
    layers = _layers(model, text.num_hidden_layers)
    learns = [any(p.requires_grad for p in layer.parameters()) for layer in layers]
    embeddings = {
        id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()
    }
    looked_up = any(p.requires_grad for p in model.parameters() if id(p) in embeddings)
    first = 0 if looked_up else (learns.index(True) if any(learns) else len(layers))
    passed = {id(p) for layer in layers[first:] for p in layer.parameters()}
    ends = [p for p in _of_ends(model, layers[-1]) if p.ndim > 1]
    parameters = list(model.parameters())
    matrices = [p for p in parameters if p.ndim > 1 and id(p) not in embeddings]
    sizes = [_count(layer.parameters()) for layer in layers]
    heads = int(text.num_attention_heads)
    head_width = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    return Anatomy(
        parameters=_count(parameters),
        trainable=_count(p for p in parameters if p.requires_grad),
        trainable_tensors=sum(p.requires_grad for p in parameters),
        matrices=_count(matrices),
        matrices_trained=_count(p for p in matrices if p.requires_grad),
        matrices_passed=_count(p for p in matrices if id(p) in passed),
        matrices_of_ends=_count(ends),
        matrices_of_ends_trained=_count(p for p in ends if p.requires_grad),
        largest_layer=max(sizes),
        outside=_count(parameters) - sum(sizes),
        vocabulary=int(text.vocab_size),
        layers=len(layers),
        layers_passed=len(layers) - first,
        narrow=model.narrow,
        width=int(text.hidden_size),
        heads=heads,
        query_width=heads * head_width,
        key_width=int(getattr(text, "num_key_value_heads", None) or heads) * head_width,
        norm_width=_norm_width(layers[0], int(text.hidden_size)),
        mlp_width=_mlp_width(layers[0], _inner_width(text)),
    )


def count_parameters(config: Any, options: TrainOptions) -> int:
    """Parameters of the reward model that `options` would train on a backbone of `config`."""
    return _count(_weightless(config, options).parameters())


def _weightless(config: Any, options: TrainOptions) -> RewardModel:
    with quiet(), torch.device("meta"):
        backbone = cast(PreTrainedModel, AutoModel.from_config(decoder_config(config)))
    safety = options.safety_loss is not None and options.safety_loss.on == "head"
    # Nothing is tokenised here, so there is no tokenizer to open.
    model = RewardModel(backbone, cast(ChatTokens, None), safety_head=safety)
    with torch.device("meta"):
        choose_trainable(model, options)
    return model


def _layers(model: RewardModel, count: int) -> list[nn.Module]:
    """The decoder layers, in whatever the architecture or an adapter keeps them."""
    stacks = (m for m in model.backbone.modules() if isinstance(m, nn.ModuleList))
    return list(next(stack for stack in stacks if len(stack) == count))


def _of_ends(model: RewardModel, last: nn.Module) -> list[nn.Parameter]:
    """What of the last layer only the tokens that are read go through; nothing if it is whole."""
    if not model.narrow:
        return []
    keys = {id(p) for n, m in last.named_modules() if of_keys(n) for p in m.parameters()}
    return [p for p in last.parameters() if id(p) not in keys]


def _norm_width(layer: nn.Module, width: int) -> int:
    """What comes into both norms; RMSNorm, which transformers writes out, also what is scaled."""
    fused = any(isinstance(m, nn.LayerNorm) for m in layer.modules())
    return (2 if fused else 4) * width


def _inner_width(text: Any) -> int:
    """Width inside the MLP; GPT-2's name for it may be None, which is four times the model's."""
    inner = getattr(text, "intermediate_size", None) or getattr(text, "n_inner", None)
    return int(inner or 4 * text.hidden_size)


def _mlp_width(layer: nn.Module, inner: int) -> int:
    """Gate, its activation, what it multiplies and the product; without a gate before and after."""
    gated = any("gate" in name for name, _ in layer.named_modules())
    return (4 if gated else 2) * inner


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(p.numel() for p in parameters)
