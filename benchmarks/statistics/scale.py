"""A run of many verdicts and judges on disk, and the time of its whole report."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from palate.records import write_verdicts
from palate.report import report
from palate.types import Bin, Outcome, Rating, Verdict, digest

TRIVIAL = ("random", "longer")
BINS = tuple(Bin)


def verdicts(judge: str, number: int, items: int, protocol: str) -> Iterator[Verdict]:
    """Made-up answers: ratings, bins, scores, lengths, about 1.7 items a prompt."""
    lengths = np.random.default_rng(0).integers(20, 2_000, (items, 2)).tolist()
    rng = np.random.default_rng(number + 1)
    lean = rng.normal(0.2 + 0.05 * number, 1.5, items).tolist()
    level = rng.normal(0, 1, items).tolist()
    for i in range(items):
        yield Verdict(
            judge=judge,
            benchmark="made",
            comparison_id=digest("item", i),
            outcome=Outcome.CORRECT if lean[i] > 0 else Outcome.WRONG,
            chosen_score=level[i] + lean[i],
            rejected_score=level[i],
            reason="",
            truncated=i % 50 == 0,
            cluster=digest("prompt", i * 3 // 5),
            source="made",
            rating=Rating(1 + i % 4),
            bin=BINS[i % 3],
            chosen_first=i % 2 == 0,
            protocol=protocol,
            chosen_length=lengths[i][0],
            rejected_length=lengths[i][1],
        )


def make_run(folder: Path, items: int, judges: int) -> None:
    """Write the verdict files, once for each size."""
    size = {"items": items, "judges": judges, "version": 1}
    mark = folder / "size.json"
    if mark.exists() and json.loads(mark.read_text()) == size:
        return
    shutil.rmtree(folder, ignore_errors=True)
    names = [*TRIVIAL, *(f"model-{i}" for i in range(judges))][:judges]
    for number, judge in enumerate(names):
        kind = judge if judge in TRIVIAL else "reward-model"
        protocol = {"judge": {"name": judge, "judge": kind}, "order": "seeded", "seed": 0}
        fingerprint = digest(protocol)
        details = {"judge": judge, "benchmark": "made", "protocol": protocol}
        path = folder / "verdicts" / f"{judge}--made.parquet"
        write_verdicts(path, verdicts(judge, number, items, fingerprint), details=details)
    mark.write_text(json.dumps(size))


def seconds_of_report(folder: Path) -> tuple[float, list[str]]:
    """From verdict files to every table of the report on disk; and the tables' names."""
    start = time.perf_counter()
    made = report(folder)
    return time.perf_counter() - start, [table.name for table in made.tables]
