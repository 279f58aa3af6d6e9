"""What can be concluded of a run, in sentences: what the evidence shows, what it does not yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from palate import stats
from palate.evaluate.metrics import Result
from palate.report import escape
from palate.report.accuracy import judge_name
from palate.report.cautions import cautions
from palate.report.findings import NAME, Finding, Kind, Words, clause, joined, merged
from palate.report.groups import FAMILY, Tests, in_verdict
from palate.report.read import Judged
from palate.report.tables import (
    HOLM_INTERVAL,
    HOLM_METHOD,
    Cell,
    Column,
    Row,
    Table,
    count,
    figure,
    p_value,
    percent,
)
from palate.report.training import Course
from palate.stats import LEVEL, Estimate, PairedDifference

MOST_ITEMS = 1_000_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """One sentence a model, and the findings on which it rests."""

    models: tuple[Words, ...]
    findings: tuple[Finding, ...]

    def of(self, kind: Kind) -> list[Finding]:
        """The findings of one kind."""
        return [finding for finding in self.findings if finding.kind == kind]


@dataclass(frozen=True, slots=True)
class _Duel:
    """A model and another judge on one benchmark; `difference` is the model's lead."""

    benchmark: str
    model: Result
    rival: Result
    difference: PairedDifference

    @property
    def won(self) -> int:
        """1 where the model is better beyond luck, -1 where it is worse, 0 where nobody knows."""
        return beyond_luck(self.difference)


def beyond_luck(difference: PairedDifference) -> int:
    """1 where a lead is shown, -1 where a lag is, 0 where nobody knows."""
    return 0 if difference.p_value >= LEVEL else 1 if difference.estimate.value > 0 else -1


def verdict(judged: Judged, tests: Mapping[str, Tests], courses: Sequence[Course]) -> Verdict:
    """Compare every model with the best trivial judge and with every other model.

    `tests` are those of `groups.tests_of`: p and intervals are of all comparisons together.
    """
    duels = [duel for name in judged.benchmarks() for duel in _duels(judged, name, tests[name])]
    named = {judge for duel in duels for judge in (duel.model.judge, duel.rival.judge)}
    kinds = judged.kinds()
    models = [j for j in judged.judges() if j in named and kinds[j] != "trivial"]
    findings = [*map(_finding, duels), *cautions(judged, tests, courses)]
    return Verdict(tuple(_sentence(model, duels) for model in models), tuple(findings))


def _duels(judged: Judged, benchmark: str, tests: Tests) -> Iterator[_Duel]:
    results = {r.judge: r for r in judged.of(benchmark) if r.overall.n}
    for (one, two), found in tests.items():
        if not in_verdict(judged, benchmark, (one, two)):
            continue
        # Trivial judges stand first in the pairs, so a model's lead over one is turned round.
        first, second = results[one], results[two]
        if first.kind == "trivial" or second.overall.value > first.overall.value:
            first, second, found = second, first, found.turned()
        yield _Duel(benchmark, first, second, found)


def _sentence(model: str, duels: Sequence[_Duel]) -> Words:
    """What one model is better and worse at; `duels` are of all models."""
    mine = [(d, d.won) for d in duels if d.model.judge == model]
    mine += [(d, -d.won) for d in duels if d.rival.judge == model]
    by: dict[str, list[tuple[bool, int]]] = {}
    for duel, won in mine:
        by.setdefault(duel.benchmark, []).append((duel.rival.kind == "trivial", won))
    best = [name for name, found in by.items() if _all_won(found)]
    above = [name for name, found in by.items() if any(t and w > 0 for t, w in found)]
    worse = [name for name, found in by.items() if any(not t and w < 0 for t, w in found)]
    below = [name for name, found in by.items() if any(t and w < 0 for t, w in found)]
    good = [
        clause("is the most accurate model on ", best),
        clause("beats every trivial judge on ", above),
    ]
    if not above and any(duel.rival.kind == "trivial" for duel, _ in mine):
        good[1] = ["is not shown to beat every trivial judge on any test set"]
    bad = [
        clause("is less accurate than another model on ", worse),
        clause("than the best trivial judge on " if worse else "is less accurate than the best "
                "trivial judge on ", below),
    ]  # fmt: skip
    if not any(good):
        good = [["cannot yet be told apart from every other model on any test set"]]
    words = [NAME + judge_name(model), " ", *joined(good), "."]
    if any(bad):
        words += [" It ", *joined(bad), "."]
    return tuple(merged(words))


def _all_won(found: Sequence[tuple[bool, int]]) -> bool:
    others = [won for trivial, won in found if not trivial]
    return bool(others) and all(won > 0 for won in others)


def _finding(duel: _Duel) -> Finding:
    estimate, model, rival = duel.difference.estimate, duel.model, duel.rival
    names = judge_name(model.judge), judge_name(rival.judge)
    found: dict[str, Any] = {
        "benchmark": escape.name(duel.benchmark),
        "difference": estimate,
        "p_value": duel.difference.p_value,
    }
    if duel.won:
        more = "more" if duel.won > 0 else "less"
        shares = f"{percent(model.overall.value)} % against {percent(rival.overall.value)} %"
        words = ("", names[0], f" is {more} accurate than ", names[1], f": {shares}.")
        return Finding("shown", words, **found)
    words = ("", names[0], " and ", names[1], f" cannot be told apart. {_needed(estimate)}")
    return Finding("open", words, **found)


def _needed(estimate: Estimate) -> str:
    """What the comparison could have found, and how many items would settle it."""
    said = finds(estimate)
    if estimate.value == 0:
        return f"{said}."
    items = stats.items_needed(
        abs(estimate.value), estimate.error**2 * estimate.n, confidence=estimate.confidence
    )
    many = f"more than {MOST_ITEMS:,}" if items > MOST_ITEMS else f"about {_round(items):,}"
    return f"{said}; a difference as small as this takes {many} items."


def finds(estimate: Estimate) -> str:
    """The smallest true difference that a comparison with this error would find."""
    return f"This test finds {percent(stats.detectable(estimate))} points and more (power 80 %)"


def _round(number: int) -> int:
    """To two digits: more would be false exactness."""
    place = 10 ** max(len(str(number)) - 2, 0)
    return round(number / place) * place


def verdict_table(found: Verdict) -> Table | None:
    """The findings as a table."""
    if not found.findings:
        return None
    columns = (
        Column("Standing", figures=False),
        Column("Finding", figures=False),
        Column("Difference (points)", HOLM_INTERVAL, estimates=True),
        Column("n"),
        Column("p (Holm)"),
    )
    rows = tuple(Row(_cells(finding), finding.kind) for finding in found.findings)
    models = tuple("".join(words) for words in found.models)
    remarks = (
        *models,
        f"Shown: p below {LEVEL:g}. {FAMILY} {HOLM_METHOD}",
    )
    title = "Verdict: what the evidence shows, and what it does not yet"
    return Table("verdict", title, columns, rows, remarks)


def _cells(finding: Finding) -> tuple[Cell, ...]:
    e, p = finding.difference, finding.p_value
    return (
        Cell({"shown": "shown", "open": "not shown", "caution": "caution"}[finding.kind]),
        Cell(finding.sentence),
        figure(e, signed=True) if e else Cell(),
        count(e.n) if e else Cell(),
        Cell("" if p is None else p_value(p)),
    )
