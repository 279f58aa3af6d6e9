"""Attention over shared prefixes: each prompt is run once, each response sees prompt + itself.

transformers hands extra keyword arguments of the model's forward down to a function registered
with `AttentionInterface`, so the layout travels with the call and needs no global.

Shape letters: H heads, T tokens of the packed row, K keys of all segments, D width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import pad, scaled_dot_product_attention
from torch.utils.hooks import RemovableHandle
from transformers import AttentionInterface, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from palate.model.packing import Layout, spread
from palate.model.recurrence import mixers

NAME = "palate_shared_prefix"
Path = Literal["padded", "shared prefix (sdpa)", "shared prefix (varlen)"]
PADDED: Path = "padded"
SDPA: Path = "shared prefix (sdpa)"
VARLEN: Path = "shared prefix (varlen)"


def supports_shared_prefix(model: PreTrainedModel) -> bool:
    """Whether every attention of the backbone is causal and goes through the interface.

    Layers that carry a state must be among those that can go on from one (`recurrence.MIXERS`).
    Where this is False (encoders, other state-space and hybrid models) the padded path is taken.
    """
    causal = [bool(m.is_causal) for m in model.modules() if hasattr(m, "is_causal")]
    kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    plain = kinds <= {"full_attention", "sliding_attention"}
    declared = plain and getattr(model, "_supports_attention_backend", False)
    # Most hybrids do not declare it, though their attention goes through the interface.
    return bool(causal and all(causal) and (declared or mixers(model)))


@contextmanager
def short_windows(model: PreTrainedModel, window: int) -> Generator[None]:
    """Let sliding windows reach over `window` tokens at most inside; put all back after.

    So a few tokens show whether a layer hands its window down, which for some families is in each
    attention module and for others in the configuration.
    """
    owners = [m for m in model.modules() if _attends(m)]
    owners += [model.config.get_text_config()]
    longer = {id(o): o for o in owners if (getattr(o, "sliding_window", None) or 0) > window}
    before = {key: owner.sliding_window for key, owner in longer.items()}
    try:
        for owner in longer.values():
            owner.sliding_window = window
        yield
    finally:
        for key, owner in longer.items():
            owner.sliding_window = before[key]


def steady_length(model: PreTrainedModel) -> float:
    """Tokens up to which positions have one set of angles, whatever else is in the batch.

    Dynamic NTK and LongRoPE (Phi-3) take other angles where a batch's longest row is over it, and
    dynamic NTK keeps those of a batch before. `angles_by_row` keeps each row to its own.
    """
    lengths = (length for module in model.modules() for length, _ in _scaled(module).values())
    return min(lengths, default=math.inf)


def angles_by_row(model: PreTrainedModel) -> None:
    """Make angles that follow a length follow each row's own, as if it were alone."""
    for module in model.modules():
        if _scaled(module):
            module.register_forward_hook(_by_row, with_kwargs=True)


def _scaled(module: Any) -> dict[str, tuple[int, bool]]:
    """By the prefix of a rotary embedding's buffers: the length of its training, whether it is
    dynamic; only those whose angles follow the length of what is read."""
    kinds = getattr(module, "rope_type", None)
    if kinds is None:
        return {}
    lengths: dict[str, tuple[int, bool]] = {}
    for layer, kind in (kinds if isinstance(kinds, dict) else {"": kinds}).items():
        rope = module.config.rope_parameters
        rope, prefix = (rope[layer], f"{layer}_") if layer else (rope, "")
        if "dynamic" in kind:
            lengths[prefix] = int(module.original_max_seq_len), True
        elif kind == "longrope":
            lengths[prefix] = int(rope["original_max_position_embeddings"]), False
    return lengths


def _by_row(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], _: Any) -> Any:
    """Cosines and sines, [B, T, D], of each row of positions [B, T] on its own."""
    hidden, positions, *rest = (*args, *(kwargs[k] for k in ("position_ids",) if k in kwargs))
    others = {name: value for name, value in kwargs.items() if name != "position_ids"}
    rows = []
    for row in positions.split(1):
        for prefix, (length, dynamic) in _scaled(module).items():
            if dynamic:  # Else the angles of a longer row before would stay.
                getattr(module, f"{prefix}inv_freq").copy_(
                    getattr(module, f"{prefix}original_inv_freq")
                )
                setattr(module, f"{prefix}max_seq_len_cached", length)
        rows.append(type(module).forward(module, hidden, row, *rest, **others))
    cosines, sines = zip(*rows, strict=True)
    return torch.cat(cosines), torch.cat(sines)


def attention_path(
    backbone: PreTrainedModel, *, shared: bool, device: torch.device, dtype: torch.dtype
) -> Path:
    """The one rule for how attention is computed.

    Padded rows where the backbone cannot share (`shared` is False). Else one varlen call a layer
    where its kernel serves: on CUDA, in bfloat16, heads of at most 256 and a multiple of 8, logits
    neither soft-capped nor beside a sink. Else, so on every CPU and for float32 anywhere, one small
    SDPA call a segment.
    """
    if not shared:
        return PADDED
    config = backbone.config.get_text_config()
    widths = [width for _, width in heads_by_layer(config)]
    plain = not (has_sinks(backbone) or getattr(config, "attn_logit_softcapping", None))
    fits = all(width <= 256 and width % 8 == 0 for width in widths)
    has_kernel = dtype == torch.bfloat16 and fits and plain
    return VARLEN if has_kernel and device.type == "cuda" else SDPA


def heads_by_layer(config: Any) -> list[tuple[int, int]]:
    """Heads of keys and width of a head, layer by layer: Gemma 4's full layers have wider ones.

    One head as wide as the model where a configuration names none (state-space models).
    """
    heads = int(getattr(config, "num_attention_heads", None) or 1)
    return [
        (
            int(getattr(layer, "num_key_value_heads", None) or heads),
            int(getattr(layer, "head_dim", None) or config.hidden_size // heads),
        )
        for layer in getattr(config, "per_layer_config", None) or [config]
    ]


def window_of(layer: nn.Module, config: Any) -> int | None:
    """Keys that a query of a decoder layer sees; None where it sees all."""
    shared = getattr(config, "sliding_window", None)
    windows = [getattr(m, "sliding_window", shared) for m in layer.modules() if _attends(m)]
    return min((w for w in windows if w), default=None)


def _attends(module: nn.Module) -> bool:
    return hasattr(module, "is_causal")


def has_sinks(backbone: nn.Module) -> bool:
    """Whether attention has a learnt logit a head beside those of the keys (gpt-oss)."""
    return any(isinstance(getattr(m, "sinks", None), nn.Parameter) for m in backbone.modules())


def shared_prefix_attention(
    _module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: Layout | None = None,
    varlen: bool = False,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    s_aux: Tensor | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention inside each segment of a packed row, aligned to the last query and key.

    A token sees the window's tokens of its own conversation, itself included, as in a row of its
    own: those of its response, then those of its prompt.

    Args:
        query: [1, H, T, D]. key, value: [1, Hkv, T, D], H a multiple of Hkv; kept ones come in
            front of them.
        layout: the segments of the row; they cover T, or those tokens that query, exactly.
        varlen: one call for all segments, by a kernel that only CUDA has.
        scaling: factor on the logits; 1/sqrt(D) where None.
        dropout: must be 0; a reward model has none.
        sliding_window: keys that a query sees, its own the last; all where None.
        s_aux: [H], a logit s of each head that is in the sum of the softmax and gives no value:
            w_j = exp(l_j) / (exp(s) + sum_k exp(l_k)). Source: gpt-oss (arXiv 2508.10925).
        softcap: c where the logits are c tanh(l / c). Source: Gemma 2 (arXiv 2408.00118).

    Returns:
        [1, T, H, D] and None for the weights; zeros for tokens that do not query.

    Raises:
        ValueError: a mask, dropout, no layout, both a sink and soft-capped logits.
    """
    if layout is None or attention_mask is not None or dropout:
        raise ValueError(f"{NAME} needs a layout, no mask and no dropout")
    if s_aux is not None and softcap is not None:
        raise ValueError(f"{NAME} knows no sinks beside soft-capped logits")
    layout, width, dtype = layout.within(sliding_window), value.shape[-1], value.dtype
    if layout.kept is not None:
        key, value = (layout.kept.join(t.transpose(1, 2)).transpose(1, 2) for t in (key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if s_aux is not None:
        query, key, value = _with_sink(query, key, value, s_aux / scale)
        layout = layout.with_sink(key.shape[2] - 1)
    # Rows of tokens, so that the gather copies whole rows and its gradient is one index_add.
    key, value = (t.transpose(1, 2).index_select(1, layout.gather) for t in (key, value))
    attend = _one_call if varlen and s_aux is None else _call_a_segment
    if softcap is not None:
        attend = partial(_soft_capped, cap=softcap)
    query, rows = query.transpose(1, 2), layout.rows
    out = attend(query if rows is None else query[:, rows], key, value, layout, scale)
    if s_aux is not None:
        out = out[..., :width].to(dtype)
    return out if rows is None else spread(out, rows, query.shape[1]), None


# A head's width is kept a multiple of it: kernels ask for that.
WIDER = 8


def _with_sink(
    query: Tensor, key: Tensor, value: Tensor, sinks: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """[1, H, T, D + 8] of each, and one more key after all, whose logit is a head's sink.

    Any kernel then has the sink in its softmax, and its gradient: queries have `sinks` [H] in a
    dimension in which the new key is 1 and all others 0, and its value is 0. On a CPU in float32,
    in which attention is computed there.
    """
    if query.device.type == "cpu":
        query, key, value = query.float(), key.float(), value.float()
    heads, tokens = query.shape[1:3]
    column = sinks.to(query.dtype).view(1, heads, 1, 1).expand(1, heads, tokens, 1)
    query = torch.cat((query, pad(column, (0, WIDER - 1))), dim=-1)
    key, value = (pad(t, (0, WIDER, 0, 1)) for t in (key, value))
    key[:, :, -1, -WIDER] = 1
    return query, key, value


def _call_a_segment(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float | None
) -> Tensor:
    """query [1, T, H, D], key and value [1, K, Hkv, D] to [1, T, H, D], in the format of `value`.

    On a CPU in float32 whatever the format: its backward kernel for bfloat16 takes 3.6 times as
    long, and keeps machine code, megabytes for each new pair of lengths, until the process ends
    (measured, torch 2.13 with AMX; `findings/bf16_kernels_are_kept.sh`).
    """
    dtype, on_cpu = value.dtype, query.device.type == "cpu"
    if on_cpu:
        query, key, value = query.float(), key.float(), value.float()
    # Split at once: the gradient of a split is one concatenation, that of a slice a row of zeros.
    parts = zip(
        query.transpose(1, 2).split(layout.query_lengths, dim=2),
        key.transpose(1, 2).split(layout.key_lengths, dim=2),
        value.transpose(1, 2).split(layout.key_lengths, dim=2),
        layout.masks,
        strict=True,
    )
    with torch.autocast("cpu", enabled=False) if on_cpu else nullcontext():
        pieces = [
            scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=True
            ).transpose(1, 2)
            for q, k, v, mask in parts
        ]
    return torch.cat(pieces, dim=1).to(dtype)


def _soft_capped(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float, *, cap: float
) -> Tensor:
    """As `_call_a_segment`, where the logits are capped; written out, as no kernel does it."""
    query, key, value, dtype = query.float(), key.float(), value.float(), value.dtype
    key, value = (
        t.repeat_interleave(query.shape[2] // t.shape[2], dim=2).transpose(1, 2)
        for t in (key, value)
    )
    parts = zip(
        query.transpose(1, 2).split(layout.query_lengths, dim=2),
        key.split(layout.key_lengths, dim=2),
        value.split(layout.key_lengths, dim=2),
        layout.masks,
        strict=True,
    )
    pieces = []
    with torch.autocast(query.device.type, enabled=False):
        for q, k, v, mask in parts:
            logits = cap * torch.tanh(q @ k.transpose(2, 3) * (scaling / cap))
            if mask is None:
                mask = torch.ones_like(logits[0, 0], dtype=torch.bool).tril()
            weights = logits.masked_fill(~mask, -torch.inf).softmax(-1)
            pieces.append((weights @ v).transpose(1, 2))
    return torch.cat(pieces, dim=1).to(dtype)


def _one_call(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float | None
) -> Tensor:
    """As `_call_a_segment`, in bfloat16: autocast casts SDPA's inputs but not this kernel's."""
    out = varlen_attn(
        query[0].bfloat16(),
        key[0].bfloat16(),
        value[0].bfloat16(),
        layout.query_starts,
        layout.key_starts,
        layout.longest_query,
        layout.longest_key,
        scale=scaling,
        # Causal, aligned to the bottom right; the query's own key is not counted.
        window_size=(-1 if layout.window is None else layout.window - 1, 0),
        enable_gqa=True,
    )
    return cast(Tensor, out)[None]


# Lengths differ from one micro-batch to the next, so a compiled block steps out here.
AttentionInterface.register(NAME, torch.compiler.disable(shared_prefix_attention))


# The last layer works for the tokens whose reward is read, and for no other.
#
# A reward reads one hidden state a response. Of every other token the last layer needs a key and a
# value, nothing more: its query, attention, output and MLP would never be looked at. The layers
# before it are needed whole, so what is saved is one layer of N.
#
# Shape letters: R responses, T tokens of the packed row, D width of the backbone.

NORM = "input_layernorm"
OUTPUTS = ("self_attn.o_proj", "attention.dense")
QUERY = "self_attn.q_proj"
KEYS = ("k_proj", "v_proj", "query_key_value", "qkv_proj")
# Gemma 3n and 4 add a part of the embeddings to every token within the layer.
EVERY_TOKEN = "per_layer_input_gate"


def read_ends_only(backbone: PreTrainedModel) -> bool:
    """Make the last layer of `backbone` give [1, R, D] wherever its layout says which rows end.

    Exact, forward and backward. True where it was done: for a layer that norms its input and
    whose attention ends in a projection of its own; others, and one that carries a state, stay
    whole.
    """
    layers = decoder_layers(backbone)
    if not layers:
        return False
    last, narrow = layers[-1], _Narrow()
    names = {name for name, _ in last.named_modules()}
    # Cohere's MLP reads the norm of the attention's input, of which it would get every row.
    second = any("norm" in name and name != NORM and "." not in name for name in names)
    if (
        EVERY_TOKEN in names
        or mixers(last)
        or not (second and NORM in names and names.intersection(OUTPUTS))
    ):
        return False
    last.register_forward_pre_hook(narrow.enter, with_kwargs=True)
    last.register_forward_hook(narrow.leave, always_call=True)
    return True


def stock_attention(model: PreTrainedModel) -> str:
    """How transformers computes padded rows: Gemma 2's soft-capped logits it knows eagerly only."""
    return "sdpa" if model._supports_sdpa else "eager"


def decoder_layers(backbone: nn.Module) -> list[GradientCheckpointingLayer]:
    """The layers of a backbone, by the class that transformers builds them from; may be none."""
    return [m for m in backbone.modules() if isinstance(m, GradientCheckpointingLayer)]


def of_keys(name: str) -> bool:
    """Whether a part of the last layer, by its name in it, runs for every token all the same."""
    return name.rpartition(".")[2] in KEYS


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
        if layout is None or layout.ends is None:
            return None
        hidden, *rest = args  # [1, T, D]
        rows = layout.ends.rows
        parts = dict(layer.named_modules())
        output = next(parts[name] for name in OUTPUTS if name in parts)
        self._hooks = [
            parts[NORM].register_forward_pre_hook(lambda *_: (hidden,)),
            output.register_forward_pre_hook(lambda _, inputs: (inputs[0][:, rows],)),
        ]
        if QUERY in parts:  # Attention expects a query a token, so the others become zeros.
            query, tokens = parts[QUERY], hidden.shape[1]
            self._hooks += [
                query.register_forward_pre_hook(lambda _, inputs: (inputs[0][:, rows],)),
                query.register_forward_hook(lambda _, __, queries: spread(queries, rows, tokens)),
            ]
        return (hidden[:, rows], *rest), {**kwargs, "layout": layout.ends}

    def leave(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
