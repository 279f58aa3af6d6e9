"""Mixed load with faults: every answer is compared with the offline reward, memory is watched.

Beside clients that behave there are some that send and read slowly, that hang up, that send too
much, or what is no request, or that want an answer at once; and the process that computes is
killed. A request of a client that behaves is lost if it is never answered: refusals (429, 503, 504)
are tried again. At the end the server is told to stop while all of them are waiting.

    python -m benchmarks.serve.soak [--layers N] [--seconds N] [--threads N]   # by itself
"""

import argparse
import asyncio
import contextlib
import json
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from benchmarks.peers.contender import OURS, WORK, Command, Contender
from benchmarks.peers.prepare import write_rows
from benchmarks.peers.turns import say
from benchmarks.serve.asked import served_model
from benchmarks.serve.clients import Going, slow, steady
from benchmarks.serve.faults import hangs_up, hurried, no_request, too_much
from benchmarks.serve.memory import growth, plot, resident
from benchmarks.serve.served import Served, palate_serve
from benchmarks.serve.shapes import Row

POOL = 128  # Pairs that are asked about again and again; their offline rewards are made once.
STEADY, SLOW = 12, 2
FIRST_KILL_SECONDS, BETWEEN_KILLS_SECONDS = 8.0, 60.0  # Starting again takes about ten.


def soak(model: Path, pairs: Sequence[Row], seconds: float, threads: int, out: Path) -> Row:
    """Run it for so long; counts of answers, and how much memory grew."""
    rows = random.Random(4).sample(list(pairs), POOL)
    command = Command("offline", OURS, "benchmarks.serve.bare", ["--model", model])
    with Contender(command, threads) as offline:
        file = write_rows(out / "soak.jsonl", rows)
        truth = offline.ask(rows=str(file), offline=True)["rewards"]
    rows = [{**row, "rewards": rewards} for row, rewards in zip(rows, truth, strict=True)]
    with palate_serve("palate-soak", threads, model, "--workers", 1) as server:
        state = Going(server.address, rows, time.monotonic() + seconds)
        status = asyncio.run(_run(state, server))
    plot(state.memory, out / "memory.svg")
    found = {
        "answers": state.counts["right"] + state.counts["wrong"],
        "wrong": state.counts["wrong"],
        "lost": state.counts["lost"] + state.counts["unexpected"],
        "memory_growth": growth(state.memory),
        "exit_status": status,
        "counts": dict(state.counts),
        "odd": state.odd,
        "memory": state.memory,
    }
    say(f"soak: {found['counts']}; memory growth {found['memory_growth']}")
    for line in state.odd:
        say(line)
    return found


async def _run(state: Going, server: Served) -> int:
    faults = (hangs_up, too_much, no_request, hurried)
    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(steady(state, n)) for n in range(STEADY)]
        clients += [group.create_task(slow(state, n)) for n in range(SLOW)]
        others = [group.create_task(fault(state, random.Random(9))) for fault in faults]
        others.append(group.create_task(_kill(state, server)))
        others.append(group.create_task(_watch(state, server)))
        while not state.over:
            await asyncio.sleep(0.2)
        for other in others:
            other.cancel()
        # All of them have a request under way or are about to send one.
        state.leaving = True
        server.process.send_signal(signal.SIGTERM)
        await asyncio.wait(clients)
    return await asyncio.to_thread(server.process.wait, 120)


async def _kill(state: Going, server: Served) -> None:
    """Kill the process that computes, again and again."""
    pause = FIRST_KILL_SECONDS
    while True:
        await asyncio.sleep(pause)
        pause = BETWEEN_KILLS_SECONDS
        for child in psutil.Process(server.process.pid).children():
            with contextlib.suppress(psutil.Error):
                if "spawn_main" in " ".join(child.cmdline()):
                    child.kill()
                    state.note("killed")


async def _watch(state: Going, server: Served) -> None:
    started = time.monotonic()
    while True:
        state.memory.append((time.monotonic() - started, resident(server.process.pid)))
        await asyncio.sleep(1)


def main() -> None:
    """Read the size from the command line, run, print one JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=1_800.0)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    model, pairs, _ = served_model(given.layers)
    found = soak(model, pairs, given.seconds, given.threads, WORK / "serve")
    print(json.dumps({**vars(given), **{k: v for k, v in found.items() if k != "memory"}}))


if __name__ == "__main__":
    main()
