"""A judge of your own on a benchmark, with intervals: here, one that counts question marks.

    python examples/judge.py BENCHMARK.parquet FOLDER

A judge sees pairs with the label hidden and the sides shuffled, so it cannot cheat.
"""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from palate.evaluate.benchmark import Benchmark
from palate.evaluate.metrics import read_judge_results, summarise
from palate.evaluate.run import evaluate
from palate.judges import ScorerJudge
from palate.stats import Estimate
from palate.types import Candidates, Score


@dataclass(frozen=True)
class FewerQuestions:
    """Prefers the response that asks less."""

    name: str = "fewer questions"

    @property
    def protocol(self) -> dict[str, str]:
        return {"judge": self.name}

    def score(self, candidates: Iterable[Candidates]) -> Iterator[tuple[Score, ...]]:
        for candidate in candidates:
            yield tuple(Score(-float(text.count("?"))) for text in candidate.responses)


def main(benchmark: Path, folder: Path) -> Estimate:
    """Accuracy of the judge on a file of comparisons, with its interval and n."""
    asked = Benchmark(benchmark.stem, benchmark)
    verdicts = evaluate(ScorerJudge(FewerQuestions()), asked, folder)
    return summarise(read_judge_results(verdicts)).overall


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), Path(sys.argv[2])))
