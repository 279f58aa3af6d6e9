"""Which process this is, as torchrun's environment describes it."""

import subprocess
import sys

from palate.process import Process, this_process

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def test_alone_it_leads(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    assert this_process() == Process()
    assert this_process().leads


def test_one_of_many_is_what_torchrun_set(monkeypatch):
    for name, value in zip(NAMES, ("5", "8", "1", "4"), strict=True):
        monkeypatch.setenv(name, value)
    found = this_process()
    assert found == Process(rank=5, size=8, local_rank=1, local_size=4, torchrun=True)
    assert not found.leads
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert this_process().local_size == 8


def test_it_needs_no_torch():
    code = "import sys, palate.process; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
