"""Files appear whole or not at all, also on a disk that is really full."""

import subprocess
import sys
from pathlib import Path

import pytest

from palate.records import atomic, atomic_folder, file_digest, write_json, write_text
from palate.types import PalateError


def test_a_failure_in_the_middle_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "kept.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), atomic(path) as partial:
        partial.write_text(f"new, but cut {1 / 0}")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with atomic_folder(folder) as partial:
        write_json(partial / "a.json", {"version": 1})
    with pytest.raises(ZeroDivisionError), atomic_folder(folder) as partial:
        write_json(partial / "a.json", {"version": 1 / 0})
    assert '"version": 1' in (folder / "a.json").read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_pitfall_37_the_umask_says_who_reads_a_folder_whatever_wrote_it(
    tmp_path: Path, umask: int, mode: int
) -> None:
    """In a process of its own, since the umask is one for all threads."""
    script = f"""
import os
from pathlib import Path
import torch
from palate.records import atomic_folder
from safetensors.torch import save_file
os.umask({umask})
with atomic_folder(Path({str(tmp_path)!r}) / "model") as partial:
    save_file({{"weight": torch.zeros(1)}}, partial / "model.safetensors")
    (partial / "below").mkdir()
    save_file({{"weight": torch.zeros(1)}}, partial / "below" / "head.safetensors")
    (partial / "config.json").write_text("{{}}")
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    files = [path for path in (tmp_path / "model").rglob("*") if path.is_file()]
    assert len(files) == 3
    assert {path.stat().st_mode & 0o777 for path in files} == {mode}


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    """The system refuses to write past 1 MB, as a full disk would."""
    script = f"""
import os, resource, signal
from pathlib import Path
from palate.records import write_comparisons
from palate.types import Comparison, Message, PalateError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
rows = (
    Comparison(str(i), "s", (Message("user", "x"),), os.urandom(2000).hex(), "b", "p")
    for i in range(5000)
)
try:
    write_comparisons(Path({str(tmp_path)!r}) / "full.parquet", rows)
except PalateError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "full.parquet: cannot be written" in done.stdout, done.stderr
    assert done.stdout.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_parent_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PalateError, match="cannot be written"):
        write_text(tmp_path / "file" / "below.txt", "x")


def test_a_large_file_is_sampled_and_still_told_apart(tmp_path: Path, monkeypatch) -> None:
    path, whole = tmp_path / "weights", bytes(range(256)) * 4096
    path.write_bytes(whole)
    full = file_digest(path)
    monkeypatch.setattr("palate.records.WHOLE_DIGEST_BYTES", 1000)
    sampled = file_digest(path)
    assert sampled == file_digest(path)
    assert len(sampled) == len(full) == 32
    path.write_bytes(whole[:-1] + b"x")
    assert file_digest(path) != sampled
