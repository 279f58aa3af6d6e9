"""Processes of their own, to be killed or to train together, forked from one that loaded torch.

A fresh interpreter needs five seconds for its imports; a forked one starts at once.
"""

import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

_SERVER = multiprocessing.get_context("forkserver")
_LOADED = [
    "palate.train.loop", "torch.distributed.fsdp", "transformers.models.llama.modeling_llama",
    "apart", "tiny",
]  # fmt: skip


def start(job: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """Run `job`, a function of a module beside this one, in a process of its own."""
    # The server is started by the first call and finds the modules through its environment.
    paths = [str(Path(__file__).parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(p for p in paths if p))
    _SERVER.set_forkserver_preload(_LOADED)
    process = _SERVER.Process(target=job, args=arguments)
    process.start()
    return process


def finish(process: ForkServerProcess) -> None:
    """Wait for a process that should end well."""
    process.join()
    assert process.exitcode == 0, f"exit code {process.exitcode}; its output is above"


def together(world: int, job: Callable[..., None], folder: Path, *arguments: Any) -> None:
    """Run `job(rank, world, ...)` in `world` processes with gloo between them."""
    meeting = folder / f"meeting-{time.monotonic_ns()}"
    ranks = [start(_member, job, rank, world, meeting, *arguments) for rank in range(world)]
    for process in ranks:
        finish(process)


def _member(job: Callable[..., None], rank: int, world: int, meeting: Path, *rest: Any) -> None:
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{meeting}", rank=rank, world_size=world
        )
    job(rank, world, *rest)
    if world > 1:
        dist.destroy_process_group()


def under_torchrun(world: int, job: Callable[..., None], *arguments: Any) -> None:
    """Run `job(...)` in `world` processes with the environment that torchrun would give them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [start(_launched, job, rank, world, port, *arguments) for rank in range(world)]
    for process in ranks:
        finish(process)


def _launched(job: Callable[..., None], rank: int, world: int, port: int, *rest: Any) -> None:
    torch.set_num_threads(1)
    named = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    os.environ.update({name: str(value) for name, value in named.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    job(*rest)


def kill_when(process: ForkServerProcess, there: Callable[[], bool]) -> bool:
    """Kill -9 while `there()` holds; False where the process ended before it did.

    It is stopped first, so that what was seen is still so when it dies.
    """
    pid = process.pid
    assert pid is not None
    while process.is_alive():
        if there():
            os.kill(pid, signal.SIGSTOP)
            while _state(pid) not in "TZX":
                time.sleep(0.0005)
            if there():
                process.kill()
                process.join()
                return process.exitcode == -signal.SIGKILL
            os.kill(pid, signal.SIGCONT)
        time.sleep(0.0005)
    return False


def _state(pid: int) -> str:
    """One letter: T for stopped, Z for ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "X"
