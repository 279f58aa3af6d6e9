"""How many operations training takes, and how long they last at a stated utilisation.

Pure functions, but for `layer_rate`, which measures. Every constant stands with its source.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch

from palate.model.backbone import keep_layers
from palate.model.precision import time_layer
from palate.train.anatomy import Anatomy, anatomy
from palate.train.footprint import Setup
from palate.train.options import TrainOptions

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
class Work:
    """Floating point operations of one comparison: the model's, and those done twice."""

    forward: float
    backward: float
    recomputed: float

    @property
    def model(self) -> float:
        """What MFU counts: forward and backward, nothing twice."""
        return self.forward + self.backward


def work(model: Anatomy, data: Data, setup: Setup) -> Work:
    r"""Operations of one comparison.

    forward = 2 M t + a; backward = 2 M_passed t + 2 M_trained t + 2 a_passed, for t tokens and M
    weights in matrices (embeddings are looked up). A frozen layer below all that learn has no
    backward pass; a frozen one above has only the gradient of its input. Causal attention over a
    shared prompt of p tokens, two responses of r: a = 4 L q (p^2 / 2 + 2 (p r + r^2 / 2)), for L
    layers of query width q. Where the last layer is narrow, those of its matrices that no key
    needs run for 2 tokens instead of t, and its attention is 4 q 2 (p + r).

    Source: Kaplan et al. 2020, section 2.1, and PaLM (Chowdhery et al. 2022), appendix B, with the
    attention term of this packing.
    """
    p, r = data.prompt, data.response
    unit = 4 * model.query_width
    whole, ends = unit * (p * p / 2 + 2 * (p * r + r * r / 2)), unit * 2 * (p + r)
    wide = model.layers - model.narrow
    wide_passed = max(0, model.layers_passed - model.narrow)
    passes = bool(model.layers_passed)
    of_ends, narrow = model.matrices_of_ends, ends * model.narrow

    def product(matrices: float, those_of_ends: float) -> float:
        return 2 * ((matrices - those_of_ends) * data.tokens + those_of_ends * 2)

    forward = product(model.matrices, of_ends) + wide * whole + narrow
    inputs = product(model.matrices_passed, of_ends * passes)
    weights = product(model.matrices_trained, model.matrices_of_ends_trained)
    backward = inputs + weights + 2 * (wide_passed * whole + narrow * passes)
    again = {"none": 0.0, "selective": 0.5, "full": 1.0}[setup.checkpointing]
    recomputed = again * (inputs + wide_passed * whole) if wide_passed else 0.0
    return Work(forward, backward, recomputed)


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of one optimizer step by what they go to; the larger of both is what it lasts."""

    compute: float
    communication: float

    @property
    def step(self) -> float:
        """Seconds of a step where communication runs beside computation."""
        return max(self.compute, self.communication)


def pace(model: Anatomy, data: Data, setup: Setup, *, rate: float, utilisation: float) -> Pace:
    """Seconds of a step on processes that reach `utilisation` of `rate` operations a second.

    Recomputation comes on top: utilisation is of the model's operations alone.
    """
    done = work(model, data, setup)
    operations = (done.model + done.recomputed) * data.pairs_per_step
    compute = operations / (setup.processes * rate * utilisation)
    return Pace(compute, communication_bytes(model, data, setup) / COLLECTIVE)


def microbatches(data: Data, setup: Setup) -> int:
    """Micro-batches of one process in a step."""
    return math.ceil(data.pairs_per_step * data.tokens / setup.processes / setup.microbatch)


def communication_bytes(model: Anatomy, data: Data, setup: Setup) -> float:
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

    The model's own widths, format, and lengths of the data: a matrix product alone says nothing of
    attention, norms and casts, which in bfloat16 with AMX take most of the time.
    """
    pairs = max(1, round(TIMED_TOKENS / data.tokens))
    lengths = max(1, round(data.prompt)), max(1, round(data.response))
    seconds = time_layer(config, *lengths, pairs, [dtype])[dtype][1]
    one = deepcopy(config)
    keep_layers(one, 1, "the timed layer")
    layer = anatomy(one, TrainOptions())
    whole = replace(layer, narrow=False, matrices_of_ends=0, matrices_of_ends_trained=0)
    return work(whole, data, Setup()).model * pairs / seconds
