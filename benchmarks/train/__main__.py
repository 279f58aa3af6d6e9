"""Training beside TRL's RewardTrainer and beside our own slower paths; one JSON line of ratios.

    python -m benchmarks.train [--quick] [--layers N] [--pairs N] [--repeats N] [--steps-only]
                               [--dtype bfloat16] [--base CHECKOUT]

`make bench-train` makes the environments first. What is equal and how: benchmarks/README.md.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.peers.contender import (
    KEEP_MEMORY,
    OURS,
    TRL,
    WORK,
    Command,
    Contender,
    add_options,
    imports_from,
    vs_today,
)
from benchmarks.peers.prepare import prepared, write_rows
from benchmarks.peers.turns import Facts, Windows, middle, rates, say, speedup, table, take_turns
from benchmarks.train.steps import (
    draw_steps,
    draw_subset,
    grouped_padding,
    ranked_sets,
    shared_tokens,
)

LEARNING_RATE = 1e-4
GROWTH_PROMPT_TOKENS = (64, 256, 1024)
GROWTH_RESPONSES = (2, 4, 8)
Row = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How much is run."""

    layers: int
    pairs_per_step: int
    repeats: int
    batches: tuple[int, ...]
    growth: bool
    steps_only: bool
    budget: int
    threads: int
    dtype: str
    base: Path | None
    compiled: bool


class Bench:
    """The model folder, the pairs, and how contenders on them are started."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self.model, self.pairs = prepared(size.layers)
        self.folder = WORK / "train"

    def rows(self, name: str, rows: list[Row]) -> str:
        """A file of rows for workers to read."""
        return str(write_rows(self.folder / f"{name}.jsonl", rows))

    def start(self, command: Command) -> Contender:
        """A started contender."""
        return Contender(command, self.size.threads)

    def trl(self, name: str, rows: str, batch: int, *, best: bool) -> Command:
        """TRL as it comes, or sorted by length and with the allocator setting that we use."""
        arguments = self._arguments(rows, output=self.folder / name, batch=batch)
        extra = ["--by-length"] if best else []
        keep = KEEP_MEMORY if best else {}
        return Command(name, TRL, "benchmarks.train.trl_trainer", [*arguments, *extra], keep)

    def ours(
        self,
        name: str,
        rows: str,
        path: str,
        budget: int | None = None,
        base: Path | None = None,
    ) -> Command:
        """One of our paths, of this checkout or of another."""
        size = self.size
        budget = budget or size.budget
        arguments = self._arguments(rows, path=path, layers=size.layers, budget=budget)
        if size.compiled and base is None:
            arguments.append("--compiled")
        return Command(name, OURS, "benchmarks.train.ours", arguments, imports_from(base))

    def _arguments(self, rows: str, **options: object) -> list[object]:
        given = {
            "model": self.model, "rows": rows, "learning-rate": LEARNING_RATE,
            "dtype": self.size.dtype, **options,
        }  # fmt: skip
        return [part for key, value in given.items() for part in (f"--{key}", value)]


def sweep_batches(bench: Bench) -> dict[int, Facts]:
    """TRL on one sorted step at each batch size."""
    size = bench.size
    drawn = draw_steps(bench.pairs, 1, size.pairs_per_step, seed=1)
    rows = bench.rows("sweep", drawn)
    found = {}
    for batch in size.batches:
        with bench.start(bench.trl(f"trl_sweep_{batch}", rows, batch, best=True)) as contender:
            contender.ask()  # The warm step.
            found[batch] = contender.ask()
        say(f"sweep: TRL, batch of {batch}, sorted: {found[batch]['seconds']:.1f} s")
    return found


def grouped_rate(bench: Bench, sweep: dict[int, Facts]) -> float:
    """Real tokens/s that TRL would reach if its whole data set were grouped by length.

    A step holds too few pairs to group them well, which costs TRL padding that a long run would
    not have. So: padded tokens/s as measured, over the padding of the whole set, at its best batch.
    """
    rates = [
        w["computed_tokens"] / w["seconds"] / grouped_padding(bench.pairs, batch, seed=0)
        for batch, w in sweep.items()
    ]
    return max(rates)


def loss_curves(found: dict[str, Any]) -> dict[str, list[float]]:
    """Loss of every step, the discarded one first, by contender."""
    steps = {name: found["warm"][name] + found["curve"][name] for name in found["curve"]}
    return {name: [w["loss"] for w in rows] for name, rows in steps.items() if "loss" in rows[0]}


def loss_difference(curves: Iterable[list[float]]) -> float:
    """The largest difference between any two curves at one step, in nats."""
    return max(max(step) - min(step) for step in zip(*curves, strict=True))


def run(bench: Bench) -> dict[str, Any]:
    """All phases; contenders stay open so that they can be timed in turns."""
    size = bench.size
    sweep = sweep_batches(bench)
    batch = min(sweep, key=lambda size: sweep[size]["seconds"])
    drawn = draw_steps(bench.pairs, size.repeats, size.pairs_per_step, seed=0)
    rows = bench.rows("steps", drawn)
    found = {
        "sweep": sweep,
        "grouped_tokens_per_second": grouped_rate(bench, sweep),
        "trl_best_batch": batch,
        **windows(bench, rows, batch),
    }
    if not size.steps_only:
        found["memory"] = equal_budget(bench, rows, found["curve"]["trl_default"])
    return found


def windows(bench: Bench, rows: str, batch: int) -> dict[str, Any]:
    """What is timed in turns, TRL at its best `batch`."""
    size = bench.size
    commands = (
        bench.trl("trl_default", rows, 8, best=False),
        bench.trl("trl_best", rows, batch, best=True),
        *([] if size.steps_only else [bench.ours("padded", rows, "padded")]),
        bench.ours("packed", rows, "packed"),
        bench.ours("palate", rows, "shared"),
        *([bench.ours("today", rows, "shared", base=size.base)] if size.base else []),
        Command("gemm", OURS, "benchmarks.peers.gemm", ["--dtype", size.dtype]),
    )
    with ExitStack() as stack:
        started = [stack.enter_context(bench.start(command)) for command in commands]
        by_name = {c.name: c for c in started}
        warm = {c.name: [c.ask(step=0)] for c in started}
        curve = take_turns(started, size.repeats, lambda i: {"step": i + 1}, "step")
        found: dict[str, Any] = {"warm": warm, "curve": curve}
        if size.steps_only:
            return found
        for name in ("trl_default", "trl_best"):  # They train on the steps alone.
            by_name[name].close()
        packed = [by_name["packed"], by_name["palate"]]
        found["harmless"] = take_turns(packed, size.repeats, _harmless(bench), "harmless-base")
        padded = [by_name["padded"], by_name["palate"]]
        four = _ranked(bench, sets=2, responses=4, prompt_tokens=500)
        found["k4"] = take_turns(padded, size.repeats, lambda _: {"rows": four}, "K = 4")
        found["growth"] = _growth(bench, *padded) if size.growth else {}
    return found


def equal_budget(bench: Bench, rows: str, trl: Sequence[Facts]) -> Facts:
    """Our peak memory with a micro-batch of as many tokens as TRL's largest had, padding and all.

    The step holds enough pairs to fill it.
    """
    budget = max(w["largest_microbatch_tokens"] for w in trl)
    drawn, held = [], 0
    for row in draw_subset(bench.pairs, "harmless-base", 1000, seed=5):
        drawn.append(row)
        held += shared_tokens(row)
        if held >= budget:
            break
    path = bench.rows("memory", drawn)
    with bench.start(bench.ours("palate_memory", rows, "shared", budget)) as contender:
        contender.ask(step=0)
        return {"budget": budget, **contender.ask(rows=path)}


def _harmless(bench: Bench) -> Callable[[int], Facts]:
    count = bench.size.pairs_per_step
    drawn = draw_subset(bench.pairs, "harmless-base", count * bench.size.repeats, seed=2)
    files = [
        bench.rows(f"harmless-{i}", drawn[i * count : (i + 1) * count])
        for i in range(bench.size.repeats)
    ]
    return lambda repeat: {"rows": files[repeat]}


def _ranked(bench: Bench, *, sets: int, responses: int, prompt_tokens: int) -> str:
    rows = ranked_sets(
        bench.pairs, sets=sets, responses=responses, prompt_tokens=prompt_tokens, seed=3
    )
    return bench.rows(f"ranked-{sets}-{responses}-{prompt_tokens}", rows)


def _growth(bench: Bench, padded: Contender, palate: Contender) -> dict[str, dict[str, Any]]:
    """Pairs/s by number of pairs, by length of prompt, by responses a prompt; one window each."""
    files: dict[str, str] = {}
    for count in (bench.size.pairs_per_step // 4, 3 * bench.size.pairs_per_step):
        drawn = draw_subset(bench.pairs, "harmless-base", count, seed=4)
        files[f"{count} pairs"] = bench.rows(f"growth-{count}", drawn)
    for length in GROWTH_PROMPT_TOKENS:
        files[f"prompt of {length}"] = _ranked(bench, sets=4, responses=2, prompt_tokens=length)
    for responses in GROWTH_RESPONSES:
        files[f"{responses} responses"] = _ranked(
            bench, sets=2, responses=responses, prompt_tokens=250
        )
    figures = {}
    for name, path in files.items():
        own = palate.ask(rows=path)
        figures[name] = {"palate": own["pairs"] / own["seconds"]}
        if not name.endswith("pairs"):
            peer = padded.ask(rows=path)
            figures[name]["padded"] = peer["pairs"] / peer["seconds"]
        say(f"growth: {name}: {figures[name]}")
    return figures


def ratios(found: dict[str, Any], dtype: str) -> dict[str, dict[str, float]]:
    """Every ratio of the last line, as median and range over the repeats."""
    curve: Windows = found["curve"]
    gemm = [w["gflops"] for w in curve["gemm"]]
    own = curve["palate"]
    rate = [w["flops"] / w["seconds"] / 1e9 for w in own]
    return {
        "vs_trl_default": middle(speedup(curve, "palate", "trl_default")),
        "vs_trl_best": middle(speedup(curve, "palate", "trl_best")),
        "vs_trl_grouped": middle(
            [w["real_tokens"] / w["seconds"] / found["grouped_tokens_per_second"] for w in own]
        ),
        "vs_packed": middle(speedup(found.get("harmless", curve), "palate", "packed")),
        "gemm_fraction": middle([r / g for r, g in zip(rate, gemm, strict=True)]),
        **(_today(curve, dtype) if "today" in curve else {}),
        **(_other_phases(found) if "memory" in found else {}),
    }


def _today(curve: Windows, dtype: str) -> dict[str, dict[str, float]]:
    return {vs_today(dtype): middle(speedup(curve, "palate", "today"))}


def _other_phases(found: dict[str, Any]) -> dict[str, dict[str, float]]:
    trl_peak = max(w["peak_bytes"] for w in found["curve"]["trl_default"])
    return {
        "vs_padded": middle(speedup(found["curve"], "palate", "padded")),
        "rss_vs_trl": middle([found["memory"]["peak_bytes"] / trl_peak]),
        "k4_vs_padded": middle(speedup(found["k4"], "palate", "padded")),
    }


def report(bench: Bench, found: dict[str, Any], quick: bool) -> None:
    """Tables on stderr, everything in a file, and the ratios as the last line of stdout."""
    curve: Windows = found["curve"]
    table({name: rates(w) for name, w in curve.items() if name != "gemm"})
    curves = loss_curves(found)
    for name, losses in curves.items():
        say(f"loss {name:<12}" + " ".join(f"{loss:.7f}" for loss in losses))
    say(f"GEMM {median(w['gflops'] for w in curve['gemm']):.1f} GFLOP/s")
    figures = ratios(found, bench.size.dtype)
    for name, values in figures.items():
        say(f"{name:<16}" + "  ".join(f"{key} {value:.3f}" for key, value in values.items()))
    size = bench.size
    line = {
        "benchmark": "train",
        **{name: round(values["median"], 3) for name, values in figures.items()},
        "range": {n: [round(v["min"], 3), round(v["max"], 3)] for n, v in figures.items()},
        "max_loss_difference": loss_difference(curves.values()),
        "trl_best_batch": found["trl_best_batch"],
        "dtype": size.dtype,
        "compiled": size.compiled,
        "layers": size.layers,
        "pairs_per_step": size.pairs_per_step,
        "repeats": size.repeats,
        "quick": quick,
    }
    (bench.folder / "result.json").write_text(json.dumps({**line, "windows": found}))
    print(json.dumps(line))


def main() -> None:
    """Read the size from the command line, run, report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="under 5 minutes, noisier")
    parser.add_argument("--layers", type=int, help="decoder layers of SmolLM2's 30 that are kept")
    parser.add_argument("--pairs", type=int, help="pairs an optimizer step, a multiple of 16")
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--trl-batches", type=int, nargs="+", help="pairs a batch that TRL tries")
    parser.add_argument(
        "--steps-only",
        action="store_true",
        help="peers and packed alone, on steps: for deep models",
    )
    parser.add_argument("--budget", type=int, default=4096, help="our tokens a micro-batch")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--compiled", action="store_true", help="our layers compiled, as in a long training"
    )
    add_options(parser)
    given = parser.parse_args()
    size = Size(
        layers=given.layers or (2 if given.quick else 3),
        pairs_per_step=given.pairs or (16 if given.quick else 32),
        repeats=given.repeats or (2 if given.quick else 5),
        batches=tuple(given.trl_batches or ((2, 4) if given.quick else (2, 4, 8, 16))),
        growth=not given.quick,
        steps_only=given.steps_only,
        budget=given.budget,
        threads=given.threads,
        dtype=given.dtype,
        base=given.base,
        compiled=given.compiled,
    )
    if size.pairs_per_step % 16:
        parser.error(f"--pairs {size.pairs_per_step}: expected a multiple of 16, for equal batches")
    bench = Bench(size)
    report(bench, run(bench), given.quick)


if __name__ == "__main__":
    main()
