"""How much memory training takes, before it takes it: pure functions of a model and a setup.

Every constant stands with its source and how sure it is. GB are 10^9 bytes. Only `capacity` and
`describe` look at what there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import psutil
import torch

from palate.model.reward_model import RewardModel
from palate.train.anatomy import Anatomy, anatomy
from palate.train.options import TrainOptions
from palate.train.parallel import WHOLE_GRADIENTS

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

    @property
    def keys_per_token(self) -> float:
        """Keys that attention gathers a token: each response reads its prompt's again."""
        return (3 * self.prompt + 2 * self.response) / (self.prompt + 2 * self.response)


def layer_bytes(model: Anatomy, setup: Setup) -> float:
    """Bytes a token that one decoder layer keeps for its backward pass.

    Of the norms `norm_width` in float32, of the MLP `mlp_width`. Of attention: queries, gathered
    keys and values, output, a float32 sum a head, and on a CPU, where all of that is float32, the
    masks. And the inputs of the
    matrices, which autocast casts anew for each of them. Written down from what autograd keeps of
    a Llama in transformers 5.23, and compared with it in tests/train/test_footprint.py.
    """
    size = 2 if setup.bfloat16 else 4
    d, q, k = model.width, model.query_width, model.key_width
    cuda = setup.device == "cuda"
    if not setup.bfloat16:
        stream = 4 * (model.norm_width + 2 * d)
    elif setup.shards == 1:  # float32 weights under autocast: a float32 residual stream.
        stream = 4 * model.norm_width + 2 * 5 * d
    else:  # bfloat16 weights gathered by FSDP: a bfloat16 one, and norms in both formats.
        stream = 3 * model.norm_width + 2 * 2 * d
    attended = q + 2 * setup.keys_per_token * k
    # A CPU's output is joined from segments, so that it is kept as such and joined.
    attention = size * (attended + q) if cuda else 4 * (attended + q) + size * q
    masks = 0.0 if cuda else 4 * _mask_width(setup)
    return stream + attention + 4 * model.heads + masks + size * model.mlp_width + 2 * 4


def last_layer_bytes(model: Anatomy, setup: Setup) -> float:
    """Bytes a token that a narrow last layer keeps: of one norm, keys and values, its output.

    What its few queries keep besides is left out.
    """
    size = 2 if setup.bfloat16 else 4
    p, r = setup.prompt, setup.response
    keys = 2 * (p + r) / (p + 2 * r)  # A token: each response reads its prompt's and its own.
    inputs = 2 * model.width * size if setup.bfloat16 else model.width * size
    zeros = size * model.query_width  # Queries of all tokens, and attention's output for them.
    attended = size if setup.device == "cuda" else 4
    return 4 * model.norm_width / 2 + inputs + attended * 2 * keys * model.key_width + zeros


def _mask_width(setup: Setup) -> float:
    """Values a token of the masks of responses, [r, p + r] each."""
    p, r = setup.prompt, setup.response
    return 2 * r * (p + r) / (p + 2 * r)


def activation_bytes(model: Anatomy, setup: Setup) -> float:
    """Bytes a token that the forward pass keeps for the backward pass.

    Recomputing keeps a layer's input instead ('selective': of every other layer), and makes one
    layer at a time whole again; a narrow last layer is left out of it. There are no logits: a
    reward model has no vocabulary head.
    """
    whole = layer_bytes(model, setup)
    residual = model.width * (2 if setup.bfloat16 and setup.shards > 1 else 4)
    passed = max(0, model.layers_passed - model.narrow)
    last = last_layer_bytes(model, setup) if model.narrow and model.layers_passed else 0.0
    recomputed = {"none": 0, "selective": (passed + 1) // 2, "full": passed}[setup.checkpointing]
    kept = (passed - recomputed) * whole + recomputed * residual + last
    # Embedding, and the final norm's two.
    outside = (1 if model.narrow else 3) * 4 * model.width
    return kept + (whole if recomputed else 0.0) + outside


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the memory of one device, and how it comes about."""

    name: str
    bytes: int
    why: str


def parts(model: Anatomy, setup: Setup) -> list[Part]:
    """The memory of one device (a GPU, or the machine of one CPU process), by cause."""
    shards, per_token = setup.shards, activation_bytes(model, setup)
    of = f" / {shards} shards" if shards > 1 else ""
    found = [
        Part("weights", MASTER * model.parameters // shards, f"4 B x {model.parameters:,}{of}"),
        Part("gradients", MASTER * model.trainable // shards, f"4 B x {model.trainable:,}{of}"),
        Part("Adam's moments", moment_bytes(model, shards), f"8 B x {model.trainable:,}{of}"),
        *(_gathered(model, setup) if shards > 1 else _cast(model, setup)),
        Part(
            "activations",
            int(per_token * setup.microbatch),
            f"{per_token:,.0f} B x {setup.microbatch:,} tokens, recomputing {setup.checkpointing}",
        ),
        Part(
            "backward's work",
            int(layer_bytes(model, setup) * setup.microbatch),
            "gradients of one layer's activations (assumed: as large as these)",
        ),
        _runtime(setup),
    ]
    lost = int(FRAGMENTS * total_bytes(found))
    return [*found, Part("fragments", lost, f"{FRAGMENTS:.0%} of the above (assumed)")]


def moment_bytes(model: Anatomy, shards: int = 1) -> int:
    """Two moments a trainable weight and a step count a tensor, all float32."""
    return 2 * MASTER * model.trainable // shards + MASTER * model.trainable_tensors


def _cast(model: Anatomy, setup: Setup) -> list[Part]:
    """What autocast casts of the float32 weights, kept until the backward pass has read it."""
    if not setup.bfloat16:
        return []
    copies = 2 * model.matrices_passed
    found = [Part("weights in bfloat16", copies, f"2 B x {model.matrices_passed:,}, autocast")]
    if setup.device == "cpu":
        found.append(Part("compiled products", CPU_KERNELS, "oneDNN's, bfloat16 (measured)"))
    return found


def _gathered(model: Anatomy, setup: Setup) -> list[Part]:
    size = 2 if setup.bfloat16 else 4
    units = 2 * model.largest_layer + model.outside
    found = [
        Part("gathered weights", size * units, f"{size} B x {units:,}: 2 layers, embeddings"),
        Part(
            "gradients on their way",
            (size + MASTER) * (model.largest_layer + model.outside),
            f"{size} + 4 B of a layer and the embeddings, before they are reduced",
        ),
    ]
    whole = MASTER * model.trainable
    if setup.accumulates and (setup.device == "cpu" or whole <= WHOLE_GRADIENTS * setup.capacity):
        found.append(Part("whole gradients", whole, "4 B, while micro-batches add up"))
    return found


def _runtime(setup: Setup) -> Part:
    if setup.device == "cuda":
        return Part("runtime", CUDA_RUNTIME, "CUDA context, kernels, NCCL (assumed)")
    return Part("runtime", CPU_RUNTIME, "torch, transformers, pyarrow (measured)")


def total_bytes(found: Sequence[Part]) -> int:
    """All parts together."""
    return sum(part.bytes for part in found)


def fits(model: Anatomy, setup: Setup) -> bool:
    """Whether a device has the memory."""
    return total_bytes(parts(model, setup)) <= setup.capacity


def largest_microbatch(model: Anatomy, setup: Setup) -> int:
    """Tokens of the largest micro-batch that fits, in steps of 256; 0 where none does."""
    fixed = total_bytes(parts(model, replace(setup, microbatch=0)))
    per_token = (activation_bytes(model, setup) + layer_bytes(model, setup)) * (1 + FRAGMENTS)
    return max(0, int((setup.capacity - fixed) / per_token) // 256 * 256)


def shard_over(model: Anatomy, setup: Setup, node: int) -> Setup:
    """`setup` with one copy on as few whole nodes of `node` GPUs as hold it; on all where none do.

    Fewer shards travel less far. Groups divide the GPUs evenly.
    """
    groups = [node * n for n in range(1, setup.processes // node + 1)] or [setup.processes]
    even = [g for g in groups if setup.processes % g == 0]
    tried = [replace(setup, shards=g) for g in even or [setup.processes]]
    return next((s for s in tried if fits(model, s)), tried[-1])


def cures(model: Anatomy, setup: Setup) -> list[str]:
    """What would make it fit, the cheapest first; each was tried by these same functions."""
    found = []
    if room := largest_microbatch(model, setup):
        found.append(f"train.tokens_per_microbatch={room}")
    again = [replace(setup, checkpointing=how) for how in RECOMPUTING]
    enough = next((s.checkpointing for s in again if fits(model, s)), None)
    if enough:
        found.append(f"train.compute.activation_checkpointing={enough}")
    if setup.device == "cuda":
        if count := _enough_gpus(model, setup):
            found.append(f"{count} GPUs")
        elif not enough and (count := _enough_gpus(model, again[-1])):
            found.append(f"{count} GPUs and train.compute.activation_checkpointing=full")
    return found or ["a smaller model, or train.trainable.lora"]


def _enough_gpus(model: Anatomy, setup: Setup) -> int | None:
    counts = (setup.processes * 2**n for n in range(1, 11))
    wider = (replace(setup, processes=c, shards=c) for c in counts)
    return next((s.processes for s in wider if fits(model, s)), None)


def capacity(device: torch.device) -> int:
    """Bytes of memory of a device: of a GPU its own, of a CPU the machine's."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total)


def describe(
    model: RewardModel,
    options: TrainOptions,
    *,
    processes: int = 1,
    shards: int = 1,
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
    found = parts(anatomy(model.backbone.config, options), setup)
    causes = ", ".join(f"{p.name} {p.bytes / 1e9:.1f}" for p in found if p.bytes >= 5e7)
    return (
        f"memory: about {total_bytes(found) / 1e9:.1f} of {setup.capacity / 1e9:.1f} GB in "
        f"micro-batches of {setup.microbatch:,} tokens ({causes})"
    )
