"""From the files and sources that were typed to comparisons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from palate.data.sources import (
    SOURCES,
    BadRow,
    Request,
    open_source,
    readable,
    source_named,
)
from palate.data.sources.files import locate, stem
from palate.data.sources.own import is_ours
from palate.progress import info
from palate.records import write_comparisons
from palate.types import Comparison, PalateError


def comparisons(
    source: str,
    path: str | None,
    subset: str | None,
    split: str | None,
    options: Sequence[str] | None,
    data: str | None,
    max_bad_share: float,
) -> tuple[Iterator[Comparison], list[BadRow]]:
    """The readable rows of a source, and a list that fills with the others as they are met."""
    name, location = _named(source, path, data)
    request = Request(location, split, subset, _options(options or ()))
    bad: list[BadRow] = []
    return readable(open_source(name, request), max_bad_share, bad.append), bad


def all_of(file: Path) -> Iterator[Comparison]:
    """The comparisons of a file, Palate's own or in any other format that it imports."""
    return readable(open_source("own", Request(file)))


def comparison_file(file: Path, folder: Path) -> Path:
    """The file itself where Palate wrote it, else what it holds as comparisons, in `folder`.

    Raises:
        PalateError: there is no such file, or more than 1 % of its rows cannot be read.
    """
    if is_ours(file) or not file.is_file():
        return file  # What is missing, or of another kind, is said where it is used.
    out = folder / f"{stem(file)}.parquet"
    bad: list[BadRow] = []
    rows = readable(open_source("own", Request(file)), on_bad=bad.append)
    header = write_comparisons(out, rows, details={"source": str(file)})
    for row in bad[:5]:
        info(str(row))
    info(f"{file}: {header.rows:,} comparisons, {len(bad):,} rows not read; kept in {out}")
    return out


def _named(source: str, path: str | None, data: str | None) -> tuple[str, Path | str | None]:
    if source in SOURCES:
        return source, locate(path, SOURCES[source].folder, data)
    if Path(source).exists():
        return "own", Path(source)
    if Path(source).suffix or "/" in source:
        raise PalateError(f"{source}: no such file")
    return source_named(source).name, None  # Unknown: the error names the nearest source.


def _options(assignments: Sequence[str]) -> dict[str, Any]:
    pairs = [assignment.partition("=") for assignment in assignments]
    for key, equals, _ in pairs:
        if not (key and equals):
            raise PalateError(f"--option {key!r}: expected KEY=VALUE")
    return {key: yaml.safe_load(value) for key, _, value in pairs}
