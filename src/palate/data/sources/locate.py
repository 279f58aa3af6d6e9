"""Where a source's rows are: what was given, below the data root, or on the hub."""

from __future__ import annotations

from pathlib import Path

from palate.types import PalateError

DATA_VARIABLE = "PALATE_DATA"  # The data root, where none is given.


def locate(path: str | None, folder: str | None, root: str | None) -> Path | str | None:
    """The location to read: an existing path under `root` or as given, else `path` as it stands.

    Without a `path`, the source's own `folder` below `root` where it is there, else None, which
    is the source's hub id.

    Raises:
        PalateError: a `root` that is no folder; it would send every source to the hub in silence.
    """
    if path is None and folder is None:
        return None  # Made, not read.
    if root and not Path(root).is_dir():
        raise PalateError(
            f"{root}: no such data folder; give an existing one to --data, PALATE_DATA or data.root"
        )
    if path is None:
        below = Path(root, folder) if root and folder else None
        return below if below is not None and below.exists() else None
    given = Path(path).expanduser()
    candidates = [Path(root) / given] if root else []
    return next((p for p in (*candidates, given) if p.exists()), path)
