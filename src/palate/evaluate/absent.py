"""Judges that a run could not ask, and why: kept beside its verdicts, so that tables can say so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from palate.records import write_json
from palate.types import PalateError

FILE = "absent.json"


def write_absent(verdicts: Path, reasons: Mapping[str, str]) -> None:
    """Keep each absent judge's reason in the folder of verdicts; none, and the file goes."""
    if reasons:
        write_json(verdicts / FILE, dict(reasons))
    else:
        (verdicts / FILE).unlink(missing_ok=True)


def read_absent(verdicts: Path) -> dict[str, str]:
    """The reason of each judge that could not be asked when these verdicts were made.

    Raises:
        PalateError: the file is not what `write_absent` wrote.
    """
    path = verdicts / FILE
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(judge): str(reason) for judge, reason in found.items()}
    except (OSError, ValueError, AttributeError):
        raise PalateError(f"{path}: cannot be read; evaluate again") from None
