"""The last layer works for the tokens whose reward is read, and for no other.

A reward reads one hidden state a response. Of every other token the last layer needs a key and a
value, nothing more: its query, attention, output and MLP would never be looked at. The layers
before it are needed whole, so what is saved is one layer of N.

Shape letters: R responses, T tokens of the packed row, D width of the backbone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from palate.model.layout import spread

NORM = "input_layernorm"
OUTPUTS = ("self_attn.o_proj", "attention.dense")
QUERY = "self_attn.q_proj"
KEYS = ("k_proj", "v_proj", "query_key_value", "qkv_proj")
# Gemma 3n and 4 add a part of the embeddings to every token within the layer.
EVERY_TOKEN = "per_layer_input_gate"


def read_ends_only(backbone: PreTrainedModel) -> bool:
    """Make the last layer of `backbone` give [1, R, D] wherever its layout says which rows end.

    Exact, forward and backward. True where it was done: for a layer that norms its input and
    whose attention ends in a projection of its own; others stay whole.
    """
    layers = decoder_layers(backbone)
    if not layers or not _understood(layers[-1]):
        return False
    last, narrow = layers[-1], _Narrow()
    last.register_forward_pre_hook(narrow.enter, with_kwargs=True)
    last.register_forward_hook(narrow.leave, always_call=True)
    return True


def decoder_layers(backbone: nn.Module) -> list[GradientCheckpointingLayer]:
    """The layers of a backbone, by the class that transformers builds them from; may be none."""
    return [m for m in backbone.modules() if isinstance(m, GradientCheckpointingLayer)]


def of_keys(name: str) -> bool:
    """Whether a part of the last layer, by its name in it, runs for every token all the same."""
    return name.rpartition(".")[2] in KEYS


def _understood(layer: nn.Module) -> bool:
    names = {name for name, _ in layer.named_modules()}
    plain = EVERY_TOKEN not in names
    return plain and NORM in names and bool(names.intersection(OUTPUTS))


class _Narrow:
    """For the time of one call of a layer, hooks on those of its parts that rows go through.

    They are looked up in each call, because an adapter may have taken a part's place meanwhile.
    """

    def __init__(self) -> None:
        self._hooks: list[RemovableHandle] = []

    def enter(
        self, layer: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        layout = kwargs.get("layout")
        if layout is None:
            return None
        whole, *rest = args
        rows = layout.ends.rows
        parts = dict(layer.named_modules())
        output = next(parts[name] for name in OUTPUTS if name in parts)
        self._hooks = [
            parts[NORM].register_forward_pre_hook(lambda *_: (whole,)),
            output.register_forward_pre_hook(lambda _, given: (given[0][:, rows],)),
        ]
        if QUERY in parts:
            self._hooks += _only(parts[QUERY], rows)
        return (whole[:, rows], *rest), {**kwargs, "layout": layout.ends}

    def leave(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []


def _only(part: nn.Module, rows: Tensor) -> list[RemovableHandle]:
    """Run `part` on `rows`; attention expects a query a token, so the others become zeros."""
    tokens = 0

    def pick(_: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
        nonlocal tokens
        tokens = given[0].shape[1]
        return (given[0][:, rows],)

    return [
        part.register_forward_pre_hook(pick),
        part.register_forward_hook(lambda _, __, found: spread(found, rows, tokens)),
    ]
