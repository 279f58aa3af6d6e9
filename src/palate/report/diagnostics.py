"""What is behind a judge's accuracy: a table for each question.

Best of n, calibration, length, score margins, order of sides, thresholds of unsafe scores, slices
of a benchmark. All are of judges with verdicts, a row or more for each judge and benchmark.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from palate import escape, stats
from palate.evaluate.compare import TURNS
from palate.evaluate.metrics import JudgeResults, Result, detection, order_figures
from palate.evaluate.results import Codes, Flags, Floats
from palate.records import read_columns
from palate.report.accuracy import (
    NAMES,
    RATING_NAMES,
    RATINGS,
    TEST_SET_NAMES,
    names,
    without_many,
)
from palate.report.read import Items, Judged
from palate.report.table import Column, Table, Unit, Values, columns, make_table
from palate.stats import Calibration, Estimate

# What scores are worth in choosing one of several responses to a prompt.

LEAST_PROMPTS = 20
PERFECT = "Perfect judge"
BEST_OF_N_REMARKS = (
    "Over prompts of which people compared every two of the same number of responses. Quality of "
    "a response: the share of the others that people put below it. Best of n: its mean for the "
    "response with the highest score among n, over all ways to draw n; best of 1 is chance. "
    "Prompts on which a response has no score from a judge are left out of its row.",
)


@dataclass(frozen=True, slots=True, eq=False)
class Contest:
    """Prompts with M responses each, every two compared: P prompts.

    `quality` is [P, M]. `places` [P, M, M - 1] are the items of the judge in which a response was
    compared, and `chosen` [P, M, M - 1] whether it was the chosen one there.
    """

    quality: Floats
    places: Codes
    chosen: NDArray[np.bool_]


def best_of_n(judged: Judged, items: Mapping[str, Items]) -> Table | None:
    """Quality of the best of n by each judge's scores; None where no prompt has enough of them."""
    curves: list[tuple[str, str, list[Estimate]]] = []
    for benchmark in judged.benchmarks():
        results = [(r, votes) for r, votes in judged.with_votes() if r.benchmark == benchmark]
        if results and benchmark in items and not items[benchmark].of_items:
            curves += _curves(results, items[benchmark])
    longest = max((len(curve) for *_, curve in curves), default=0)
    rows = [
        (benchmark, judge, curve[0].n, *curve, *[None] * (longest - len(curve)))
        for benchmark, judge, curve in curves
    ]
    heads = [
        *NAMES,
        Column("Prompts", Unit.COUNT),
        *columns(Unit.SHARE, *(f"Best of {n}" for n in range(1, longest + 1))),
    ]
    title = "Best of n: quality (%) of the response with the highest score"
    return make_table("best-of-n", title, heads, rows, BEST_OF_N_REMARKS, group_by=1)


def _curves(
    results: Sequence[tuple[Result, JudgeResults]], items: Items
) -> Iterator[tuple[str, str, list[Estimate]]]:
    """(benchmark, judge, best of 1, 2, ...) of every judge, then of one that knows the quality."""
    first = results[0][1]
    contest = _contest(first, items)
    if contest is None:
        return
    sizes = range(1, contest.quality.shape[1] + 1)
    for result, votes in results:
        if votes.items != first.items:
            continue
        scores = _scores(contest, votes, order_of(first, votes))
        complete = np.isfinite(scores).all(axis=1)
        if complete.sum() >= LEAST_PROMPTS:
            curve = stats.best_of_n_curve(
                scores[complete], contest.quality[complete], sizes, fingerprint=votes.fingerprint
            )
            yield *names(result), list(curve.values())
    curve = stats.best_of_n_curve(
        contest.quality, contest.quality, sizes, fingerprint=first.fingerprint
    )
    yield escape.name(first.benchmark), PERFECT, list(curve.values())


def order_of(first: JudgeResults, second: JudgeResults) -> Codes:
    """Where each item of the first stands in the second, [N]; they have the same items."""
    if np.array_equal(first.ids, second.ids):
        return np.arange(first.ids.size)
    place = {name: number for number, name in enumerate(second.ids)}
    return np.array([place[name] for name in first.ids])


def _scores(contest: Contest, votes: JudgeResults, order: Codes) -> Floats:
    """[P, M]: a response's score, the mean over the comparisons it stood in."""
    places = order[contest.places]
    both = np.where(contest.chosen, votes.chosen_scores[places], votes.rejected_scores[places])
    return np.asarray(both.mean(axis=2), dtype=np.float64)


def _contest(votes: JudgeResults, items: Items) -> Contest | None:
    """The prompts with the number of responses that most complete prompts have, from 3."""
    in_file = items.places(votes.ids)
    if (in_file < 0).any():
        return None
    table = read_columns(items.path, ["chosen", "rejected"], "comparisons")
    texts = pa.chunked_array([*table["chosen"].chunks, *table["rejected"].chunks])
    # Responses as numbers, equal where texts are.
    codes = texts.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    chosen, rejected = codes.reshape(2, -1)[:, in_file]
    by_prompt: dict[int, list[int]] = {}
    for item, prompt in enumerate(votes.clusters.tolist()):
        by_prompt.setdefault(prompt, []).append(item)
    complete: dict[int, list[tuple[list[int], list[int]]]] = {}
    for of in by_prompt.values():
        responses = sorted({*chosen[of].tolist(), *rejected[of].tolist()})
        pairs = {frozenset(pair) for pair in zip(chosen[of], rejected[of], strict=True)}
        m = len(responses)
        if m > 2 and len(pairs) == len(of) == m * (m - 1) // 2:
            complete.setdefault(m, []).append((responses, of))
    enough = {m: prompts for m, prompts in complete.items() if len(prompts) >= LEAST_PROMPTS}
    if not enough:
        return None
    most = max(enough, key=lambda m: (len(enough[m]), m))
    # P x M x (M - 1): the comparisons of each response of each prompt, and whether it won them.
    places = [
        [[i for i in of if response in (chosen[i], rejected[i])] for response in responses]
        for responses, of in enough[most]
    ]
    wins = np.array(
        [
            [
                [chosen[i] == response for i in mine]
                for response, mine in zip(responses, of, strict=True)
            ]
            for (responses, _), of in zip(enough[most], places, strict=True)
        ],
        dtype=np.bool_,
    )
    return Contest(wins.mean(axis=2), np.array(places), wins)


# Whether judges with scores are as sure as they are right.

CONFIDENCE = Column("Confidence", Unit.PERCENT_RANGE)
SEED = 0  # Of the draws for the ECE's interval; fixed so that a report made again is the same.
CALIBRATION_REMARKS = (
    "Of sigmoid(chosen score - rejected score), the probability that a judge gives the chosen "
    "response. ECE: mean distance of confidence and accuracy over ten bins of confidence. By "
    "luck: the ECE that a perfectly calibrated judge would show on as many items. Brier: mean "
    "squared error of the probability, 25 for a judge that always says one half.",
    "Temperature: above one, the scores are too sure. Held out: every fifth of the prompts with "
    "the temperature that the other four fifths ask for.",
)


def calibration(judged: Judged) -> tuple[Table | None, Table | None]:
    """Figures of every judge with scores, and their reliability; None where there are no scores."""
    rows: list[Values] = []
    by_confidence: list[Values] = []
    for result, votes in judged.with_pairs():
        odds = votes.orders.log_odds
        if result.kind == "trivial" or (made := _calibration(votes, odds)) is None:
            continue
        held_out = stats.held_out_differences(odds, votes.clusters)
        cooled = None if held_out is None else _calibration(votes, held_out)
        rows.append(
            (
                *names(result), made.ece.n, made.ece, made.ece_by_luck, made.brier,
                stats.temperature(odds, votes.clusters, fingerprint=votes.fingerprint),
                cooled.ece if cooled else None, cooled.brier if cooled else None,
            )
        )  # fmt: skip
        by_confidence += [
            (*names(result), (bin.low, bin.high), bin.accuracy.n, bin.confidence, bin.accuracy)
            for bin in made.bins
        ]
    heads = [
        *NAMES,
        Column("Items", Unit.COUNT),
        Column("ECE", Unit.SHARE),
        Column("ECE by luck", Unit.PERCENT),
        Column("Brier", Unit.SHARE),
        Column("Temperature", Unit.SCORE),
        *columns(Unit.SHARE, "ECE, held out", "Brier, held out"),
    ]
    title = "Calibration: is a judge as sure as it is right? (ECE and Brier x 100)"
    remarks = (*CALIBRATION_REMARKS, *without_many(judged))
    figures = make_table("calibration", title, heads, rows, remarks, group_by=1)
    heads = [
        *NAMES,
        CONFIDENCE,
        Column("Items", Unit.COUNT),
        Column("Mean confidence", Unit.PERCENT),
        Column("Accuracy", Unit.SHARE),
    ]
    title = "Reliability: accuracy (%) by confidence"
    return figures, make_table("reliability", title, heads, by_confidence, group_by=2)


def _calibration(votes: JudgeResults, log_odds: Floats) -> Calibration | None:
    rng = np.random.default_rng(SEED)
    return stats.measure_calibration(log_odds, votes.clusters, rng, fingerprint=votes.fingerprint)


# What length has to do with a judge's accuracy.

LENGTH_REMARKS = (
    "Where the longer (shorter) of the two responses, in characters, is the one that people "
    "preferred. A judge that goes by length alone has 100 in one of the two and 0 in the other.",
    "Length-controlled: the accuracy at equal lengths by logistic regression of right answers on "
    "the difference in length; none where length alone tells right from wrong.",
)


def length(judged: Judged) -> Table | None:
    """Accuracy by which response is longer, and length-controlled; None without lengths."""
    rows: list[Values] = []
    for result, votes in judged.with_pairs():
        difference = votes.chosen_lengths - votes.rejected_lengths
        longer, shorter = votes.accuracy(difference > 0), votes.accuracy(difference < 0)
        if longer.n + shorter.n:
            controlled = stats.length_controlled(
                votes.values, difference, votes.clusters, fingerprint=votes.fingerprint
            )
            figures = (result.overall, longer, longer.n, shorter, shorter.n, controlled)
            rows.append((*names(result), *figures))
    heads = [
        *NAMES,
        *columns(Unit.SHARE, "Accuracy", "Longer preferred"),
        Column("items", Unit.COUNT),
        Column("Shorter preferred", Unit.SHARE),
        Column("items ", Unit.COUNT),
        Column("Length-controlled", Unit.SHARE),
    ]
    title = "Length: accuracy (%) where people preferred the longer and the shorter response"
    remarks = (*LENGTH_REMARKS, *without_many(judged))
    return make_table("length", title, heads, rows, remarks, group_by=1)


# How far apart a judge's scores of the two responses are, by rating.

MARGIN_REMARKS = (
    "Mean of chosen score - rejected score with its 95 % interval, clustered by prompt. Scores "
    "are in each judge's own unit: compare along a row, not down a column.",
)


def margins(judged: Judged) -> Table | None:
    """The mean margin of every judge with scores, over all items and by rating; or None."""
    rows: list[Values] = []
    for result, votes in judged.with_pairs():
        margin = votes.chosen_scores - votes.rejected_scores
        if result.kind != "trivial" and not np.isnan(margin).all():
            rated = (_mean(votes, margin, votes.ratings == rating) for rating in RATINGS)
            everywhere = np.ones(margin.size, dtype=np.bool_)
            rows.append((*names(result), _mean(votes, margin, everywhere), *rated))
    heads = [*NAMES, *columns(Unit.SCORE, "All", *(RATING_NAMES[rating] for rating in RATINGS))]
    title = "Score gap: chosen less rejected, by rating"
    remarks = (*MARGIN_REMARKS, *without_many(judged))
    return make_table("gaps", title, heads, rows, remarks, group_by=1)


def _mean(votes: JudgeResults, margin: Floats, rows: Flags) -> Estimate | None:
    mean = stats.clustered_mean(margin[rows], votes.clusters[rows], fingerprint=votes.fingerprint)
    # One prompt alone says nothing of others.
    return mean if mean.n_clusters > 1 and mean.error > 0 else None


# What the order of sides did to judges that were asked in both.

ORDER_REMARKS = (
    "One order: each item in its seeded order alone. Both orders: the mean over the two; where "
    "the judge gives scores, of its probability for the chosen response.",
    "Consistent: the share of items with the same outcome in both orders. First position: the "
    "share of answers for the response shown first, 50 % without position bias. Both are over "
    "items that were scored in both orders.",
)


def orders(judged: Judged) -> Table | None:
    """Accuracy in one order and in both, consistency, position bias; None where all had one."""
    rows = [
        (*names(result), made.one, made.both, made.consistent.n, made.consistent, made.first)
        for result, votes in judged.with_votes()
        if (made := order_figures(votes))
    ]
    heads = [
        *NAMES,
        *columns(Unit.SHARE, "Accuracy, one order", "Accuracy, both orders"),
        Column("Items with both", Unit.COUNT),
        *columns(Unit.SHARE, "Consistent", "First position"),
    ]
    title = "Orders: judges that read both responses, asked in both orders (%)"
    return make_table("orders", title, heads, rows, ORDER_REMARKS, group_by=1)


# Beside Table 29: precision and recall of unsafe responses over thresholds of the score.

THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)
THRESHOLD_REMARKS = (
    "A response counts as unsafe where sigmoid(score) is below the threshold. Recall: the share of "
    "unsafe responses found. Precision: the share of those found that are unsafe. Clustered by "
    "prompt; 0.5 is the paper's threshold.",
)


def thresholds(judged: Judged) -> Table | None:
    """One row a judge and threshold; None where no bins or no scores are known."""
    rows = [
        (
            *names(result), at.threshold, at.recall, at.recall.n, at.precision,
            at.precision.n if at.precision else 0,
        )
        for result, votes in judged.with_votes()
        if result.kind != "trivial"
        for at in detection(votes, THRESHOLDS)
    ]  # fmt: skip
    heads = [
        *TEST_SET_NAMES,
        Column("Threshold", Unit.THRESHOLD),
        Column("Unsafe recall", Unit.SHARE),
        Column("unsafe", Unit.COUNT),
        Column("Precision", Unit.SHARE),
        Column("found", Unit.COUNT),
    ]
    title = "Table 29 over thresholds: unsafe responses found by score (%)"
    name = "table-29-thresholds"
    return make_table(name, title, heads, rows, THRESHOLD_REMARKS, group_by=2)


# Accuracy on slices of a benchmark: by difference in length, turns of the prompt, source.

LENGTH, TURN, SOURCE = "length difference", "turns of the prompt", "source"
FIFTHS = (0.2, 0.4, 0.6, 0.8)
SLICE_REMARKS = (
    "Length difference: characters of the preferred response less those of the other, in fifths "
    "of the items. A part's interval is its own: parts are not tested against each other here "
    "(`palate compare` does that for two judges).",
)


def slices(judged: Judged, items: Mapping[str, Items]) -> Table | None:
    """Accuracy of each judge that is not trivial on each slice; None where nothing is known."""
    rows: list[Values] = []
    for result, votes in judged.with_votes():
        if result.kind == "trivial":
            continue
        for by, labels, codes in _slices(votes, items.get(votes.benchmark)):
            masks = [(label, codes == code) for code, label in enumerate(labels)]
            masks = [(label, mask) for label, mask in masks if mask.any()]
            if len(masks) > 1:
                for label, mask in masks:
                    accuracy = votes.accuracy(mask)
                    rows.append((*names(result), by, escape.name(label), accuracy, accuracy.n))
    heads = [
        *NAMES,
        *columns(Unit.TEXT, "By", "Part"),
        Column("Accuracy", Unit.SHARE),
        Column("items", Unit.COUNT),
    ]
    title = "Parts: accuracy (%) by difference in length, turns of the prompt, source"
    return make_table("parts", title, heads, rows, SLICE_REMARKS, group_by=3)


def _slices(votes: JudgeResults, items: Items | None) -> Iterator[tuple[str, list[str], Codes]]:
    """By what, the labels of the slices in order, and the slice of each item [N], -1 for none."""
    difference = votes.chosen_lengths - votes.rejected_lengths
    known = ~np.isnan(difference)
    if known.any():
        edges = np.unique(np.round(np.quantile(difference[known], FIFTHS)))
        ends = [f"{edge:+,.0f}".replace("-", "−") for edge in edges]
        middle = [f"{low} to {high}" for low, high in pairwise(ends)]
        labels = [f"below {ends[0]}", *middle, f"{ends[-1]} and more"]
        yield LENGTH, labels, np.where(known, np.digitize(difference, edges), -1)
    if items is None:
        return
    places = items.places(votes.ids)
    known = places >= 0
    first, second, third = TURNS
    labels = ["1", f"{first + 1} to {second}", f"{second + 1} to {third}", f"more than {third}"]
    yield TURN, labels, np.where(known, np.digitize(items.turns[places], TURNS, right=True), -1)
    sources, codes = np.unique(items.sources[places].astype(str), return_inverse=True)
    yield SOURCE, sources.tolist(), np.where(known, codes, -1)
