"""Which device and number format to compute with, and an allocator that keeps its memory."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import AbstractContextManager, nullcontext

import torch

from palate.model.options import Dtype

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def default_device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def cores() -> int:
    """CPU cores that this process may use: `taskset`, Slurm and the like leave it fewer."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def native_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware.

    Without it bf16 is emulated: on a CPU with AVX2 alone, 1.2 GFLOP/s against 84 in float32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        capabilities = (torch.cpu._is_avx512_bf16_supported, torch.cpu._is_amx_tile_supported)
        return any(capability() for capability in capabilities)
    return False


def compute_dtype(option: Dtype, device: torch.device) -> torch.dtype:
    """The number format of matrix products; weights, head and loss stay float32."""
    if option == "auto":
        return torch.bfloat16 if native_bfloat16(device) else torch.float32
    return torch.bfloat16 if option == "bfloat16" else torch.float32


def autocast(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[object]:
    """Matrix products in `dtype`; nothing where that is float32."""
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype)


def keep_memory() -> bool:
    """Tell glibc to keep freed memory instead of returning it to the system at every step.

    Returning and faulting it in again costs 10-30 % of a CPU training step (`docs/numbers.md`).
    False where the C library is another one.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    gigabytes = 2**30
    return bool(mallopt(M_MMAP_THRESHOLD, gigabytes) and mallopt(M_TRIM_THRESHOLD, gigabytes))
