"""The benchmarks of the field by name: their items, and the scores that they define.

    base.py             what a benchmark is, what a score is made of, reading it whole
    rewardbench.py      RewardBench 1 and M-RewardBench
    rewardbench_2.py    RewardBench 2
    rm_bench.py, judgebench.py, llmbar.py, mt_bench_human.py, pandalm.py, ppe.py, rmb.py

To add one, write a file beside these that states where its data is and its rule, holds a
`NamedBenchmark`, and name it below. What has two responses gives comparisons, where they answer one
prompt; what has more gives `BenchmarkItem`s.

>>> sorted(BENCHMARKS)[:3]
['best-of-k', 'judgebench', 'llmbar']
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

from palate.data.benchmarks import (
    best_of_k,
    judgebench,
    llmbar,
    mt_bench_human,
    pandalm,
    ppe,
    rewardbench,
    rewardbench_2,
    rm_bench,
    rmb,
)
from palate.data.benchmarks.base import Answers, NamedBenchmark, Part, read
from palate.data.sources.base import Request
from palate.records import Header, write_comparisons, write_items
from palate.types import BenchmarkItem, Comparison, PalateError
from palate.validation import did_you_mean

__all__ = [
    "BENCHMARKS",
    "Answers",
    "NamedBenchmark",
    "Part",
    "benchmark_named",
    "import_benchmark",
    "read",
]

BENCHMARKS: Mapping[str, NamedBenchmark] = {
    one.name: one
    for one in (
        rewardbench.BENCHMARK,
        rewardbench_2.BENCHMARK,
        rm_bench.BENCHMARK,
        judgebench.BENCHMARK,
        llmbar.BENCHMARK,
        mt_bench_human.BENCHMARK,
        pandalm.BENCHMARK,
        ppe.HUMAN,
        ppe.CORRECTNESS,
        rewardbench.MULTILINGUAL,
        rmb.PAIRS,
        rmb.LISTS,
        best_of_k.BENCHMARK,
    )
}
NAMED = "named"  # In a file's header: the benchmark that it holds.


def benchmark_named(name: str) -> NamedBenchmark:
    """The benchmark of that name; an unknown one is an error that names the nearest."""
    if name in BENCHMARKS:
        return BENCHMARKS[name]
    raise PalateError(f"no benchmark {name!r}; {did_you_mean(name, BENCHMARKS)}")


def import_benchmark(
    name: str, path: Path, request: Request | None = None, *, partial: bool = False
) -> Header:
    """Write a benchmark as Palate's Parquet: pairs as comparisons, others as items.

    Raises as `read` does; nothing is written then.
    """
    benchmark, request = benchmark_named(name), request or Request()
    rows = read(benchmark, request, partial=partial)
    details = {NAMED: name, "location": str(request.location or ", ".join(benchmark.hub_ids))}
    if benchmark.kind == "pairs":
        return write_comparisons(path, cast(Iterator[Comparison], rows), details=details)
    return write_items(path, cast(Iterator[BenchmarkItem], rows), details=details)
