"""What training costs before it runs: memory, floating point operations, and time.

`model_stats` counts parameters and widths on a model without weights; `memory_parts` makes bytes
of them, `flops` operations, `pace` seconds. All are pure functions of a model and a setup, in
milliseconds; `capacity` and `describe` look at the machine, and `layer_rate` measures it. Every
constant stands with its source and how sure it is. GB are 10^9 bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, cast

import numpy as np
import psutil
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import AttentionInterface, AutoModel, LlamaConfig, PreTrainedModel

from palate.model.attention import WIDER, has_sinks, heads_by_layer, of_keys, window_of
from palate.model.backbone import (
    decoder_config,
    first_of_each_kind,
    keep_layers,
    layer_kinds,
    quiet,
)
from palate.model.device import autocast
from palate.model.packing import BLOCK, Group, pack
from palate.model.precision import time_layer
from palate.model.quantization import BYTES
from palate.model.recurrence import mixers, share_states
from palate.model.reward_model import RewardModel
from palate.model.tokenizer import ChatTokens
from palate.train.distributed import WHOLE_GRADIENTS
from palate.train.options import TrainOptions
from palate.train.trainable import choose_trainable
from palate.types import PalateError


@dataclass(frozen=True, slots=True)
class ModelStats:
    """Numbers of parameters, by what becomes of them, and widths of a decoder layer in values.

    Matrices are those that multiply every token, so without the embeddings, which are looked up;
    of a layer's experts as many as a token goes to. Widths are means over the layers.
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
    attending: int  # Layers with attention, all but in hybrids.
    narrow: bool  # Whether the last layer works for the tokens that are read, and for no other.
    width: int
    heads: int
    query_width: int
    key_width: int
    norm_width: int  # All that a layer's norms keep of a token.
    norm_width_of_keys: int  # That of the norms on the way to a key.
    mlp_width: int  # All that its MLP keeps of a token.
    expert_width: int = 0  # All that its experts keep of a token.
    matrices_of_experts: int = 0  # Values of all experts that the gradient passes.
    windows: tuple[int | None, ...] = ()  # Of each layer that attends from every token.
    quantized: int = 0  # Values of matrices that are kept in four bits.
    sinks: bool = False
    soft_capped: bool = False
    # Of hybrids: bytes a token that a wide layer keeps in float32 and bfloat16, and operations a
    # token of all layers beside their matrices; of both, attention and experts are left out.
    counted_bytes: tuple[float, ...] = ()
    counted_operations: float = 0.0


def model_stats(config: Any, options: TrainOptions) -> ModelStats:
    """The numbers of the reward model that `options` would train on a backbone of `config`."""
    model = _weightless(config, options)
    text = decoder_config(config)
    layers = _layers(model.backbone, text)
    learns = [any(p.requires_grad for p in layer.parameters()) for layer in layers]
    embeddings = {
        id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()
    }
    looked_up = any(p.requires_grad for p in model.parameters() if id(p) in embeddings)
    first = 0 if looked_up else (learns.index(True) if any(learns) else len(layers))
    passed = {id(p) for layer in layers[first:] for p in layer.parameters()}
    parameters = list(model.parameters())
    matrices = [p for p in parameters if p.ndim > 1 and id(p) not in embeddings]
    sizes = [_count(layer.parameters()) for layer in layers]
    ends: list[nn.Parameter] = []
    if model.narrow:
        modules = layers[-1].named_modules()
        keys = {id(p) for name, m in modules if of_keys(name) for p in m.parameters()}
        ends = [p for p in layers[-1].parameters() if p.ndim > 1 and id(p) not in keys]
    experts = {id(p): p for p in matrices if _of_experts(p)}  # Of a layer, all in one tensor.
    chosen = int(_first(text, "num_experts_per_tok", "top_k_experts") or 1)

    def used(some: Iterable[nn.Parameter]) -> int:
        """Values that multiply one token."""
        return sum(
            p.numel() * chosen // p.shape[0] if id(p) in experts else p.numel() for p in some
        )

    width = int(text.hidden_size)
    heads = int(getattr(text, "num_attention_heads", None) or 1)  # State-space models have none.
    by_layer = heads_by_layer(text)
    head_width = sum(width for _, width in by_layer) // len(by_layer)
    query_width = heads * head_width
    key_width = sum(keys * width for keys, width in by_layer) // len(by_layer)
    # What comes into a norm; of RMSNorm, which transformers writes out, also what is scaled.
    norms = {"q_norm": query_width, "k_norm": key_width, "v_norm": key_width}
    kept = {
        name: norms.get(name.rpartition(".")[2], width)
        * (1 if isinstance(module, nn.LayerNorm) else 2)
        for name, module in layers[0].named_modules()
        if "norm" in type(module).__name__.lower()
    }
    to_keys = ("input_layernorm", "k_norm", "v_norm")
    # GPT-2's name for the width inside the MLP may be None, which is four times the model's.
    inner = getattr(text, "intermediate_size", None) or getattr(text, "n_inner", None)
    # Gate, its activation, what it multiplies and the product; without a gate before and after.
    mlps = 4 if any("gate" in name for name, _ in layers[0].named_modules()) else 2
    mlp_width, expert_width = [mlps * int(inner or 4 * width)] * len(layers), [0] * len(layers)
    for number, layer in enumerate(layers):
        named = {name: p for name, p in layer.named_parameters() if id(p) in experts}
        down = next((p for name, p in named.items() if name.endswith("down_proj")), None)
        if down is not None:
            # What goes in, both halves of the gate, activation, product, what comes out; gpt-oss
            # clamps both halves, and adds to each.
            clamps = any(name.endswith("down_proj_bias") for name, _ in layer.named_parameters())
            values = 7 if clamps else 4
            inside = down.numel() // down.shape[0] // width
            expert_width[number] = chosen * (values * inside + 2 * width)
            beside = [m for name, m in layer.named_modules() if name.endswith("gate_proj")]
            mlp_width[number] = sum(4 * m.out_features for m in beside)
    wide = layers[: len(layers) - model.narrow]
    counted: list[list[_Counted]] = []
    if model.shared and mixers(model.backbone):
        counted = [_count_layers(config, dtype) for dtype in (torch.float32, torch.bfloat16)]
    return ModelStats(
        parameters=_count(parameters),
        trainable=_count(p for p in parameters if p.requires_grad),
        trainable_tensors=sum(p.requires_grad for p in parameters),
        matrices=used(matrices),
        matrices_trained=used(p for p in matrices if p.requires_grad),
        matrices_passed=used(p for p in matrices if id(p) in passed),
        matrices_of_ends=used(ends),
        matrices_of_ends_trained=used(p for p in ends if p.requires_grad),
        largest_layer=max(sizes),
        outside=_count(parameters) - sum(sizes),
        vocabulary=int(text.vocab_size),
        layers=len(layers),
        layers_passed=len(layers) - first,
        attending=sum(map(_attends, layers)) if counted else len(layers),
        narrow=model.narrow,
        width=width,
        heads=heads,
        query_width=query_width,
        key_width=key_width,
        norm_width=sum(kept.values()),
        norm_width_of_keys=sum(n for name, n in kept.items() if name.rpartition(".")[2] in to_keys),
        mlp_width=sum(mlp_width) // len(layers),
        expert_width=sum(expert_width) // len(layers),
        matrices_of_experts=used(p for p in experts.values() if id(p) in passed),
        windows=tuple(window_of(layer, text) for layer in wide if not counted or _attends(layer)),
        quantized=_quantized(model) if options.quantizes else 0,
        sinks=has_sinks(model.backbone),
        soft_capped=getattr(text, "attn_logit_softcapping", None) is not None,
        counted_bytes=tuple(
            sum(layer.bytes for layer in one[: len(wide)]) / max(1, len(wide)) for one in counted
        ),
        counted_operations=sum(layer.operations for layer in counted[0]) if counted else 0.0,
    )


def _quantized(model: RewardModel) -> int:
    """Values of the linear layers that adapters lie on."""
    return sum(
        module.weight.numel()
        for name, module in model.backbone.named_modules()
        if isinstance(module, nn.Linear) and name.endswith(".base_layer")
    )


def _layers(backbone: nn.Module, config: Any) -> nn.ModuleList:
    """The decoder layers, in whatever the architecture or an adapter keeps them."""
    stacks = (m for m in backbone.modules() if isinstance(m, nn.ModuleList))
    return next(stack for stack in stacks if len(stack) == config.num_hidden_layers)


def _attends(layer: nn.Module) -> bool:
    return any(hasattr(part, "is_causal") for part in layer.modules())


@dataclass(frozen=True, slots=True)
class _Counted:
    """Of one decoder layer, a token: bytes kept, and operations beside those of its matrices."""

    bytes: float
    operations: float


# Tokens of the prompt and of each response by which a hybrid's layers are counted: HH's.
COUNTED_PROMPT, COUNTED_RESPONSE = 125, 46
NO_ATTENTION = "palate_no_attention"
AttentionInterface.register(NO_ATTENTION, lambda _, q, *__, **___: (q.transpose(1, 2), None))


def _count_layers(config: Any, dtype: torch.dtype) -> list[_Counted]:
    """What each layer of a hybrid keeps and does, by a run of its first layers without numbers.

    How a recurrence is computed differs from family to family, so no formula is written down.
    Attention and experts do nothing in it: those have formulas. One layer of each kind is counted,
    for all of its kind.
    """
    config = deepcopy(decoder_config(config))
    kinds = layer_kinds(config)
    keep_layers(config, first_of_each_kind(config), "the counted layers")
    sizes = COUNTED_PROMPT, COUNTED_RESPONSE, COUNTED_RESPONSE
    prompt, *responses = (np.zeros(size, np.int32) for size in sizes)
    packed, tokens = pack([Group(prompt, tuple(responses))]), sum(sizes)
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake, quiet():
        backbone = AutoModel.from_config(config)
    for part in backbone.modules():
        if not isinstance(part, nn.Conv1d) and any(
            map(_of_experts, part.parameters(recurse=False))
        ):
            part.forward = lambda hidden, *_, **__: hidden
    share_states(backbone)
    backbone.set_attn_implementation(NO_ATTENTION)
    weights = {p.untyped_storage()._cdata for p in backbone.parameters()}
    kept: dict[int, torch.Tensor] = {}
    reached: list[tuple[int, int]] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = tensor  # It lives on, so that no other has its number.
        return tensor

    def note(*_: Any) -> None:
        size = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
        reached.append((size, counter.get_total_flops()))

    layers = _layers(backbone, config)
    for layer in layers:
        layer.register_forward_pre_hook(note)
        layer.register_forward_hook(note)
    counter = FlopCounterMode(display=False)
    saved = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with fake, counter, saved, autocast(dtype, torch.device("cpu")):
        backbone(
            input_ids=packed.ids, position_ids=packed.positions, layout=packed.layout,
            use_cache=False,
        )  # fmt: skip
    found: dict[str, _Counted] = {}
    for kind, layer, before, after in zip(kinds, layers, reached[::2], reached[1::2], strict=False):
        matrices = [p for p in layer.parameters() if p.ndim > 1 and not _of_experts(p)]
        products = 2 * tokens * _count(matrices)
        found[kind] = _Counted(
            (after[0] - before[0]) / tokens, max(0, after[1] - before[1] - products) / tokens
        )
    return [found[kind] for kind in kinds]


def _of_experts(weight: nn.Parameter) -> bool:
    """Whether it holds all experts of a layer, [experts, ...], and is no convolution's."""
    return weight.ndim == 3 and weight.shape[1] > 1


def _first(config: Any, *names: str) -> Any:
    return next((value for name in names if (value := getattr(config, name, None))), None)


def count_parameters(config: Any, options: TrainOptions) -> int:
    """Parameters of the reward model that `options` would train on a backbone of `config`."""
    return _count(_weightless(config, options).parameters())


def _weightless(config: Any, options: TrainOptions) -> RewardModel:
    with quiet(), torch.device("meta"):
        backbone = cast(PreTrainedModel, AutoModel.from_config(decoder_config(config)))
    safety = options.safety_loss is not None and options.safety_loss.on == "head"
    # Nothing is tokenised here, so there is no tokenizer to open.
    model = RewardModel(
        backbone,
        cast(ChatTokens, None),
        safety_head=safety,
        attributes=options.attributes,
        members=options.heads,
    )
    if options.router_loss_coefficient:
        model.keep_router_logits()
    with torch.device("meta"):
        choose_trainable(model, options)
    return model


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(p.numel() for p in parameters)


Checkpointing = Literal["none", "selective", "full"]
RECOMPUTING: tuple[Checkpointing, ...] = ("selective", "full")

MASTER = 4  # Bytes: weights, gradients and both moments of Adam are float32 (exact).
# Context, kernels and NCCL's buffers on a GPU: assumed, not measured here.
CUDA_RUNTIME = 2_000_000_000
# Resident after importing torch, transformers and pyarrow: measured, 415 MB.
CPU_RUNTIME = 450_000_000
# Machine code that oneDNN keeps of bfloat16 products, with the caches of `palate.cpus`: measured,
# 165 MB after 320 lengths with AMX.
CPU_KERNELS = 165_000_000
# Of all other parts, lost to an allocator's fragments: assumed; 1 % was measured on a CPU.
FRAGMENTS = 0.05


@dataclass(frozen=True, slots=True)
class Setup:
    """How a model is trained, as far as memory depends on it.

    `shards` of the `processes` hold one copy together (FSDP2); the rest hold replicas of it
    (HSDP). `microbatch` is in tokens of packed rows. A prompt has `prompt` tokens and each of its
    responses `response`, on average.
    """

    processes: int = 1
    shards: int = 1
    device: Literal["cuda", "cpu"] = "cpu"
    bfloat16: bool = False
    checkpointing: Checkpointing = "none"
    microbatch: int = 4_096
    accumulates: bool = True  # More than one micro-batch a step.
    prompt: float = 125.0
    response: float = 46.0
    capacity: int = 80_000_000_000


def layer_bytes(model: ModelStats, setup: Setup) -> float:
    """Bytes a token that one decoder layer keeps for its backward pass.

    Of the norms `norm_width` in float32, of the MLP `mlp_width`. Of attention: queries, gathered
    keys and values, output, a float32 sum a head, and on a CPU, where all of that is float32, the
    masks. And the inputs of the matrices, which autocast casts anew for each of them. Written
    down from what autograd keeps of a Llama in transformers 5.23, and compared with it in
    tests/train/test_cost.py.
    """
    size = 2 if setup.bfloat16 else 4
    d = model.width
    if not setup.bfloat16:
        stream = 4 * (model.norm_width + 2 * d)
    elif setup.shards == 1:  # float32 weights under autocast: a float32 residual stream.
        stream = 4 * model.norm_width + 2 * 5 * d
    else:  # bfloat16 weights gathered by FSDP: a bfloat16 one, and norms in both formats.
        stream = 3 * model.norm_width + 2 * 2 * d
    windows = model.windows or (None,)
    attention = sum(_attention_bytes(model, setup, w) for w in windows) / len(windows)
    wide = model.layers - model.narrow
    attention *= (model.attending - model.narrow) / wide if wide else 1.0
    # Under autocast experts are multiplied in float32: what multiplies all of them at once is not
    # among the products that it casts.
    experts = (size if setup.shards > 1 else 4) * model.expert_width
    others: float = stream + size * model.mlp_width + 2 * 4
    if model.counted_bytes:
        others = model.counted_bytes[setup.bfloat16]
    return others + attention + experts


def _attention_bytes(model: ModelStats, setup: Setup, window: int | None) -> float:
    """Bytes a token that attention keeps where it sees so many keys, or all."""
    size, cuda = 2 if setup.bfloat16 else 4, setup.device == "cuda"
    q, k, p, r = model.query_width, model.key_width, setup.prompt, setup.response
    tokens = p + 2 * r
    # Keys that attention gathers: each response reads its prompt's again. And values of masks, of
    # responses [r, p + r] each.
    keys: float = 3 * p + 2 * r
    masked: float = 2 * r * (p + r)
    squares = p * p + masked
    if window is not None and window < p + r:
        step = max(window, BLOCK)
        seen, blocks = min(p + r, r + window), max(1.0, math.ceil(p / step))
        keys = p + (blocks - 1) * window + 2 * seen
        squares = p * min(p, step + window) + 2 * r * seen
        masked = squares if p > window else 2 * r * seen
    if model.soft_capped:  # Both capped logits and weights, of every head; keys of each of them.
        attended = q + 2 * (keys / tokens) * q
        return 4 * attended + 8 * model.heads * squares / tokens + size * q
    if model.sinks:  # All are wider by 8, and every segment has a mask.
        wider, masked = 1 + WIDER * model.heads / q, squares
        attended = wider * (q + 2 * (keys / tokens) * k)
    else:
        attended = q + 2 * (keys / tokens) * k
    # A CPU's output is joined from segments, so that it is kept as such and joined.
    attention = size * (attended + q) if cuda else 4 * (attended + q) + size * q
    return attention + 4 * model.heads + (0.0 if cuda else 4 * masked / tokens)


def last_layer_bytes(model: ModelStats, setup: Setup) -> float:
    """Bytes a token that a narrow last layer keeps: of one norm, keys and values, its output.

    What its few queries keep besides is left out.
    """
    size = 2 if setup.bfloat16 else 4
    p, r = setup.prompt, setup.response
    keys = 2 * (p + r) / (p + 2 * r)  # A token: each response reads its prompt's and its own.
    inputs = 2 * model.width * size if setup.bfloat16 else model.width * size
    zeros = size * model.query_width  # Queries of all tokens, and attention's output for them.
    attended = size if setup.device == "cuda" else 4
    return 4 * model.norm_width_of_keys + inputs + attended * 2 * keys * model.key_width + zeros


def activation_bytes(model: ModelStats, setup: Setup) -> float:
    """Bytes a token that the forward pass keeps for the backward pass.

    Recomputing keeps a layer's input instead ('selective': of every other layer), and makes one
    layer at a time whole again; a narrow last layer is left out of it. There are no logits: a
    reward model has no vocabulary head.
    """
    layer = layer_bytes(model, setup)
    residual = model.width * (2 if setup.bfloat16 and setup.shards > 1 else 4)
    passed = max(0, model.layers_passed - model.narrow)
    last = last_layer_bytes(model, setup) if model.narrow and model.layers_passed else 0.0
    recomputed = {"none": 0, "selective": (passed + 1) // 2, "full": passed}[setup.checkpointing]
    layers = (passed - recomputed) * layer + recomputed * residual + last
    # Embedding, and the final norm's two.
    outside = (1 if model.narrow else 3) * 4 * model.width
    return layers + (layer if recomputed else 0.0) + outside


@dataclass(frozen=True, slots=True)
class MemoryPart:
    """A part of the memory of one device, and how it comes about."""

    name: str
    bytes: int
    why: str


def memory_parts(model: ModelStats, setup: Setup) -> list[MemoryPart]:
    """The memory of one device (a GPU, or the machine of one CPU process), by cause."""
    shards, size = setup.shards, 2 if setup.bfloat16 else 4
    per_token = activation_bytes(model, setup)
    of = f" / {shards} shards" if shards > 1 else ""
    whole = model.parameters - model.quantized
    # Two moments a trainable weight and a step count a tensor, all float32.
    moments = 2 * MASTER * model.trainable // shards + MASTER * model.trainable_tensors
    rows: list[tuple[str, int, str]] = [
        ("weights", MASTER * whole // shards, f"4 B x {whole:,}{of}"),
        ("gradients", MASTER * model.trainable // shards, f"4 B x {model.trainable:,}{of}"),
        ("Adam's moments", moments, f"8 B x {model.trainable:,}{of}"),
    ]
    if model.quantized:
        why = f"{BYTES:.3f} B x {model.quantized:,}, NF4"
        rows.append(("weights in four bits", int(BYTES * model.quantized), why))
    if shards > 1:
        units, flat = 2 * model.largest_layer + model.outside, MASTER * model.trainable
        rows += [
            ("gathered weights", size * units, f"{size} B x {units:,}: 2 layers, embeddings"),
            (
                "gradients on their way",
                (size + MASTER) * (model.largest_layer + model.outside),
                f"{size} + 4 B of a layer and the embeddings, before they are reduced",
            ),
        ]
        room = setup.device == "cpu" or flat <= WHOLE_GRADIENTS * setup.capacity
        if setup.accumulates and room:
            rows.append(("whole gradients", flat, "4 B, while micro-batches add up"))
    elif setup.bfloat16:  # Autocast keeps its copies until the backward pass has read them.
        # Of four bits a matrix is made for each product, and not kept.
        cast = max(0, model.matrices_passed - model.matrices_of_experts - model.quantized)
        rows.append(("weights in bfloat16", 2 * cast, f"2 B x {cast:,}, autocast"))
        if setup.device == "cpu":
            rows.append(("compiled products", CPU_KERNELS, "oneDNN's, bfloat16 (measured)"))
    runtime = (
        ("runtime", CUDA_RUNTIME, "CUDA context, kernels, NCCL (assumed)")
        if setup.device == "cuda"
        else ("runtime", CPU_RUNTIME, "torch, transformers, pyarrow (measured)")
    )
    rows += [
        (
            "activations",
            int(per_token * setup.microbatch),
            f"{per_token:,.0f} B x {setup.microbatch:,} tokens, recomputing {setup.checkpointing}",
        ),
        (
            "backward's work",
            int(layer_bytes(model, setup) * setup.microbatch),
            "gradients of one layer's activations (assumed: as large as these)",
        ),
        runtime,
    ]
    parts = [MemoryPart(*row) for row in rows]
    lost = int(FRAGMENTS * total_bytes(parts))
    return [*parts, MemoryPart("fragments", lost, f"{FRAGMENTS:.0%} of the above (assumed)")]


def total_bytes(parts: Sequence[MemoryPart]) -> int:
    """All parts together."""
    return sum(part.bytes for part in parts)


def fits(model: ModelStats, setup: Setup) -> bool:
    """Whether a device has the memory."""
    return total_bytes(memory_parts(model, setup)) <= setup.capacity


def largest_microbatch(model: ModelStats, setup: Setup) -> int:
    """Tokens of the largest micro-batch that fits, in steps of 256; 0 where none does."""
    fixed = total_bytes(memory_parts(model, replace(setup, microbatch=0)))
    per_token = (activation_bytes(model, setup) + layer_bytes(model, setup)) * (1 + FRAGMENTS)
    return max(0, int((setup.capacity - fixed) / per_token) // 256 * 256)


def shard_over(model: ModelStats, setup: Setup, node: int) -> Setup:
    """`setup` with one copy on as few whole nodes of `node` GPUs as hold it; on all where none do.

    Fewer shards travel less far. Groups divide the GPUs evenly.
    """
    groups = [node * n for n in range(1, setup.processes // node + 1)] or [setup.processes]
    even = [g for g in groups if setup.processes % g == 0]
    setups = [replace(setup, shards=g) for g in even or [setup.processes]]
    return next((s for s in setups if fits(model, s)), setups[-1])


def cures(model: ModelStats, setup: Setup) -> list[str]:
    """What would make it fit, the cheapest first; each was tried by these same functions."""

    def enough_gpus(setup: Setup) -> int | None:
        counts = (setup.processes * 2**n for n in range(1, 11))
        return next((n for n in counts if fits(model, replace(setup, processes=n, shards=n))), None)

    options = []
    if tokens := largest_microbatch(model, setup):
        options.append(f"train.tokens_per_microbatch={tokens}")
    recomputing = [replace(setup, checkpointing=how) for how in RECOMPUTING]
    enough = next((s.checkpointing for s in recomputing if fits(model, s)), None)
    if enough:
        options.append(f"train.compute.activation_checkpointing={enough}")
    if setup.device == "cuda":
        if count := enough_gpus(setup):
            options.append(f"{count} GPUs")
        elif not enough and (count := enough_gpus(recomputing[-1])):
            options.append(f"{count} GPUs and train.compute.activation_checkpointing=full")
    return options or ["a smaller model, or train.trainable.lora"]


def capacity(device: torch.device) -> int:
    """Bytes of memory of a device: of a GPU its own, of a CPU the machine's."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total)


def describe(
    model: RewardModel, options: TrainOptions, *, processes: int = 1, shards: int = 1
) -> str:
    """One line to print before training: what it takes of the memory there is, by its causes."""
    setup = Setup(
        processes=processes,
        shards=shards,
        device="cuda" if model.device.type == "cuda" else "cpu",
        bfloat16=model.dtype == torch.bfloat16,
        checkpointing=options.compute.activation_checkpointing,
        microbatch=options.tokens_per_microbatch,
        capacity=capacity(model.device),
    )
    parts = memory_parts(model_stats(model.backbone.config, options), setup)
    causes = ", ".join(f"{p.name} {p.bytes / 1e9:.1f}" for p in parts if p.bytes >= 5e7)
    return (
        f"memory: about {total_bytes(parts) / 1e9:.1f} of {setup.capacity / 1e9:.1f} GB in "
        f"micro-batches of {setup.microbatch:,} tokens ({causes})"
    )


# How many operations training takes, and how long they last at a stated utilisation.

# Dense bfloat16 operations a second of a GPU, from NVIDIA's data sheets (without sparsity).
PEAKS: Mapping[str, float] = MappingProxyType(
    {"a100": 312e12, "h100": 989e12, "h200": 989e12, "b200": 2_250e12}
)
# Model FLOPs over peak: assumed. Public pretraining runs of this size report 0.35 to 0.5.
MFU = 0.4
# On a CPU, of the rate at which one decoder layer runs alone: 0.69 to 1.11 (docs/numbers.md).
LAYER_FRACTION = 1.0
TIMED_TOKENS = 1_024
# Bytes a second that a collective moves a GPU, in a node and between nodes of 8 network cards of
# 400 Gbit: assumed; nccl-tests' "busbw" of all_gather measures yours.
COLLECTIVE = 300e9


@dataclass(frozen=True, slots=True)
class Data:
    """What is trained on: comparisons, and mean tokens of a prompt and of each response."""

    comparisons: int
    prompt: float
    response: float
    pairs_per_step: int = 512
    epochs: int = 1

    @property
    def tokens(self) -> float:
        """Tokens a comparison in a packed row: its prompt once, two responses."""
        return self.prompt + 2 * self.response

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return math.ceil(self.comparisons / self.pairs_per_step) * self.epochs


@dataclass(frozen=True, slots=True)
class Flops:
    """Floating point operations of one comparison: the model's, and those done twice.

    `frozen`: those of `forward` that are below all that learns.
    """

    forward: float
    backward: float
    recomputed: float
    frozen: float = 0.0

    @property
    def model(self) -> float:
        """What MFU counts: forward and backward, nothing twice."""
        return self.forward + self.backward


def flops(model: ModelStats, data: Data, setup: Setup) -> Flops:
    r"""Operations of one comparison.

    forward = 2 M t + a; backward = 2 M_passed t + 2 M_trained t + 2 a_passed, for t tokens and M
    weights in matrices (embeddings are looked up). A frozen layer below all that learn has no
    backward pass; a frozen one above has only the gradient of its input. Causal attention over a
    shared prompt of p tokens, two responses of r: a = 4 L q (p^2 / 2 + 2 (p r + r^2 / 2)), for L
    layers of query width q. Where the last layer is narrow, those of its matrices that no key
    needs run for 2 tokens instead of t, and its attention is 4 q 2 (p + r). What a hybrid's other
    layers multiply beside their matrices is counted (`counted_operations`).

    Source: Kaplan et al. 2020, section 2.1, and PaLM (Chowdhery et al. 2022), appendix B, with the
    attention term of this packing.
    """
    p, r = data.prompt, data.response
    unit = 4 * model.query_width
    full, ends = unit * (p * p / 2 + 2 * (p * r + r * r / 2)), unit * 2 * (p + r)
    wide = model.layers - model.narrow
    wide_passed = max(0, model.layers_passed - model.narrow)
    passes = bool(model.layers_passed)
    of_ends, narrow = model.matrices_of_ends, ends * model.narrow

    def product(matrices: float, those_of_ends: float) -> float:
        return 2 * ((matrices - those_of_ends) * data.tokens + those_of_ends * 2)

    # Of a hybrid not all layers attend, and others have products of their own.
    full *= (model.attending - model.narrow) / wide if wide else 1.0
    full += data.tokens * model.counted_operations / wide if wide else 0.0
    forward = product(model.matrices, of_ends) + wide * full + narrow
    inputs = product(model.matrices_passed, of_ends * passes)
    weights = product(model.matrices_trained, model.matrices_of_ends_trained)
    backward = inputs + weights + 2 * (wide_passed * full + narrow * passes)
    again = {"none": 0.0, "selective": 0.5, "full": 1.0}[setup.checkpointing]
    recomputed = again * (inputs + wide_passed * full) if wide_passed else 0.0
    passed = inputs + wide_passed * full + narrow * passes
    frozen = forward - passed if model.layers_passed < model.layers else 0.0
    return Flops(forward, backward, recomputed, frozen)


def kept_bytes(
    model: ModelStats, data: Data, setup: Setup, options: TrainOptions, eval_sets: int
) -> int:
    """Bytes of the file in which a training keeps the states of frozen layers; 0 where it does not.

    A float32 state a token, or, of a head that learns alone, a response. Prompts and responses
    that recur are kept once, so it may be less. What is run once is not kept: comparisons of a
    single epoch of a single training. Held-out ones are of the same length (assumed).
    """
    asked = options.compute.keep_frozen_states
    here = setup.processes == 1 and (setup.device == "cpu" or asked is True)
    if not asked or not here or model.layers_passed == model.layers:
        return 0
    states = 2 if model.narrow and not model.layers_passed else data.tokens
    several = data.epochs * options.trainings > 1
    rows = (data.comparisons if several else 0) + eval_sets * options.eval_rows
    return round(4 * model.width * states * rows)


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of one optimizer step by what they go to; the larger of both is what it lasts."""

    compute: float
    communication: float

    @property
    def step(self) -> float:
        """Seconds of a step where communication runs beside computation."""
        return max(self.compute, self.communication)


def pace(model: ModelStats, data: Data, setup: Setup, *, rate: float, utilisation: float) -> Pace:
    """Seconds of a step on processes that reach `utilisation` of `rate` operations a second.

    Recomputation comes on top: utilisation is of the model's operations alone.
    """
    pair = flops(model, data, setup)
    operations = (pair.model + pair.recomputed) * data.pairs_per_step
    compute = operations / (setup.processes * rate * utilisation)
    return Pace(compute, communication_bytes(model, data, setup) / COLLECTIVE)


def microbatches(data: Data, setup: Setup) -> int:
    """Micro-batches of one process in a step."""
    return math.ceil(data.pairs_per_step * data.tokens / setup.processes / setup.microbatch)


def communication_bytes(model: ModelStats, data: Data, setup: Setup) -> float:
    """Bytes that pass a device in a step.

    Of each micro-batch the weights are gathered forward and backward and the gradients
    reduced in float32, each (S - 1) / S of them for S shards; once a step the replicas' shards of
    the gradients are averaged.
    """
    shards, replicas = setup.shards, setup.processes // setup.shards
    size = 2 if setup.bfloat16 else 4
    others = (shards - 1) / shards
    each = others * (2 * size * model.parameters + 4 * model.trainable)
    average = 2 * (replicas - 1) / replicas * 4 * model.trainable / shards
    return each * microbatches(data, setup) + average


def layer_rate(config: Any, data: Data, dtype: torch.dtype) -> float:
    """Operations a second of one decoder layer of `config` on this CPU, forward and backward.

    Of a hybrid, of its first layers up to one of each kind.

    The model's own widths, format, and lengths of the data: a matrix product alone says nothing of
    attention, norms and casts, which in bfloat16 with AMX take most of the time.
    """
    pairs = max(1, round(TIMED_TOKENS / data.tokens))
    lengths = max(1, round(data.prompt)), max(1, round(data.response))
    seconds = time_layer(config, *lengths, pairs, [dtype])[dtype][1]
    one = deepcopy(config)
    keep_layers(one, first_of_each_kind(one), "the timed layer")
    layer = model_stats(one, TrainOptions())
    layer = replace(layer, narrow=False, matrices_of_ends=0, matrices_of_ends_trained=0)
    return flops(layer, data, Setup()).model * pairs / seconds


# Shapes of well-known models, to plan for them where their files cannot be reached.
#
# From the published config.json of each: meta-llama/Llama-2-7b-hf, meta-llama/Llama-2-70b-hf,
# meta-llama/Llama-3.2-1B.

SHAPES: Mapping[str, Mapping[str, int | bool]] = MappingProxyType(
    {
        "llama2-70b": {
            "vocab_size": 32_000, "hidden_size": 8_192, "intermediate_size": 28_672,
            "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
        },
        "llama2-7b": {
            "vocab_size": 32_000, "hidden_size": 4_096, "intermediate_size": 11_008,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
        },
        "llama3-1b": {
            "vocab_size": 128_256, "hidden_size": 2_048, "intermediate_size": 8_192,
            "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
            "head_dim": 64,
        },
    }
)  # fmt: skip


def shape_config(name: str) -> Any:
    """The configuration of a built-in shape."""
    if name not in SHAPES:
        raise PalateError(f"no shape {name!r}; built in: {', '.join(SHAPES)}")
    return LlamaConfig(**SHAPES[name])
