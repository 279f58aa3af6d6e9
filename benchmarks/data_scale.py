"""Rows a second and peak memory of import, lint, overlap, split and mix, by number of rows.

    python -m benchmarks.data_scale [--rows 10000 100000] [--folder DIR]

Each size runs in a process of its own, so that its peak resident memory is its own. The rows are
made up: HH-like lengths, one prompt for two rows, two pools, four batches, 2 % bad rows. Ends with
one JSON line; `time_growth` is CPU seconds a row at the largest size over the smallest (1 is
linear; CPU seconds because other work on the machine does not count).
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from palate.data.contamination import BenchmarkIndex, OverlapReport, exclude_overlap
from palate.data.lint import LintReport, lint
from palate.data.mixture import llama2_safety, mix
from palate.data.split import Holdout, split
from palate.records import read_comparisons, write_comparisons
from palate.types import Comparison, Message

ITSELF = (sys.executable, "-m", "benchmarks.data_scale")
STARTS = ["ba", "be", "bo", "da", "de", "do", "ka", "ke", "ko", "ma", "me", "mo", "ta", "te"]
ENDS = ["lin", "ran", "set", "tor", "nal", "mer", "sun", "vid"]
WORDS = [a + b for a in STARTS for b in ENDS]


def sentence(rng: random.Random, words: int) -> str:
    """Words of an invented language."""
    return " ".join(rng.choices(WORDS, k=words))


def made(rows: int, pool: str, seed: int) -> Iterator[Comparison]:
    """Rows of a pool: about 40 words of prompt in three turns and 45 of each response."""
    rng = random.Random(seed)
    for i in range(rows):
        if i % 2 == 0:
            turns = sentence(rng, 15), sentence(rng, 15), sentence(rng, 10)
            prompt = tuple(
                Message(role, text)
                for role, text in zip(("user", "assistant", "user"), turns, strict=True)
            )
        chosen = sentence(rng, 45)
        rejected = chosen if i % 50 == 0 else sentence(rng, 45)
        yield Comparison(
            id=f"{pool}-{i:032x}"[-32:] + pool,
            source=pool,
            prompt=prompt,
            chosen=chosen,
            rejected=rejected,
            prompt_id=f"{pool}-{i // 2}",
            batch=f"week-{i * 2 // rows}",
            meta={"file": "made.jsonl", "row": i},
        )


def one(rows: int, folder: Path) -> dict[str, Any]:
    """Run all stages on `rows` rows and measure each."""
    empty_rss = rss_mib()
    seconds: dict[str, float] = {}
    peaks: dict[str, int] = {}
    cpu_start = time.process_time()

    def timed(stage: str, do: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = do()
        seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - start
        peaks[stage] = round(rss_mib())
        return result

    pools = {"safety": rows // 2, "helpfulness": rows - rows // 2}
    index = BenchmarkIndex.build({"made": made(2_000, "benchmark", 0)})
    raw, cleaned = {}, {}
    for seed, (pool, count) in enumerate(pools.items(), start=1):
        raw[pool], cleaned[pool] = folder / f"raw-{pool}.parquet", folder / f"{pool}.parquet"
        timed("import", lambda p=pool, n=count, s=seed: write_comparisons(raw[p], made(n, p, s)))
        timed("lint+overlap", lambda p=pool: clean(raw[p], cleaned[p], index))
    parts = timed("split", lambda: split(cleaned, folder, Holdout(), folder / "holdout.parquet"))
    spec = llama2_safety(["safety"], ["helpfulness"], helpfulness_share=0.5, on_shortage="shrink")
    mixture = timed("mix", lambda: mix(spec, parts.train, folder / "mix.parquet", seed=0))
    return {
        "rows": rows,
        "mixed_rows": mixture.rows,
        "seconds": {k: round(v, 2) for k, v in seconds.items()},
        "rows_per_second": {k: round(rows / v) for k, v in seconds.items()},
        "total_rows_per_second": round(rows / sum(seconds.values())),
        "cpu_seconds_per_1000_rows": round((time.process_time() - cpu_start) * 1_000 / rows, 3),
        "peak_rss_mib_after": peaks,
        "peak_rss_mib": round(rss_mib()),
        "empty_rss_mib": round(empty_rss),
    }


def clean(raw: Path, out: Path, index: BenchmarkIndex) -> None:
    """Write the comparisons of `raw` that pass lint and overlap no benchmark."""
    linted = lint(read_comparisons(raw), LintReport())
    write_comparisons(out, exclude_overlap(linted, index, OverlapReport()))


def rss_mib() -> float:
    """Peak resident memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure each size in its own process and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--folder", type=Path, default=None, help="where the files are made")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one, options.folder)))
        return
    runs = []
    for rows in sorted(options.rows):
        with TemporaryDirectory(dir=options.folder) as folder:
            command = [*ITSELF, "--one", str(rows), "--folder", folder]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        runs.append(json.loads(done.stdout))
        print(json.dumps(runs[-1]), file=sys.stderr)
    first, last = runs[0], runs[-1]
    print(
        json.dumps(
            {
                "runs": runs,
                "peak_rss_mib": last["peak_rss_mib"],
                "bytes_per_added_row": round(
                    (last["peak_rss_mib"] - first["peak_rss_mib"])
                    * 2**20
                    / max(last["rows"] - first["rows"], 1)
                ),
                "time_growth": round(
                    last["cpu_seconds_per_1000_rows"] / first["cpu_seconds_per_1000_rows"], 3
                ),
            }
        )
    )


if __name__ == "__main__":
    main()
