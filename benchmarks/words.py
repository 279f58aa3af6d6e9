"""How far words and length alone go: a bag of words trained on a run's pools, asked its benchmarks.

    python benchmarks/words.py RUN [--mix helpful-online,stackexchange ...] [--benchmark NAME ...]

RUN is the folder of a recipe that has come to its mixtures (`palate mix RECIPE --out RUN`). Each
--mix names pools under RUN/data/pools; the default is every pool alone and all together. A ranker
without any knowledge of language, fitted in seconds, says what a data set can teach and whether it
carries over to a benchmark: a reward model that does worse has learnt less than which words win.
`within` is five-fold on the benchmark itself, by prompt: what its own data would teach.

Bradley-Terry on the difference of two feature vectors, with an L2 penalty of 0.03, the middle of
three that were tried (0.01, 0.03, 0.1): presence of each word of at least 8 pairs, log(1 + words),
words / 50, and whether the response ends in a question.
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_matrix

from palate.data.prompts import hash64
from palate.records import read_comparisons
from palate.stats import accuracy
from palate.types import Comparison

PENALTY = 0.03
MIN_PAIRS = 8
FOLDS = 5


def words(text: str) -> list[str]:
    """Lower-case words, question and exclamation marks, line breaks."""
    return re.findall(r"[a-z']+|[?!\n]", text.lower())


def vocabulary(rows: Sequence[Comparison]) -> dict[str, int]:
    """A column for each word that occurs in enough pairs."""
    counts = Counter(w for c in rows for w in {*words(c.chosen), *words(c.rejected)})
    return {word: i for i, word in enumerate(w for w, n in counts.items() if n >= MIN_PAIRS)}


def differences(rows: Sequence[Comparison], columns: dict[str, int]) -> csr_matrix:
    """Features of chosen minus those of rejected, [pairs, features]."""
    row, column, value = [], [], []
    for i, comparison in enumerate(rows):
        for text, sign in ((comparison.chosen, 1.0), (comparison.rejected, -1.0)):
            found = words(text)
            known = [columns[w] for w in set(found) if w in columns]
            shape = [3 * np.log1p(len(found)), len(found) / 50, 3.0 * text.rstrip().endswith("?")]
            row += [i] * (len(known) + len(shape))
            column += [*known, *range(len(columns), len(columns) + len(shape))]
            value += [sign] * len(known) + [sign * s for s in shape]
    return csr_matrix((value, (row, column)), shape=(len(rows), len(columns) + 3))


def fit(gaps: csr_matrix) -> NDArray[np.float64]:
    """Weights of the Bradley-Terry model with an L2 penalty."""

    def loss(w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z = gaps @ w
        gradient = -gaps.T @ (1 / (1 + np.exp(np.clip(z, -500, 500)))) / len(z)
        return float(np.logaddexp(0, -z).mean() + PENALTY * (w @ w) / 2), gradient + PENALTY * w

    start = np.zeros(gaps.shape[1])
    return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B").x)


def figure(margins: NDArray[np.float64], rows: Sequence[Comparison]) -> dict[str, float]:
    """Accuracy in %, its 95 % interval's longer arm and n, clustered by prompt."""
    found = accuracy((np.sign(margins) + 1) / 2, clusters=[c.prompt_id for c in rows])
    arm = max(found.value - found.low, found.high - found.value)
    return {"accuracy": round(100 * found.value, 1), "arm": round(100 * arm, 1), "n": found.n}


def transfer(train: Sequence[Comparison], asked: Sequence[Comparison]) -> dict[str, float]:
    """Fitted on `train`, asked `asked`."""
    columns = vocabulary(train)
    return figure(differences(asked, columns) @ fit(differences(train, columns)), asked)


def within(rows: Sequence[Comparison]) -> dict[str, float]:
    """Fitted on four fifths of `rows` and asked the fifth, five times, by prompt."""
    fold = np.array([hash64("fold", c.prompt_id) % FOLDS for c in rows])
    margins = np.empty(len(rows))
    for k in range(FOLDS):
        train = [c for c, f in zip(rows, fold, strict=True) if f != k]
        columns = vocabulary(train)
        asked = [c for c, f in zip(rows, fold, strict=True) if f == k]
        margins[fold == k] = differences(asked, columns) @ fit(differences(train, columns))
    return figure(margins, rows)


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
