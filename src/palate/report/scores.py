"""The scores that benchmarks of the field define: a table each, its sections beside the score.

The rules are in `palate.data.benchmarks`. A judge's accuracy on the same items is in Table 7; the
two differ where a benchmark weights its sections, and where items have no score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from palate import escape
from palate.data.benchmarks import benchmark_named
from palate.evaluate.results import items_digest
from palate.evaluate.scores import BenchmarkScore, letters
from palate.report.accuracy import TEST_SET_NAMES, judge_name, sizes
from palate.report.read import Judged, Key
from palate.report.render import percent
from palate.report.table import Column, Row, Table, Unit, figure, make_table, row
from palate.stats import Estimate

SEED = 0  # Of the permutation tests; fixed so that a report made again is the same bytes.
CHANCE = "Chance"
METHOD = (
    "Value ± the longer arm of the 95 % interval, clustered by prompt. Chance: what random scores "
    "are expected to reach. An item without a score is wrong here, as in the benchmark's own code, "
    "and is counted; Table 7 leaves it out. Judges that share a letter cannot be told apart by the "
    "score at the 5 % level (paired, Holm over all pairs of judges)."
)


def own_scores(judged: Judged) -> Iterator[Table]:
    """A table for each benchmark of the field, in the order of Table 7."""
    keys = [(judge, name) for name in judged.benchmarks() for judge in judged.judges()]
    by_named: dict[str, list[Key]] = {}
    for key in keys:
        if (score := judged.scores.get(key)) is not None:
            by_named.setdefault(score.named, []).append(key)
    for named, of in by_named.items():
        if table := _table(judged, named, of):
            yield table


def _table(judged: Judged, named: str, keys: Sequence[Key]) -> Table | None:
    """Every judge on every set of one benchmark; a row says what chance reaches there."""
    known, kinds = benchmark_named(named), judged.kinds()
    parts = list(dict.fromkeys(part.name for key in keys for part in judged.scores[key].parts))
    rows: list[Row] = []
    missing: list[str] = []
    for benchmark in dict.fromkeys(name for _, name in keys):
        scores = {
            judge: judged.scores[judge, benchmark] for judge, name in keys if name == benchmark
        }
        title = escape.name(benchmark)
        figures = {judge: _figures(score, parts) for judge, score in scores.items()}
        groups = _letters(list(scores.values()))
        first = next(iter(scores.values()))
        chances = {part.name: part.chance for part in first.parts}
        rows.append(
            row(title, CHANCE, *(chances.get(name) for name in parts), None, None, group=title)
        )
        for judge, of in figures.items():
            score, letter = scores[judge], groups.get(judge, "")
            cells = [
                figure(value, letters=letter if number == 0 else "")
                for number, value in enumerate(of)
            ]
            unscored = int(score.unscored.sum())
            rows.append(
                row(title, judge_name(judge), *cells, score.ids.size, unscored, group=title)
            )
            if unscored and kinds[judge] != "trivial":
                share = percent(unscored / score.ids.size)
                missing.append(
                    f"{judge_name(judge)} on {title}: {unscored:,} of {score.ids.size:,} items "
                    f"({share} %) have no score and count as wrong."
                )
    counts = {name: sizes(e.n for e in _column(rows, place)) for place, name in enumerate(parts, 2)}
    heads = [
        *TEST_SET_NAMES,
        *(Column(escape.name(name), Unit.SHARE, counts[name]) for name in parts),
        Column("Items", Unit.COUNT),
        Column("Unscored", Unit.COUNT, "wrong here"),
    ]
    remarks = (f"Rule: {known.rule}.", METHOD, *missing)
    return make_table(
        f"scores-{named}", f"{known.title}: its own score and sections (%)", heads, rows, remarks
    )


def _column(rows: Sequence[Row], place: int) -> Iterator[Estimate]:
    return (e for one in rows if (e := one.cells[place].estimate) is not None)


def _figures(score: BenchmarkScore, parts: Sequence[str]) -> list[Estimate | None]:
    """A figure for each of `parts`, by name; None where the judge's items have no such part."""
    own = {part.name: score.estimate(part) for part in score.parts}
    return [own.get(name) for name in parts]


def _letters(scores: Sequence[BenchmarkScore]) -> Mapping[str, str]:
    """Letters of the judges that were asked the same items as most; the others have none."""
    asked = {one.judge: items_digest(map(str, one.ids)) for one in scores}
    usual = Counter(asked.values()).most_common(1)[0][0]
    alike = [one for one in scores if asked[one.judge] == usual]
    if len(alike) < 2:
        return {}
    return letters(alike, np.random.default_rng(SEED))
