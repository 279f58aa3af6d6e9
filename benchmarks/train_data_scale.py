"""Tokenising and opening by number of rows: rows a second, seconds to the first step, memory.

    python -m benchmarks.train_data_scale [--rows 10000 100000 1000000] [--workers 1 2] [--folder D]

Rows are made up as in `data_scale.py`: HH-like lengths, one prompt for two rows, 2 % identical.
Every measurement is a process of its own, so that its peak resident memory is its own: tokenising
once for each number of workers (memory of the parent alone; rows a second by the clock and by the
processor seconds of all processes), then opening, planning the first step
and reading a sample of rows at random. `resident_growth` is the peak of reading at the largest size
less that at the smallest, in bytes a row; the planner's own arrays are 8 to 24 of them.
Ends with one JSON line.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.data_scale import made

ITSELF = (sys.executable, "-m", "benchmarks.train_data_scale")
SELF, CHILDREN = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
PAIRS_PER_STEP, TOKENS_PER_MICROBATCH, READS = 512, 4_096, 100_000


def tokenise_rows(folder: Path, workers: int) -> dict[str, Any]:
    """Tokenise `folder`'s rows with so many processes and measure it."""
    from transformers import AutoTokenizer

    from palate.model.backbone import dequantised, smollm2_path
    from palate.model.options import BaseOptions
    from palate.model.tokenizer import ChatTokens
    from palate.train.dataset import tokenise

    tokenizer = AutoTokenizer.from_pretrained(dequantised(smollm2_path())[0])
    chat = ChatTokens(tokenizer, BaseOptions(template="chatml", max_tokens=1_024))
    out = folder / f"tokens-{workers}.arrow"
    before, start, cpu_before = rss_mib(), time.perf_counter(), sum(resource.getrusage(SELF)[:2])
    examples = tokenise(folder / "rows.parquet", chat, out, workers=workers)
    seconds = time.perf_counter() - start
    cpu = sum(sum(resource.getrusage(who)[:2]) for who in (SELF, CHILDREN)) - cpu_before
    return {
        "workers": workers,
        "seconds": round(seconds, 2),
        "rows_per_second": round(examples.cuts.rows / seconds),
        "rows_per_cpu_second": round(examples.cuts.rows / cpu),
        "file_bytes_per_row": round(out.stat().st_size / len(examples)),
        "peak_rss_mib": round(rss_mib()),
        "rss_mib_before": round(before),
    }


def first_step(folder: Path) -> dict[str, Any]:
    """Open a token file, plan its first step, and read rows at random."""
    from palate.train.batching import split_step
    from palate.train.dataset import Examples
    from palate.train.options import TrainOptions

    before, start = rss_mib(), time.perf_counter()
    examples = Examples(next(folder.glob("tokens-*.arrow")))
    opened = time.perf_counter() - start
    examples.prompt_keys()
    order = np.random.default_rng(0).permutation(len(examples))
    rows = [examples[int(row)] for row in order[:PAIRS_PER_STEP]]
    parts = split_step(rows, TrainOptions().margins(), TOKENS_PER_MICROBATCH)
    planned = time.perf_counter() - start
    del rows, parts
    start = time.perf_counter()
    for row in order[:READS]:
        examples[int(row)]
    seconds = time.perf_counter() - start
    return {
        "rows": len(examples),
        "open_seconds": round(opened, 4),
        "seconds_to_first_step": round(planned, 3),
        "reads_per_second": round(min(READS, len(examples)) / seconds),
        "peak_rss_mib": round(rss_mib()),
        "rss_mib_before": round(before),
    }


def rss_mib() -> float:
    """Peak resident memory of this process, its children left out."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(folder: Path, *arguments: str) -> dict[str, Any]:
    """What this script prints in a process of its own."""
    command = [*ITSELF, "--folder", str(folder), *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(rows: int, workers: list[int], folder: Path) -> dict[str, Any]:
    """One size: make the rows, tokenise them with each number of workers, open them."""
    from palate.records import file_digest, write_comparisons

    write_comparisons(folder / "rows.parquet", made(rows, "made", 1))
    runs = [measured(folder, "--tokenise", str(count)) for count in workers]
    digests = {file_digest(path) for path in folder.glob("tokens-*.arrow")}
    return {
        "rows": rows,
        "tokenise": runs,
        "same_file": len(digests) == 1,
        "train": measured(folder, "--open"),
    }


def main() -> None:
    """Measure each size and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--folder", type=Path, default=None, help="where the files are made")
    parser.add_argument("--tokenise", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--open", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tokenise:
        print(json.dumps(tokenise_rows(options.folder, options.tokenise)))
        return
    if options.open:
        print(json.dumps(first_step(options.folder)))
        return
    sizes = []
    for rows in sorted(options.rows):
        with TemporaryDirectory(dir=options.folder) as folder:
            sizes.append(measure(rows, options.workers, Path(folder)))
        print(json.dumps(sizes[-1]), file=sys.stderr)
    first, last = sizes[0], sizes[-1]
    growth = last["train"]["peak_rss_mib"] - first["train"]["peak_rss_mib"]
    speeds = {run["workers"]: run["rows_per_second"] for run in last["tokenise"]}
    print(
        json.dumps(
            {
                "sizes": sizes,
                "rows_per_second": speeds,
                "workers_ratio": round(speeds[max(speeds)] / speeds[min(speeds)], 2),
                "seconds_to_first_step": last["train"]["seconds_to_first_step"],
                "file_bytes_per_row": last["tokenise"][0]["file_bytes_per_row"],
                "peak_rss_mib": last["train"]["peak_rss_mib"],
                "resident_growth": round(growth * 2**20 / max(last["rows"] - first["rows"], 1), 1),
            }
        )
    )


if __name__ == "__main__":
    main()
