"""What a judge's scores are worth in choosing one of several responses to a prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from palate import stats
from palate.evaluate.metrics import Tally
from palate.evaluate.results import Codes, Floats
from palate.records import read_columns
from palate.report import escape
from palate.report.accuracy import judge_name
from palate.report.items import Items
from palate.report.read import Judged
from palate.report.tables import DASH, Cell, Column, Row, Table, count, figure
from palate.stats import Estimate

LEAST_PROMPTS = 20
PERFECT = "Perfect judge"
REMARKS = (
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
    return Table("best-of-n", title, columns, tuple(rows), REMARKS) if rows else None


def _curves(
    any_of: Tally, found: list[tuple[Any, Tally]], items: Items
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


def _order(first: Tally, second: Tally) -> Codes:
    """Where each item of the first stands in the second."""
    if np.array_equal(first.ids, second.ids):
        return np.arange(first.ids.size)
    place = {name: number for number, name in enumerate(second.ids)}
    return np.array([place[name] for name in first.ids])


def _scores(contest: Contest, votes: Tally, order: Codes) -> Floats:
    """[P, M]: a response's score, the mean over the comparisons it stood in."""
    places = order[contest.seen]
    both = np.where(contest.chosen, votes.chosen_scores[places], votes.rejected_scores[places])
    return np.asarray(both.mean(axis=2), dtype=np.float64)


def _contest(votes: Tally, items: Items) -> Contest | None:
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
