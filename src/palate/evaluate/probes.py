"""What a judge leans to beside the answers themselves: place, length, restating, its own family.

Each probe asks the same judge about the same pairs, once as they are and once with one thing
changed that should not matter, and says how far its answers move. A probe's verdicts are kept in a
folder of their own and enter no accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from palate import stats
from palate.data.prompts import hash64
from palate.evaluate.benchmark import Benchmark, order_for
from palate.evaluate.journal import Progress
from palate.evaluate.results import Floats, JudgeResults, read_judge_results
from palate.evaluate.run import evaluate
from palate.evaluate.sensitivity import SAMPLE, sample
from palate.records import read_verdicts, write_comparisons, write_items
from palate.stats import Estimate, PairedDifference
from palate.types import UNREAD_COLUMNS, BenchmarkItem, Comparison, Judge, PalateError, is_text

SEED = 0
SEEDS = (0, 1)  # Of the two orders in which items of K are shown.
# It says nothing of any question.
PADDING = (
    "\n\nThis is my answer to what you asked, and I have read it once more before I gave it. "
    "It stands here in full, and nothing else belongs to it. Thank you for your question, and for "
    "the time that you take to read what I have written."
)
AGAIN = "\n\nTo say the same once more: "


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing that should not matter, and how far it moves a judge.

    `share` is of the judge's answers with it (for the first place; for the padded response; its
    accuracy where its own family won), `without` the same without it (one half; the same response
    as it was; its accuracy where its own family lost), `difference` how far they are apart, in a
    family of tests of all probes (Holm).
    """

    name: str
    what: str
    share: Estimate
    without: float
    difference: PairedDifference


@dataclass(frozen=True, slots=True)
class Probed:
    """A judge's probes on `pairs` of a benchmark; `skipped` says which were not run, and why."""

    judge: str
    benchmark: str
    pairs: int
    probes: tuple[Probe, ...]
    skipped: tuple[str, ...] = ()


def systems_of(c: Comparison) -> tuple[str, str] | None:
    """Whose the chosen and the rejected response are, where the comparison says it.

    Sources say it in `meta` as `models`; a file of one's own in the columns `chosen_model` and
    `rejected_model`.
    """
    models = c.meta.get("models")
    if not models:
        columns = c.meta.get(UNREAD_COLUMNS) or {}
        models = [columns.get(f"{side}_model") for side in ("chosen", "rejected")]
    if not isinstance(models, list | tuple) or len(models) != 2 or not all(models):
        return None
    return str(models[0]), str(models[1])


def probe(
    name: str,
    comparisons: Sequence[Comparison],
    judge: Judge,
    folder: Path,
    *,
    own: Sequence[str] = (),
    pairs: int = SAMPLE,
    progress: Progress | None = None,
) -> Probed:
    """Ask a judge about the same pairs with something changed that should not matter.

    - position: of the answers in both orders, how many are for the response shown first;
    - length: of one response of each pair, drawn by a hash, a neutral paragraph more;
    - verbosity: of the same response, all of it said twice;
    - self-preference: of pairs with one response of the judge's own family, how much more often it
      agrees with people where that won than where it lost (`stats.favour`).

    Args:
        name: of the benchmark.
        comparisons: its rows; about `pairs` of those that people decided are asked, whole prompts.
        judge: any judge.
        folder: where verdicts are kept; a stopped probe goes on.
        own: words of which one stands in the names of models of the judge's own family.
        pairs: how many to ask.
        progress: called after each answer.

    Raises:
        PalateError: nothing to ask.
    """
    asked = [c for c in sample(comparisons, pairs) if is_text(c.prompt, c.chosen, c.rejected)]
    if not asked:
        raise PalateError(f"{name}: no decided pair of plain text to ask a judge about")
    rng, skipped = np.random.default_rng(SEED), []
    plain = _ask(judge, name, asked, folder / "as-they-are", progress)
    clusters, fingerprint = plain.clusters, plain.fingerprint
    made: list[tuple[str, str, Floats, Floats]] = []  # What is shown, with and without it, [N].

    if plain.both:
        one, other = plain.orders.values.T
        first = stats.chose_first(one, other, plain.orders.chosen_first)
        made.append(
            ("position", "answers for the response shown first", first, np.full(first.size, 0.5))
        )
    else:
        skipped.append("position: not a judge that reads both responses at once, in an order")

    padded = {c.id: hash64("padded", c.id) % 2 == 0 for c in asked}  # Whether the chosen one.
    sides = np.array([padded[str(key)] for key in plain.ids], dtype=np.bool_)
    was = np.where(sides, plain.values, 1 - plain.values)
    for kind, what, change in CHANGES:
        rows = [_changed(c, change, chosen=padded[c.id]) for c in asked]
        found = _ask(judge, name, rows, folder / kind, progress)
        values = _in_order(found, plain)
        made.append((kind, what, np.where(sides, values, 1 - values), was))

    owners = {c.id: _own_won(c, own) for c in comparisons}
    outcomes = [owners[str(key)] for key in plain.ids]
    known = np.array([one is not None for one in outcomes], dtype=np.bool_)
    won = np.array([one is True for one in outcomes], dtype=np.bool_)
    if not own:
        skipped.append("self-preference: name the judge's own family with --own")
    elif not known.any():
        skipped.append(
            "self-preference: no pair says that one response is of its own family; expected names "
            "in models, or in columns chosen_model and rejected_model"
        )

    pairs_of = [
        stats.paired_difference(*_known(values, without), clusters, rng, fingerprint=fingerprint)
        for _, _, values, without in made
    ]
    probes = []
    for (kind, what, values, without), difference in zip(made, pairs_of, strict=True):
        both = ~(np.isnan(values) | np.isnan(without))
        share = stats.accuracy(values[both], clusters[both], fingerprint=fingerprint)
        probes.append(Probe(kind, what, share, _mean(without[both]), difference))
    if known.any():
        mine = np.where(known, np.where(won, plain.values, 1 - plain.values), np.nan)
        people = np.where(known, won.astype(np.float64), np.nan)
        difference = stats.favour(mine, people, clusters, fingerprint=fingerprint)
        both = ~np.isnan(mine)
        gives = f"{_mean(mine[both]):.1%}, people {_mean(people[both]):.1%}"
        what = f"right where {', '.join(own)} won, less where it lost (wins it gives: {gives})"
        share = stats.accuracy(
            plain.values[known & won], clusters[known & won], fingerprint=fingerprint
        )
        accuracy_lost = _mean(plain.values[known & ~won & both])
        probes.append(Probe("self-preference", what, share, accuracy_lost, difference))
    family = stats.holm_family([one.difference for one in probes])
    probes = [replace(one, difference=own) for one, own in zip(probes, family, strict=True)]
    return Probed(plain.judge, name, len(asked), tuple(probes), tuple(skipped))


def place_of_k(
    name: str,
    items: Sequence[BenchmarkItem],
    judge: Judge,
    folder: Path,
    *,
    most: int = SAMPLE,
    progress: Progress | None = None,
) -> Probe | None:
    """How often a judge that names the best of K names the one shown first, in two seeded orders.

    A judge without a place that it leans to names it in 1/K. None where no item is asked that way.

    Args:
        name: of the benchmark.
        items: its items; at most `most` are asked, drawn by a hash, those that are rated aside.
        judge: one that reads all responses at once.
        folder: where verdicts are kept.
        most: how many to ask.
        progress: called after each answer.
    """
    alike = [one for one in items if not one.pairs and not one.turns and not one.undecided]
    asked = sorted(alike, key=lambda one: hash64("place", one.id))[:most]
    if not asked:
        return None
    path = folder / "items.parquet"
    write_items(path, asked)
    benchmark, first = Benchmark(name, path), list[Floats]()
    for seed in SEEDS:
        file = evaluate(judge, benchmark, folder / f"order-{seed}", seed=seed, progress=progress)
        verdicts = {verdict.comparison_id: verdict for verdict in read_verdicts(file)}
        shares = []
        for choice in benchmark.choices(seed):
            scores = [one.score for one in verdicts[choice.item.id].responses]
            known = [score for score in scores if score is not None]
            top = scores.count(max(known)) if known else 0
            named = bool(known) and scores[choice.shown[0]] == max(known)
            shares.append(named / top if len(known) == len(scores) else math.nan)
        first.append(np.array(shares))
    values = np.mean(first, axis=0)
    chance = np.array([1 / len(one.responses) for one in asked])
    clusters = stats.cluster_codes(one.prompt_id for one in asked)
    rng = np.random.default_rng(SEED)
    difference = stats.paired_difference(*_known(values, chance), clusters, rng)
    both = ~np.isnan(values)
    return Probe(
        "place of K",
        "names the response shown first, less 1/K",
        stats.accuracy(values[both], clusters[both]),
        _mean(chance[both]),
        difference,
    )


def _padded(text: str) -> str:
    return text + PADDING


def _restated(text: str) -> str:
    return text + AGAIN + text


CHANGES: tuple[tuple[str, str, Callable[[str], str]], ...] = (
    ("length", f"wins with {len(PADDING)} characters that say nothing, less without", _padded),
    ("verbosity", "wins with all of it said twice, less once", _restated),
)


def _changed(c: Comparison, change: Callable[[str], str], *, chosen: bool) -> Comparison:
    return (
        replace(c, chosen=change(c.chosen)) if chosen else replace(c, rejected=change(c.rejected))
    )


def _own_won(c: Comparison, own: Sequence[str]) -> bool | None:
    """Whether people preferred the response of the judge's own family; None if both or none is."""
    systems = systems_of(c)
    if systems is None:
        return None
    mine = [any(word.casefold() in one.casefold() for word in own) for one in systems]
    if mine[0] == mine[1] or c.judgement.decides == "tie":
        return None
    return mine[0] == (c.judgement.decides == "chosen")


def _ask(
    judge: Judge,
    name: str,
    rows: Sequence[Comparison],
    folder: Path,
    progress: Progress | None,
) -> JudgeResults:
    path = folder / "pairs.parquet"
    write_comparisons(path, rows)
    order = order_for(judge, "auto")
    return read_judge_results(
        evaluate(judge, Benchmark(name, path), folder, order=order, progress=progress)
    )


def _in_order(found: JudgeResults, plain: JudgeResults) -> Floats:
    """The values of the same pairs in the order of `plain`, [N]."""
    value = dict(zip(found.ids.tolist(), found.values.tolist(), strict=True))
    return np.array([value[key] for key in plain.ids.tolist()])


def _mean(values: Floats) -> float:
    """Their mean; NaN of none."""
    return float(values.mean()) if values.size else math.nan


def _known(values: Floats, without: Floats) -> tuple[Floats, Floats]:
    """Both with NaN where either is."""
    missing = np.isnan(values) | np.isnan(without)
    return np.where(missing, np.nan, values), np.where(missing, np.nan, without)
