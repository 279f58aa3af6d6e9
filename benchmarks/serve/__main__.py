"""Serving beside a naive server and a pipeline; one JSON line of ratios.

    python -m benchmarks.serve [--quick] [--layers N] [--pairs N] [--sets N] [--repeats N]
        [--soak-seconds N] [--threads N] [--peer vllm]

With `--peer vllm` real vLLM on the same CPU takes the place of these: `make bench-serve PEER=vllm`.
`make bench-serve` makes the environment first. What is equal and how: benchmarks/README.md.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from statistics import median, pstdev
from typing import Any

import numpy as np

from benchmarks.peers.contender import (
    OURS,
    WORK,
    Command,
    Contender,
    add_options,
    imports_from,
    vs_today,
)
from benchmarks.peers.prepare import write_rows
from benchmarks.peers.turns import say, table
from benchmarks.serve.asked import Row, served_model, windows
from benchmarks.serve.clients import RIGHT
from benchmarks.serve.load import ask_all
from benchmarks.serve.served import Served, palate_serve, vllm_serve
from benchmarks.serve.soak import soak
from palate.evaluate.parity import TOLERANCE

FOLDER = WORK / "serve"
Window = dict[str, Any]
Found = dict[str, dict[str, list[Window]]]


@dataclass(frozen=True)
class Size:
    """How much is run."""

    layers: int
    clients: int
    pairs: int
    sets: int
    repeats: int
    soak_seconds: float
    threads: int
    dtype: str
    base: Path | None


def timed(seconds: float, rewards: Sequence[Sequence[float]], latencies: Sequence[float]) -> Window:
    """One window of one contender."""
    return {"seconds": seconds, "rewards": rewards, "latencies": latencies}


def by_server(
    server: Served, clients: int, model: str | None = None
) -> Callable[[Path, list[Row]], Window]:
    """A window through HTTP; in vLLM's shape where a `model` is named."""

    def run(_file: Path, rows: list[Row]) -> Window:
        answered = ask_all(server.address, rows, clients, model)
        return timed(answered.seconds, answered.rewards, answered.latencies)

    return run


def by_worker(contender: Contender, clients: int) -> Callable[[Path, list[Row]], Window]:
    """A window without HTTP."""

    def run(file: Path, _rows: list[Row]) -> Window:
        facts = contender.ask(rows=str(file), clients=clients)
        return timed(facts["seconds"], facts["rewards"], [])

    return run


def take_turns(
    contenders: dict[str, Callable[[Path, list[Row]], Window]], kind: str, drawn: list[list[Row]]
) -> dict[str, list[Window]]:
    """Every contender on every window, in turns; the first window is discarded."""
    found: dict[str, list[Window]] = {name: [] for name in contenders}
    for number, rows in enumerate(drawn):
        file = write_rows(FOLDER / f"{kind}-{number}.jsonl", rows)
        names = list(contenders)
        shift = number % len(names)
        for name in [*names[shift:], *names[:shift]]:
            window = contenders[name](file, rows)
            if number:
                found[name].append(window)
                say(f"{kind} {number}/{len(drawn) - 1}: {name} {window['seconds']:.1f} s")
    return found


def run(size: Size) -> tuple[Found, dict[str, Any]]:
    """Start everything, take turns on pairs and on sets, and soak what is ours."""
    model, pairs, sets = served_model(size.layers)
    drawn = {
        "pairs": windows(pairs, size.repeats, size.pairs, seed=2),
        "best_of_16": windows(sets, size.repeats, size.sets, seed=3),
    }
    given = ["--model", model, "--dtype", size.dtype]
    bare = Command("bare", OURS, "benchmarks.serve.bare", given)
    pipeline = Command("pipeline", OURS, "benchmarks.serve.pipeline", given)
    with ExitStack() as stack:
        offline = stack.enter_context(Contender(bare, size.threads))
        peer = stack.enter_context(Contender(pipeline, size.threads))
        naive = stack.enter_context(Served("naive", "benchmarks.serve.naive", given, size.threads))
        threaded = stack.enter_context(
            Served(
                "naive_threads",
                "benchmarks.serve.naive",
                [*given, "--threaded"],
                size.threads,
            )
        )
        served = [model, "--dtype", size.dtype]
        ours = stack.enter_context(palate_serve("palate", size.threads, *served))
        facts = {"seconds_to_ready": ours.seconds_to_ready}
        contenders = {
            "naive": by_server(naive, size.clients),
            "palate": by_server(ours, size.clients),
            "bare": by_worker(offline, size.clients),
            "pipeline": by_worker(peer, size.clients),
        }
        if size.base is not None:
            before = palate_serve("today", size.threads, *served, variables=imports_from(size.base))
            contenders["today"] = by_server(stack.enter_context(before), size.clients)
        found = {kind: take_turns(contenders, kind, rows) for kind, rows in drawn.items()}
        found["pairs"]["naive_threads"] = take_turns(
            {"naive_threads": by_server(threaded, size.clients)}, "pairs", drawn["pairs"][:2]
        )["naive_threads"]
        for kind, rows in drawn.items():
            files = [FOLDER / f"{kind}-{n}.jsonl" for n in range(1, len(rows))]
            found[kind]["offline"] = [offline.ask(rows=str(f), offline=True) for f in files]
    if size.soak_seconds:
        facts["soak"] = soak(model, pairs, size.soak_seconds, size.threads, FOLDER)
    return found, facts


def run_beside_vllm(size: Size) -> Found:
    """vLLM and ours in turns on pairs and on sets, and the offline rewards of both."""
    model, pairs, sets = served_model(size.layers)
    drawn = {
        "pairs": windows(pairs, size.repeats, size.pairs, seed=2),
        "best_of_16": windows(sets, size.repeats, size.sets, seed=3),
    }
    given = ["--model", model, "--dtype", "float32"]
    found: Found = {}
    with ExitStack() as stack:
        vllm = stack.enter_context(vllm_serve(model, size.dtype, size.threads))
        ours = palate_serve("palate", size.threads, model, "--dtype", size.dtype)
        contenders = {
            "vllm": by_server(vllm, size.clients, str(model)),
            "palate": by_server(stack.enter_context(ours), size.clients),
        }
        found = {kind: take_turns(contenders, kind, rows) for kind, rows in drawn.items()}
    with Contender(Command("bare", OURS, "benchmarks.serve.bare", given), size.threads) as offline:
        for kind, rows in drawn.items():
            files = [FOLDER / f"{kind}-{n}.jsonl" for n in range(1, len(rows))]
            found[kind]["offline"] = [offline.ask(rows=str(f), offline=True) for f in files]
    return found


def report_beside_vllm(size: Size, found: Found, quick: bool) -> None:
    """Tables on stderr, everything in a file, and the ratios as the last line of stdout.

    Answers of both are checked against the float32 rewards offline.
    """
    for kind, by_contender in found.items():
        say(kind)
        table({name: _row(own) for name, own in by_contender.items() if name != "offline"})
    apart = differences(found)
    spread = pstdev(_flat(found["pairs"]["offline"]))
    right = RIGHT if size.dtype == "float32" else TOLERANCE["bfloat16"] * spread
    line: Window = {"benchmark": "serve", "peer": "vllm"}
    for kind, by_contender in found.items():
        line[f"vs_vllm_{kind}"] = round(median(ratios(by_contender, "vllm")), 3)
        line[f"vs_vllm_{kind}_range"] = [
            round(edge(ratios(by_contender, "vllm")), 3) for edge in (min, max)
        ]
        for name in ("palate", "vllm"):
            line[f"p99_seconds_{kind}_{name}"] = round(p99(by_contender[name]), 3)
    for name in ("palate", "vllm"):
        line[f"wrong_answers_{name}"] = sum(gap > right for gap in apart[name])
        line[f"max_difference_{name}"] = max(apart[name])
    line |= {"reward_spread": round(spread, 3), "quick": quick}
    line |= asdict(size) | {"base": size.base and str(size.base)}
    (FOLDER / f"vllm-{size.dtype}.json").write_text(json.dumps(line))
    print(json.dumps(line))


def ratios(windows_of: dict[str, list[Window]], peer: str, ours: str = "palate") -> list[float]:
    """How many times longer `peer` took, window by window, in those that it ran."""
    pairs = zip(windows_of[peer], windows_of[ours], strict=False)
    return [theirs["seconds"] / own["seconds"] for theirs, own in pairs]


def p99(windows_of: Sequence[Window]) -> float:
    """Of all requests of all windows."""
    return float(np.percentile([s for w in windows_of for s in w["latencies"]], 99))


def _flat(windows_of: Sequence[Window]) -> list[float]:
    return list(chain.from_iterable(chain.from_iterable(w["rewards"] for w in windows_of)))


def differences(found: Found) -> dict[str, list[float]]:
    """|reward - offline reward| of every conversation, by contender."""
    apart: dict[str, list[float]] = {}
    for by_contender in found.values():
        truth = _flat(by_contender["offline"])
        for name, own in by_contender.items():
            gaps = [abs(a - b) for a, b in zip(_flat(own), truth, strict=name != "naive_threads")]
            apart.setdefault(name, []).extend(gaps)
    return apart


def report(size: Size, found: Found, facts: dict[str, Any], quick: bool) -> None:
    """Tables on stderr, everything in a file, and the ratios as the last line of stdout."""
    pairs, sets = found["pairs"], found["best_of_16"]
    for kind, by_contender in found.items():
        say(kind)
        table({name: _row(own) for name, own in by_contender.items() if name != "offline"})
    apart = differences(found)
    overheads = [1 / ratio - 1 for ratio in ratios(pairs, "bare")]
    spread = pstdev(_flat(pairs["offline"]))
    # In bfloat16 other neighbours round otherwise: the bound that `palate parity` has for it.
    right = RIGHT if size.dtype == "float32" else TOLERANCE["bfloat16"] * spread
    wrong = sum(gap > right for gap in apart["palate"])
    line = {
        "benchmark": "serve",
        "vs_naive_64": round(median(ratios(pairs, "naive")), 3),
        "p99_ratio": round(p99(pairs["palate"]) / p99(pairs["naive"]), 3),
        "vs_naive_best_of_16": round(median(ratios(sets, "naive")), 3),
        "overhead": round(median(overheads), 4),
        "wrong_answers": wrong,
        "vs_naive_threads_64": round(median(ratios(pairs, "naive_threads")), 3),
        "vs_pipeline_64": round(median(ratios(pairs, "pipeline")), 3),
        "vs_pipeline_best_of_16": round(median(ratios(sets, "pipeline")), 3),
        "overhead_best_of_16": round(median(1 / r - 1 for r in ratios(sets, "bare")), 4),
        "max_difference": max(apart["palate"]),
        "reward_spread": round(spread, 3),
        "seconds_to_ready": round(facts["seconds_to_ready"], 1),
        "dtype": size.dtype,
        "layers": size.layers,
        "clients": size.clients,
        "repeats": size.repeats,
        "quick": quick,
    }
    if "today" in pairs:
        line[vs_today(size.dtype)] = round(median(ratios(pairs, "today")), 3)
    if "soak" in facts:
        line |= _soaked(facts["soak"], wrong) | {"soak_seconds": size.soak_seconds}
    sizes = asdict(size) | {"base": size.base and str(size.base)}
    (FOLDER / "result.json").write_text(json.dumps({**line, "size": sizes, **facts}))
    print(json.dumps(line))


def _soaked(facts: Window, wrong: int) -> dict[str, Any]:
    return {
        "wrong_answers": wrong + facts["wrong"],
        "lost": facts["lost"],
        "soak_answers": facts["answers"],
        "soak_memory_growth": facts["memory_growth"],
    }


def _row(windows_of: Sequence[Window]) -> dict[str, float]:
    served = bool(windows_of[0]["latencies"])
    return {
        "requests_per_second": median(len(w["rewards"]) / w["seconds"] for w in windows_of),
        "p50_seconds": median(chain.from_iterable(w["latencies"] for w in windows_of))
        if served
        else float("nan"),
        "p99_seconds": p99(windows_of) if served else float("nan"),
    }


def main() -> None:
    """Read the size from the command line, run, report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="under 5 minutes, noisier")
    parser.add_argument("--layers", type=int, help="decoder layers of SmolLM2's 30 that are kept")
    parser.add_argument("--pairs", type=int, help="requests a window, one pair each")
    parser.add_argument("--sets", type=int, help="requests a window, 16 responses each")
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--soak-seconds", type=float, help="of mixed load with faults; 0: none")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peer", choices=("vllm",), help="a real server in place of the others")
    add_options(parser)
    given = parser.parse_args()
    quick = given.quick
    size = Size(
        layers=given.layers or (3 if quick else 30),
        clients=64,
        pairs=given.pairs or (96 if quick else 128),
        sets=given.sets or (12 if quick else 24),
        repeats=given.repeats or (2 if quick else 3),
        soak_seconds=(20.0 if quick else 1_800.0)
        if given.soak_seconds is None
        else given.soak_seconds,
        threads=given.threads,
        dtype=given.dtype,
        base=given.base,
    )
    if given.peer == "vllm":
        report_beside_vllm(size, run_beside_vllm(size), quick)
        return
    found, facts = run(size)
    report(size, found, facts, quick)


if __name__ == "__main__":
    main()
