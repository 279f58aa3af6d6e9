"""What an engine starts is ended with it: at the end, on a fault, and when its parent is killed."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from palate.engines.session import GUARD

# A server like vLLM: it starts another process, in a session of its own, and both ignore SIGTERM.
STUBBORN = textwrap.dedent(
    """
    import os, signal, subprocess, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if len(sys.argv) > 2:
        below = subprocess.Popen([sys.executable, __file__, sys.argv[1]], start_new_session=True)
    with open(sys.argv[1], "a") as pids:
        pids.write(f"{os.getpid()}\\n")
    time.sleep(600)
    """
)
PARENT = textwrap.dedent(
    """
    import os, signal, subprocess, sys, time
    # A shell starts what runs in its background, as these tests may, with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    read, write = os.pipe()
    guard = subprocess.Popen(
        [sys.executable, "-I", "-S", sys.argv[1], str(read), sys.executable, *sys.argv[2:], "more"],
        pass_fds=(read,), start_new_session=True,
    )
    os.close(read)
    time.sleep(60)
    """
)


def started(pids: Path, count: int = 2) -> list[psutil.Process]:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        lines = pids.read_text().split() if pids.is_file() else []
        if len(lines) == count:
            return [psutil.Process(int(line)) for line in lines]
        time.sleep(0.02)
    raise AssertionError("not started")


def gone(process: psutil.Process) -> bool:
    try:
        process.wait(30)
    except psutil.TimeoutExpired:
        return False
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_when_the_parent_is_killed(tmp_path: Path, signal_number: int) -> None:
    script, pids = tmp_path / "stubborn.py", tmp_path / "pids"
    script.write_text(STUBBORN)
    words = [sys.executable, "-c", PARENT, str(GUARD), str(script), str(pids)]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as parent:
        below = started(pids)
        os.kill(parent.pid, signal_number)
    assert [gone(process) for process in below] == [True, True]


def test_the_guard_ends_with_the_code_of_what_it_watches(tmp_path: Path) -> None:
    read, write = os.pipe()
    words = [sys.executable, "-I", "-S", str(GUARD), str(read), sys.executable, "-c"]
    done = subprocess.run([*words, "import sys; print('out'); sys.exit(7)"], pass_fds=(read,),
                          capture_output=True, text=True)  # fmt: skip
    os.close(read)
    os.close(write)
    assert (done.returncode, done.stdout) == (7, "out\n")
