"""Threads follow what the process may really use, and wait without spinning."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import palate
from palate import cpus
from palate.cpus import affinity, cores, library_settings

SOURCE = str(Path(palate.__file__).parents[1])
V1 = "11:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PALATE_CORES", raising=False)
    monkeypatch.setattr(cpus, "affinity", lambda: 8)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"proc/self/cgroup": "0::/\n"}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "10000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "6400000 100000\n"}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "damaged"}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/unified/cpu.max": "400000 200000"}, 2),
        (  # A service under a slice with the smaller quota.
            {
                "proc/self/cgroup": "0::/a.slice/b.service\n",
                "sys/fs/cgroup/a.slice/cpu.max": "200000 100000\n",
                "sys/fs/cgroup/a.slice/b.service/cpu.max": "500000 100000\n",
            },
            2,
        ),
        (  # A container that sees its own cgroup at the mount, named as it is outside.
            {"proc/self/cgroup": "0::/kubepods/x\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"},
            4,
        ),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "50000\n",
            },
            5,
        ),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            8,
        ),
        ({"proc/self/cgroup": "0::/../../x\n", "sys/fs/cgroup/cpu.max": "700000 100000"}, 7),
    ],
)
def test_pitfall_40_cores_follow_affinity_and_the_quota_of_either_cgroup(
    files: dict[str, str], expected: int, tmp_path: Path, eight: None
) -> None:
    root = write(tmp_path, files)
    assert cores(root) == expected
    threads = library_settings({}, root).get("OMP_NUM_THREADS")
    assert threads == (None if expected == 8 else str(expected)), "what OpenMP sees is left to it"


def test_their_number_can_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALATE_CORES", "3")
    assert cores() == 3
    for nothing in ("", "many", "0", "-2"):
        monkeypatch.setenv("PALATE_CORES", nothing)
        assert 1 <= cores() <= affinity()


def test_what_the_user_says_is_not_changed(tmp_path: Path, eight: None) -> None:
    root = write(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000"})
    found = library_settings({}, root)
    assert found == {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "2", **cpus.KERNELS}
    own = dict.fromkeys(found, "own")
    assert library_settings(own, root) == {}


PROBE = """
import sys, palate, palate.cli
assert "torch" not in sys.modules
import json, os, torch
print(json.dumps([os.environ["OMP_WAIT_POLICY"], torch.get_num_threads()]))
"""


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"PALATE_CORES": "1"}, ["PASSIVE", 1]),
        ({"PALATE_CORES": "9", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "ACTIVE"}, ["ACTIVE", 1]),
    ],
)
def test_pitfall_40_it_is_set_before_torch_is_loaded(
    said: dict[str, str], expected: list[object]
) -> None:
    bare = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")}
    done = subprocess.run(
        [sys.executable, "-c", PROBE], env=bare | {"PYTHONPATH": SOURCE} | said,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == expected
