"""Runs a command and ends it, with all that it started, when its parent is gone.

    python guard.py FD COMMAND...

FD is the read end of a pipe whose write end only the parent holds. It closes when the parent says
so, and also when the parent is killed: the kernel closes it. Then everything below is killed. On
Linux this process adopts what loses its parent (PR_SET_CHILD_SUBREAPER), so that a grandchild in a
session of its own, as vLLM's engine is, does not get away. It needs the standard library alone and
imports nothing of Palate's: it starts in a few hundredths of a second.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
GRACE_SECONDS = 2.0


def descendants(pid: int) -> list[int]:
    """The processes below `pid`, on Linux; none where there is no /proc."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # "pid (name, which may hold brackets) state ppid ..."
            parent = int((folder / "stat").read_bytes().rpartition(b")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue
        children.setdefault(parent, []).append(int(folder.name))
    found, waiting = [], [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def tell(pids: list[int], number: int) -> None:
    """Send a signal to those that are still there."""
    for pid in pids:
        with suppress(OSError):
            os.kill(pid, number)


def end(child: "subprocess.Popen[bytes]") -> None:
    """End the child and all below: asked first, killed after the grace."""
    with suppress(OSError):
        os.killpg(child.pid, signal.SIGTERM)
    tell(descendants(os.getpid()), signal.SIGTERM)
    until = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < until and (child.poll() is None or descendants(os.getpid())):
        reap()
        time.sleep(0.02)
    with suppress(OSError):
        os.killpg(child.pid, signal.SIGKILL)
    for _ in range(50):  # What starts processes while it is ended is met in the next round.
        left = descendants(os.getpid())
        if not left:
            break
        tell(left, signal.SIGKILL)
        time.sleep(0.02)
        reap()


def reap() -> None:
    """Take the exit of what was adopted: zombies would count as still there."""
    with suppress(OSError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def die_with_guard() -> None:
    """In the child: be killed where the guard itself is killed, which nobody can catch."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def main() -> int:
    """Run the command until it ends or the lifeline does; its exit code, or 1."""
    lifeline, command = int(sys.argv[1]), sys.argv[2:]
    linux = sys.platform == "linux"
    if linux:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    preexec = die_with_guard if linux else None
    child = subprocess.Popen(command, start_new_session=True, preexec_fn=preexec)
    os.close(0)  # The child's alone, and so is stdout: who reads it learns that the child is gone.
    os.close(1)
    while child.poll() is None and not stopped:
        if select.select([lifeline], [], [], 0.1)[0]:  # Readable: closed at the other end.
            break
    code = child.poll()
    end(child)
    return 1 if code is None else abs(code)


if __name__ == "__main__":
    sys.exit(main())
