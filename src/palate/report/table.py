"""A table as a value: what it says, apart from how it is drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from palate.stats import Estimate
from palate.types import PalateError

DASH = "–"
HOLM_INTERVAL = "± at Holm's level"
HOLM_METHOD = (
    "An interval has the level at which Holm's procedure tests its comparison (95 % or more): it "
    "leaves out zero exactly where p is below 0.05."
)


@dataclass(frozen=True, slots=True)
class Cell:
    """A text, or an estimate drawn as `text`; `notes` are footnotes, `paper` a published figure.

    `behind` says which items the figure was made of, as pairs such as ("judge", "safety").
    """

    text: str = ""
    estimate: Estimate | None = None
    notes: tuple[str, ...] = ()
    paper: bool = False
    behind: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Column:
    """A heading, what stands under it (such as n), and whether its cells are figures.

    `estimates` says that cells are shares with an interval: spreadsheets get four columns.
    """

    name: str
    detail: str = ""
    figures: bool = True
    estimates: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """Cells in the order of the columns; rows of one `group` stand together.

    A `heading` row says n for the rows of its group; spreadsheets have n in columns instead.
    """

    cells: tuple[Cell, ...]
    group: str = ""
    heading: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table; `name` is its file name, `remarks` stand under it before the footnotes."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.cells) != len(self.columns):
                raise ValueError(
                    f"{self.name}: {len(row.cells)} cells, {len(self.columns)} columns"
                )

    def notes(self) -> list[str]:
        """Footnotes in order of first appearance; a note's number is its place, from 1."""
        return list(dict.fromkeys(note for cell in self.cells() for note in cell.notes))

    def cells(self) -> Iterator[Cell]:
        """All cells, row by row."""
        return (cell for row in self.rows for cell in row.cells)


def figure(estimate: Estimate | None, *notes: str, signed: bool = False) -> Cell:
    """The cell of an estimate: `63.2 ± 1.9` in percent (or signed points), a dash where none.

    Raises:
        PalateError: the estimate has no fingerprint, or a value without an error.
    """
    if estimate is None or estimate.n == 0:
        return Cell(DASH, notes=notes)
    if not estimate.fingerprint or not math.isfinite(estimate.error) or estimate.n < 1:
        raise PalateError(
            f"a figure of {percent(estimate.value)} % has no error, n or fingerprint "
            f"(error {estimate.error}, n {estimate.n}); make it with palate.stats"
        )
    value = percent(estimate.value)
    if signed and not value.startswith("-"):
        value = "+" + value
    return Cell(f"{value} ± {percent(estimate.half_width)}", estimate, notes)


def behind(cell: Cell, **items: str) -> Cell:
    """The cell, knowing which items its figure was made of."""
    return replace(cell, behind=tuple(items.items())) if cell.estimate else cell


def quantity(estimate: Estimate) -> Cell:
    """The cell of an estimate in its own unit: `1.32 [1.21, 1.44]`, checked as `figure` does."""
    figure(estimate)
    text = f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"
    return Cell(text, estimate)


def published(value: float | None) -> Cell:
    """The cell of a figure that the paper prints, in percent, without error or n."""
    return Cell(DASH, paper=True) if value is None else Cell(f"{value:.1f}", paper=True)


def count(n: int) -> Cell:
    """The cell of a count: `2,348`."""
    return Cell(f"{n:,}")


def percent(share: float) -> str:
    """A fraction as percent with one decimal, without a negative zero."""
    text = f"{100 * share:.1f}"
    return "0.0" if text == "-0.0" else text


def confidence(estimate: Estimate) -> str:
    """The confidence of an interval in percent: `95`, or `99.722` in a family of tests."""
    return f"{100 * estimate.confidence:.5g}"


def p_value(p: float) -> str:
    """A p-value as statisticians print it: `p = 0.012`, `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {min(p, 1.0):.3f}"
