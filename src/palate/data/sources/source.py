"""What a source is: where its rows come from, under which licence, and how it grades them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from palate.types import Comparison, Message, Rating, digest


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that gave no comparison, and why.

    `kind` is "bad" for a row that breaks its format, "tie" for one in which nothing was
    preferred, and "left out" for one that the source's own stated rule excludes; only bad rows
    count against the tolerated share. `row` counts lines or records of the file from 1.
    """

    file: str
    row: int
    reason: str
    kind: Literal["bad", "tie", "left out"] = "bad"

    def __str__(self) -> str:
        return f"{self.file}:{self.row}: {self.reason}"


Row = Comparison | BadRow


class Unfit(Exception):  # noqa: N818 - not an error of the program: it becomes a BadRow.
    """A record that gives no comparison; caught where records are read, see `each`."""

    def __init__(self, reason: str, kind: Literal["bad", "tie", "left out"] = "bad") -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind: Literal["bad", "tie", "left out"] = kind


@dataclass(frozen=True, slots=True)
class Record:
    """One raw record: its file as the user knows it, its row there, and its columns.

    `part` names the file without folders above the data set and without endings
    ("train", "helpful-base/test"), so that ids do not depend on where the data lies.
    """

    file: str
    row: int
    part: str
    data: Mapping[str, Any]

    @property
    def key(self) -> str:
        """The record's name within its source."""
        return f"{self.part}:{self.row}"

    @property
    def origin(self) -> dict[str, Any]:
        """What a comparison's `meta` says of where it came from."""
        return {"file": self.part, "row": self.row}


Records = Iterator[Record | BadRow]


@dataclass(frozen=True, slots=True)
class Request:
    """Which part of a source is asked for, and from where.

    `location` is a local file or folder, or a hub id; None is the source's own hub id.
    """

    location: Path | str | None = None
    split: str | None = None
    subset: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Cuts:
    """Cut points from a source's strength of preference to the four ratings.

    A strength below `slightly` is *negligibly better*; from `slightly` on it is *slightly
    better*, from `better` on *better*, from `significantly` on *significantly better*.
    `shares` are the shares of the four levels, weakest first, measured on `measured_on`.
    """

    strength: str
    slightly: float
    better: float
    significantly: float
    shares: tuple[float, float, float, float] | None = None
    measured_on: str = ""

    def rate(self, strength: float) -> Rating:
        """The rating of a strength."""
        steps = (self.slightly, self.better, self.significantly)
        return Rating(1 + sum(strength >= step for step in steps))

    def __str__(self) -> str:
        steps = f"slightly >= {self.slightly:g}, better >= {self.better:g}"
        text = f"{self.strength}: {steps}, significantly >= {self.significantly:g}"
        if self.shares is None:
            return f"{text} (shares not measured)"
        shares = " / ".join(f"{share:.1%}" for share in reversed(self.shares))
        return f"{text} (significantly to negligibly {shares} of {self.measured_on})"


@dataclass(frozen=True, slots=True)
class Source:
    """A data set that Palate reads.

    `options` names the keys that `Request.options` may hold, each with its meaning and default;
    `folder` is the name of its folder in a local data root; `tried_on` says what of it the
    loader has been run against.
    """

    name: str
    title: str
    hub_id: str | None
    licence: str
    url: str
    kind: Literal["helpful", "safety", "both"]
    load: Callable[[Request], Iterator[Row]]
    tried_on: str
    cuts: tuple[Cuts, ...] | None = None
    notes: str = ""
    options: Mapping[str, str] = field(default_factory=dict[str, str])
    subsets: tuple[str, ...] = ()
    folder: str | None = None


@dataclass(frozen=True, slots=True)
class LabelledResponse:
    """One response with its safety label and nothing to compare it with."""

    id: str
    source: str
    prompt: tuple[Message, ...]
    response: str
    safe: bool
    prompt_id: str
    batch: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])


def each(
    records: Iterable[Record | BadRow], make: Callable[[Record], Iterable[Row]]
) -> Iterator[Row]:
    """Make every record's comparisons; a record that is `Unfit` becomes a `BadRow`."""
    for record in records:
        if isinstance(record, BadRow):
            yield record
            continue
        try:
            yield from make(record)
        except Unfit as unfit:
            yield BadRow(record.file, record.row, unfit.reason, unfit.kind)


def prompt_cluster(text: str) -> str:
    """The cluster of a prompt known by its text: case and white space do not tell two apart.

    It is the same for every source, so that a prompt used by two of them is one cluster.
    """
    return digest("prompt", " ".join(text.casefold().split()))


def ask(text: str) -> tuple[Message, ...]:
    """A prompt of one user turn."""
    return (Message("user", text),)
