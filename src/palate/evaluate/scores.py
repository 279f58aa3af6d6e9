"""The score that a benchmark defines, of one judge's verdicts, with its error.

The rules are in `palate.data.benchmarks`, one file a benchmark. What has no score is wrong in them,
as in the benchmarks' own code, so that no judge gains by leaving items out; accuracies of Palate
leave such items out and count them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate import stats
from palate.data.benchmarks import NAMED, Part, benchmark_named
from palate.evaluate.results import Codes, read_answers
from palate.records import read_header
from palate.stats import Estimate, PairedDifference, Term
from palate.types import PalateError, digest


@dataclass(frozen=True, slots=True, eq=False)
class BenchmarkScore:
    """What a benchmark of the field says of one judge.

    `parts` are its figures, the score first; `ids` [N] and `clusters` [N] those of the items that
    their means are of, `unscored` [N] whether an item has no answer.
    """

    judge: str
    benchmark: str
    named: str
    parts: tuple[Part, ...]
    ids: NDArray[Any]
    clusters: Codes
    unscored: NDArray[np.bool_]
    fingerprint: str

    def estimate(self, part: Part) -> Estimate:
        """A part as a figure with its interval; unscored items count as wrong in it."""
        made = stats.composite(part.terms, self.clusters, fingerprint=self.fingerprint)
        within = np.zeros(self.ids.size, dtype=np.bool_)
        for term in part.terms:
            within |= ~np.isnan(term.values)
        return replace(made, n_unscored=int((within & self.unscored).sum()))


def named_in(path: Path) -> str:
    """The benchmark of the field that a file of items or verdicts is of, or ""."""
    return str(read_header(path).details.get(NAMED) or "")


def read_score(path: Path) -> BenchmarkScore | None:
    """The score of a verdict file's judge; None where its benchmark is none of the field.

    Raises:
        PalateError: the file cannot be read, or its benchmark is one that this Palate has not.
    """
    details = read_header(path, "verdicts").details
    if not (name := str(details.get(NAMED) or "")):
        return None
    answers = read_answers(path)
    fingerprint = digest(details["protocol_fingerprint"], name, answers.ids.tolist())
    return BenchmarkScore(
        judge=details["judge"],
        benchmark=details["benchmark"],
        named=name,
        parts=tuple(benchmark_named(name).parts(answers)),
        ids=answers.ids,
        clusters=answers.clusters,
        unscored=np.isnan(answers.values),
        fingerprint=fingerprint,
    )


def scores_by_item(path: Path) -> dict[str, list[float | None]]:
    """What a verdict file's judge scored of each item's responses, in the item's order."""
    answers = read_answers(path)
    by_item = np.split(answers.scores, answers.starts[1:-1])
    return {
        str(name): [None if np.isnan(score) else float(score) for score in scores]
        for name, scores in zip(answers.ids, by_item, strict=True)
    }


def difference(
    first: BenchmarkScore, second: BenchmarkScore, rng: np.random.Generator, part: int = 0
) -> PairedDifference:
    """By how much the first judge's score is above the second's on the same items.

    Raises:
        PalateError: they were not asked the same items.
    """
    ours, theirs = first.parts[part].terms, second.parts[part].terms
    if not np.array_equal(first.ids, second.ids):
        places = {name: at for at, name in enumerate(second.ids.tolist())}
        if set(places) != set(first.ids.tolist()):
            raise PalateError(
                f"{first.judge!r} and {second.judge!r} were not asked the same items of "
                f"{first.benchmark}"
            )
        order = np.array([places[name] for name in first.ids.tolist()])
        theirs = tuple(_in_order(term, order) for term in theirs)
    fingerprint = digest(first.fingerprint, second.fingerprint)
    return stats.composite_difference(ours, theirs, first.clusters, rng, fingerprint=fingerprint)


def _in_order(term: Term, order: Codes) -> Term:
    amounts = None if term.amounts is None else term.amounts[order]
    return replace(term, values=term.values[order], amounts=amounts)


def letters(scores: Sequence[BenchmarkScore], rng: np.random.Generator) -> Mapping[str, str]:
    """Groups of judges that one benchmark's score cannot tell apart, by Holm over their pairs."""
    ranked = sorted(scores, key=lambda one: -one.estimate(one.parts[0]).value)
    by_name = {one.judge: one for one in ranked}
    if len(ranked) < 2:
        return dict.fromkeys(by_name, "")
    pairs = stats.pairs(list(by_name))
    found = [difference(by_name[a], by_name[b], rng) for a, b in pairs]
    adjusted = stats.holm([one.p_value for one in found])
    return stats.letters(list(by_name), dict(zip(pairs, adjusted, strict=True)))
