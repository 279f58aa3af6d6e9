"""Rows of JSONL or Parquet that ask for rewards: a prompt, and what was answered to it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from palate.data.messages import as_messages, unread_beside
from palate.records import read_rows
from palate.types import Candidates, Message, PalateError

Shape = Literal["response", "responses", "pair"]
SHAPES: Mapping[Shape, str] = {
    "response": "`response` (text)",
    "responses": "`responses` (a list of texts)",
    "pair": "`chosen` and `rejected` (texts)",
}


@dataclass(frozen=True, slots=True)
class Request:
    """One input row: where it stands, what to score, and the row itself."""

    index: int
    where: str
    candidates: Candidates
    shape: Shape
    row: Mapping[str, Any]


def requests(path: Path, takes: tuple[Shape, ...] = ("response", "responses")) -> Iterator[Request]:
    """The rows of a JSONL or Parquet file, validated, in bounded memory.

    A row has `prompt` (text, or a list of {role, content}) and one of the shapes in `takes`.

    Raises:
        PalateError: a row that has not, with file and row.
    """
    rows = enumerate(read_rows(path), 1) if is_parquet(path) else _json_lines(path)
    for index, (number, row) in enumerate(rows):
        yield _request(index, row, f"{path}:{number}", takes)


def is_parquet(path: Path) -> bool:
    """Whether the name says Parquet; all else is JSON lines."""
    return path.suffix == ".parquet"


def _request(index: int, row: Mapping[str, Any], where: str, takes: tuple[Shape, ...]) -> Request:
    if reason := unread_beside(row):
        raise PalateError(f"{where}: {reason}")
    prompt = row.get("prompt")
    if isinstance(prompt, str):
        messages: tuple[Message, ...] = (Message("user", prompt),)
    elif isinstance(prompt, list):
        messages = as_messages(prompt, f"{where}: prompt")
    else:
        raise PalateError(
            f"{where}: expected `prompt` as text or a list of messages, got {_kind(prompt)}"
        )
    found = [(shape, texts) for shape in takes if (texts := _texts(row, shape)) is not None]
    if len(found) != 1:
        expected = " or ".join(SHAPES[shape] for shape in takes)
        got = ", ".join(f"{name} {_kind(row.get(name))}" for name in _columns(takes))
        either = "either " if len(takes) > 1 else ""
        raise PalateError(f"{where}: expected {either}{expected}, got {got}")
    shape, texts = found[0]
    return Request(index, where, Candidates(messages, texts), shape, row)


def _texts(row: Mapping[str, Any], shape: Shape) -> tuple[str, ...] | None:
    """The row's responses where it has that shape."""
    if shape == "responses":
        many = row.get("responses")
        return tuple(many) if isinstance(many, list) and _all_text(many) else None
    values = [row.get(name) for name in _columns((shape,))]
    return tuple(str(value) for value in values) if _all_text(values) else None


def _columns(takes: tuple[Shape, ...]) -> list[str]:
    return [
        name for shape in takes for name in (["chosen", "rejected"] if shape == "pair" else [shape])
    ]


def _all_text(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(value, str) for value in values)


def _kind(value: object) -> str:
    return "nothing" if value is None else type(value).__name__


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, _json_object(line, f"{path}:{number}")
    except OSError as error:
        raise PalateError(f"{path}: cannot be read ({error.strerror or error})") from None


def _json_object(line: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise PalateError(f"{where}: not JSON ({error}); expected one object a line") from None
    if not isinstance(value, dict):
        raise PalateError(f"{where}: expected an object with prompt and response")
    return value
