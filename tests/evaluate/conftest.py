"""Benchmarks made up for the tests of this room."""

from collections.abc import Callable
from pathlib import Path

import pytest

from palate.evaluate.benchmark import Benchmark
from palate.records import write_comparisons
from palate.types import Comparison, Message, Rating, comparison_id


def made_comparison(number: int) -> Comparison:
    """The chosen response is odd in length exactly when `number` is."""
    prompt = (Message("user", f"Question number {number}, please?"),)
    chosen, rejected = f"good {number} {'x' * (number % 7)}", f"bad {number} {'y' * (number % 5)}"
    return Comparison(
        id=comparison_id("made", prompt, chosen, rejected),
        source="made",
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        prompt_id=f"q{number // 2}",
        rating=Rating(number % 4 + 1),
        chosen_safe=True,
        rejected_safe=number % 2 == 0,
    )


@pytest.fixture
def make_benchmark(tmp_path: Path) -> Callable[..., Benchmark]:
    """`make_benchmark(rows, name="made")`: a benchmark of that many comparisons on disk."""

    def make(rows: int, name: str = "made") -> Benchmark:
        path = tmp_path / f"{name}-{rows}.comparisons.parquet"
        write_comparisons(path, map(made_comparison, range(rows)))
        return Benchmark(name, path, paper_column=None)

    return make
