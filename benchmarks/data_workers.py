"""Lint and overlap of a file by one process and by several: the same file, how much faster.

    python -m benchmarks.data_workers [--rows 100000] [--workers 1 2] [--repeats 3] [--folder DIR]
                                      [--stages lint overlap]

Rows are made up as in `data_scale.py`, the benchmark has 2,000 prompts. Each run is a process of
its own; numbers of workers take turns. `speedup` is of the wall clock. Where other work takes the
cores it says little, so processor seconds are counted too: on as many idle cores as workers a run
cannot be shorter than its longest process, nor than all of them shared out. `speedup_of_work` is
the processor seconds of one process over that bound, starts of the workers included. Ends with one
JSON line.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from benchmarks.data_scale import made, rss_mib

STAGES = ("lint", "overlap")
ITSELF = (sys.executable, "-m", "benchmarks.data_workers")


def one(stage: str, folder: Path, workers: int) -> dict[str, Any]:
    """Run a stage on `rows.parquet` and measure it, its workers too."""
    from palate.data import contamination, lint
    from palate.records import read_header

    out, index = folder / f"{stage}-{workers}.parquet", None
    if stage == "overlap":
        index = contamination.BenchmarkIndex.build({"made": made(2_000, "benchmark", 0)})
    parent = psutil.Process()
    cpu, started = sum(parent.cpu_times()[:2]), time.perf_counter()
    if index is None:
        lint.lint_of(folder / "rows.parquet", out, lint.LintReport(), workers=workers)
    else:
        report = contamination.OverlapReport()
        contamination.exclude_overlap_of(
            folder / "rows.parquet", out, index, report, workers=workers
        )
    seconds = time.perf_counter() - started
    times = parent.cpu_times()
    return {
        "seconds": round(seconds, 2),
        "cpu_here": round(times.user + times.system - cpu, 2),
        "cpu_of_workers": round(times.children_user + times.children_system, 2),
        "peak_mib": round(rss_mib()),
        "peak_mib_of_a_worker": round(getrusage(RUSAGE_CHILDREN).ru_maxrss / 1024),
        "fingerprint": read_header(out).fingerprint,
    }


def least(run: dict[str, Any], workers: int) -> float:
    """Seconds that a run takes at least on as many idle cores as it has workers."""
    here, there = run["cpu_here"], run["cpu_of_workers"]
    return max(here, there / workers, (here + there) / max(workers, 1))


def main() -> None:
    """Measure both stages with each number of workers, in turns, and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the files are made")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one[0], options.folder, int(options.one[1]))))
        return
    from palate.records import write_comparisons

    line: dict[str, Any] = {"benchmark": "data_workers", "rows": options.rows}
    with TemporaryDirectory(dir=options.folder) as name:
        write_comparisons(Path(name) / "rows.parquet", made(options.rows, "made", 1))
        for stage in options.stages:
            runs: dict[int, list[dict[str, Any]]] = {count: [] for count in options.workers}
            for _ in range(options.repeats):
                for count, found in runs.items():
                    command = [*ITSELF, "--one", stage, str(count)]
                    command += ["--folder", name]
                    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                    found.append(json.loads(done.stdout))
                    print(f"{stage}, {count} workers: {found[-1]}", file=sys.stderr)
            first = min(runs)
            best = {n: min(found, key=lambda run: run["seconds"]) for n, found in runs.items()}
            work = {n: min(least(run, n) for run in found) for n, found in runs.items()}
            line[stage] = {
                "speedup": {n: round(best[first]["seconds"] / best[n]["seconds"], 2) for n in runs},
                "speedup_of_work": {n: round(work[first] / work[n], 2) for n in runs},
                "same_file": len({r["fingerprint"] for found in runs.values() for r in found}) == 1,
                "runs": runs,
            }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
