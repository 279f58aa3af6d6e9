"""What the math libraries are told before torch loads them: cores, waiting, machine code to keep.

libgomp, torch's OpenMP, reads the environment when it is loaded. Its threads spin at the end of
every parallel region until the last one arrives. With a busy neighbour on one of the cores the last
one is late at each of thousands of small regions, and a step takes ten times as long; threads that
sleep meanwhile cost nothing that could be measured on a machine alone (`docs/engine.md`). And it
starts a thread for each core of the affinity mask, which a container's quota does not show in.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
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

    What `PALATE_CORES` says; else the affinity mask (taskset, Slurm, cpusets), or a smaller quota
    of a cgroup, version 1 or 2 (containers, systemd's CPUQuota=), rounded. `root` is where /proc
    and /sys are.
    """
    if (said := said_of_cores()) is not None:
        return said
    quotas = [affinity(), *(round(quota) for quota in _quotas(root))]
    return max(1, min(quotas))


def said_of_cores() -> int | None:
    """What `PALATE_CORES` says; None where it says nothing, or no number (see `palate doctor`)."""
    said = os.environ.get(CORES, "").strip()
    return int(said) if said.isdecimal() and int(said) else None


def affinity() -> int:
    """Cores that this process may be scheduled on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def library_settings(environment: Mapping[str, str], root: Path = ROOT) -> dict[str, str]:
    """What the environment lacks before torch is loaded.

    Nothing that it says already is changed, and their number is left to OpenMP where that sees all
    that limits it.
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
        if number == "0" and not controllers:
            mounts, read = ["", "unified"], _quota_v2
        elif "cpu" in controllers.split(","):
            mounts, read = [controllers, "cpu"], _quota_v1
        else:
            continue
        for mount in mounts:
            for folder in _upwards(root / "sys/fs/cgroup" / mount, path):
                if (quota := read(folder)) is not None:
                    yield quota


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """A cgroup's folder and those above it, to the mount.

    A container sees its own cgroup at the mount, whatever its path is called outside.
    """
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    for count in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:count])


def _quota_v2(folder: Path) -> float | None:
    """Of `cpu.max`: "quota period" in microseconds, or "max period"."""
    return _ratio(_words(folder / "cpu.max"))


def _quota_v1(folder: Path) -> float | None:
    """Of two files; a quota of -1 is none."""
    return _ratio(_words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us"))


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except OSError:
        return []


def _ratio(words: list[str]) -> float | None:
    if len(words) != 2 or not all(word.isdecimal() for word in words) or not int(words[1]):
        return None
    return int(words[0]) / int(words[1])
