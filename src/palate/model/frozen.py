"""Layers of which nothing learns, at the bottom of a backbone: what they make of a conversation
stays the same, so they can be passed over by whoever kept it.

A layer that is passed over hands on what it is given. Everything about the layers (embeddings,
positions, masks, their order) stays as the architecture has it, so nothing here knows one.

Shape letters: R responses, T tokens of a packed row, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from torch import Tensor, nn

from palate.model.attention import decoder_layers
from palate.model.packing import Tokens


@dataclass(frozen=True, slots=True)
class FrozenLayers:
    """`layers` of a backbone, the first `count` of which, and what comes before, do not learn."""

    layers: Sequence[nn.Module]
    count: int

    @classmethod
    def of(
        cls, backbone: Any, learnt: Callable[[nn.Parameter], bool] = lambda p: p.requires_grad
    ) -> FrozenLayers:
        """Those of `backbone`; none where an embedding of tokens is `learnt`."""
        layers = decoder_layers(backbone)
        learns = [any(map(learnt, layer.parameters())) for layer in layers]
        if any(map(learnt, backbone.get_input_embeddings().parameters())):
            return cls(layers, 0)
        return cls(layers, learns.index(True) if any(learns) else len(layers))

    @contextmanager
    def alone(self) -> Generator[list[Any]]:
        """Inside, no layer above them works; what they make of a call is added to the list."""
        made: list[Any] = []
        last = self.layers[self.count - 1]
        hook = last.register_forward_hook(lambda *call: made.append(call[-1]))
        try:
            with _passing(self.layers[self.count :]):
                yield made
        finally:
            hook.remove()

    @contextmanager
    def given(self, states: Tensor) -> Generator[None]:
        """Inside, none of them works, and the layer above them gets `states` [1, T, D].

        [1, R, D] where there is no layer above and the last works for the ends alone.
        """
        *below, last = self.layers[: self.count]
        states = states.to(next(last.parameters()).device)
        with _passing(below), _passing([last], lambda *_, **__: states):
            yield


def conversation_key(*tokens: Tokens) -> bytes:
    """Names a conversation, given in parts, by its tokens."""
    return blake2b(np.concatenate(tokens).astype("<i4").tobytes(), digest_size=16).digest()


def _hand_on(hidden: Tensor, *_: Any, **__: Any) -> Tensor:
    return hidden


@contextmanager
def _passing(
    layers: Sequence[nn.Module], forward: Callable[..., Tensor] = _hand_on
) -> Generator[None]:
    """Let `forward` stand for that of each of `layers`; hooks on them run as ever."""
    own = [layer.__dict__.get("forward") for layer in layers]
    try:
        for layer in layers:
            layer.forward = forward
        yield
    finally:
        for layer, before in zip(layers, own, strict=True):
            del layer.forward
            if before is not None:
                layer.forward = before
