"""A run on disk whose benchmark has items of K responses, and judges that are right by rule."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import published
from palate.data.benchmarks import import_benchmark
from palate.data.sources.base import Request
from palate.evaluate.benchmark import Benchmark
from palate.evaluate.run import evaluate
from palate.judges import open_judge
from palate.judges.scorer import ScorerJudge
from palate.types import Candidates, Score

NAME = "rewardbench-2"
SUBSETS = ("Factuality", "Math")


def rows(count: int = 40) -> list[dict[str, Any]]:
    """Items of four, half of each subset, two a prompt; every second right response is longest."""
    return [
        published.rewardbench_2(SUBSETS[n % 2], str(n))
        | {"prompt": f"Question {n // 2}?", "chosen": [f"right {n}" + " so" * (9 * (n % 4 < 2))]}
        for n in range(count)
    ]


class ByRule:
    """Scores a right response above the others but for every `wrong`th item; None of `unscored`."""

    protocol = {"judge": "reward-model"}  # noqa: RUF012

    def __init__(self, name: str, wrong: int, unscored: tuple[int, ...] = ()) -> None:
        self.name, self.wrong, self.unscored = name, wrong, unscored

    def score(self, candidates: Iterable[Candidates]) -> Iterator[tuple[Score, ...]]:
        for shown in candidates:
            yield tuple(self._score(text) for text in shown.responses)

    def _score(self, text: str) -> Score:
        kind, *words = text.split()
        number = int(words[0] if kind == "right" else words[-1])
        if kind == "right" and number in self.unscored:
            return Score(None, "over the limit", truncated=True)
        of_four = 0.0 if kind == "right" else 1.0 + int(words[0])
        return Score(5.0 - of_four if number % self.wrong else of_four)


def write_run(folder: Path, count: int = 40, name: str = NAME) -> Path:
    """A run's folder with the benchmark, trivial judges, `good` (3 in 4 right) and `poor`."""
    path = folder / "benchmarks" / f"{name}.parquet"
    file = published.write_rows(folder / "rows.json", rows(count))
    import_benchmark(NAME, path, Request(file), partial=True)
    judges = [open_judge(one) for one in ("random", "longer", "shorter", "first")]
    judges += [ScorerJudge(ByRule("good", 4)), ScorerJudge(ByRule("poor", 2, (1, 2)))]
    for judge in judges:
        evaluate(judge, Benchmark(name, path), folder / "verdicts")
    return folder
