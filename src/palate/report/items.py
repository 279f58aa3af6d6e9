"""The comparisons behind verdicts, by column: tables of parts and examples need more of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from palate.evaluate.results import Codes
from palate.records import read_columns, read_header
from palate.report.read import Judged
from palate.types import PalateError


@dataclass(frozen=True, slots=True, eq=False)
class Items:
    """A benchmark's comparisons; arrays are [N] in the order of the file at `path`.

    `turns` counts the messages of each prompt.
    """

    path: Path
    ids: pa.Array
    sources: NDArray[Any]
    turns: Codes

    def places(self, ids: NDArray[Any]) -> Codes:
        """Where each of `ids` [M] stands in the file; -1 where it does not."""
        found = pc.index_in(pa.array(ids, pa.string()), value_set=self.ids)
        return np.asarray(pc.fill_null(found, -1).to_numpy(), dtype=np.int64)


def read_items(runs: Sequence[Path], judged: Judged) -> tuple[dict[str, Items], list[str]]:
    """The comparisons of each benchmark that are still in the runs' folders, and what is broken.

    A file belongs to verdicts that name its fingerprint; by name alone where they name none.
    """
    by_print: dict[str, Path] = {}
    by_name: dict[str, Path] = {}
    problems: list[str] = []
    for path in _benchmark_files(runs):
        try:
            by_print.setdefault(read_header(path, "comparisons").fingerprint, path)
            by_name.setdefault(path.stem, path)
        except PalateError as error:
            problems.append(str(error))
    items = {}
    for name in judged.benchmarks():
        data = {t.terms.data for (_, b), t in judged.tallies.items() if b == name}
        paths = [by_print[one] for one in sorted(data) if one in by_print]
        if not any(data) and name in by_name:
            paths.append(by_name[name])
        if paths:
            items[name] = _items(paths[0])
    return items, problems


def _benchmark_files(runs: Sequence[Path]) -> Iterator[Path]:
    return (path for run in runs for path in sorted((run / "benchmarks").glob("*.parquet")))


def _items(path: Path) -> Items:
    table = read_columns(path, ["id", "source", "prompt"], "comparisons").combine_chunks()
    ids = table["id"].combine_chunks()
    return Items(
        path=path,
        ids=ids,
        sources=table["source"].to_numpy().astype(object),
        turns=pc.list_value_length(table["prompt"]).to_numpy().astype(np.int64),
    )
