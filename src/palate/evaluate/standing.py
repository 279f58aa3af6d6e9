"""The verdict file that already stands where one is to be made: is it current, what can be kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate.evaluate.benchmark import Item
from palate.evaluate.record import Record, record_from
from palate.records import Header, read_header, read_verdicts, version_of
from palate.types import PalateError


@dataclass(frozen=True, slots=True)
class Standing:
    """What is at `path`: the header of whole verdicts, or None and the `problem` with the file."""

    path: Path
    header: Header | None = None
    problem: str = ""

    def is_current(self, fingerprint: str) -> bool:
        """Whether these are the verdicts under the protocol of that fingerprint."""
        if self.header is None or self.header.version != version_of("verdicts"):
            return False
        return bool(self.header.details.get("protocol_fingerprint") == fingerprint)

    def changes(self, protocol: Mapping[str, Any]) -> str:
        """What makes the file out of date under `protocol`, in words; "" where there is none."""
        if self.header is None:
            return self.problem
        old, new = _flat(self.header.details.get("protocol", {})), _flat(protocol)
        keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
        if not keys:
            return f"written in format {self.header.version}"
        return f"the protocol changed ({', '.join(keys)})"

    def answers(self, protocol: Mapping[str, Any], items: Iterable[Item]) -> dict[str, Record]:
        """The answers that hold under `protocol` too, by pair id.

        All of them where it changed in nothing but the order of sides: the same judge was shown
        the same pairs.
        """
        if self.header is None:
            return {}
        before = self.header.details.get("protocol", {})
        if {**before, "order": None} != {**protocol, "order": None}:
            return {}
        try:
            verdicts = list(read_verdicts(self.path, older=True))
        except PalateError:
            return {}  # Its header is whole and its rows are not.
        said = {(v.comparison_id, v.chosen_first): record_from(v) for v in verdicts}
        asked = ((item.pair.id, (item.comparison.id, item.chosen_first)) for item in items)
        return {pair_id: said[key] for pair_id, key in asked if key in said}


def standing(path: Path, judge: str, benchmark: str) -> Standing:
    """What stands at `path`; a file that is not whole is a problem, not an error.

    Raises:
        PalateError: the verdicts are of another judge or benchmark, whose name is as a file the
            same.
    """
    if not path.exists():
        return Standing(path)
    try:
        header = read_header(path, "verdicts", older=True)
    except PalateError as error:
        return Standing(path, problem=str(error))  # Costs time only: verdicts can be remade.
    for kind, name in (("judge", judge), ("benchmark", benchmark)):
        if header.details.get(kind) != name:
            raise PalateError(
                f"{path}: holds verdicts of {kind} {header.details.get(kind)!r}, and {name!r} "
                f"would take the same file; rename one {kind}"
            )
    return Standing(path, header)


def _flat(protocol: Mapping[str, Any]) -> dict[str, Any]:
    judge = protocol.get("judge", {})
    rest = {key: value for key, value in protocol.items() if key != "judge"}
    return rest | {f"judge.{key}": value for key, value in judge.items()}
