"""Memory and time of `palate rank` and `palate filter` by rows, with a scorer that costs nothing.

    python -m benchmarks.rank_scale 10000 100000

Each size runs in a process of its own on made-up JSONL rows of 4 responses; one JSON line a size.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterable, Iterator
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from palate.evaluate.scoring import Bar, filter_file, rank_file
from palate.types import Candidates, Score

WORDS = ["flour", "water", "salt", "yeast", "dough", "bread", "oven", "crust", "sea", "blue"]


class Lengths:
    """Rewards a response by its length; keeps nothing."""

    name, protocol = "lengths", {"judge": "lengths"}

    def score(self, candidates: Iterable[Candidates]) -> Iterator[tuple[Score, ...]]:
        for shown in candidates:
            yield tuple(Score(len(response) / 7) for response in shown.responses)


def write_rows(path: Path, rows: int) -> None:
    """About 1.1 kB a row."""
    with path.open("w") as file:
        for row in range(rows):
            said = [" ".join(WORDS[(row + k + i) % 10] for i in range(40 + k)) for k in range(4)]
            file.write(
                json.dumps({"id": row, "prompt": f"What of {row}?", "responses": said}) + "\n"
            )


def measure(rows: int, folder: str) -> None:
    """Rank, then filter; prints seconds and the largest resident size."""
    path = Path(folder) / "rows.jsonl"
    write_rows(path, rows)
    before, found = peak_mib(), {}
    start = time.perf_counter()
    rank_file(Lengths(), path, path.with_name("ranked.jsonl"), top=1)
    found["rank_seconds"] = round(time.perf_counter() - start, 1)
    found["rank_mib"] = round(peak_mib() - before, 1)
    start = time.perf_counter()
    filter_file(Lengths(), path, path.with_name("kept.jsonl"), Bar(top_percent=10))
    found["filter_seconds"] = round(time.perf_counter() - start, 1)
    found["both_mib"] = round(peak_mib() - before, 1)
    size = round(path.stat().st_size / 2**20, 1)
    print(json.dumps({"rows": rows, "input_mib": size, "imports_mib": round(before, 1), **found}))


def peak_mib() -> float:
    """The largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Each size in a process of its own."""
    for rows in map(int, sys.argv[1:] or ["10000", "100000"]):
        with TemporaryDirectory() as folder:
            process = get_context("spawn").Process(target=measure, args=(rows, folder))
            process.start()
            process.join()
            if process.exitcode:
                sys.exit(process.exitcode)


if __name__ == "__main__":
    main()
