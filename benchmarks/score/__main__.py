"""Scoring beside RewardBench's pipeline and plain transformers loops; one JSON line of ratios.

    python -m benchmarks.score [--quick] [--layers N] [--pairs N] [--repeats N]
                               [--dtype bfloat16] [--base CHECKOUT]

`make bench-score` makes the environments first. What is equal and how: benchmarks/README.md.
"""

import argparse
import json
import random
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import pstdev
from typing import Any

from benchmarks.peers.contender import (
    KEEP_MEMORY,
    OURS,
    REWARDBENCH,
    WORK,
    Command,
    Contender,
    add_options,
    imports_from,
    vs_today,
)
from benchmarks.peers.prepare import SUBSETS, prepared, write_rows
from benchmarks.peers.turns import Windows, middle, rates, say, speedup, table, take_turns

FOLDER = WORK / "score"
PEERS = ("rewardbench", "transformers_sorted", "transformers_default")
LOOP = "benchmarks.score.transformers_loop"
Row = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How much is run."""

    layers: int
    pairs: int
    repeats: int
    batches: tuple[int, ...]
    threads: int
    dtype: str
    base: Path | None


def draw_windows(pairs: Sequence[Row], windows: int, pairs_per_window: int) -> list[Row]:
    """Window 0, discarded, of the shortest pairs; then random pairs, half of each subset."""
    by_length = sorted(pairs, key=lambda r: len(r["chosen_ids"]) + len(r["rejected_ids"]))
    drawn = [{**row, "window": 0} for row in by_length[:8]]
    rng, rest = random.Random(0), by_length[8:]
    rng.shuffle(rest)
    share = pairs_per_window // len(SUBSETS)
    pools = [[row for row in rest if row["subset"] == subset] for subset in SUBSETS]
    for window in range(1, windows + 1):
        rows = [row for pool in pools for row in pool[(window - 1) * share : window * share]]
        rng.shuffle(rows)
        drawn += [{**row, "window": window} for row in rows]
    return drawn


def loop(name: str, model: Path, rows: Path, batch: int, dtype: str, *, by_length: bool) -> Command:
    """A transformers loop: as it comes, or sorted and with the allocator setting that we use."""
    arguments = ["--model", model, "--rows", rows, "--batch", batch, "--dtype", dtype]
    if not by_length:
        return Command(name, OURS, LOOP, arguments)
    return Command(name, OURS, LOOP, [*arguments, "--by-length"], KEEP_MEMORY)


def best_batch(size: Size, model: Path, rows: Path) -> tuple[int, dict[int, float]]:
    """The fastest batch size of the sorted loop on the window that is not timed otherwise."""
    found = {}
    for batch in size.batches:
        command = loop(f"sweep_{batch}", model, rows, batch, size.dtype, by_length=True)
        with Contender(command, size.threads) as contender:
            contender.ask(window=0)
            facts = contender.ask(window=size.repeats + 1)
        found[batch] = facts["pairs"] / facts["seconds"]
        say(f"sweep: sorted loop, batch of {batch}: {found[batch]:.3f} pairs/s")
    return max(found, key=lambda batch: found[batch]), found


def run(size: Size) -> dict[str, Any]:
    """Sweep, then every contender on every window, in turns."""
    model, pairs = prepared(size.layers)
    drawn = draw_windows(pairs, size.repeats + 1, size.pairs)
    rows = write_rows(FOLDER / "windows.jsonl", drawn)
    batch, sweep = best_batch(size, model, rows)
    given = ["--model", model, "--rows", rows, "--dtype", size.dtype]
    ours = "benchmarks.score.ours"
    today = imports_from(size.base)
    bench = "benchmarks.score.rewardbench_cli"
    commands = (
        Command("rewardbench", REWARDBENCH, bench, [*given, "--output", FOLDER / "rewardbench"]),
        loop("transformers_default", model, rows, 8, size.dtype, by_length=False),
        loop("transformers_sorted", model, rows, batch, size.dtype, by_length=True),
        Command("palate", OURS, ours, given),
        *([Command("today", OURS, ours, given, today)] if size.base else []),
    )
    with ExitStack() as stack:
        started = [stack.enter_context(Contender(c, size.threads)) for c in commands]
        for contender in started:
            contender.ask(window=0)
        windows = take_turns(started, size.repeats, lambda i: {"window": i + 1}, "window")
    return {"sweep": sweep, "best_batch": batch, "windows": windows}


def scores_of(windows: Sequence[Row]) -> list[float]:
    """All scores of one contender."""
    return [score for w in windows for pair in w["scores"] for score in pair]


def differences(windows: Windows) -> dict[str, float]:
    """The largest difference of a score from Palate's, in standard deviations of ours, by peer."""
    own = scores_of(windows["palate"])
    spread = pstdev(own)
    return {
        peer: max(abs(a - b) for a, b in zip(own, scores_of(windows[peer]), strict=True)) / spread
        for peer in PEERS
    }


def report(size: Size, found: dict[str, Any], quick: bool) -> None:
    """Tables on stderr, everything in a file, and the ratios as the last line of stdout."""
    windows: Windows = found["windows"]
    table({name: rates(rows) for name, rows in windows.items()})
    apart = differences(windows)
    for peer, value in apart.items():
        say(f"{peer}: scores differ from ours by at most {value:.1e} standard deviations")
    figures = {f"vs_{peer}": middle(speedup(windows, "palate", peer)) for peer in PEERS}
    if "today" in windows:
        figures[vs_today(size.dtype)] = middle(speedup(windows, "palate", "today"))
    line = {
        "benchmark": "score",
        **{name: round(values["median"], 3) for name, values in figures.items()},
        "max_score_difference": max(apart.values()),
        "range": {n: [round(v["min"], 3), round(v["max"], 3)] for n, v in figures.items()},
        "sorted_batch": found["best_batch"],
        "dtype": size.dtype,
        "layers": size.layers,
        "pairs": size.pairs,
        "repeats": size.repeats,
        "quick": quick,
    }
    (FOLDER / "result.json").write_text(json.dumps({**line, **found}))
    print(json.dumps(line))


def main() -> None:
    """Read the size from the command line, run, report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="under 5 minutes, noisier")
    parser.add_argument("--layers", type=int, help="decoder layers of SmolLM2's 30 that are kept")
    parser.add_argument("--pairs", type=int, help="pairs a window")
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--threads", type=int, default=2)
    add_options(parser)
    given = parser.parse_args()
    size = Size(
        layers=given.layers or (3 if given.quick else 6),
        pairs=given.pairs or (32 if given.quick else 64),
        repeats=given.repeats or (2 if given.quick else 5),
        batches=(4, 16) if given.quick else (2, 4, 8, 16, 32),
        threads=given.threads,
        dtype=given.dtype,
        base=given.base,
    )
    report(size, run(size), given.quick)


if __name__ == "__main__":
    main()
