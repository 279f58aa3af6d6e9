"""Which process this is, as torchrun's environment describes it."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from palate.process import Process, temporary_folder, this_process

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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_folder_for_a_while_goes_when_the_process_is_ended(tmp_path, monkeypatch, number):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    code = (
        "import signal, time; from palate.process import temporary_folder\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "with temporary_folder('a-') as a, temporary_folder('b-') as b: print(a, b, flush=True); "
        "time.sleep(60)"
    )
    words = [sys.executable, "-c", code]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(words, **pipes) as process:
        made = [Path(word) for word in process.stdout.readline().split()]
        assert [folder.is_dir() for folder in made] == [True, True]
        process.send_signal(number)
    assert list(tmp_path.iterdir()) == []
    assert process.returncode == (143 if number == signal.SIGTERM else -signal.SIGINT)


def test_who_handles_sigterm_already_goes_on_doing_so(monkeypatch):
    handled = []
    before = signal.signal(signal.SIGTERM, lambda number, _: handled.append(number))
    try:
        with temporary_folder("mine-") as folder:
            signal.raise_signal(signal.SIGTERM)
            assert Path(folder).is_dir()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert handled == [signal.SIGTERM]
    with temporary_folder("default-"):
        pass
    assert signal.getsignal(signal.SIGTERM) == before
