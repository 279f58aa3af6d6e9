"""How often people would prefer one system to another, where only a judge has compared them.

The judge's errors are taken from comparisons of the same two systems that people have labelled: a
judge may favour one of them, and errors of other systems, or of all together, can turn the result
round (arXiv 2605.06939).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from palate import stats
from palate.data.annotators import item_key
from palate.evaluate.benchmark import Benchmark, order_for
from palate.evaluate.journal import Progress
from palate.evaluate.probes import systems_of
from palate.evaluate.results import read_judge_results
from palate.evaluate.run import evaluate, slug
from palate.records import write_comparisons
from palate.stats import JudgeCorrected
from palate.types import PREFERRED, Comparison, Judge, PalateError, digest


@dataclass(frozen=True, slots=True)
class WinRate:
    """How often `system` is preferred to `other`: `found` has the judge's word and people's."""

    system: str
    other: str
    found: JudgeCorrected


@dataclass(frozen=True, slots=True)
class _Turned:
    """A comparison with the system's response as the chosen one, and people's label of that."""

    comparison: Comparison
    label: float


def win_rates(
    judge: Judge,
    comparisons: Iterable[Comparison],
    labelled: Iterable[Comparison],
    system: str,
    folder: Path,
    *,
    progress: Progress | None = None,
) -> list[WinRate]:
    """The share of comparisons in which people would prefer `system`, by the system beside it.

    Args:
        judge: asked about both, in both orders where it reads both responses at once.
        comparisons: whatever labels they have is not read.
        labelled: comparisons of the same systems that people have labelled.
        system: its name, as the comparisons say whose a response is (`probes.systems_of`).
        folder: where verdicts are kept.
        progress: called after each answer.

    Raises:
        PalateError: no comparison of this system says whose its responses are, or one of them is
            among the labelled ones.
    """
    comparisons, labelled = list(comparisons), list(labelled)
    seen = {item_key(c)[0] for c in labelled}
    if again := sum(item_key(c)[0] in seen for c in comparisons):
        raise PalateError(
            f"{again:,} of {len(comparisons):,} comparisons are among the labelled ones too, where "
            "what people say is known and the judge's errors were measured; leave them out of one "
            "of the two files"
        )
    new, known = _by_other(comparisons, system), _by_other(labelled, system)
    if not new:
        named = sorted({name for c in comparisons for name in systems_of(c) or ()})
        there = f"; there are {', '.join(map(repr, named[:8]))}" if named else ""
        raise PalateError(
            f"no comparison has a response of {system!r} beside another's; expected the names in "
            f"columns chosen_model and rejected_model{there}"
        )
    made = []
    for other, rows in sorted(new.items()):
        theirs = known.get(other, [])
        names = [f"{system} and {other}", f"{system} and {other}, labelled"]
        asked = [
            _answers(judge, of, name, folder, progress)
            for of, name in zip((rows, theirs), names, strict=True)
        ]
        found = stats.judge_corrected(
            asked[0][0],
            [row.comparison.prompt_id for row in rows],
            asked[1][0],
            [row.label for row in theirs],
            [row.comparison.prompt_id for row in theirs],
            fingerprint=digest(asked[0][1], asked[1][1]),
        )
        made.append(WinRate(system, other, found))
    return made


def _by_other(comparisons: Iterable[Comparison], system: str) -> Mapping[str, list[_Turned]]:
    """The comparisons of a system, its response first, by the other system."""
    made: dict[str, list[_Turned]] = {}
    for c in comparisons:
        systems = systems_of(c)
        if systems is None or systems.count(system) != 1:
            continue
        label = {"chosen": 1.0, "rejected": 0.0, "tie": math.nan}[c.judgement.decides]
        turned = replace(c, judgement=PREFERRED, ranks=None)
        if systems[1] == system:
            turned = replace(turned, chosen=c.rejected, rejected=c.chosen)
            label = 1 - label
        other = systems[0] if systems[1] == system else systems[1]
        made.setdefault(other, []).append(_Turned(turned, label))
    return made


def _answers(
    judge: Judge, rows: Sequence[_Turned], name: str, folder: Path, progress: Progress | None
) -> tuple[list[float], str]:
    """How much the judge gives to the system in each comparison, and under which protocol."""
    if not rows:
        return [], ""
    path = folder / f"{slug(name)}.parquet"
    write_comparisons(path, [row.comparison for row in rows])
    verdicts = evaluate(
        judge,
        Benchmark(name, path),
        folder / "verdicts",
        order=order_for(judge, "auto"),
        progress=progress,
    )
    results = read_judge_results(verdicts)
    value = dict(zip(results.ids.tolist(), results.values.tolist(), strict=True))
    return [value[row.comparison.id] for row in rows], results.fingerprint
