"""How soon the explorer shows a large run, and how soon it answers a filter, over real HTTP.

    python -m benchmarks.report.explorer [RUN]

RUN is a run's folder; without one, a made-up run of 100,000 comparisons is written first.
`palate view` is started as a process of its own. The first screen is measured from the moment it
prints its address, when a person could open it, to the last byte of list, style and script; what
DuckDB reads of the run first is within. Filters are asked one after the other from then on, each
for the first time: rating, source, set, safety bin, a judge's outcome, judges that disagree,
sorting, a page further on, searches for words and phrases of the run, and several of these at once.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode, urlsplit
from urllib.request import HTTPCookieProcessor, OpenerDirector, build_opener

import numpy as np

from benchmarks.report.large_run import large_run
from palate.records import read_comparisons
from palate.types import Bin, Rating

ROWS, STARTS, FILTERS = 100_000, 3, 300
WORK = Path(__file__).parents[1] / ".work" / "report"
WHOLE = "whole"  # Written last: a folder without it was cut short.


def explorer(beside: Path) -> dict[str, float]:
    """The figures of a made-up run, kept beside another run's folder and as large as its name says.

    `run-10000` asks for 10,000 comparisons, a name without a number for 100,000.
    """
    number = beside.name.rpartition("-")[2]
    rows = int(number) if number.isdecimal() else ROWS
    run = beside.with_name(f"explorer-{rows}")
    if not (run / WHOLE).exists():
        large_run(run, rows)
        (run / WHOLE).touch()
    return {"explorer_rows": rows, **measure(run)}


def measure(run: Path, filters: int = FILTERS, starts: int = STARTS) -> dict[str, float]:
    """Milliseconds: median over starts of the first screen, 95 % of filters, and beside them."""
    screens, commands, answers = [], [], list[float]()
    queries = _queries(run, filters)
    for start in range(starts):
        began = time.perf_counter()
        with _explorer(run) as address:
            printed = time.perf_counter()
            opener = build_opener(HTTPCookieProcessor())
            _first_screen(opener, address)
            shown = time.perf_counter()
            screens.append(1000 * (shown - printed))
            commands.append(1000 * (shown - began))
            home = address.partition("?")[0]
            answers += [_filter(opener, home, query) for query in queries[start::starts]]
    return {
        "first_screen_ms": round(float(np.median(screens)), 1),
        "filter_ms_p95": round(float(np.quantile(answers, 0.95)), 1),
        "filter_ms_median": round(float(np.median(answers)), 1),
        "filter_ms_max": round(max(answers), 1),
        "command_to_screen_ms": round(float(np.median(commands)), 1),
        "filters": len(answers),
    }


@contextmanager
def _explorer(run: Path) -> Generator[str]:
    """`palate view` on a run, and the address it prints; stopped at the end."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "palate", "view", str(run), "--marks", f"{folder}/marks"]
        server = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ
        )
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            if not address:
                raise SystemExit(f"{' '.join(command)}: ended without an address")
            yield address
        finally:
            server.terminate()
            server.wait()


def _first_screen(opener: OpenerDirector, address: str) -> None:
    """The token's page, then what a browser needs to show the list."""
    home = urlsplit(address)._replace(query="").geturl()
    for url in (address, home, f"{home}static/view.css", f"{home}static/view.js"):
        with opener.open(url) as answer:
            text = answer.read()
        assert answer.status == 200
        assert text


def _filter(opener: OpenerDirector, home: str, query: list[tuple[str, str]]) -> float:
    began = time.perf_counter()
    with opener.open(f"{home}r/0/?{urlencode(query)}") as answer:
        answer.read()
    return 1000 * (time.perf_counter() - began)


def _queries(run: Path, count: int) -> list[list[tuple[str, str]]]:
    """Queries that nobody asked before, of one to three filters; the same for one run."""
    draw = random.Random(0)
    parts = sorted((run / "benchmarks").glob("*.parquet"))
    words = [w for part in parts for w in _words(part, draw)]
    judges = sorted({path.name.partition("--")[0] for path in run.glob("verdicts/*.parquet")})
    sources = sorted({c.source for c in read_comparisons(parts[0], groups=[0])})

    def search() -> tuple[str, str]:
        chosen = [draw.choice(words) for _ in range(draw.randint(1, 2))]
        return ("q", " ".join(f'"{w}"' if " " in w else w for w in chosen))

    kinds = (
        search,
        search,
        lambda: ("rating", draw.choice(list(Rating)).label),
        lambda: ("bin", draw.choice(list(Bin)).value),
        lambda: ("part", draw.choice(parts).stem),
        lambda: ("source", draw.choice(sources)),
        lambda: (f"judge.{draw.choice(judges)}", draw.choice(("correct", "wrong"))),
        lambda: ("disagree", "yes"),
        lambda: ("sort", f"{draw.choice(('confident', 'unsure'))}:{draw.choice(judges)}"),
        lambda: ("page", str(draw.randint(1, 40))),
    )
    made: dict[str, list[tuple[str, str]]] = {}
    while len(made) < count:
        query = [draw.choice(kinds)() for _ in range(draw.randint(1, 3))]
        made.setdefault(urlencode(query), query)
    return list(made.values())


def _words(part: Path, draw: random.Random) -> list[str]:
    """Words and two-word phrases from the beginning of a file."""
    found = []
    for comparison in read_comparisons(part, groups=[0]):
        words = comparison.prompt[-1].content.split() or ["nothing"]
        at = draw.randrange(len(words))
        found += [words[at], " ".join(words[at : at + 2])]
    return found


def main() -> None:
    """Measure one run and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, nargs="?")
    run = parser.parse_args().run
    print(json.dumps(measure(run) if run else explorer(WORK / "run")))


if __name__ == "__main__":
    main()
