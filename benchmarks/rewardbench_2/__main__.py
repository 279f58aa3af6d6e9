"""RewardBench 2's size scored end to end by `palate judge` and by RewardBench; one JSON line.

    python -m benchmarks.rewardbench_2 [--items N] [--layers N] [--repeats N] [--threads N]

What is equal and how: benchmarks/README.md.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import pstdev
from typing import Any

from benchmarks.peers.contender import HERE, OURS, REWARDBENCH, WORK, environment
from benchmarks.peers.prepare import prepared
from benchmarks.peers.turns import middle, say
from benchmarks.rewardbench_2.made import ITEMS, write_items
from palate.data.benchmarks.base import best_of_k
from palate.data.benchmarks.rewardbench_2 import NAME, TIES
from palate.evaluate.results import read_answers
from palate.evaluate.scores import read_score

FOLDER = WORK / "rewardbench-2"
Facts = dict[str, Any]


def timed(name: str, command: Sequence[object], threads: int) -> Facts:
    """Run a command to its end; seconds on the wall, processor seconds, peak memory."""
    log = FOLDER / f"{name}.log"
    with log.open("w") as out:
        start = time.perf_counter()
        process = subprocess.Popen(
            list(map(str, command)),
            cwd=HERE.parent,
            env=environment(threads),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
    if status:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise RuntimeError(f"{name} ended with status {status}; {log} ends in\n{last}")
    cpu = used.ru_utime + used.ru_stime
    say(f"{name}: {seconds:.1f} s, {cpu:.1f} processor seconds")
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_gib": used.ru_maxrss / 2**20}


def palate(model: Path, items: Path, threads: int, out: Path) -> Facts:
    """One command, from the file of items to the table of scores; trivial judges among them."""
    shutil.rmtree(out, ignore_errors=True)  # Nothing is asked twice.
    command = [OURS, "-m", "palate", "judge", model, f"{NAME}={items}", "--out", out, "--partial"]
    return timed("palate", command, threads)


def rewardbench(model: Path, items: Path, threads: int, out: Path, batch: int) -> Facts:
    """Its own loop over its own functions."""
    command = [REWARDBENCH, "-m", "benchmarks.rewardbench_2.run_v2", "--model", model]
    command += ["--dataset", items / "test.jsonl", "--output", out, "--batch_size", batch]
    return timed("rewardbench", command, threads)


def disagreements(verdicts: Path, theirs: Path) -> Facts:
    """Items that both value differently, and how far scores and the scores of Ties are apart."""
    found = json.loads(theirs.read_text())
    answers, score = read_answers(verdicts), read_score(verdicts)
    assert score is not None
    credit = dict(zip(answers.ids.tolist(), best_of_k(answers).tolist(), strict=True))
    starts = answers.starts.tolist()
    own = {
        name: answers.scores[start:end].tolist()
        for name, start, end in zip(answers.ids.tolist(), starts, starts[1:], strict=False)
    }
    peer = {f"{NAME}/{row['subset']}/{row['id']}": row for row in found["items"]}
    assert peer.keys() == own.keys()
    spread = pstdev(value for values in own.values() for value in values)
    apart = max(
        abs(a - b) for name, values in own.items()
        for a, b in zip(values, peer[name]["scores"], strict=True)
    )  # fmt: skip
    ours = {part.name: score.estimate(part).value for part in score.parts}
    differ = [
        name
        for name, row in peer.items()
        if row["subset"] != TIES and float(row["result"]) != credit[name]
    ]
    return {
        "verdicts_differ": len(differ),
        "max_score_difference": apart / spread,
        "max_subset_difference": max(abs(ours[k] - v) for k, v in found["subsets"].items()),
    }


def main() -> None:
    """Make the items, run both in turns, compare what they say."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--layers", type=int, default=6, help="of SmolLM2's 30; the demo has 6")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64, help="rows of RewardBench's batches")
    given = parser.parse_args()
    model, pairs = prepared(given.layers)
    items = FOLDER / f"items-{given.items}"
    size = write_items(items / "test.jsonl", pairs, given.items)
    verdicts, theirs = FOLDER / "verdicts", FOLDER / "rewardbench.json"
    turns = {
        "rewardbench": lambda: rewardbench(model, items, given.threads, theirs, given.batch),
        "palate": lambda: palate(model, items, given.threads, verdicts),
    }
    runs: dict[str, list[Facts]] = {name: [] for name in turns}
    for repeat in range(given.repeats):
        for name in list(turns)[:: 1 if repeat % 2 else -1]:
            runs[name].append(turns[name]())
    ratios = {
        key: middle(
            [a[of] / b[of] for a, b in zip(runs["rewardbench"], runs["palate"], strict=True)]
        )
        for key, of in (("vs_rewardbench", "seconds"), ("vs_rewardbench_cpu", "cpu_seconds"))
    }
    line = {
        "benchmark": "rewardbench_2",
        **{key: round(value["median"], 2) for key, value in ratios.items()},
        "range": {k: [round(v["min"], 2), round(v["max"], 2)] for k, v in ratios.items()},
        **disagreements(next(verdicts.glob(f"model--{NAME}.parquet")), theirs),
        **size,
        **{key: getattr(given, key) for key in ("layers", "repeats", "threads", "batch")},
        "runs": runs,
    }
    (FOLDER / "result.json").write_text(json.dumps(line))
    print(json.dumps(line))


if __name__ == "__main__":
    sys.exit(main())
