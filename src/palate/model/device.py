"""Which device to compute on and what it does natively, and an allocator that keeps its memory."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import AbstractContextManager, nullcontext

import torch

from palate.types import PalateError

NATIVE_BF16 = "PALATE_NATIVE_BF16"
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def default_device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def bfloat16_setting() -> bool | None:
    """What the environment says of bfloat16: native (1) or emulated (0); None: as the device is.

    Raises:
        PalateError: it says something else.
    """
    value = os.environ.get(NATIVE_BF16, "auto").strip().lower()
    settings = {"1": True, "0": False, "auto": None, "": None}
    if value not in settings:
        raise PalateError(f"{NATIVE_BF16}={value}: expected 0, 1 or auto")
    return settings[value]


def native_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 counts as native: multiplied in hardware, by the libraries that are used.

    Without it bf16 is emulated: on a CPU with AVX2 alone, 1.2 GFLOP/s against 84 in float32. The
    CPU's flags do not suffice: oneDNN and torch's own kernels may be told to leave instructions
    out (ONEDNN_MAX_CPU_ISA, ATEN_CPU_CAPABILITY). `PALATE_NATIVE_BF16` overrides all of it.
    """
    setting = bfloat16_setting()
    if setting is not None:
        return setting
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        flags = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        kernels = "AVX512" in torch.backends.cpu.get_cpu_capability()
        return flags and kernels and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return False


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
