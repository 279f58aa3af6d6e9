"""Settings of the math libraries, made before torch loads them: threads, waiting, kernel caches.

libgomp, torch's OpenMP, reads the environment when it is loaded. Its threads spin at the end of
every parallel region until the last one arrives. With a busy neighbour on one of the cores the last
one is late at each of thousands of small regions, and a step takes ten times as long; threads that
sleep meanwhile cost nothing that could be measured on a machine alone (`docs/engine.md`). And it
starts a thread for each core of the affinity mask, which a container's quota does not show in.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

CORES = "PALATE_CORES"
# oneDNN compiles each matrix product for its exact shape and keeps 1,024 of them, torch another
# 1,024: in bfloat16 some 0.5 MB each, and every micro-batch has a length of its own. One
# micro-batch needs 15 or so; with 128 the memory is bounded and no time is lost (measured, torch
# 2.13 with AMX).
KERNELS = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128", "LRU_CACHE_CAPACITY": "128"}
ROOT = Path("/")


def cores(root: Path = ROOT) -> int:
    """CPU cores' worth of time that this process may use, at least 1.

    The number in `PALATE_CORES`; else the affinity mask (taskset, Slurm, cpusets), or a smaller
    quota of a cgroup, version 1 or 2 (containers, systemd's CPUQuota=), rounded. `root` is where
    /proc and /sys are.
    """
    if (setting := cores_setting()) is not None:
        return setting
    quotas = [affinity(), *(round(quota) for quota in _quotas(root))]
    return max(1, min(quotas))


def cores_setting() -> int | None:
    """The number in `PALATE_CORES`; None where it has none (see `palate doctor`)."""
    setting = os.environ.get(CORES, "").strip()
    return int(setting) if setting.isdecimal() and int(setting) else None


def affinity() -> int:
    """Cores that this process may be scheduled on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def library_settings(environment: Mapping[str, str], root: Path = ROOT) -> dict[str, str]:
    """The variables to add to the environment before torch is loaded.

    Nothing in it is changed, and the number of threads is left to OpenMP where that sees all that
    limits it.
    """
    settings = {"OMP_WAIT_POLICY": "PASSIVE", **KERNELS}
    if (count := cores(root)) != affinity():
        settings["OMP_NUM_THREADS"] = str(count)
    return {name: value for name, value in settings.items() if name not in environment}


def _quotas(root: Path) -> Iterator[float]:
    """Quotas in cores of the cgroups that this process is in, and of those that hold them."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:  # Version 2: "quota period" in us, or "max period".
            mounts, files = ["", "unified"], ["cpu.max"]
        elif "cpu" in controllers.split(","):  # Version 1: two files; a quota of -1 is none.
            mounts, files = [controllers, "cpu"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", ".", "..")]
        for mount in mounts:
            # Up to the mount: a container sees its own cgroup there, whatever its path is outside.
            for depth in range(len(parts), -1, -1):
                folder = root.joinpath("sys/fs/cgroup", mount, *parts[:depth])
                words: list[str] = []
                for file in files:
                    with suppress(OSError):
                        words += (folder / file).read_text(encoding="utf-8").split()
                if len(words) == 2 and all(map(str.isdecimal, words)) and int(words[1]):
                    yield int(words[0]) / int(words[1])
