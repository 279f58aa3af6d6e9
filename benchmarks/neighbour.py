"""What one busy process beside it costs two threads: a training step, scoring, and a server.

    python -m benchmarks.neighbour [--layers 6] [--rounds 5] [--dtype bfloat16]

Each contender is asked alone and then beside a process that does nothing but count, in turns; the
ratio is of one round. It waits as `import palate` sets (threads that sleep); with `--spinning` as
OpenMP does where it is told to be active, and then one kind of work is started at a time, since
threads that spin are neighbours themselves. Two cores are the case that matters: with more, the
neighbour has one to itself. Ends with one JSON line.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from benchmarks.peers.contender import DTYPES, OURS, WORK, Command, Contender
from benchmarks.peers.prepare import prepared, write_rows
from benchmarks.peers.turns import middle, say
from benchmarks.score.__main__ import draw_windows
from benchmarks.serve.asked import served_model
from benchmarks.serve.load import ask_all
from benchmarks.serve.served import palate_serve
from benchmarks.train.steps import draw_steps

KINDS = ("train", "score", "serve")
FOLDER = WORK / "neighbour"
PAIRS = 16
Pair = tuple[float, float]


@contextmanager
def busy_process() -> Iterator[None]:
    """One that keeps a core busy as long as it may."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.5)
        yield
    finally:
        process.kill()
        process.wait()


class Work:
    """The model and the pairs, and how each kind of work on them is started."""

    def __init__(self, layers: int, dtype: str, threads: int, *, spinning: bool) -> None:
        self.threads = threads
        self.variables = {"OMP_WAIT_POLICY": "ACTIVE"} if spinning else {}
        model, pairs = prepared(layers)
        self.served, self.rows, _ = served_model(layers)
        steps = write_rows(FOLDER / "steps.jsonl", draw_steps(pairs, 1, PAIRS, seed=0))
        windows = write_rows(FOLDER / "windows.jsonl", draw_windows(pairs, 1, PAIRS))
        given = ["--model", model, "--dtype", dtype]
        self.dtype, self.score = dtype, [*given, "--rows", windows]
        self.train = [
            *given, "--rows", steps, "--path", "shared", "--layers", layers, "--budget", 4096,
            "--learning-rate", 1e-4,
        ]  # fmt: skip

    def start(self, kind: str, stack: ExitStack) -> Callable[[], float]:
        """Seconds of one window of `kind`, each time that it is called."""
        if kind == "serve":
            given = [self.served, "--dtype", self.dtype, "--prompt-cache-megabytes", 0]
            server = palate_serve(kind, self.threads, *given, variables=self.variables)
            address = stack.enter_context(server).address
            return lambda: ask_all(address, self.rows[:PAIRS], PAIRS).seconds
        arguments, request = (
            (self.train, {"step": 1}) if kind == "train" else (self.score, {"window": 1})
        )
        command = Command(kind, OURS, f"benchmarks.{kind}.ours", arguments, self.variables)
        contender = stack.enter_context(Contender(command, self.threads))
        return lambda: float(contender.ask(**request)["seconds"])


def ask_in_turns(asked: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[Pair]]:
    """Seconds alone and seconds beside the neighbour, by kind, a pair a round after the first."""
    found: dict[str, list[Pair]] = {name: [] for name in asked}
    for number in range(rounds + 1):
        for name, ask in asked.items():
            alone = ask()
            with busy_process():
                beside = ask()
            if number:  # The first round warms up.
                found[name].append((alone, beside))
            say(f"{name} {number}/{rounds}: {alone:.2f} s alone, {beside:.2f} s beside")
    return found


def main() -> None:
    """Ask each kind of work alone and beside the busy process, in turns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--spinning", action="store_true", help="threads that never sleep")
    given = parser.parse_args()
    work = Work(given.layers, given.dtype, given.threads, spinning=given.spinning)
    found: dict[str, list[Pair]] = {}
    for kinds in [[kind] for kind in KINDS] if given.spinning else [KINDS]:
        with ExitStack() as stack:
            asked = {kind: work.start(kind, stack) for kind in kinds}
            found |= ask_in_turns(asked, given.rounds)
    ratios = {kind: middle([beside / alone for alone, beside in v]) for kind, v in found.items()}
    line = {
        "benchmark": "neighbour",
        **{kind: round(values["median"], 2) for kind, values in ratios.items()},
        "range": {n: [round(v["min"], 2), round(v["max"], 2)] for n, v in ratios.items()},
        "alone_seconds": {
            n: round(middle([alone for alone, _ in v])["median"], 3) for n, v in found.items()
        },
    }
    print(json.dumps(line | vars(given)))


if __name__ == "__main__":
    main()
