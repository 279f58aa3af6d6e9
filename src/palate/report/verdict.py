"""What can be concluded of a run, in sentences: what the evidence shows, what it does not yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from palate import escape, stats
from palate.evaluate.metrics import JudgeResults, Result
from palate.report.accuracy import FAMILY, Tests, in_verdict, judge_name
from palate.report.read import Judged
from palate.report.table import (
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
from palate.report.training import TrainingCurves
from palate.stats import LEVEL, Estimate, PairedDifference
from palate.train.defaults import trouble

# One conclusion in words, with its evidence.

NAME = "\0"  # Begins a name among words; names have no control characters (`escape.name`).

Kind = Literal["shown", "open", "caution"]
Words = tuple[str, ...]
"""A sentence in pieces; every second one is a name."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One conclusion and its evidence: a paired difference where it is one of two judges.

    `benchmark` is the name of the test set it holds for, as it is shown; empty for all.
    """

    kind: Kind
    words: Words
    benchmark: str = ""
    difference: Estimate | None = None
    p_value: float | None = None

    @property
    def sentence(self) -> str:
        """The sentence as plain text."""
        said = "".join(self.words)
        return f"On {self.benchmark}, {said}" if self.benchmark else said


def clause(start: str, names: Sequence[str]) -> list[str]:
    """`start` and the names in words; nothing where there are none."""
    words = [start] if names else []
    for number, name in enumerate(names):
        left = len(names) - number - 1
        words += [NAME + escape.name(name), "" if left == 0 else " and " if left == 1 else ", "]
    return words


def joined(clauses: Sequence[Sequence[str]]) -> list[str]:
    """Clauses that are there, with `and` between them."""
    found = [words for words in clauses if words]
    return [word for i, words in enumerate(found) for word in ([" and "] if i else []) + [*words]]


def merged(words: Sequence[str]) -> Iterator[str]:
    """Plain text and names in turn: `clause` puts names between marks that are taken away."""
    plain = ""
    for word in words:
        if word.startswith(NAME):
            yield plain
            yield word.removeprefix(NAME)
            plain = ""
        else:
            plain += word
    yield plain


# What must be borne in mind of a run's figures: no scores, length, training that went too far.

UNSCORED_SHARE = 0.05
LENGTH_GAP = 0.25
LOSS_RISE = 0.02  # Nats; smaller rises are within what held-out pairs of a run vary. Assumed.


def cautions(
    judged: Judged, tests: Mapping[str, Tests], courses: Sequence[TrainingCurves]
) -> Iterator[Finding]:
    """Everything that a reader of the tables would want to have been told."""
    yield from _apart(judged, tests)
    models = [(r, votes) for r, votes in judged.tallied() if r.kind != "trivial"]
    for result, _ in models:
        yield from _unscored(result)
    for judge in dict.fromkeys(result.judge for result, _ in models):
        yield from _by_length(judge, [votes for result, votes in models if result.judge == judge])
    for course in courses:
        yield from _too_short(course)
        yield from _overfitted(course)
    for judge, why in judged.absent.items():
        yield Finding(
            "caution", ("", judge_name(judge), f" was not asked: {escape.plain(why, 300)}")
        )


def _apart(judged: Judged, tests: Mapping[str, Tests]) -> Iterator[Finding]:
    """Models that nobody could be compared with where others were: they were asked otherwise."""
    apart: dict[str, list[str]] = {}
    for result, _ in judged.tallied():
        tested = {judge for pair in tests[result.benchmark] for judge in pair}
        if tested and result.judge not in tested and result.kind != "trivial" and result.overall.n:
            apart.setdefault(result.judge, []).append(result.benchmark)
    for judge, benchmarks in apart.items():
        words = [NAME + judge_name(judge), *clause(" was asked something else on ", benchmarks)]
        yield Finding("caution", tuple(merged([*words, " than most: it is not compared there."])))


def _unscored(result: Result) -> Iterator[Finding]:
    counts, bounds = result.counts, result.bounds
    if counts is None or bounds is None:
        return
    unscored = sum(counts.unscored.values())
    if unscored >= UNSCORED_SHARE * counts.items:
        words = (
            "", judge_name(result.judge),
            f" gave no score to {unscored:,} of {counts.items:,} items: its accuracy on all of "
            f"them lies between {percent(bounds.worst)} and {percent(bounds.best)} %.",
        )  # fmt: skip
        yield Finding("caution", words, escape.name(result.benchmark))


def _by_length(judge: str, found: Sequence[JudgeResults]) -> Iterator[Finding]:
    """Test sets where it is right far more often if the longer, or the shorter, is preferred."""
    gaps = [(gap, votes.benchmark) for votes in found if (gap := _length_gap(votes))]
    if not gaps:
        return
    (_, high, more, low, less), widest = max(gaps)
    names = clause("", [benchmark for _, benchmark in gaps])
    words = [
        NAME + judge_name(judge), " goes by length on ", *names,
        ". On ", NAME + escape.name(widest),
        f" it is right on {percent(high)} % of the items whose preferred response is the {more} "
        f"one, and on {percent(low)} % of those where it is the {less} one.",
    ]  # fmt: skip
    yield Finding("caution", tuple(merged(words)))


def _length_gap(votes: JudgeResults) -> tuple[float, float, str, float, str] | None:
    """(gap, higher accuracy, of which items, lower accuracy, of which); None where it is small."""
    difference = votes.chosen_lengths - votes.rejected_lengths
    parts = [
        (votes.accuracy(difference > 0), "longer"),
        (votes.accuracy(difference < 0), "shorter"),
    ]
    if not all(found.n for found, _ in parts):
        return None
    (low, less), (high, more) = sorted(parts, key=lambda part: part[0].value)
    gap = high.value - low.value
    apart = gap > LENGTH_GAP and high.low > low.high
    return (gap, high.value, more, low.value, less) if apart else None


def _too_short(course: TrainingCurves) -> Iterator[Finding]:
    """A training that ended before, or hardly after, the rate had reached its peak."""
    rates = [
        (float(rate), -int(step["step"]))
        for step in course.steps
        if isinstance(rate := step.get("learning_rate"), int | float)
    ]
    if not rates:
        return
    last, peak = int(course.steps[-1]["step"]), -max(rates)[1]
    if why := trouble(last, last - peak):
        yield Finding("caution", ("Training of ", escape.name(course.model), f": {why}."))


def _overfitted(course: TrainingCurves) -> Iterator[Finding]:
    for name, seen in course.watched().items():
        losses = [(e.loss, e.step) for e in seen if e.loss is not None]
        if losses and losses[-1][0] - min(losses)[0] > LOSS_RISE:
            low, step = min(losses)
            words = (
                "Training of ", escape.name(course.model), f" went on after step {step:,}, where "
                "the loss on ", escape.name(name), f" was lowest ({low:.3f}): it ended at "
                f"{losses[-1][0]:.3f}. A shorter run may be better.",
            )  # fmt: skip
            yield Finding("caution", words)


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


def verdict(
    judged: Judged, tests: Mapping[str, Tests], courses: Sequence[TrainingCurves]
) -> Verdict:
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
