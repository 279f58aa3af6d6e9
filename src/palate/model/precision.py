"""The number format of matrix products: the one asked for, or the faster one of this machine.

`auto` takes bfloat16 where hardware multiplies it and it is faster. The two are not the same: on
one CPU the matrix product is seven times faster in bfloat16 and the backward pass of attention
four times slower, on another the product itself is slower. So a decoder layer is timed in both
formats, once for each CPU, library and number of threads, and the result is kept.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, Field, TypeAdapter

from palate.model.backbone import cache_root
from palate.model.device import NATIVE_BF16, autocast, bfloat16_setting, native_bfloat16
from palate.model.options import Dtype
from palate.records import write_text
from palate.types import digest

Work = Literal["scoring", "training"]
"""A forward pass alone, or with its backward pass."""

# What bfloat16 must win to be taken: less is noise, and float32 keeps more digits.
WORTH = 1.05
# The layer that is timed, SmolLM2-135M's, and two HH pairs; raise TIMED where either changes.
WIDTH, INNER, HEADS, KEY_HEADS, PROMPT, RESPONSE, PAIRS, TIMED = 576, 1_536, 9, 3, 128, 48, 2, 1
ROUNDS = 3
HOPELESS = 3.0  # Times slower in the first round: another round would say the same.

log = logging.getLogger(__name__)


class Seconds(BaseModel, frozen=True):
    """Seconds of one decoder layer over two comparisons: the best of a few rounds."""

    float32: float = Field(gt=0)
    bfloat16: float = Field(gt=0)

    @property
    def faster(self) -> torch.dtype:
        """The faster format; float32 where bfloat16 wins less than noise."""
        return torch.bfloat16 if self.float32 > WORTH * self.bfloat16 else torch.float32


class Timing(BaseModel, frozen=True):
    """Both formats, in a forward pass alone and with its backward pass."""

    scoring: Seconds
    training: Seconds

    def of(self, work: Work) -> Seconds:
        """The part for one kind of work."""
        return self.scoring if work == "scoring" else self.training


class Note(BaseModel, frozen=True):
    """A timing as it is kept, with what it depends on in words."""

    timing: Timing
    machine: dict[str, str]
    threads: int


NOTES = TypeAdapter(dict[str, Note])


@dataclass(frozen=True, slots=True)
class Choice:
    """A number format and why it was taken."""

    dtype: torch.dtype
    why: str


def name_of(dtype: torch.dtype) -> Literal["float32", "bfloat16"]:
    """The name in recipes and protocols."""
    return "bfloat16" if dtype == torch.bfloat16 else "float32"


def named_dtype(name: str) -> torch.dtype:
    """The number format of a name, which is not `auto`."""
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def compute_dtype(option: Dtype, device: torch.device, work: Work = "scoring") -> torch.dtype:
    """The number format of matrix products; weights, head and loss stay float32."""
    chosen = choose_dtype(option, device, work)
    if option == "auto":
        log.info("number format of %s: %s, %s", work, name_of(chosen.dtype), chosen.why)
    return chosen.dtype


def choose_dtype(option: Dtype, device: torch.device, work: Work = "scoring") -> Choice:
    """As `compute_dtype`, with the reason.

    `auto` is decided by `PALATE_NATIVE_BF16` where that is set, else by the hardware, and on a
    CPU with native bfloat16 by timing both, which takes a second on first use.
    """
    if option != "auto":
        return Choice(named_dtype(option), "as asked")
    native, setting = native_bfloat16(device), bfloat16_setting()
    if setting is not None:
        return Choice(torch.bfloat16 if native else torch.float32, f"{NATIVE_BF16}={int(setting)}")
    if not native:
        return Choice(torch.float32, f"this {device.type} emulates bfloat16")
    if device.type != "cpu":
        return Choice(torch.bfloat16, f"native on this {device.type}")
    seconds = timing().of(work)
    return Choice(
        seconds.faster,
        f"{work} a layer takes {1e3 * seconds.bfloat16:.0f} ms in bfloat16, "
        f"{1e3 * seconds.float32:.0f} in float32 (measured once, kept in {stored_at()})",
    )


def timing() -> Timing:
    """What is known of this CPU's formats, measured where nothing is known yet."""
    return _timing(stored_at(), torch.get_num_threads())


@cache
def _timing(path: Path, threads: int) -> Timing:
    try:
        stored = NOTES.validate_json(path.read_bytes())
    except (OSError, ValueError):  # Missing or damaged: soon made again.
        stored = {}
    key = digest(_machine(), threads)
    if key in stored:
        return stored[key].timing
    timing = measure()
    stored[key] = Note(timing=timing, machine=_machine(), threads=threads)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, NOTES.dump_json(stored, indent=2).decode() + "\n")
    except OSError as error:  # A read-only home: measured again by the next process.
        log.warning("%s: cannot be written (%s); set PALATE_CACHE", path, error.strerror)
    return timing


def stored_at() -> Path:
    """The file of all timings."""
    return cache_root() / "number-formats.json"


def _machine() -> dict[str, str]:
    """What the timing depends on, but for threads: the CPU, its instructions, the library."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return {
        "cpu": next(names, platform.processor() or platform.machine()),
        "instructions": digest({k: str(v) for k, v in torch.cpu.get_capabilities().items()}),
        "aten": torch.backends.cpu.get_cpu_capability(),
        "onednn": os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", "")),
        "torch": torch.__version__,
        "timed": str(TIMED),
    }


def measure() -> Timing:
    """Time SmolLM2-135M's decoder layer over two comparisons in both formats."""
    from transformers import LlamaConfig

    layer = LlamaConfig(
        hidden_size=WIDTH, intermediate_size=INNER, num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
    )  # fmt: skip
    seconds = time_layer(layer, PROMPT, RESPONSE, PAIRS, (torch.float32, torch.bfloat16))
    scoring, training = (
        Seconds(**{name_of(dtype): times[i] for dtype, times in seconds.items()}) for i in range(2)
    )
    return Timing(scoring=scoring, training=training)


def time_layer(
    config: Any, prompt: int, response: int, pairs: int, dtypes: Sequence[torch.dtype]
) -> dict[torch.dtype, tuple[float, float]]:
    """Seconds of the first decoder layer of `config` with random weights: forward, and both ways.

    Of a hybrid those of the first layers, up to one of each kind. In turns, so that a neighbour
    slows all formats alike; the best of a few rounds. The row is of `pairs` comparisons of that
    many tokens, packed as in training.
    """
    from transformers import AutoModel

    from palate.model.attention import NAME, supports_shared_prefix
    from palate.model.backbone import first_of_each_kind, keep_layers
    from palate.model.packing import Group, pack
    from palate.model.recurrence import share_states

    config = deepcopy(config.get_text_config())
    keep_layers(config, first_of_each_kind(config), "the timed layer")
    config.vocab_size = 2  # Embeddings take memory, and no time.
    config.pad_token_id = config.bos_token_id = config.eos_token_id = None
    tokens = [np.zeros(length, dtype=np.int32) for length in (prompt, response, response)]
    times: dict[torch.dtype, list[tuple[float, float]]] = {dtype: [] for dtype in dtypes}
    # No random number of the caller's is drawn, and the caller may be in inference mode.
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        model = AutoModel.from_config(config).eval()  # Without dropout, as training is.
        packed = pack([Group(tokens[0], (tokens[1], tokens[2]))] * pairs)
        row = {"input_ids": packed.ids, "position_ids": packed.positions, "use_cache": False}
        if supports_shared_prefix(model):
            model.set_attn_implementation(NAME)
            share_states(model)
            row["layout"] = packed.layout
        for _ in range(1 + ROUNDS):  # The first warms up.
            for dtype, seconds in times.items():
                start = time.perf_counter()
                with autocast(dtype, torch.device("cpu")):
                    hidden = model(**row).last_hidden_state
                forward = time.perf_counter() - start
                hidden.float().square().mean().backward()
                seconds.append((forward, time.perf_counter() - start))
            first = [seconds[0][1] for seconds in times.values()]
            if max(first) > HOPELESS * min(first):
                break
    best = {d: np.min(seconds[1:] or seconds, axis=0) for d, seconds in times.items()}
    return {dtype: (float(forward), float(both)) for dtype, (forward, both) in best.items()}
