"""What the order of sides did to judges that were asked in both."""

from __future__ import annotations

from palate.evaluate.metrics import OrderFigures, order_figures
from palate.report import escape
from palate.report.accuracy import judge_name
from palate.report.read import Judged
from palate.report.tables import Cell, Column, Row, Table, count, figure

REMARKS = (
    "One order: each item in its seeded order alone. Both orders: the mean over the two; where "
    "the judge gives scores, of its probability for the chosen response.",
    "Consistent: the share of items with the same outcome in both orders. First position: the "
    "share of answers for the response shown first, 50 % without position bias. Both are over "
    "items that were scored in both orders.",
)


def orders(judged: Judged) -> Table | None:
    """Accuracy in one order and in both, consistency, position bias; None where all had one."""
    found = [(r, made) for r, votes in judged.tallied() if (made := order_figures(votes))]
    if not found:
        return None
    columns = (
        Column("Benchmark", figures=False),
        Column("Judge", figures=False),
        Column("Accuracy, one order", estimates=True),
        Column("Accuracy, both orders", estimates=True),
        Column("Items with both"),
        Column("Consistent", estimates=True),
        Column("First position", estimates=True),
    )
    rows = tuple(
        Row((Cell(escape.name(r.benchmark)), Cell(judge_name(r.judge)), *_cells(made)), r.benchmark)
        for r, made in found
    )
    title = "Orders: judges that read both responses, asked in both orders (%)"
    return Table("orders", title, columns, rows, REMARKS)


def _cells(made: OrderFigures) -> tuple[Cell, ...]:
    return (
        figure(made.one),
        figure(made.both),
        count(made.consistent.n),
        figure(made.consistent),
        figure(made.first),
    )
