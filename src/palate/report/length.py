"""What length has to do with a judge's accuracy."""

from __future__ import annotations

from palate import stats
from palate.evaluate.metrics import Result, Tally
from palate.report import escape
from palate.report.accuracy import judge_name
from palate.report.read import Judged
from palate.report.tables import Cell, Column, Row, Table, count, figure

REMARKS = (
    "Where the longer (shorter) of the two responses, in characters, is the one that people "
    "preferred. A judge that goes by length alone has 100 in one of the two and 0 in the other.",
    "Length-controlled: the accuracy at equal lengths by logistic regression of right answers on "
    "the difference in length; none where length alone tells right from wrong.",
)


def length(judged: Judged) -> Table | None:
    """Accuracy by which response is longer, and length-controlled; None without lengths."""
    rows = tuple(row for result, votes in judged.tallied() if (row := _row(result, votes)))
    columns = (
        Column("Benchmark", figures=False),
        Column("Judge", figures=False),
        Column("Accuracy", estimates=True),
        Column("Longer preferred", estimates=True),
        Column("items"),
        Column("Shorter preferred", estimates=True),
        Column("items "),
        Column("Length-controlled", estimates=True),
    )
    title = "Length: accuracy (%) where people preferred the longer and the shorter response"
    return Table("length", title, columns, rows, REMARKS) if rows else None


def _row(result: Result, votes: Tally) -> Row | None:
    difference = votes.chosen_lengths - votes.rejected_lengths
    longer, shorter = votes.accuracy(difference > 0), votes.accuracy(difference < 0)
    if not longer.n + shorter.n:
        return None
    controlled = stats.length_controlled(
        votes.values, difference, votes.clusters, fingerprint=votes.fingerprint
    )
    cells = (
        Cell(escape.name(result.benchmark)),
        Cell(judge_name(result.judge)),
        figure(result.overall),
        figure(longer),
        count(longer.n),
        figure(shorter),
        count(shorter.n),
        figure(controlled),
    )
    return Row(cells, cells[0].text)
