"""Judges on benchmarks whose items have ties or several votes: what accuracy leaves out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from palate import escape, stats
from palate.evaluate.metrics import CEILING_NAME, Result
from palate.evaluate.results import Floats, Judgements
from palate.report.accuracy import NAMES, names
from palate.report.read import Judged
from palate.report.table import Column, Table, Unit, Values, columns, figure, make_table
from palate.report.training import TrainingCurves
from palate.stats import Calibration, Estimate
from palate.types import digest

SEED = 0  # Of the draws for the ECE's interval; fixed so that a report made again is the same.
REMARKS = (
    "Accuracy is over decided items: one response has more votes than the other, and than ties. "
    "Tie-aware is over all: right where a judge prefers the same response, or says tie where "
    "people do. A judge with scores says tie where their difference (log-odds) is at most the "
    "threshold. That of our models is fitted on their other held-out sets, those of training, "
    "where these have ties: a note says on which. Any other is fitted by five folds of whole "
    "prompts, each with the threshold of the other four; shown is the mean. A judge without scores "
    "says tie itself. Intervals are clustered by prompt and take the thresholds as they are.",
    "With a vote: the chance that a judge agrees with one of the votes for a response, ties left "
    "out; beside it the noise ceiling, what the best judge can reach. Log-likelihood: mean over "
    "items, in nats, of the shares of votes under sigmoid(difference / temperature), a tie half "
    "for each side, the temperature fitted by the same folds; one that knows nothing has -0.69.",
    "Tie ECE: mean distance (x 100) between how often Rao and Kupper's model, fitted by the same "
    "folds, expects a tie and how often people tie, over ten bins of the former. By luck: what "
    "chances that are right would show on as many items.",
)


def ties(judged: Judged, curves: Sequence[TrainingCurves] = ()) -> Table | None:
    """One row a judge on each benchmark that has ties or votes; None where none has.

    `curves` say on which held-out sets a model was evaluated while it was trained.
    """
    held_out = {curve.model: sorted(curve.by_set()) for curve in curves}
    rows: list[Values] = []
    for benchmark in judged.benchmarks():
        of_benchmark: list[Values] = []
        for result in judged.of(benchmark):
            votes = judged.votes.get((result.judge, benchmark))
            if votes is not None and votes.judgements is not None:
                fingerprint = digest("votes", votes.fingerprint)
                fitted = _fitted(judged, result, held_out.get(result.judge, ()))
                of_benchmark.append(_row(result, votes.judgements, fitted, fingerprint))
        if of_benchmark and (ceiling := judged.results.get((CEILING_NAME, benchmark))):
            before, after = (None,) * 6, (None,) * 4
            of_benchmark.append((*names(ceiling), *before, ceiling.overall, *after))
        rows += of_benchmark
    heads = [
        *NAMES,
        *columns(Unit.COUNT, "Items", "Decided", "Ties"),
        *columns(Unit.SHARE, "Accuracy", "Tie-aware"),
        Column("Threshold", Unit.LOSS),
        Column("With a vote", Unit.SHARE),
        Column("Log-likelihood", Unit.SCORE),
        Column("Temperature", Unit.LOSS),
        Column("Tie ECE", Unit.SHARE),
        Column("by luck", Unit.PERCENT),
    ]
    title = "Ties and votes: accuracy (%) of judges where people tied or were split"
    return make_table("ties", title, heads, rows, REMARKS, group_by=1)


def _fitted(judged: Judged, result: Result, held_out: Sequence[str]) -> tuple[float, str] | None:
    """The tie threshold of a model's held-out sets but this one, and what it was fitted on.

    None where these have no ties.
    """
    if result.kind != "ours":
        return None
    sets: dict[str, Judgements] = {}
    for name in held_out:
        votes = judged.votes.get((result.judge, name)) if name != result.benchmark else None
        judgements = votes.judgements if votes is not None else None
        if judgements is not None and (~judgements.decided & ~np.isnan(judgements.log_odds)).any():
            sets[name] = judgements
    if not sets:
        return None
    odds = np.concatenate([one.log_odds for one in sets.values()])
    tied = np.concatenate([~one.decided for one in sets.values()])
    scored = ~np.isnan(odds)
    note = (
        f"threshold of {scored.sum():,} items, {(tied & scored).sum():,} of them ties, of "
        f"{', '.join(map(escape.name, sets))}"
    )
    return stats.tie_threshold(odds, tied), note


def _row(
    result: Result,
    judgements: Judgements,
    fitted: tuple[float, str] | None,
    fingerprint: str,
) -> Values:
    tied, odds, clusters = ~judgements.decided, judgements.log_odds, judgements.clusters
    if result.kind == "trivial":
        odds = np.full(odds.size, np.nan)  # Lengths are no log-odds.
    threshold, notes = (fitted[0], fitted[1:]) if fitted else (None, ())
    aware = stats.tie_aware_accuracy(
        odds, tied, clusters, threshold=threshold, fingerprint=fingerprint
    )
    right = stats.three_way(judgements.answers, tied)
    said = stats.accuracy(right, clusters, fingerprint=fingerprint)
    likelihood = stats.vote_likelihood(odds, judgements.shares, clusters, fingerprint=fingerprint)
    known = likelihood is not None and likelihood.mean.error > 0
    ties = _calibration(judgements, odds, fingerprint)
    return (
        *names(result), tied.size, int((~tied).sum()), int(tied.sum()), result.overall,
        aware.accuracy if aware else said, figure(aware.threshold if aware else None, *notes),
        _with_a_vote(judgements, fingerprint),
        likelihood.mean if likelihood and known else None,
        likelihood.temperature if likelihood and np.isfinite(likelihood.temperature) else None,
        ties.ece if ties else None, ties.ece_by_luck if ties else None,
    )  # fmt: skip


def _calibration(judgements: Judgements, odds: Floats, fingerprint: str) -> Calibration | None:
    """Whether ties come as often as the log-odds let expect; None where people never tied."""
    if not judgements.shares[:, 1].any():
        return None
    made = stats.tie_calibration(
        odds, judgements.shares, judgements.clusters, np.random.default_rng(SEED),
        fingerprint=fingerprint,
    )  # fmt: skip
    return made.calibration if made else None


def _with_a_vote(judgements: Judgements, fingerprint: str) -> Estimate:
    """How often a judge agrees with one vote for a response, drawn at random from an item's."""
    chosen, _, rejected = judgements.amounts.T
    votes = chosen + rejected
    share: Floats = np.divide(chosen, votes, out=np.full(votes.size, np.nan), where=votes > 0)
    answers = judgements.answers
    agreed = answers * share + (1 - answers) * (1 - share)
    return stats.accuracy(agreed, judgements.clusters, fingerprint=fingerprint)
