"""How far words and length alone go: a bag of words trained on a run's pools, asked its benchmarks.

    python -m benchmarks.words RUN [--mix helpful-online,stackexchange ...] [--benchmark NAME ...]

RUN is the folder of a recipe that has come to its mixtures (`palate mix RECIPE --out RUN`). Each
--mix names pools under RUN/data/pools; the default is every pool alone and all together. A ranker
without any knowledge of language, fitted in seconds, says what a data set can teach and whether it
carries over to a benchmark: a reward model that does worse has learnt less than which words win.
`within` is five-fold on the benchmark itself, by prompt: what its own data would teach.

It is the bag of words of `palate.evaluate.surface`, which `palate audit` fits on a benchmark.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from palate.evaluate.surface import bag_of_words, cross_fitted, folds, margins
from palate.records import read_comparisons
from palate.stats import accuracy
from palate.types import Comparison


def figure(margins: NDArray[np.float64], rows: Sequence[Comparison]) -> dict[str, float]:
    """Accuracy in %, its 95 % interval's longer arm and n, clustered by prompt."""
    found = accuracy((np.sign(margins) + 1) / 2, clusters=[c.prompt_id for c in rows])
    arm = max(found.value - found.low, found.high - found.value)
    return {"accuracy": round(100 * found.value, 1), "arm": round(100 * arm, 1), "n": found.n}


def transfer(train: Sequence[Comparison], asked: Sequence[Comparison]) -> dict[str, float]:
    """Fitted on `train`, asked `asked`."""
    differences, either = bag_of_words([*train, *asked])
    rows = np.arange(len(train) + len(asked))
    found = margins(differences, rows[len(train) :], rows[: len(train)], either)
    return figure(found, asked)


def within(rows: Sequence[Comparison]) -> dict[str, float]:
    """Fitted on four fifths of `rows` and asked the fifth, five times, by prompt."""
    differences, either = bag_of_words(rows)
    return figure(cross_fitted(differences, folds(rows), either), rows)


def main() -> None:
    """Print a line for each mix and benchmark, then one JSON line of all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--mix", nargs="*", help="pools joined by commas")
    parser.add_argument("--benchmark", nargs="*", help="default: all of the run")
    options = parser.parse_args()
    pools = {p.stem: p for p in sorted((options.run / "data" / "pools").glob("*.parquet"))}
    pools = {name: path for name, path in pools.items() if "." not in name}
    mixes = options.mix or [*pools, ",".join(pools)]
    results = []
    for path in sorted((options.run / "benchmarks").glob("*.parquet")):
        if options.benchmark and path.stem not in options.benchmark:
            continue
        asked = list(read_comparisons(path))
        found = {"within": within(asked)}
        for mix in mixes:
            train = [c for name in mix.split(",") for c in read_comparisons(pools[name])]
            found[mix] = transfer(train, asked)
        for name, cell in found.items():
            share, arm, n = cell["accuracy"], cell["arm"], cell["n"]
            print(f"{path.stem:24} {name:60} {share:5.1f} ± {arm} (n = {n})")
            results.append({"benchmark": path.stem, "trained_on": name, **cell})
    print(json.dumps(results))


if __name__ == "__main__":
    main()
