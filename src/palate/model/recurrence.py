"""Layers that carry a state, over shared prefixes: each prompt once, each response from its state.

Gated delta nets, Mamba 2 and short convolutions read a conversation token by token and keep two
things: a state, and the last inputs of a convolution. Here the segments of a packed row become the
rows of a few batches. Prompts start from nothing; what they end in is handed, with its gradient,
to each of their responses. The arithmetic is the family's own: its forward pass in transformers
runs as it is, with a cache that keeps the state in the graph. So its kernels (of fla, mamba-ssm,
causal-conv1d) run where transformers finds them; that was not tried, for want of a GPU.

Cost: that of the tokens of the row, and of some padding (`packing.PADDING`, `packing.SPARE`).

Shape letters: N segments, L tokens of the longest of them, T tokens of the packed row, D width.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from palate.model.packing import Layout

# The classes of transformers whose forward pass goes on from the state in a cache, over several
# tokens. Mamba 1 (Jamba, Zamba) does not: its scan starts from nothing whatever the cache says.
MIXERS = frozenset(
    {
        "Qwen3NextGatedDeltaNet", "Qwen3_5GatedDeltaNet", "Qwen3_5MoeGatedDeltaNet",
        "OlmoHybridGatedDeltaNet", "KimiLinearDeltaAttention",
        "BambaMixer", "GraniteMoeHybridMambaLayer", "FalconH1Mixer", "NemotronHMamba2Mixer",
        "Zamba2MambaMixer",
        "Lfm2ShortConv", "Lfm2MoeShortConv", "Lfm3ShortConv",
    }
)  # fmt: skip


# Tokens that Mamba 2 on a CPU takes at once, where its configuration says 256: a segment is padded
# to whole chunks. Eight segments of 46 tokens took 85 ms CPU in chunks of 64 and 640 in chunks of
# 256, four of 125 took 113 and 405 (measured forward and backward, 16 heads of 64, state 128).
CPU_CHUNK = 64


def mixers(module: nn.Module) -> list[nn.Module]:
    """The parts of a model or layer that carry a state and can go on from one."""
    return [part for part in module.modules() if type(part).__name__ in MIXERS]


def share_states(backbone: nn.Module) -> None:
    """Make the mixers of `backbone` run by segments wherever they are handed a layout."""
    for mixer in mixers(backbone):
        # Lengths differ from one micro-batch to the next, so a compiled block steps out here.
        mixer.forward = MethodType(torch.compiler.disable(_by_segment), mixer)


def _by_segment(
    mixer: nn.Module, hidden_states: Tensor, *args: Any, layout: Layout | None = None, **kwargs: Any
) -> Tensor:
    """hidden_states [1, T, D] to [1, T, D], each segment as if it followed its prompt alone."""
    forward: Any = type(mixer).forward
    if layout is None:
        output: Tensor = forward(mixer, hidden_states, *args, **kwargs)
        return output
    segments = layout.batches

    def rows(index: Tensor) -> Tensor:
        return hidden_states[0].index_select(0, index.flatten()).unflatten(0, index.shape)

    outputs: list[Tensor] = []
    # States in the order of `SegmentBatch.sources`: those that were kept, then those of prompts.
    kept = layout.kept
    ended: list[States] = [] if kept is None else kept.next_states()
    count = len(ended)
    for batch in segments.prompts:
        state = States(present=batch.present)
        with _chunks_of(mixer, batch.tokens):
            states = forward(mixer, rows(batch.tokens), cache=state, attention_mask=batch.present)
        outputs.append(states)
        ended.append(state)
    further: list[States] = []
    for batch in (*segments.further, *segments.responses):
        state = States.after([*ended, *further], batch.sources)
        with _chunks_of(mixer, batch.tokens):
            outputs.append(forward(mixer, rows(batch.tokens), cache=state))
        if len(further) < len(segments.further):
            further.append(state)
    ended += further
    if kept is not None:
        kept.left_states.append(ended[count:])
    joined = torch.cat([output.flatten(0, 1) for output in outputs])
    return joined.index_select(0, segments.places)[None]


@contextmanager
def _chunks_of(mixer: Any, tokens: Tensor) -> Generator[None]:
    """Chunks no longer than `tokens` [N, L] need, where torch computes and not a kernel."""
    whole = getattr(mixer, "chunk_size", None)
    if whole is None or tokens.device.type != "cpu":
        yield
        return
    mixer.chunk_size = min(whole, CPU_CHUNK, tokens.shape[1])
    try:
        yield
    finally:
        mixer.chunk_size = whole


class States:
    """What a mixer asks of transformers' cache, for one layer and kept in the graph.

    `convolved`: by the mixer's own number the last inputs of a convolution, [N, channels, kernel].
    `recurrent`: likewise its states, [N, heads, ...]. `present`, [N, L]: where a row has a token.
    """

    def __init__(self, present: Tensor | None = None) -> None:
        self.convolved: dict[int, Tensor] = {}
        self.recurrent: dict[int, Tensor] = {}
        self._present = present

    @classmethod
    def after(cls, ended: Sequence[States], places: Tensor) -> States:
        """The states that responses start from: of each the one at its place among all prompts'."""
        state = cls()
        for mine, theirs in (
            (state.convolved, [one.convolved for one in ended]),
            (state.recurrent, [one.recurrent for one in ended]),
        ):
            for number in theirs[0]:
                whole = torch.cat([one[number] for one in theirs])
                # In float32, so that the gradients of many responses add up without rounding.
                mine[number] = whole.float().index_select(0, places).to(whole.dtype)
        return state

    @property
    def tensors(self) -> list[Tensor]:
        """All that it holds."""
        return [*self.convolved.values(), *self.recurrent.values()]

    def row(self, place: int) -> States:
        """Those of one row, [1, ...], in memory of their own."""
        state = States()
        for mine, theirs in (
            (state.convolved, self.convolved),
            (state.recurrent, self.recurrent),
        ):
            mine.update({n: whole[place : place + 1].clone() for n, whole in theirs.items()})
        return state

    def get_conv_state(self, _layer: int, state_idx: int = 0) -> Tensor | None:
        return self.convolved.get(state_idx)

    def get_recurrent_state(self, _layer: int, state_idx: int = 0) -> Tensor | None:
        return self.recurrent.get(state_idx)

    def update_conv_state(
        self, inputs: Tensor, _layer: int, state_idx: int = 0, *, conv_kernel_size: int
    ) -> Tensor:
        """The inputs of a convolution, [N, channels, L], behind those that came before."""
        if self._present is not None:  # A projection with a bias makes something of padding.
            inputs = inputs * self._present[:, None]
        before = self.convolved.get(state_idx)
        if before is None:
            before = inputs.new_zeros(*inputs.shape[:2], conv_kernel_size)
        inputs = torch.cat([before, inputs], dim=-1)
        self.convolved[state_idx] = inputs[..., -conv_kernel_size:]
        return inputs

    def update_recurrent_state(
        self, states: Tensor, *_: int, state_idx: int = 0, **__: int
    ) -> None:
        self.recurrent[state_idx] = states

    def is_recording_past(self, _layer: int) -> bool:
        """True keeps a mixer from the path of one token, which writes over the state in place."""
        return True
