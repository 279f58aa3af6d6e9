"""From what was typed after `palate data` to a stream of comparisons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from palate.data.sources import SOURCES, BadRow, Request, open_source, readable, source_named
from palate.recipe.locate import locate
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
