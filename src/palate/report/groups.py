"""Which judges of the leaderboard can be told apart: letters for Table 7."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from palate import stats
from palate.evaluate.metrics import Tally, compare
from palate.evaluate.results import on_equal_terms
from palate.report import escape
from palate.report.read import Judged, Key
from palate.report.tables import percent
from palate.stats import PairedDifference

SEED = 0  # Of the permutation tests; fixed so that a report made again is the same bytes.
FAMILY = (
    "p is adjusted by Holm over all comparisons of the verdict: every model with the best trivial "
    "judge of a test set and with every other model, on all test sets, paired on the items that "
    "both scored, clustered by prompt."
)
Tests = Mapping[Key, PairedDifference]
"""Paired differences by (judge, judge), in the order of `Judged.judges`; p is adjusted."""


@dataclass(frozen=True, slots=True)
class Groups:
    """Letters of each judge by benchmark, and on the leaderboard (macro average)."""

    by_benchmark: Mapping[str, Mapping[str, str]]
    leaderboard: Mapping[str, str]
    remarks: tuple[str, ...]


def tests_of(judged: Judged) -> dict[str, Tests]:
    """Every two judges that were asked alike, by benchmark: all tests of a report, made once.

    Two families, each adjusted by Holm over all benchmarks: the comparisons of the verdict
    (`in_verdict`), and the rest. One comparison has one p, wherever it stands.
    """
    found = {name: _tests(judged, name) for name in judged.benchmarks()}
    pairs = [(name, pair) for name, tests in found.items() for pair in tests]
    adjusted: dict[tuple[str, Key], PairedDifference] = {}
    for asked in (True, False):
        family = [(name, pair) for name, pair in pairs if in_verdict(judged, name, pair) == asked]
        tests = stats.holm_family([found[name][pair] for name, pair in family])
        adjusted |= dict(zip(family, tests, strict=True))
    return {name: {pair: adjusted[name, pair] for pair in tests} for name, tests in found.items()}


def in_verdict(judged: Judged, benchmark: str, pair: Key) -> bool:
    """Whether it is of two models, or of a model and the best trivial judge of the benchmark."""
    kinds, best = judged.kinds(), judged.best_trivial(benchmark)
    trivial = [judge for judge in pair if kinds[judge] == "trivial"]
    return not trivial or (len(trivial) == 1 and best is not None and trivial[0] == best.judge)


def groups(
    judged: Judged, macro: Mapping[str, float], tests: Mapping[str, Tests] | None = None
) -> Groups:
    """Letters from the tests of every two judges; `macro` has the averages of whole rows."""
    tests = tests_of(judged) if tests is None else tests
    by_benchmark = {name: _letters(judged, name, found) for name, found in tests.items() if found}
    everywhere = [{name for pair in found for name in pair} for found in tests.values()]
    whole = [j for j in judged.judges() if j in macro and all(j in names for names in everywhere)]
    overall = _overall(whole, list(tests.values()))
    ranked = sorted(whole, key=lambda judge: -macro[judge]) if overall else []
    adjusted = dict(zip(overall, stats.benjamini_hochberg(list(overall.values())), strict=True))
    remarks = (_remark(tests),) if by_benchmark else ()
    return Groups(by_benchmark, stats.letters(ranked, adjusted), remarks)


def _tests(judged: Judged, benchmark: str) -> Tests:
    votes = _alike(judged, benchmark)
    found = {}
    for one, two in stats.pairs(list(votes)):
        first, second = on_equal_terms(votes[one], votes[two])
        difference = compare(first, second, np.random.default_rng(SEED))
        if difference.estimate.n_clusters > 1:
            found[one, two] = difference
    return found


def _alike(judged: Judged, benchmark: str) -> dict[str, Tally]:
    """The judges that were asked the same as most (pitfall 28), the order of sides apart."""
    results = [r for r in judged.of(benchmark) if r.overall.n]
    votes = {r.judge: t for r in results if (t := judged.tallies.get((r.judge, benchmark)))}
    terms = {j: (t.items, t.terms.data, t.terms.seed, t.terms.tie_rule) for j, t in votes.items()}
    if not terms:
        return {}
    usual = Counter(terms.values()).most_common(1)[0][0]
    return {judge: tally for judge, tally in votes.items() if terms[judge] == usual}


def _letters(judged: Judged, benchmark: str, tests: Tests) -> dict[str, str]:
    names = {name for pair in tests for name in pair}
    value = {name: judged.results[name, benchmark].overall.value for name in names}
    ranked = sorted((j for j in judged.judges() if j in names), key=lambda judge: -value[judge])
    return stats.letters(ranked, {pair: found.p_value for pair, found in tests.items()})


def _overall(names: Sequence[str], tests: Sequence[Tests]) -> dict[Key, float]:
    """p of the mean difference over all benchmarks; empty where a pair was not tested on one."""
    found: dict[Key, float] = {}
    for pair in stats.pairs(names):
        if any(pair not in tested for tested in tests):
            return {}
        mean = stats.macro_average([tested[pair].estimate for tested in tests])
        found[pair] = math.erfc(abs(mean.value) / mean.error / math.sqrt(2)) if mean.error else 1.0
    return found


def _remark(tests: Mapping[str, Tests]) -> str:
    least = ", ".join(
        f"{escape.name(name)} {percent(median(_detectable(found)))} points"
        for name, found in tests.items()
        if found
    )
    return (
        "Letters: judges that share one cannot be told apart at the 5 % level. In a benchmark, by "
        "the tests of the verdict (Holm over all of its comparisons); two judges that it does not "
        "compare, such as two trivial ones, by the same tests, adjusted by Holm among themselves. "
        "On the macro average, by another family: the mean difference (normal), adjusted by "
        "Benjamini-Hochberg. Smallest true difference that one test of a benchmark would find with "
        f"a power of 80 %, median over pairs: {least}."
    )


def _detectable(tests: Tests) -> list[float]:
    return [stats.detectable(difference.estimate) for difference in tests.values()]
