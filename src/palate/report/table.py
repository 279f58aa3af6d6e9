"""A table of figures: columns with a unit, rows of cells that hold values.

What is printed is made of it last, by `render` (terminal, Markdown, CSV, LaTeX, JSON) and by
`page.tables` and `page.charts` (the page): nothing reads a number out of a text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from palate.stats import Estimate, Trend
from palate.types import PalateError

HOLM_INTERVAL = "± at Holm's level"
HOLM_METHOD = (
    "An interval has the level at which Holm's procedure tests its comparison (95 % or more): it "
    "leaves out zero exactly where p is below 0.05."
)


class Unit(Enum):
    """What the cells of a column hold, with an example of how it is printed (`render.text`)."""

    TEXT = auto()
    SHARE = auto()  # Estimate of a share, or the paper's figure alone: 63.2 ± 1.9
    DIFFERENCE = auto()  # Estimate of a difference of shares, in points: +13.2 ± 2.0
    SCORE = auto()  # Estimate in a judge's own unit: 1.32 [1.21, 1.44]
    PLAIN_SCORE = auto()  # The same without an interval: 1.32
    PERCENT = auto()  # A share without an interval: 63.2
    PERCENT_RANGE = auto()  # Two shares: 50.0 to 60.0
    COUNT = auto()  # 2,348
    SEED = auto()  # 2348
    P_VALUE = auto()  # p = 0.012
    TREND = auto()  # z = 2.1, p = 0.036
    LOSS = auto()  # In nats: 0.6931
    LOSS_CHANGE = auto()  # +0.0400
    EPOCH = auto()  # 1.25
    THRESHOLD = auto()  # 0.5


Value = Estimate | Trend | tuple[float, float] | int | float | str | None
"""What a cell holds; None is no figure."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A value and what belongs to it.

    `notes` are footnotes, such as the reason why there is no value. `letters` name the groups of
    judges that cannot be told apart. `paper` says that the paper printed it: error and n are not
    known. `behind` says which items the figure was made of, as pairs such as ("judge", "safety").
    """

    value: Value = None
    notes: tuple[str, ...] = ()
    letters: str = ""
    paper: bool = False
    behind: tuple[tuple[str, str], ...] = ()

    @property
    def estimate(self) -> Estimate | None:
        """The value, if it is an estimate."""
        return self.value if isinstance(self.value, Estimate) else None


@dataclass(frozen=True, slots=True)
class Column:
    """A heading, the unit of the cells, and what stands under the heading (such as n).

    `chance` is what random scores reach, of a column of shares whose chart draws it.
    """

    name: str
    unit: Unit = Unit.TEXT
    detail: str = ""
    chance: float = 0.5

    @property
    def figures(self) -> bool:
        """Whether its cells are figures, which stand to the right."""
        return self.unit is not Unit.TEXT

    @property
    def estimates(self) -> bool:
        """Whether its cells are shares with an interval: spreadsheets get four columns."""
        return self.unit in (Unit.SHARE, Unit.DIFFERENCE)


def columns(unit: Unit, *names: str) -> list[Column]:
    """Several columns of one unit."""
    return [Column(name, unit) for name in names]


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

    def cells(self) -> Iterator[Cell]:
        """All cells, row by row."""
        return (cell for row in self.rows for cell in row.cells)

    def notes(self) -> list[str]:
        """Footnotes in order of first appearance; a note's number is its place, from 1."""
        return list(dict.fromkeys(note for cell in self.cells() for note in cell.notes))

    def records(self) -> list[Mapping[str, Cell]]:
        """The rows by column name, without those that only say n."""
        names = [column.name for column in self.columns]
        return [dict(zip(names, row.cells, strict=True)) for row in self.rows if not row.heading]


Values = Sequence[Value | Cell]


def make_table(
    name: str,
    title: str,
    columns: Sequence[Column],
    rows: Iterable[Row | Values],
    remarks: Sequence[str] = (),
    *,
    group_by: int = 0,
) -> Table | None:
    """The table of `rows`; None where there are none.

    A row is the values of its cells, and stands with those that have the same first `group_by`
    values; one that is not like the others is made by `row`.

    Raises:
        PalateError: an estimate without an error, n or fingerprint.
    """
    made = tuple(
        one if isinstance(one, Row) else row(*one, group=", ".join(map(str, one[:group_by])))
        for one in rows
    )
    return Table(name, title, tuple(columns), made, tuple(remarks)) if made else None


def row(*values: Value | Cell, group: str = "", heading: bool = False) -> Row:
    """The row of these values, or cells where more is to be said of one; checked as `figure` does.

    A number that is not known (NaN) is no figure.
    """
    return Row(
        tuple(value if isinstance(value, Cell) else figure(value) for value in values),
        group,
        heading,
    )


def figure(
    value: Value,
    *notes: str,
    letters: str = "",
    paper: bool = False,
    behind: Mapping[str, str] | None = None,
) -> Cell:
    """The cell of a value; an estimate of no items is none.

    Raises:
        PalateError: the estimate has no fingerprint, or a value without an error.
    """
    if isinstance(value, Estimate) and value.n != 0:
        if not value.fingerprint or not math.isfinite(value.error) or value.n < 1:
            raise PalateError(
                f"a figure of {100 * value.value:.1f} % has no error, n or fingerprint "
                f"(error {value.error}, n {value.n}); make it with palate.stats"
            )
    elif value is None or isinstance(value, Estimate) or value != value:  # NaN.
        return Cell(None, notes)
    return Cell(value, notes, letters, paper, tuple((behind or {}).items()))


def printed(percent: float | None) -> Cell:
    """The cell of a figure that the paper prints, in percent, without error or n."""
    return Cell(None if percent is None else percent / 100, paper=True)
