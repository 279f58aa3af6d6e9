"""Attention over shared prefixes: each prompt is run once, each response sees prompt + itself.

A packed row holds groups `[prompt | response 1 | response 2 | ...]` one after another. transformers
hands extra keyword arguments of the model's forward down to a function registered with
`AttentionInterface`, so the layout travels with the call and needs no global.

Shape letters: H heads, T tokens of the packed row, D width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from palate.types import PalateError

NAME = "palate_shared_prefix"


@dataclass(frozen=True, slots=True)
class Span:
    """Where one group lies in the packed row: its start, its prompt, each response, in tokens."""

    start: int
    prefix: int
    responses: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """The groups of one packed row, and the masks their responses need (built once, all layers).

    Not slotted: `masks` is computed on first use and kept.
    """

    spans: tuple[Span, ...]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @cached_property
    def masks(self) -> dict[tuple[int, int], Tensor]:
        """Causal masks aligned to the bottom right, [r, p + r], by (p, r)."""
        sizes = {(s.prefix, r) for s in self.spans if s.prefix for r in s.responses}
        return {(p, r): _causal_lower_right(p, r, self.device) for p, r in sizes}

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest conversation, the reach that attention must have."""
        return max(s.prefix + max(s.responses) for s in self.spans)


def _causal_lower_right(prefix: int, response: int, device: torch.device) -> Tensor:
    full = torch.ones(response, prefix + response, dtype=torch.bool, device=device)
    return full.tril(diagonal=prefix)


def supports_shared_prefix(model: PreTrainedModel) -> bool:
    """Whether every attention of the backbone is causal and goes through the interface.

    Where this is False (encoders, state-space and hybrid models) the padded path is taken.
    """
    causal = [bool(m.is_causal) for m in model.modules() if hasattr(m, "is_causal")]
    kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    plain = kinds <= {"full_attention", "sliding_attention"}
    soft_capped = getattr(model.config, "attn_logit_softcapping", None) is not None
    return bool(
        causal
        and all(causal)
        and plain
        and not soft_capped
        and getattr(model, "_supports_attention_backend", False)
    )


def shared_prefix_attention(
    _module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: Layout | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention inside each group of a packed row.

    Args:
        query: [1, H, T, D]. key, value: [1, Hkv, T, D], H a multiple of Hkv.
        layout: where the groups lie; the spans cover T exactly.
        scaling: factor on the logits; 1/sqrt(D) where None.
        dropout: must be 0; a reward model has none.
        sliding_window: refused where a conversation is longer than the window.

    Returns:
        [1, T, H, D] and None for the weights.

    Raises:
        PalateError: a sliding window shorter than a conversation.
    """
    if layout is None or attention_mask is not None or dropout:
        raise ValueError(f"{NAME} needs a layout, no mask and no dropout")
    if sliding_window is not None and layout.longest > sliding_window:
        raise PalateError(
            f"a conversation of {layout.longest} tokens is longer than the backbone's sliding "
            f"window of {sliding_window}; set base.max_tokens to at most {sliding_window}"
        )
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = (t.repeat_interleave(repeats, dim=1) for t in (key, value))
    pieces: list[Tensor] = []
    for span in layout.spans:
        pieces += _attend(span, query, key, value, layout.masks, scaling)
    return torch.cat(pieces, dim=2).transpose(1, 2).contiguous(), None


def _attend(
    span: Span,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    masks: dict[tuple[int, int], Tensor],
    scaling: float | None,
) -> list[Tensor]:
    """Outputs of one group in token order: the prompt's, then each response's."""
    start, end = span.start, span.start + span.prefix
    pieces: list[Tensor] = []
    prompt_key, prompt_value = key[:, :, start:end], value[:, :, start:end]
    if span.prefix:
        own = query[:, :, start:end]
        pieces.append(
            scaled_dot_product_attention(
                own, prompt_key, prompt_value, is_causal=True, scale=scaling
            )
        )
    for length in span.responses:
        start, end = end, end + length
        own = query[:, :, start:end]
        keys = torch.cat((prompt_key, key[:, :, start:end]), dim=2)
        values = torch.cat((prompt_value, value[:, :, start:end]), dim=2)
        mask = masks.get((span.prefix, length))
        pieces.append(
            scaled_dot_product_attention(
                own, keys, values, attn_mask=mask, is_causal=mask is None, scale=scaling
            )
        )
    return pieces


AttentionInterface.register(NAME, shared_prefix_attention)
