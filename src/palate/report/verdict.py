"""What can be concluded of a run, in sentences: what the evidence shows, what it does not yet.

Every model is compared with the best trivial judge of a test set and with every other model; p and
intervals are those of `accuracy.tests_of`. Beside them stand cautions: what would mislead a reader
of the tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from palate import escape, stats
from palate.evaluate.metrics import JudgeResults, Result
from palate.report.accuracy import (
    FAMILY,
    Tests,
    in_verdict,
    judge_name,
    undone,
    with_unscored_wrong,
)
from palate.report.read import Judged
from palate.report.render import percent
from palate.report.table import HOLM_INTERVAL, HOLM_METHOD, Column, Table, Unit, make_table, row
from palate.report.training import TrainingCurves
from palate.stats import LEVEL, Estimate, PairedDifference
from palate.train.defaults import trouble

# A conclusion in words, with its evidence.

Kind = Literal["shown", "open", "caution"]
Words = tuple[str, ...]
"""A sentence in pieces; every second one is a name."""


class Name(str):
    """A name in a sentence: the page sets it apart."""

    __slots__ = ()


def sentence(*pieces: str) -> Words:
    """Plain pieces and `Name`s as `Words`: text and names in turn."""
    words = [""]
    for piece in pieces:
        if isinstance(piece, Name):
            words += [piece, ""]
        else:
            words[-1] += piece
    return tuple(words)


def named(name: str) -> Name:
    """A name that others wrote, made safe."""
    return Name(escape.name(name))


def listed(start: str, names: Sequence[str]) -> list[str]:
    """`start` and the names with commas and `and`; nothing where there are none."""
    pieces = [start] if names else []
    for number, name in enumerate(names, 1):
        left = len(names) - number
        pieces += [named(name), "" if left == 0 else " and " if left == 1 else ", "]
    return pieces


def joined(clauses: Sequence[Sequence[str]]) -> list[str]:
    """The clauses that are not empty, with `and` between them."""
    pieces: list[str] = []
    for clause in filter(None, clauses):
        pieces += [*([" and "] if pieces else []), *clause]
    return pieces


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
        text = "".join(self.words)
        return f"On {self.benchmark}, {text}" if self.benchmark else text


@dataclass(frozen=True, slots=True)
class Verdict:
    """One sentence a model, and the findings on which it rests."""

    models: tuple[Words, ...] = ()
    findings: tuple[Finding, ...] = ()

    def of(self, kind: Kind) -> list[Finding]:
        """The findings of one kind."""
        return [finding for finding in self.findings if finding.kind == kind]


def verdict(
    judged: Judged, tests: Mapping[str, Tests], curves: Sequence[TrainingCurves]
) -> Verdict:
    """Compare every model with the best trivial judge and with every other model.

    `tests` are those of `accuracy.tests_of`: p and intervals are of all comparisons together.
    """
    duels = [duel for name in judged.benchmarks() for duel in _duels(judged, name, tests[name])]
    compared = {judge for duel in duels for judge in (duel.model.judge, duel.rival.judge)}
    kinds = judged.kinds()
    models = [j for j in judged.judges() if j in compared and kinds[j] != "trivial"]
    findings = [*map(_finding, duels), *cautions(judged, tests, curves)]
    return Verdict(tuple(_conclusion(model, duels) for model in models), tuple(findings))


@dataclass(frozen=True, slots=True)
class _Duel:
    """A model and another judge on one benchmark; `difference` is the model's lead.

    `whole` is the lead where items without a score are wrong, None where there are none.
    """

    benchmark: str
    model: Result
    rival: Result
    difference: PairedDifference
    whole: PairedDifference | None

    @property
    def undone(self) -> bool:
        """Whether who leads here does so by items that are left out."""
        return undone(self.difference, self.whole)


def beyond_luck(difference: PairedDifference) -> int:
    """1 where a lead is shown, -1 where a lag is, 0 where nobody knows."""
    return 0 if difference.p_value >= LEVEL else 1 if difference.estimate.value > 0 else -1


def _duels(judged: Judged, benchmark: str, tests: Tests) -> Iterator[_Duel]:
    results = {r.judge: r for r in judged.of(benchmark) if r.overall.n}
    for pair, difference in tests.items():
        if not in_verdict(judged, benchmark, pair):
            continue
        # Trivial judges stand first in the pairs, so a model's lead over one is turned round.
        model, rival = (results[judge] for judge in pair)
        whole = with_unscored_wrong(judged, benchmark, pair, difference)
        if model.kind == "trivial" or rival.overall.value > model.overall.value:
            model, rival, difference = rival, model, difference.turned()
            whole = whole and whole.turned()
        yield _Duel(benchmark, model, rival, difference, whole)


def _conclusion(model: str, duels: Sequence[_Duel]) -> Words:
    """What one model is better and worse at; `duels` are of all models."""
    # By benchmark, of each duel: is the other judge trivial, and is the model better (1) or worse.
    by_benchmark: dict[str, list[tuple[bool, int]]] = {}
    lost: dict[bool, list[str]] = {True: [], False: []}  # Leads that unscored items undo.
    for sign, duel in [(1, d) for d in duels if d.model.judge == model] + [
        (-1, d) for d in duels if d.rival.judge == model
    ]:
        trivial, won = duel.rival.kind == "trivial", sign * beyond_luck(duel.difference)
        if duel.undone:
            lost[trivial] += [duel.benchmark] if won > 0 else []
            won = 0
        by_benchmark.setdefault(duel.benchmark, []).append((trivial, won))

    def where(trivial: bool, won: int) -> list[str]:
        return [name for name, of in by_benchmark.items() if (trivial, won) in of]

    best = []
    for name, of in by_benchmark.items():
        rivals = [won for trivial, won in of if not trivial]
        if rivals and min(rivals) > 0:
            best.append(name)
    above, below, worse = where(True, 1), where(True, -1), where(False, -1)
    good = [
        listed("is the most accurate model on ", best),
        listed("beats every trivial judge on ", above),
    ]
    if not above and any(trivial for of in by_benchmark.values() for trivial, _ in of):
        good[1] = ["is not shown to beat every trivial judge on any test set"]
    if not any(good):
        good = [["cannot yet be told apart from every other model on any test set"]]
    start = "than" if worse else "is less accurate than"
    bad = joined(
        [
            listed("is less accurate than another model on ", worse),
            listed(f"{start} the best trivial judge on ", below),
        ]
    )
    also = [" It ", *bad, "."] if bad else []
    if gone := joined(
        [
            listed("over every trivial judge on ", lost[True]),
            listed("over another model on ", list(dict.fromkeys(lost[False]))),
        ]
    ):
        also += [" Its lead ", *gone, " is gone where items without a score count as wrong."]
    return sentence(Name(judge_name(model)), " ", *joined(good), ".", *also)


MOST_ITEMS = 1_000_000


def _finding(duel: _Duel) -> Finding:
    estimate, model, rival = duel.difference.estimate, duel.model, duel.rival
    one, other = Name(judge_name(model.judge)), Name(judge_name(rival.judge))
    if won := beyond_luck(duel.difference):
        how = f" is {'more' if won > 0 else 'less'} accurate than "
        shares = f"{percent(model.overall.value)} % against {percent(rival.overall.value)} %"
        rest = what_is_left(duel.difference, duel.whole)
        words = sentence(one, how, other, f": {shares}.", rest)
    else:
        words = sentence(one, " and ", other, f" cannot be told apart. {_needed(estimate)}")
    return Finding(
        "shown" if won else "open", words, escape.name(duel.benchmark), estimate,
        duel.difference.p_value,
    )  # fmt: skip


def what_is_left(difference: PairedDifference, whole: PairedDifference | None) -> str:
    """What is left of a difference where items without a score count as wrong, if it is gone."""
    if whole is None or not undone(difference, whole):
        return ""
    e = whole.estimate
    low, value, high = (percent(share) for share in (e.low, e.value, e.high))
    return (
        " That is of the items that both scored: with the others as wrong the difference is "
        f"{value} points ({low} to {high}, n = {e.n:,}), which shows no such lead."
    )


def detectable(estimate: Estimate) -> str:
    """The smallest true difference that a comparison with this error would find."""
    return f"This test finds {percent(stats.detectable(estimate))} points and more (power 80 %)"


def _needed(estimate: Estimate) -> str:
    """What the comparison could have found, and how many items would settle it."""
    if estimate.value == 0:
        return f"{detectable(estimate)}."
    items = stats.items_needed(
        abs(estimate.value), estimate.error**2 * estimate.n, confidence=estimate.confidence
    )
    # To two digits: more would be false exactness.
    many = f"about {round(items, 2 - len(str(items))):,}"
    if items > MOST_ITEMS:
        many = f"more than {MOST_ITEMS:,}"
    return f"{detectable(estimate)}; a difference as small as this takes {many} items."


def verdict_table(conclusions: Verdict) -> Table | None:
    """The findings as a table."""
    names = {"shown": "shown", "open": "not shown", "caution": "caution"}
    rows = []
    for finding in conclusions.findings:
        e, p = finding.difference, finding.p_value
        evidence = (e, e.n, p) if e else ("", "", "")
        rows.append(row(names[finding.kind], finding.sentence, *evidence, group=finding.kind))
    heads = [
        Column("Standing"),
        Column("Finding"),
        Column("Difference (points)", Unit.DIFFERENCE, HOLM_INTERVAL),
        Column("n", Unit.COUNT),
        Column("p (Holm)", Unit.P_VALUE),
    ]
    models = map("".join, conclusions.models)
    remarks = (*models, f"Shown: p below {LEVEL:g}. {FAMILY} {HOLM_METHOD}")
    title = "Verdict: what the evidence shows, and what it does not yet"
    return make_table("verdict", title, heads, rows, remarks)


# What must be borne in mind of a run's figures: no scores, length, training that went too far.

UNSCORED_SHARE = 0.05
LENGTH_GAP = 0.25
LOSS_RISE = 0.02  # Nats; smaller rises are within what held-out pairs of a run vary. Assumed.


def cautions(
    judged: Judged, tests: Mapping[str, Tests], curves: Sequence[TrainingCurves]
) -> Iterator[Finding]:
    """What would mislead a reader of the tables who is not told."""
    yield from _apart(judged, tests)
    models = [(r, votes) for r, votes in judged.with_votes() if r.kind != "trivial"]
    for result, _ in models:
        counts, bounds = result.counts, result.bounds
        unscored = sum(counts.unscored.values()) if counts else 0
        if counts and bounds and unscored >= UNSCORED_SHARE * counts.items:
            words = sentence(
                Name(judge_name(result.judge)),
                f" gave no score to {unscored:,} of {counts.items:,} items: its accuracy on all of "
                f"them lies between {percent(bounds.worst)} and {percent(bounds.best)} %.",
                _with_unscored_wrong(judged, result),
            )
            yield Finding("caution", words, escape.name(result.benchmark))
    for judge in dict.fromkeys(result.judge for result, _ in models):
        of = [votes for r, votes in models if r.judge == judge and votes.of_pairs]
        yield from _by_length(judge, of)
    for curve in curves:
        yield from _too_short(curve)
        yield from _overfitted(curve)
    for judge, why in judged.skipped.items():
        reason = f" was not asked: {escape.plain(why, 300)}"
        yield Finding("caution", sentence(Name(judge_name(judge)), reason))


def _with_unscored_wrong(judged: Judged, result: Result) -> str:
    """The score of a benchmark of the field, which gains nothing by items that are left out."""
    score = judged.scores.get((result.judge, result.benchmark))
    if score is None:
        return ""
    own = score.estimate(score.parts[0])
    return f" The benchmark's own score, in which they are wrong, is {percent(own.value)} %."


def _apart(judged: Judged, tests: Mapping[str, Tests]) -> Iterator[Finding]:
    """Models that nobody could be compared with where others were: they were asked otherwise."""
    apart: dict[str, list[str]] = {}
    for result, _ in judged.with_votes():
        tested = {judge for pair in tests[result.benchmark] for judge in pair}
        if tested and result.judge not in tested and result.kind != "trivial" and result.overall.n:
            apart.setdefault(result.judge, []).append(result.benchmark)
    for judge, benchmarks in apart.items():
        pieces = listed(" was asked something else on ", benchmarks)
        end = " than most: it is not compared there."
        yield Finding("caution", sentence(Name(judge_name(judge)), *pieces, end))


def _by_length(judge: str, results: Sequence[JudgeResults]) -> Iterator[Finding]:
    """Test sets where it is right far more often if the longer, or the shorter, is preferred."""
    # (gap, higher accuracy, of which items, lower accuracy, of which, benchmark)
    gaps: list[tuple[float, float, str, float, str, str]] = []
    for votes in results:
        difference = votes.chosen_lengths - votes.rejected_lengths
        sides = [
            (votes.accuracy(difference > 0), "longer"),
            (votes.accuracy(difference < 0), "shorter"),
        ]
        if not all(accuracy.n for accuracy, _ in sides):
            continue
        (low, less), (high, more) = sorted(sides, key=lambda side: side[0].value)
        gap = high.value - low.value
        if gap > LENGTH_GAP and high.low > low.high:
            gaps.append((gap, high.value, more, low.value, less, votes.benchmark))
    if not gaps:
        return
    _, high_value, more, low_value, less, widest = max(gaps)
    words = sentence(
        Name(judge_name(judge)), " goes by length on ", *listed("", [gap[-1] for gap in gaps]),
        ". On ", named(widest),
        f" it is right on {percent(high_value)} % of the items whose preferred response is the "
        f"{more} one, and on {percent(low_value)} % of those where it is the {less} one.",
    )  # fmt: skip
    yield Finding("caution", words)


def _too_short(curves: TrainingCurves) -> Iterator[Finding]:
    """A training that ended before, or hardly after, the rate had reached its peak."""
    rates = [
        (float(rate), -int(step["step"]))
        for step in curves.steps
        if isinstance(rate := step.get("learning_rate"), int | float)
    ]
    if not rates:
        return
    last, peak = int(curves.steps[-1]["step"]), -max(rates)[1]
    if why := trouble(last, last - peak):
        yield Finding("caution", sentence("Training of ", named(curves.model), f": {why}."))


def _overfitted(curves: TrainingCurves) -> Iterator[Finding]:
    for name, evaluations in curves.by_set().items():
        losses = [(e.loss, e.step) for e in evaluations if e.loss is not None]
        if losses and losses[-1][0] - min(losses)[0] > LOSS_RISE:
            low, step = min(losses)
            words = sentence(
                "Training of ", named(curves.model), f" went on after step {step:,}, where the "
                "loss on ", named(name), f" was lowest ({low:.3f}): it ended at "
                f"{losses[-1][0]:.3f}. A shorter run may be better.",
            )  # fmt: skip
            yield Finding("caution", words)
