"""What a user's file holds, and the mapping that would read it, guessed from its first rows.

A mapping is guessed from the names of columns and from what stands in them, and it is tried before
it is proposed: the rows that are shown are those that the import will give.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from palate.data.messages import shown
from palate.data.sources import SOURCES, BadRow, Request, not_read, own, worst
from palate.data.sources.answers import refuse_unanswered
from palate.data.sources.base import Record, Source
from palate.data.sources.files import data_files, describe_file, read_file
from palate.data.sources.mapping import Layout, word
from palate.types import Comparison, PalateError

NAMES: Mapping[str, tuple[str, ...]] = {
    "prompt": ("prompt", "question", "instruction", "query", "input", "context", "task", "post"),
    "chosen": ("chosen", "preferred", "accepted", "better", "winning", "positive", "pos"),
    "rejected": ("rejected", "dispreferred", "other", "worse", "losing", "negative", "neg"),
    "winner": (
        "winner", "preference", "preferred", "better", "best", "choice", "vote", "verdict", "label",
        "judgement", "judgment", "selected", "comparison", "result", "answer",
    ),
    "rating": ("rating", "grade"),
    "response": ("response", "answer", "output", "completion", "reply", "generation", "text"),
    "score": (
        "score", "stars", "rating", "grade", "reward", "thumbs", "thumb", "label", "feedback",
        "vote", "quality", "helpfulness",
    ),
    "annotator": ("annotator", "rater", "worker", "labeler", "labeller", "judge", "user"),
    "batch": ("batch", "round", "week", "campaign"),
}  # fmt: skip
"""Words in a column's name that speak for a role, the likeliest first."""
SIDES = (("a", "b"), ("1", "2"), ("left", "right"), ("first", "second"), ("0", "1"), ("x", "y"))
RESPONSES = ("response", "answer", "output", "completion", "reply", "summary", "text", "model")
SHOWN_ROWS = 5


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is known of a file: its form, its layout, its columns, and its first comparisons.

    `columns` is the mapping, empty where none is needed; `names` are the file's columns; `rows`
    counts the rows that were looked at, and `bad` are those that gave no comparison.
    """

    file: Path
    form: Mapping[str, str]
    layout: Layout
    columns: Mapping[str, str]
    names: tuple[str, ...]
    rows: int
    comparisons: tuple[Comparison, ...]
    bad: tuple[BadRow, ...]

    @property
    def unused(self) -> tuple[str, ...]:
        """The file's columns that are not read."""
        return tuple(name for name in self.names if name not in self.layout.read)

    @property
    def ties(self) -> int:
        """Comparisons that decide a tie."""
        return sum(c.judgement.decides == "tie" for c in self.comparisons)

    def facts(self) -> list[tuple[str, str]]:
        """What was found, as rows of a table."""
        roles = [
            column if role == column else f"{role}: {column}"
            for role, column in self.layout.columns.items()
            if column.partition(".")[0] in self.names or column in self.names
        ]
        policy = "none seen"
        if self.ties:
            policy = f"{self.ties:,}; ties: keep takes them, skip counts them"
        return [
            *self.form.items(),
            ("layout", self.layout.name),
            ("columns read", ", ".join(roles)),
            ("columns not read", ", ".join(self.unused) or "none"),
            ("rows looked at", f"{self.rows:,}"),
            ("comparisons", f"{len(self.comparisons):,}; {not_read(self.bad)}"),
            ("ties", policy),
        ]

    def notes(self) -> list[str]:
        """What no file can tell, to be looked at before the mapping is used."""
        lines = []
        if column := self.columns.get("strength_b"):
            lines.append(
                f"{column}: above 0 is taken for the second response; if it is the first, write "
                "strength_a"
            )
        lines += [str(row) for row in worst(self.bad) if row.kind == "bad"][:1]
        return lines

    def fragment(self) -> dict[str, Any]:
        """The part of a recipe that reads the file."""
        source: dict[str, Any] = {"source": "own", "path": str(self.file)}
        if self.columns:
            source["columns"] = dict(self.columns)
        if self.ties:
            source["ties"] = "keep"
        name = re.sub(r"\W+", "-", self.file.name.partition(".")[0]).strip("-") or "mine"
        return {"data": {"sources": {name: source}}}


def inspect(file: Path, request: Request | None = None) -> Inspection:
    """What a file (of a folder: the first) holds, by its first rows.

    Raises:
        PalateError: it is an annotation tool's export, which another source reads; it cannot be
            read; or its rows give no comparison, and the line names the mapping that comes nearest.
    """
    for source in SOURCES.values():
        if source.recognise is not None and source.recognise(file):
            raise PalateError(
                f"{file}: an export of {source.title}; read it with "
                f"`palate data import {source.name} --path {file}`{_needs(source, file)}"
            )
    refuse_unanswered(file)
    path, _ = next(data_files(file))
    if own.is_ours(path):
        raise PalateError(f"{path}: is in Palate's form already; nothing is to be mapped")
    rows = list(islice(read_file(path), own.HEAD_ROWS))
    head = [row for row in rows if isinstance(row, Record)]
    if not head:
        raise PalateError(f"no row can be read; the first: {rows[0]}")
    known = own.layout_of(head, str(path), Request())
    columns: dict[str, str] = {}
    if not any(known.fits(record.data) for record in head) and known.name != "columns":
        columns = propose(head)
    layout = known
    asked = replace(request or Request(), ties="keep", columns=columns)
    if columns:
        try:
            layout = own.layout_of(head, str(path), asked)
        except PalateError as error:
            raise PalateError(f"{error}; the nearest: columns: {_flow(columns)}") from None
    made = list(own.comparisons(str(path), iter(rows), asked))
    comparisons = tuple(row for row in made if isinstance(row, Comparison))
    bad = tuple(row for row in made if isinstance(row, BadRow))
    if not comparisons:
        nearest = f"; the nearest: columns: {_flow(columns)}" if columns else ""
        raise PalateError(f"no comparison in {len(rows):,} rows; the first: {bad[0]}{nearest}")
    names = tuple(dict.fromkeys(str(name) for record in head for name in record.data))
    return Inspection(
        file, describe_file(path), layout, columns, names, len(rows), comparisons, bad
    )


def _needs(source: Source, file: Path) -> str:
    """What a source still wants to know before it reads a file, after a colon."""
    try:
        for row in source.load(Request(file)):
            if isinstance(row, Comparison):
                break
    except PalateError as error:
        return f": {str(error).removeprefix(f'{file}: ')}"
    return ""


def _flow(columns: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{role}: {column}" for role, column in columns.items()) + "}"


def propose(head: Sequence[Record]) -> dict[str, str]:
    """The likeliest mapping of a file's columns, perhaps not a whole one."""
    names = list(dict.fromkeys(str(name) for record in head for name in record.data))
    columns: dict[str, str] = {}

    def take(role: str, *, among: Sequence[str] | None = None) -> None:
        free = [n for n in among or names if n not in columns.values()]
        scored = [(_likeness(n, NAMES[role]), n) for n in free]
        if scored and (best := min(scored, key=lambda one: one[0]))[0] < len(NAMES[role]):
            columns[role] = best[1]

    sides = _side_columns(names)
    if sides:
        columns["response_a"], columns["response_b"] = sides
    take("prompt")
    if not sides:
        take("chosen")
        take("rejected")
        if "prompt" in columns and not columns.keys() & {"chosen", "rejected"}:
            # One response a row; those of a prompt are compared by what was said of each.
            take("response", among=[n for n in names if not _is_number(head, n)])
            if "response" in columns:
                take("score", among=[n for n in names if _is_number(head, n)])
    else:
        take("winner", among=[n for n in names if _is_short(head, n)])
        if "winner" in columns and _is_signed(head, columns["winner"]):
            # As HelpSteer has it; `notes` says that the file cannot tell.
            columns["strength_b"] = columns.pop("winner")
    for role in ("annotator", "rating", "batch"):
        take(role, among=[n for n in names if _is_short(head, n)])
    return columns


def _likeness(name: str, words: Sequence[str]) -> int:
    """The place of the first word that is in a column's name; how many there are if none is."""
    parts = _parts(name)
    return next((at for at, one in enumerate(words) if one in parts), len(words))


def _parts(name: str) -> list[str]:
    """The words of a column's name: `leftAnswer_1` is left, answer, 1."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z0-9])", " ", name)
    return [part for part in re.split(r"[\W_]+", apart.casefold()) if part]


def _side_columns(names: Sequence[str]) -> tuple[str, str] | None:
    """The two columns whose names differ in the side alone; of several those of responses."""
    by_parts = {tuple(_parts(name)): name for name in names}
    found: list[tuple[int, str, str]] = []
    for parts, name in by_parts.items():
        for first, second in SIDES:
            for at, part in enumerate(parts):
                other = by_parts.get((*parts[:at], second, *parts[at + 1 :]))
                if part == first and other is not None:
                    found.append((_likeness(name, RESPONSES), name, other))
    return min(found)[1:] if found else None


def _values(head: Sequence[Record], name: str) -> Iterator[Any]:
    return (v for r in head if (v := r.data.get(name)) is not None and v != "")


def _is_short(head: Sequence[Record], name: str) -> bool:
    """Whether a column holds labels rather than texts."""
    return all(
        len(shown(value)) < 40 and not isinstance(value, list | dict)
        for value in _values(head, name)
    )


def _is_number(head: Sequence[Record], name: str) -> bool:
    """Whether a column holds numbers, or true and false, which order responses."""

    def number(value: Any) -> bool:
        try:
            return math.isfinite(float(value))
        except (TypeError, ValueError):
            return False

    return all(number(value) for value in _values(head, name))


def _is_signed(head: Sequence[Record], name: str) -> bool:
    counts = Counter(word(value) for value in _values(head, name))
    return any(re.fullmatch(r"-\d+", said) for said in counts)
