"""Rows of a file that ask for rewards: a prompt, and what was answered to it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from palate.data.messages import unread_beside
from palate.data.sources import base, own
from palate.data.sources.base import BadRow, Unfit
from palate.data.sources.files import read_file
from palate.types import Candidates, PalateError

Shape = Literal["response", "responses", "pair"]
SHAPES: Mapping[Shape, str] = {
    "response": "`response` (text)",
    "responses": "`responses` (a list of texts)",
    "pair": "`chosen` and `rejected` (texts)",
}


@dataclass(frozen=True, slots=True)
class Request:
    """One input row: where it stands, what to score, the row, and its responses as it has them."""

    index: int
    where: str
    candidates: Candidates
    shape: Shape
    row: Mapping[str, Any]
    responses: tuple[str, ...]


def requests(path: Path, takes: tuple[Shape, ...] = ("response", "responses")) -> Iterator[Request]:
    """The rows of a file in any format that `palate data import` takes, validated.

    Memory is bounded, but for a JSON array, which is read whole. A row has `prompt` (text, also
    with its turns marked inside, or a list of {role, content}) and one of the shapes in `takes`.

    Raises:
        PalateError: a row that has not, with file and row.
    """
    for index, record in enumerate(read_file(path)):
        if isinstance(record, BadRow):
            raise PalateError(str(record))
        where = f"{record.file}:{record.row}"
        try:
            yield _request(index, record.data, where, takes)
        except Unfit as unfit:
            raise PalateError(f"{where}: {unfit.reason}") from None


def is_parquet(path: Path) -> bool:
    """Whether the name says Parquet; all else is JSON lines."""
    return path.suffix == ".parquet"


def _request(index: int, row: Mapping[str, Any], where: str, takes: tuple[Shape, ...]) -> Request:
    if row.get("prompt") is None and "pair" not in takes:
        raise Unfit("expected `prompt` as text or a list of messages, got nothing")
    found = [shape for shape in takes if _holds(row, shape)]
    if len(found) != 1:
        expected = " or ".join(SHAPES[shape] for shape in takes)
        got = ", ".join(f"{name} {_kind(row.get(name))}" for name in _columns(takes))
        either = "either " if len(takes) > 1 else ""
        raise Unfit(f"expected {either}{expected}, got {got}")
    (shape,) = found
    if shape == "pair":
        prompt, *sides = own.sides(row)[:3]
        return Request(index, where, Candidates(prompt, tuple(sides)), shape, row, tuple(sides))
    if reason := unread_beside(row):
        raise Unfit(reason)
    asked = base.prompt(row)
    given = tuple(_listed(row["responses"]) or ()) if shape == "responses" else (row["response"],)
    answers = tuple(asked.reply(base.as_text(text, shape)) for text in given)
    return Request(index, where, Candidates(asked.turns, answers), shape, row, given)


def _holds(row: Mapping[str, Any], shape: Shape) -> bool:
    """Whether the row has that shape."""
    if shape == "response":
        return isinstance(row.get("response"), str)
    if shape == "pair":
        return row.get("chosen") is not None and row.get("rejected") is not None
    many = _listed(row.get("responses"))
    return bool(many) and all(isinstance(text, str) for text in many or ())


def _listed(value: Any) -> list[Any] | None:
    """A list, also as the JSON that a format without lists, such as CSV, holds of it."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, list) else None


def _columns(takes: tuple[Shape, ...]) -> list[str]:
    return [
        name for shape in takes for name in (["chosen", "rejected"] if shape == "pair" else [shape])
    ]


def _kind(value: object) -> str:
    return "nothing" if value is None else type(value).__name__
