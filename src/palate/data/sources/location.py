"""From a request to its records: a local file or folder, or a hub id."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from palate.data.sources import hub
from palate.data.sources.files import ending, find_files, read_file, stem
from palate.data.sources.source import Records, Request
from palate.types import PalateError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def locate(request: Request, hub_id: str | None) -> Path | str:
    """The local path of a request, which exists, or else a hub id."""
    location = request.location
    if location is None:
        if hub_id is None:
            raise PalateError("expected a local file or folder or a hub id, got none")
        return hub_id
    path = Path(location).expanduser()
    if path.exists():
        return path
    if isinstance(location, str) and _HUB_ID.fullmatch(location) and not ending(path):
        return location
    raise PalateError(f"{location}: no such file or folder")


def records(
    request: Request,
    hub_id: str | None,
    *,
    splits: Sequence[str] = ("train",),
    folder: bool = False,
) -> Records:
    """The records of a request in order.

    `splits` are those of the hub form, all of them read unless one is asked for. With `folder`,
    a subset is a folder of the data set rather than a configuration of it.
    """
    where = locate(request, hub_id)
    if isinstance(where, str):
        name, data_dir = (None, request.subset) if folder else (request.subset, None)
        for split in [request.split] if request.split else splits:
            yield from hub.stream(where, split=split, name=name, data_dir=data_dir)
        return
    for path, part in parts(where, request.split, request.subset if folder else None):
        yield from read_file(path, part)


def parts(
    location: Path, split: str | None = None, subset: str | None = None
) -> Iterator[tuple[Path, str]]:
    """The data files at a location, each with its name below it ("askculinary/train")."""
    for path in find_files(location, split, subset):
        above = path.relative_to(location).parent.parts if location.is_dir() else ()
        yield path, "/".join((*above, stem(path)))
