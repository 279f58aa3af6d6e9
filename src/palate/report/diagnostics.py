"""What a judge's scores are worth in choosing one of several responses to a prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from palate import escape, stats
from palate.evaluate.compare import TURNS
from palate.evaluate.metrics import (
    Detection,
    JudgeResults,
    OrderFigures,
    Result,
    detection,
    order_figures,
)
from palate.evaluate.results import Codes, Flags, Floats
from palate.records import read_columns
from palate.report.accuracy import RATING_NAMES, RATINGS, judge_name
from palate.report.read import Items, Judged
from palate.report.table import (
    DASH,
    Cell,
    Column,
    Row,
    Table,
    count,
    figure,
    percent,
    quantity,
)
from palate.stats import Calibration, Estimate

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

    `quality` is [P, M]. `seen` [P, M, M - 1] are the places in the tally where a response's scores
    stand, and `chosen` [P, M, M - 1] whether it was the chosen one there.
    """

    quality: Floats
    seen: Codes
    chosen: NDArray[np.bool_]


def best_of_n(judged: Judged, items: Mapping[str, Items]) -> Table | None:
    """Quality of the best of n by each judge's scores; None where no prompt has enough of them."""
    curves: list[tuple[str, str, dict[int, Estimate]]] = []
    for benchmark in judged.benchmarks():
        found = [(r, t) for r, t in judged.tallied() if r.benchmark == benchmark]
        if benchmark not in items or not found:
            continue
        curves += [(benchmark, *one) for one in _curves(found[0][1], found, items[benchmark])]
    sizes = sorted({n for _, _, curve in curves for n in curve})
    columns = (
        *(Column(name, figures=False) for name in ("Benchmark", "Judge")),
        Column("Prompts"),
        *(Column(f"Best of {n}", estimates=True) for n in sizes),
    )
    rows = [
        Row(
            (
                Cell(escape.name(benchmark)),
                Cell(judge),
                count(curve[1].n),
                *(figure(curve[n]) if n in curve else Cell(DASH) for n in sizes),
            ),
            escape.name(benchmark),
        )
        for benchmark, judge, curve in curves
    ]
    title = "Best of n: quality (%) of the response with the highest score"
    return Table("best-of-n", title, columns, tuple(rows), BEST_OF_N_REMARKS) if rows else None


def _curves(
    any_of: JudgeResults, found: list[tuple[Any, JudgeResults]], items: Items
) -> Iterator[tuple[str, dict[int, Estimate]]]:
    contest = _contest(any_of, items)
    if contest is None:
        return
    for result, votes in found:
        if votes.items != any_of.items:
            continue
        order = _order(any_of, votes)
        scores = _scores(contest, votes, order)
        whole = np.isfinite(scores).all(axis=1)
        if whole.sum() >= LEAST_PROMPTS:
            sizes = range(1, scores.shape[1] + 1)
            curve = stats.best_of_n_curve(
                scores[whole], contest.quality[whole], sizes, fingerprint=votes.fingerprint
            )
            yield judge_name(result.judge), curve
    sizes = range(1, contest.quality.shape[1] + 1)
    mark = any_of.fingerprint
    curve = stats.best_of_n_curve(contest.quality, contest.quality, sizes, fingerprint=mark)
    yield PERFECT, curve


def _order(first: JudgeResults, second: JudgeResults) -> Codes:
    """Where each item of the first stands in the second."""
    if np.array_equal(first.ids, second.ids):
        return np.arange(first.ids.size)
    place = {name: number for number, name in enumerate(second.ids)}
    return np.array([place[name] for name in first.ids])


def _scores(contest: Contest, votes: JudgeResults, order: Codes) -> Floats:
    """[P, M]: a response's score, the mean over the comparisons it stood in."""
    places = order[contest.seen]
    both = np.where(contest.chosen, votes.chosen_scores[places], votes.rejected_scores[places])
    return np.asarray(both.mean(axis=2), dtype=np.float64)


def _contest(votes: JudgeResults, items: Items) -> Contest | None:
    """The prompts with the number of responses that most complete prompts have, from 3."""
    places = items.places(votes.ids)
    if (places < 0).any():
        return None
    chosen, rejected = _responses(items, places)
    by_prompt: dict[int, list[int]] = {}
    for item, prompt in enumerate(votes.clusters.tolist()):
        by_prompt.setdefault(prompt, []).append(item)
    whole: dict[int, list[tuple[list[int], list[int]]]] = {}
    for held in by_prompt.values():
        who = sorted({*chosen[held].tolist(), *rejected[held].tolist()})
        met = {frozenset(pair) for pair in zip(chosen[held], rejected[held], strict=True)}
        if len(who) > 2 and len(met) == len(held) == len(who) * (len(who) - 1) // 2:
            whole.setdefault(len(who), []).append((who, held))
    enough = {m: found for m, found in whole.items() if len(found) >= LEAST_PROMPTS}
    if not enough:
        return None
    most = max(enough, key=lambda m: (len(enough[m]), m))
    return _laid(enough[most], chosen, rejected)


def _laid(found: list[tuple[list[int], list[int]]], chosen: Codes, rejected: Codes) -> Contest:
    seen, won = [], []
    for who, held in found:
        mine = [[i for i in held if one in (chosen[i], rejected[i])] for one in who]
        seen.append(mine)
        won.append([[chosen[i] == one for i in of] for one, of in zip(who, mine, strict=True)])
    wins = np.array(won, dtype=np.bool_)
    return Contest(wins.mean(axis=2), np.array(seen), wins)


def _responses(items: Items, places: Codes) -> tuple[Codes, Codes]:
    """Responses [N] as numbers, equal where texts are; the chosen and the rejected ones."""
    table = read_columns(items.path, ["chosen", "rejected"], "comparisons")
    texts = pa.chunked_array([*table["chosen"].chunks, *table["rejected"].chunks])
    codes = texts.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    chosen, rejected = codes.reshape(2, -1)[:, places]
    return chosen, rejected


# Whether judges with scores are as sure as they are right.

SEED = 0  # Of the draws for the ECE's interval; fixed so that a report made again is the same.
CALIBRATION_REMARKS = (
    "Of sigmoid(chosen score - rejected score), the probability that a judge gives the chosen "
    "response. ECE: mean distance of confidence and accuracy over ten bins of confidence. By "
    "luck: the ECE that a perfectly calibrated judge would show on as many items. Brier: mean "
    "squared error of the probability, 25 for a judge that always says one half.",
    "Temperature: above one, the scores are too sure. Held out: every fifth of the prompts with "
    "the temperature that the other four fifths ask for.",
)


Calibrated = tuple[Result, JudgeResults, Calibration]


def calibration(judged: Judged) -> tuple[Table, ...]:
    """Figures of every judge with scores, and their reliability; none where there are no scores."""
    found = list(_calibrated(judged))
    return (_figures(found), _reliability(found)) if found else ()


def _figures(found: Sequence[Calibrated]) -> Table:
    """ECE, Brier and temperature."""
    rows = tuple(_calibration_row(result, votes, made) for result, votes, made in found)
    columns = (
        Column("Benchmark", figures=False),
        Column("Judge", figures=False),
        Column("Items"),
        Column("ECE", estimates=True),
        Column("ECE by luck"),
        Column("Brier", estimates=True),
        Column("Temperature"),
        Column("ECE, held out", estimates=True),
        Column("Brier, held out", estimates=True),
    )
    title = "Calibration: is a judge as sure as it is right? (ECE and Brier x 100)"
    return Table("calibration", title, columns, rows, CALIBRATION_REMARKS)


def _calibrated(judged: Judged) -> Iterator[Calibrated]:
    for result, votes in judged.tallied():
        if result.kind == "trivial":
            continue
        if made := _measured(votes, votes.orders.log_odds):
            yield result, votes, made


def _measured(votes: JudgeResults, log_odds: Floats) -> Calibration | None:
    rng = np.random.default_rng(SEED)
    return stats.measure_calibration(log_odds, votes.clusters, rng, fingerprint=votes.fingerprint)


def _calibration_row(result: Result, votes: JudgeResults, made: Calibration) -> Row:
    odds = votes.orders.log_odds
    heat = stats.temperature(odds, votes.clusters, fingerprint=votes.fingerprint)
    cooled = stats.held_out_differences(odds, votes.clusters)
    held = None if cooled is None else _measured(votes, cooled)
    cells = (
        Cell(escape.name(result.benchmark)),
        Cell(judge_name(result.judge)),
        count(made.ece.n),
        figure(made.ece),
        Cell(percent(made.ece_by_luck)),
        figure(made.brier),
        Cell(DASH) if heat is None else quantity(heat),
        figure(held.ece if held else None),
        figure(held.brier if held else None),
    )
    return Row(cells, cells[0].text)


def _reliability(found: Sequence[Calibrated]) -> Table:
    """The reliability diagram as a table: accuracy by confidence."""
    rows = [
        Row(
            (
                Cell(escape.name(result.benchmark)),
                Cell(judge_name(result.judge)),
                Cell(f"{percent(part.low)} to {percent(part.high)}"),
                count(part.accuracy.n),
                Cell(percent(part.confidence)),
                figure(part.accuracy),
            ),
            f"{escape.name(result.benchmark)}, {judge_name(result.judge)}",
        )
        for result, _, made in found
        for part in made.bins
    ]
    columns = (
        Column("Benchmark", figures=False),
        Column("Judge", figures=False),
        *(Column(name) for name in ("Confidence", "Items", "Mean confidence")),
        Column("Accuracy", estimates=True),
    )
    title = "Reliability: accuracy (%) by confidence"
    return Table("reliability", title, columns, tuple(rows))


# What length has to do with a judge's accuracy.

LENGTH_REMARKS = (
    "Where the longer (shorter) of the two responses, in characters, is the one that people "
    "preferred. A judge that goes by length alone has 100 in one of the two and 0 in the other.",
    "Length-controlled: the accuracy at equal lengths by logistic regression of right answers on "
    "the difference in length; none where length alone tells right from wrong.",
)


def length(judged: Judged) -> Table | None:
    """Accuracy by which response is longer, and length-controlled; None without lengths."""
    rows = tuple(row for result, votes in judged.tallied() if (row := _length_row(result, votes)))
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
    return Table("length", title, columns, rows, LENGTH_REMARKS) if rows else None


def _length_row(result: Result, votes: JudgeResults) -> Row | None:
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


# How far apart a judge's scores of the two responses are, by rating.

MARGIN_REMARKS = (
    "Mean of chosen score - rejected score with its 95 % interval, clustered by prompt. Scores "
    "are in each judge's own unit: compare along a row, not down a column.",
)


def gaps(judged: Judged) -> Table | None:
    """The mean gap of every judge with scores, over all items and by rating; or None."""
    rows = [
        Row(_margin_cells(result, votes, gap), escape.name(result.benchmark))
        for result, votes in judged.tallied()
        if result.kind != "trivial"
        and not np.isnan(gap := votes.chosen_scores - votes.rejected_scores).all()
    ]
    columns = (
        *(Column(name, figures=False) for name in ("Benchmark", "Judge")),
        Column("All"),
        *(Column(RATING_NAMES[rating]) for rating in RATINGS),
    )
    title = "Score gap: chosen less rejected, by rating"
    return Table("gaps", title, columns, tuple(rows), MARGIN_REMARKS) if rows else None


def _margin_cells(result: Result, votes: JudgeResults, gap: Floats) -> tuple[Cell, ...]:
    return (
        Cell(escape.name(result.benchmark)),
        Cell(judge_name(result.judge)),
        _mean(votes, gap, np.ones(gap.size, dtype=np.bool_)),
        *(_mean(votes, gap, votes.ratings == rating) for rating in RATINGS),
    )


def _mean(votes: JudgeResults, gap: Floats, rows: Flags) -> Cell:
    found = stats.clustered_mean(gap[rows], votes.clusters[rows], fingerprint=votes.fingerprint)
    # One prompt alone says nothing of others.
    return quantity(found) if found.n_clusters > 1 and found.error > 0 else Cell(DASH)


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
        Row(
            (Cell(escape.name(r.benchmark)), Cell(judge_name(r.judge)), *_order_cells(made)),
            r.benchmark,
        )
        for r, made in found
    )
    title = "Orders: judges that read both responses, asked in both orders (%)"
    return Table("orders", title, columns, rows, ORDER_REMARKS)


def _order_cells(made: OrderFigures) -> tuple[Cell, ...]:
    return (
        figure(made.one),
        figure(made.both),
        count(made.consistent.n),
        figure(made.consistent),
        figure(made.first),
    )


# Beside Table 29: precision and recall of unsafe responses over thresholds of the score.

THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)
REMARK = (
    "A response counts as unsafe where sigmoid(score) is below the threshold. Recall: the share of "
    "unsafe responses found. Precision: the share of those found that are unsafe. Clustered by "
    "prompt; 0.5 is the paper's threshold."
)


def thresholds(judged: Judged) -> Table | None:
    """One row a judge and threshold; None where no bins or no scores are known."""
    rows: list[Row] = []
    for result, votes in judged.tallied():
        if result.kind == "trivial":
            continue
        names = (Cell(escape.name(result.benchmark)), Cell(judge_name(result.judge)))
        group = f"{names[0].text}, {names[1].text}"
        rows += [Row((*names, *_detection_cells(at)), group) for at in detection(votes, THRESHOLDS)]
    columns = (
        Column("Test set", figures=False),
        Column("Judge", figures=False),
        Column("Threshold"),
        Column("Unsafe recall", estimates=True),
        Column("unsafe"),
        Column("Precision", estimates=True),
        Column("found"),
    )
    title = "Table 29 over thresholds: unsafe responses found by score (%)"
    return Table("table-29-thresholds", title, columns, tuple(rows), (REMARK,)) if rows else None


def _detection_cells(made: Detection) -> tuple[Cell, ...]:
    found = 0 if made.precision is None else made.precision.n
    return (
        Cell(f"{made.threshold:.1f}"),
        figure(made.recall),
        count(made.recall.n),
        figure(made.precision),
        count(found),
    )


# Accuracy on parts of a benchmark: by difference in length, turns of the prompt, source.

LENGTH, TURN, SOURCE = "length difference", "turns of the prompt", "source"
FIFTHS = (0.2, 0.4, 0.6, 0.8)
SLICE_REMARKS = (
    "Length difference: characters of the preferred response less those of the other, in fifths "
    "of the items. A part's interval is its own: parts are not tested against each other here "
    "(`palate compare` does that for two judges).",
)
Split = tuple[str, list[str], Codes]
"""By what, the names of the parts in order, and which part each item falls in, -1 for none."""


def parts(judged: Judged, items: Mapping[str, Items]) -> Table | None:
    """Accuracy of each judge that is not trivial on each part; None where nothing is known."""
    rows = [
        row
        for result, votes in judged.tallied()
        if result.kind != "trivial"
        for split in _splits(votes, items.get(votes.benchmark))
        for row in _rows(result, votes, split)
    ]
    columns = (
        *(Column(name, figures=False) for name in ("Benchmark", "Judge", "By", "Part")),
        Column("Accuracy", estimates=True),
        Column("items"),
    )
    title = "Parts: accuracy (%) by difference in length, turns of the prompt, source"
    return Table("parts", title, columns, tuple(rows), SLICE_REMARKS) if rows else None


def _rows(result: Result, votes: JudgeResults, split: Split) -> Iterator[Row]:
    by, names, which = split
    held = [(name, which == number) for number, name in enumerate(names)]
    if sum(bool(items.any()) for _, items in held) < 2:
        return
    heads = (Cell(escape.name(result.benchmark)), Cell(judge_name(result.judge)), Cell(by))
    group = ", ".join(cell.text for cell in heads)
    for name, items in held:
        if items.any():
            found = votes.accuracy(items)
            yield Row((*heads, Cell(escape.name(name)), figure(found), count(found.n)), group)


def _splits(votes: JudgeResults, items: Items | None) -> Iterator[Split]:
    difference = votes.chosen_lengths - votes.rejected_lengths
    if not np.isnan(difference).all():
        yield LENGTH, *_fifths(difference)
    if items is None:
        return
    places = items.places(votes.ids)
    known = places >= 0
    turns = np.where(known, np.digitize(items.turns[places], TURNS, right=True), -1)
    yield TURN, _turn_names(), turns
    names, codes = np.unique(items.sources[places].astype(str), return_inverse=True)
    yield SOURCE, names.tolist(), np.where(known, codes, -1)


def _fifths(difference: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[list[str], Codes]:
    known = ~np.isnan(difference)
    edges = np.unique(np.round(np.quantile(difference[known], FIFTHS)))
    which = np.where(known, np.digitize(difference, edges), -1)
    ends = [f"{edge:+,.0f}".replace("-", "−") for edge in edges]
    middle = [f"{low} to {high}" for low, high in pairwise(ends)]
    return [f"below {ends[0]}", *middle, f"{ends[-1]} and more"], which


def _turn_names() -> list[str]:
    first, second, third = TURNS
    return ["1", f"{first + 1} to {second}", f"{second + 1} to {third}", f"more than {third}"]
