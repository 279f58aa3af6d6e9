"""What must be borne in mind of a run's figures: no scores, length, training that went too far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from palate.evaluate.metrics import Result, Tally
from palate.report import escape
from palate.report.accuracy import judge_name
from palate.report.findings import NAME, Finding, clause, merged
from palate.report.groups import Tests
from palate.report.read import Judged
from palate.report.tables import percent
from palate.report.training import Course
from palate.train.defaults import trouble

UNSCORED_SHARE = 0.05
LENGTH_GAP = 0.25
LOSS_RISE = 0.02  # Nats; smaller rises are within what held-out pairs of a run vary. Assumed.


def cautions(
    judged: Judged, tests: Mapping[str, Tests], courses: Sequence[Course]
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


def _by_length(judge: str, found: Sequence[Tally]) -> Iterator[Finding]:
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


def _length_gap(votes: Tally) -> tuple[float, float, str, float, str] | None:
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


def _too_short(course: Course) -> Iterator[Finding]:
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


def _overfitted(course: Course) -> Iterator[Finding]:
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
