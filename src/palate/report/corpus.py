"""The data of a run as tables: what mixtures asked for and got, what is in them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from palate.evaluate.results import Floats
from palate.records import read_batches
from palate.report import escape
from palate.report.accuracy import RATINGS
from palate.report.tables import DASH, Cell, Column, Row, Table, count, percent
from palate.types import Bin, PalateError

LABELS = {
    (True, False): Bin.SAFE_UNSAFE,
    (True, True): Bin.BOTH_SAFE,
    (False, False): Bin.BOTH_UNSAFE,
}
NONE = "none"


@dataclass(slots=True)
class Contents:
    """What is in a file of comparisons; `lengths` are characters of chosen and rejected, [N, 2]."""

    name: str
    role: str
    rows: int = 0
    prompts: set[str] = field(default_factory=set)
    sources: Counter[str] = field(default_factory=Counter)
    ratings: Counter[str] = field(default_factory=Counter)
    bins: Counter[str] = field(default_factory=Counter)
    batches: Counter[tuple[str, str]] = field(default_factory=Counter)
    turns: Counter[int] = field(default_factory=Counter)
    lengths: Floats = field(default_factory=lambda: np.empty((0, 2)))


COLUMNS = [
    "source", "prompt", "chosen", "rejected", "prompt_id", "batch", "rating", "chosen_safe",
    "rejected_safe",
]  # fmt: skip


def read_contents(run: Path) -> tuple[list[Contents], list[str]]:
    """What is in the mixtures and benchmarks of a run, and which files are broken."""
    found, problems = [], []
    paths = [(p, "mixture") for p in sorted((run / "mixtures").glob("*.parquet"))]
    paths += [(p, "benchmark") for p in sorted((run / "benchmarks").glob("*.parquet"))]
    for path, role in paths:
        if path.name.endswith(".ids.parquet"):
            continue
        try:
            found.append(_contents(path, role))
        except PalateError as error:
            problems.append(str(error))
    return found, problems


def _contents(path: Path, role: str) -> Contents:
    made, lengths = Contents(path.stem, role), []
    for batch in read_batches(path, COLUMNS, "comparisons"):
        made.rows += batch.num_rows
        of = {name: batch.column(name).to_pylist() for name in COLUMNS[4:]}
        ratings = [rating or NONE for rating in of["rating"]]
        made.prompts.update(of["prompt_id"])
        made.sources.update(batch.column("source").to_pylist())
        made.ratings.update(ratings)
        safe = zip(of["chosen_safe"], of["rejected_safe"], strict=True)
        made.bins.update(LABELS.get(pair, NONE) for pair in safe)
        made.batches.update(zip(of["batch"], ratings, strict=True))
        made.turns.update(pc.list_value_length(batch.column("prompt")).to_pylist())
        sides = [pc.utf8_length(batch.column(name)).to_numpy() for name in ("chosen", "rejected")]
        lengths.append(np.stack(sides, axis=1).astype(np.float64))
    made.lengths = np.concatenate(lengths) if lengths else made.lengths
    return made


def mixture_table(runs: Sequence[Path]) -> Table | None:
    """Shares asked and achieved, by group and pool; None where no mixture was made."""
    rows = [
        Row((Cell(escape.name(name)), *_share(share)), escape.name(name))
        for name, share in _shares(runs)
    ]
    columns = (
        *(Column(name, figures=False) for name in ("Mixture", "Group", "Source")),
        *(Column(name) for name in ("Available", "Asked", "Taken")),
        *(Column(name) for name in ("Share asked (%)", "of rows (%)", "of tokens (%)")),
    )
    remark = "Tokens are estimated from characters where the mixture was made without a tokenizer."
    title = "Mixtures: shares asked and achieved"
    return Table("mixture", title, columns, tuple(rows), (remark,)) if rows else None


def _shares(runs: Sequence[Path]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for run in runs:
        for path in sorted((run / "mixtures").glob("*.shares.json")):
            name = path.name.removesuffix(".shares.json")
            try:
                shares = json.loads(path.read_text(encoding="utf-8"))["shares"]
                found = [share for share in shares if isinstance(share["rows"], int)]
            except (ValueError, KeyError, TypeError):
                continue
            whole = f"{run.name}: {name}" if len(runs) > 1 else name
            yield from ((whole, share) for share in found)


def _share(share: Mapping[str, Any]) -> Iterator[Cell]:
    yield Cell(escape.name(str(share["group"])))
    yield Cell(escape.name(str(share["pool"])) if share["pool"] else "whole group")
    yield from (_count(share.get(key)) for key in ("available", "rows_asked", "rows"))
    for key in ("share_asked", "share_rows", "share_tokens"):
        value = share.get(key)
        yield Cell(DASH if value is None else percent(float(value)))


def _count(value: int | None) -> Cell:
    return Cell(DASH) if value is None else count(value)


def contents_table(contents: Sequence[Contents]) -> Table | None:
    """Ratings, safety bins and lengths of mixtures and benchmarks; None where there are none."""
    bins = [bin.value for bin in Bin]
    columns = (
        *(Column(name, figures=False) for name in ("Data", "Use")),
        *(Column(name) for name in ("Comparisons", "Prompts")),
        *(Column(rating.label.capitalize()) for rating in RATINGS),
        Column("Unrated"),
        *(Column(name.capitalize()) for name in bins),
        *(Column(name) for name in ("Chosen, characters", "Rejected, characters")),
    )
    rows = tuple(
        Row(
            (
                Cell(escape.name(one.name)),
                Cell(one.role),
                *map(count, (one.rows, len(one.prompts))),
                *(_some(one.ratings[rating.label]) for rating in RATINGS),
                _some(one.ratings[NONE]),
                *(_some(one.bins[name]) for name in bins),
                *(_median(one, side) for side in (0, 1)),
            ),
            one.role,
        )
        for one in contents
    )
    remark = "Characters: the median length of the preferred and of the other response."
    title = "Contents: ratings, safety bins and lengths"
    return Table("contents", title, columns, rows, (remark,)) if rows else None


def _some(number: int) -> Cell:
    return count(number) if number else Cell(DASH)


def _median(one: Contents, side: int) -> Cell:
    return count(round(float(np.median(one.lengths[:, side])))) if one.rows else Cell(DASH)


def batches_table(contents: Sequence[Contents]) -> Table | None:
    """Comparisons by annotation batch; None where no mixture has more than one."""
    rows = []
    for one in contents:
        names = sorted({batch for batch, _ in one.batches})
        if one.role != "mixture" or len(names) < 2:
            continue
        for name in names:
            by = [one.batches[name, rating.label] for rating in RATINGS]
            unrated = one.batches[name, NONE]
            cells = (count(sum(by) + unrated), *map(_some, by), _some(unrated))
            heads = (Cell(escape.name(one.name)), Cell(escape.name(name)))
            rows.append(Row((*heads, *cells), heads[0].text))
    columns = (
        *(Column(name, figures=False) for name in ("Mixture", "Batch")),
        Column("Comparisons"),
        *(Column(rating.label.capitalize()) for rating in RATINGS),
        Column("Unrated"),
    )
    title = "Batches: comparisons by annotation batch"
    return Table("batches", title, columns, tuple(rows)) if rows else None
