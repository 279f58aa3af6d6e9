"""Make and open a report of many verdicts; one JSON line on stdout.

    python -m benchmarks.report [--quick] [--verdicts N]

Needs no data: texts and verdicts are made up (made.py). Times of opening need playwright and the
system's chromium, and are left out where these are not there.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.report.explorer import explorer
from benchmarks.report.made import make_run
from benchmarks.report.opened import seconds_to_open

WORK = Path(__file__).parents[1] / ".work" / "report"
Measure = Callable[[Path], dict[str, float]]


def page(run: Path) -> dict[str, float]:
    """`palate report` in a process of its own, start to end, and the page that it wrote, opened."""
    command = [sys.executable, "-m", "palate", "report", str(run)]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    path = run / "report.html"
    megabytes = path.stat().st_size / 1e6
    return {
        "report_seconds_100k": round(seconds, 2),
        "page_megabytes": round(megabytes, 2),
        **seconds_to_open(path),
    }


MEASURES: Sequence[Measure] = (page, explorer)
"""What is measured on the run, one after the other; each gives figures by name."""


def main() -> None:
    """Read the size from the command line, measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="a tenth of the verdicts")
    parser.add_argument("--verdicts", type=int)
    given = parser.parse_args()
    verdicts = given.verdicts or (10_000 if given.quick else 100_000)
    run = WORK / f"run-{verdicts}"
    make_run(run, verdicts)
    line: dict[str, object] = {"benchmark": "report", "verdicts": verdicts}
    for measure in MEASURES:
        for name, value in measure(run).items():
            line[name if verdicts == 100_000 else name.replace("100k", str(verdicts))] = value
    print(json.dumps(line))


if __name__ == "__main__":
    main()
