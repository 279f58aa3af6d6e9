"""What a benchmark can show: `audit` measures the ruler before anybody is measured with it.

Of a set of comparisons: how small a lead it can find, what trivial judges reach, how much
of its labels length, formatting and single words give away, what stands in it twice, what of it is
in training data, how far its annotators agree, and what another version of it says. No model is
needed; how far a model's own figure moves is measured by `evaluate.sensitivity`.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError

from palate import stats
from palate.data.annotators import Group, Votes, answers_of, item_key
from palate.data.contamination import BenchmarkIndex, OverlapReport
from palate.data.lint import LintReport, lint
from palate.data.prompts import hash64, normalise, prompt_key
from palate.evaluate.benchmark import hide, majority_first, seeded_side
from palate.evaluate.metrics import noise_ceiling
from palate.evaluate.results import items_digest
from palate.evaluate.sensitivity import Sensitivity
from palate.evaluate.surface import (
    STYLES,
    bag_of_words,
    cross_fitted,
    folds,
    has_styles,
    style_features,
)
from palate.judges.baselines import TRIVIAL
from palate.stats import Estimate
from palate.types import BenchmarkItem, Comparison, PalateError, digest, in_words
from palate.validation import explain

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Codes = NDArray[np.int64]
Say = Callable[[str], None]

DISCORDANT = (0.1, 0.2, 0.3)
"""Shares of pairs on which two judges differ, of which a lead is asked; the middle one leads."""
USUAL = 0.2
LEARNED = ("style", "bag of words")
JUDGES = (*TRIVIAL, *LEARNED)
"""The trivial judges, in the order of the tables; the learned ones are fitted five-fold."""
RATIOS = (1.0, 1.1, 1.5, 2.0, 4.0, math.inf)
"""Bounds of the longer response's length over the shorter one's."""
SUBSETS = ("subset", "category", "domain")
"""What in a comparison's `meta` names its part of the benchmark, where its batch does not."""
MOST_SUBSETS = 40
EXAMPLES = 5
SEED = 0


Unit = Literal["pair", "item"]
"""What a judge is right on: a pair, or an item of K with one right response, chosen among all."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is. `pairs` are of one prompt and two responses, judged once or more.

    `items` of K responses are what the rows were made of, 0 where these are comparisons;
    `left_out` of them have different turns before their responses and are not looked at.
    """

    items: int
    left_out: int
    rows: int
    decided: int
    ties: int
    pairs: int
    prompts: int
    largest_prompt: int
    annotators: int
    most_responses: int


@dataclass(frozen=True, slots=True)
class Lead:
    """Leads, as shares, of two judges that differ on a share `discordant` of the pairs.

    `significant` is where a 95 % interval begins to leave out zero; `detectable` is the true lead
    that is found four times in five. None where it is above `discordant`, which no judge leads by.
    """

    discordant: float
    significant: float | None
    detectable: float | None


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a lead means.

    `design_effect` is measured on two trivial judges, bag of words less longer; `worst` is that of
    prompts whose pairs all say the same. `chance` is what scores at random reach. `n` counts
    `unit`s.
    """

    unit: Unit
    chance: float
    n: int
    prompts: int
    design_effect: float
    worst: float
    leads: tuple[Lead, ...]

    @property
    def usual(self) -> Lead:
        """The lead of judges that differ on `USUAL` of the pairs."""
        return next(lead for lead in self.leads if lead.discordant == USUAL)


@dataclass(frozen=True, slots=True)
class Subset:
    """A part of the benchmark, or all of it (`name` empty): what trivial judges reach.

    `above` are those that are better than chance, the best one first, in a family of tests of all
    judges and parts (Bonferroni); of all of it, of all judges.
    """

    name: str
    n: int
    prompts: int
    lead: Lead
    judges: Mapping[str, Estimate]
    above: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LengthBin:
    """How often the longer response was preferred, where it is `low` to `high` times as long."""

    low: float
    high: float
    longer: Estimate


@dataclass(frozen=True, slots=True)
class Style:
    """How often responses have something: `chosen` and `rejected` are shares of the pairs.

    `wins`: of the pairs in which one response alone has it, how often that one was preferred.
    `difference`, chosen less rejected, and its p are those of a family of tests of all styles.
    """

    name: str
    chosen: float
    rejected: float
    difference: Estimate
    p_value: float
    wins: Estimate | None


@dataclass(frozen=True, slots=True)
class Doubles:
    """What stands in the benchmark more than once, or should not stand in it.

    `findings` are lint's, by kind. `repeated` prompts open as one of another cluster does, `near`
    ones share most words with one; statistics take them for independent.
    """

    findings: Mapping[str, int]
    repeated: int
    near: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """A set that models are trained on, and what of the benchmark is in it.

    `overlapping` of its `rows`, by their strongest sign, have one of `prompts` of the benchmark.
    """

    name: str
    rows: int
    overlapping: int
    prompts: int
    exact: int
    contains: int
    near: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of votes on pairs that several annotators judged; see `data.annotators.Group`."""

    source: str
    annotators: int
    votes: int
    agreement: Estimate | None
    alpha: Estimate | None
    ceiling: Estimate | None


@dataclass(frozen=True, slots=True)
class Stability:
    """Labels beside those of another version of the benchmark, by prompt and pair of responses.

    `same` is of pairs that both decide; `tie_in_one` counts those that one of them alone calls a
    tie. `flipped` are ids, of this version, of pairs with the other label there.
    """

    other: str
    shared: int
    only_here: int
    only_there: int
    tie_in_one: int
    same: Estimate
    flipped: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Audit:
    """Everything measured of one benchmark. `items` is a digest of the comparisons' ids.

    `not_read` says which rows of the file gave no comparison; `length_controlled` are accuracies
    of judges if both responses were equally long.
    """

    name: str
    items: str
    size: Size
    resolution: Resolution
    whole: Subset
    subsets: tuple[Subset, ...]
    length_controlled: Mapping[str, Estimate]
    lengths: tuple[LengthBin, ...]
    styles: tuple[Style, ...]
    doubles: Doubles
    training_sets: tuple[TrainingSet, ...]
    agreement: tuple[Agreement, ...]
    ties: Estimate
    stability: tuple[Stability, ...] = ()
    sensitivity: tuple[Sensitivity, ...] = ()
    not_read: str = ""
    file: str = ""
    sha256: str = ""

    @property
    def best(self) -> tuple[str, Estimate]:
        """The trivial judge that reaches most."""
        return max(self.whole.judges.items(), key=lambda one: one[1].value)

    @property
    def ceiling(self) -> Estimate | None:
        """The lowest noise ceiling of its sources, where one is known."""
        known = [one.ceiling for one in self.agreement if one.ceiling]
        return min(known, key=lambda estimate: estimate.value) if known else None


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """The decided comparisons, chosen first by majority, and their arrays [N].

    `contest` numbers the item of K that a pair is of; None where comparisons are what is judged.
    """

    comparisons: list[Comparison]
    clusters: Codes
    lengths: Floats  # [N, 2]: characters of chosen and rejected.
    styles: NDArray[np.bool_]  # [N, 2, S].
    contest: Codes | None
    fingerprint: str

    @classmethod
    def of(cls, comparisons: Iterable[Comparison], fingerprint: str) -> _Rows:
        rows = [c for c in map(majority_first, comparisons) if c.judgement.decides != "tie"]
        texts = [(in_words(c.chosen), in_words(c.rejected)) for c in rows]
        lengths = np.array([[len(a), len(b)] for a, b in texts], dtype=np.float64).reshape(-1, 2)
        styles = np.array([[has_styles(a), has_styles(b)] for a, b in texts], dtype=np.bool_)
        clusters = stats.cluster_codes([c.prompt_id for c in rows])
        contest = None
        if rows and all(CONTEST in c.meta for c in rows):
            contest = stats.cluster_codes([c.meta[CONTEST] for c in rows])
        styles = styles.reshape(-1, 2, len(STYLES))
        return cls(rows, clusters, lengths, styles, contest, fingerprint)

    def accuracy(self, values: Floats, rows: Flags | slice = slice(None)) -> Estimate:
        return stats.accuracy(values[rows], self.clusters[rows], fingerprint=self.fingerprint)

    def by_unit(self) -> tuple[_Rows, Callable[[Floats], Floats]]:
        """What a judge is right on, a row each, and how values of pairs become values of these.

        An item's right response is chosen where it is above every other; a tie of it is a half.
        """
        if (contest := self.contest) is None:
            return self, lambda values: values
        _, first = np.unique(contest, return_index=True)
        items = replace(
            self,
            comparisons=[self.comparisons[at] for at in first.tolist()],
            clusters=stats.cluster_codes(self.clusters[first]),
            lengths=self.lengths[first],
            styles=self.styles[first],
            contest=None,
        )

        def chosen(values: Floats) -> Floats:
            lowest = np.ones(first.size)
            np.minimum.at(lowest, contest, values)
            return lowest

        return items, chosen


CONTEST, RESPONSES = "contest", "responses"
"""In the `meta` of a pair that was made of an item: its id where it has one right response, and the
number of its responses."""


def as_pairs(row: Comparison | BenchmarkItem) -> Iterator[Comparison]:
    """A comparison itself, or the pairs of an item."""
    if isinstance(row, Comparison):
        yield row
    else:
        yield from pairs_of(row)


def pairs_of(item: BenchmarkItem) -> Iterator[Comparison]:
    """The pairs of a better and a worse response of an item; of two votes-tied ones, the tie.

    None of an item whose responses have different turns before them: they answer no one prompt.
    """
    if len(set(item.turns)) > 1:
        return
    prompt = (*item.prompt, *(item.turns[0] if item.turns else ()))
    places = item.places
    numbers = range(len(places))
    asked = item.pairs or tuple((i, j) for i in numbers for j in numbers if places[i] < places[j])
    if item.undecided:
        asked = ((0, 1),)
    meta = {**item.meta, RESPONSES: len(places)}
    if not item.pairs and len(places) > 2 and places.count(0) == 1 and max(places) == 1:
        meta[CONTEST] = item.id
    for better, worse in asked:
        if item.labels:
            meta = {**meta, "models": [item.labels[better], item.labels[worse]]}
        yield Comparison(
            id=digest("pair", item.id, better, worse),
            source=item.source,
            prompt=prompt,
            chosen=item.responses[better],
            rejected=item.responses[worse],
            prompt_id=item.prompt_id,
            batch=item.source,
            judgement=item.judgement,
            meta=meta,
        )


def audit(
    name: str,
    rows: Iterable[Comparison | BenchmarkItem],
    *,
    training: Sequence[tuple[str, Iterable[Comparison]]] = (),
    versions: Sequence[tuple[str, Iterable[Comparison]]] = (),
    say: Say = lambda _line: None,
) -> Audit:
    """Measure a benchmark.

    Args:
        name: of the benchmark.
        rows: comparisons, ties too, or items of K. Of an item the pairs of a better and a worse
            response are looked at; where all have one right response among K > 2, judges are right
            where they choose it.
        training: names and rows of sets that models are trained on; its prompts are looked for.
        versions: names and rows of other versions of it, whose labels are held against its own.
        say: is told what is being done.

    Raises:
        PalateError: no comparison, or none that prefers a response.
    """
    every, items_read, left_out = _read(rows)
    if not every:
        raise PalateError(f"{name}: no comparisons to audit")
    items = items_digest(c.id for c in every)
    mark = digest("audit", items)
    pairs = _Rows.of(every, mark)
    if not pairs.comparisons:
        raise PalateError(
            f"{name}: all {len(every):,} comparisons are ties; nothing to be right on"
        )
    say(f"{len(every):,} comparisons; trivial judges")
    values = _judged(pairs)
    units, chosen = pairs.by_unit()
    at_units = {judge: chosen(one) for judge, one in values.items()}
    unit: Unit = "pair" if pairs.contest is None else "item"
    chances = np.array(
        [0.5 if unit == "pair" else 1 / c.meta[RESPONSES] for c in units.comparisons]
    )
    tied = np.array([float(c.judgement.decides == "tie") for c in every])
    effect = _design_effect(at_units["bag of words"] - at_units["longer"], units.clusters)
    say("lengths, formatting, duplicates")
    made = Audit(
        name=name,
        items=items,
        size=_size(every, items_read, left_out),
        resolution=_resolution(units.clusters, effect, unit, float(chances.mean())),
        whole=_subset("", units, at_units, np.ones(chances.size, dtype=np.bool_), effect, chances),
        subsets=tuple(_subsets(units, at_units, effect, chances)),
        length_controlled=_length_controlled(pairs, values),
        lengths=tuple(_by_length(pairs)),
        styles=tuple(_styles(pairs)),
        doubles=_doubles(every),
        training_sets=(),
        agreement=tuple(_agreement(name, every)),
        ties=stats.accuracy(tied, [c.prompt_id for c in every], fingerprint=mark),
    )
    if training:
        index = BenchmarkIndex.build({name: every})
        found = []
        for title, others in training:
            say(f"looking for its prompts in {title}")
            found.append(_training_set(title, others, index))
        made = replace(made, training_sets=tuple(found))
    stability = tuple(_stability(title, every, others, mark) for title, others in versions)
    return replace(made, stability=stability)


# How much there is, and how small a lead it finds.


def _read(rows: Iterable[Comparison | BenchmarkItem]) -> tuple[list[Comparison], int, int]:
    """The comparisons, how many items they were made of, and how many items gave none."""
    every: list[Comparison] = []
    items = left_out = 0
    for row in rows:
        before = len(every)
        every += as_pairs(row)
        if not isinstance(row, Comparison):
            items, left_out = items + 1, left_out + (len(every) == before)
    return every, items, left_out


def _size(comparisons: Sequence[Comparison], items: int, left_out: int) -> Size:
    by_prompt = Counter(c.prompt_id for c in comparisons)
    responses: dict[str, set[int]] = {}
    for c in comparisons:
        responses.setdefault(c.prompt_id, set()).update((hash64(c.chosen), hash64(c.rejected)))
    people = {name for c in comparisons for name, _ in answers_of(c) if name}
    ties = sum(c.judgement.decides == "tie" for c in comparisons)
    return Size(
        items=items,
        left_out=left_out,
        rows=len(comparisons),
        decided=len(comparisons) - ties,
        ties=ties,
        pairs=len({item_key(c)[0] for c in comparisons}),
        prompts=len(by_prompt),
        largest_prompt=max(by_prompt.values()),
        annotators=len(people),
        most_responses=max(map(len, responses.values())),
    )


def _design_effect(differences: Floats, clusters: Codes) -> float:
    """The variance of a mean difference with clusters over the one without, at least 1.

    Of one cluster nothing is known but that its pairs may all say the same: n.
    """
    size = differences.size
    clustered, count = stats.clustered_variance(differences, clusters)
    alone = float(differences.var()) / size
    if count < 2:
        return float(size)
    if count == size or alone <= 0 or math.isnan(clustered):
        return 1.0
    return max(1.0, clustered / alone)


def lead(n: int, discordant: float, design_effect: float) -> Lead:
    """The leads that n pairs tell from luck; a share of all pairs each."""
    leads = [
        stats.detectable_lead(n, discordant, design_effect=design_effect, power=power)
        for power in (0.5, 0.8)
    ]
    just, found = (x if x <= discordant else None for x in leads)
    return Lead(discordant, just, found)


def _resolution(clusters: Codes, effect: float, unit: Unit, chance: float) -> Resolution:
    sizes = np.bincount(clusters)
    n = int(sizes.sum())
    return Resolution(
        unit=unit,
        chance=chance,
        n=n,
        prompts=sizes.size,
        design_effect=effect,
        worst=float((sizes.astype(np.float64) ** 2).sum() / n),
        leads=tuple(lead(n, share, effect) for share in DISCORDANT),
    )


# Trivial judges.


def _judged(rows: _Rows) -> dict[str, Floats]:
    """1 right, 0 wrong, 0.5 tie of each judge of `JUDGES` on each pair, [N]."""
    shown = [hide(c, SEED, seeded_side(SEED, c.id)) for c in rows.comparisons]
    values: dict[str, Floats] = {}
    for name, make in TRIVIAL.items():
        answers = make().judge([item.pair for item in shown])
        values[name] = np.array(
            [
                0.5 if a.choice == "tie" else float((a.choice == "first") == item.chosen_first)
                for a, item in zip(answers, shown, strict=True)
            ]
        )
    if rows.contest is not None:
        # Of K responses each has a number, so that one of them is above all others.
        for name in ("random", "first"):
            numbers = [
                [hash64(name, c.meta[CONTEST], one) for one in (c.chosen, c.rejected)]
                for c in rows.comparisons
            ]
            values[name] = np.array([float(a > b) + (a == b) / 2 for a, b in numbers])
    fold = folds(rows.comparisons)
    styles = style_features(rows.styles[:, 0], rows.styles[:, 1], rows.lengths)
    values["style"] = (np.sign(cross_fitted(styles, fold)) + 1) / 2
    bag, either = bag_of_words(rows.comparisons)
    values["bag of words"] = (np.sign(cross_fitted(bag, fold, either)) + 1) / 2
    return values


def _length_controlled(rows: _Rows, values: Mapping[str, Floats]) -> dict[str, Estimate]:
    """Of the learned judges; those of length have nothing left."""
    differences = rows.lengths[:, 0] - rows.lengths[:, 1]
    made = {
        name: stats.length_controlled(
            values[name], differences, rows.clusters, fingerprint=rows.fingerprint
        )
        for name in LEARNED
    }
    return {name: estimate for name, estimate in made.items() if estimate is not None}


def _subset(
    name: str,
    rows: _Rows,
    values: Mapping[str, Floats],
    inside: Flags,
    effect: float,
    chances: Floats,
    parts: int = 1,
) -> Subset:
    size, level = int(inside.sum()), stats.LEVEL / (parts * len(JUDGES))
    prompts = int(np.unique(rows.clusters[inside]).size)
    judges = {judge: rows.accuracy(values[judge], inside) for judge in JUDGES}
    lowest = {
        judge: stats.accuracy(
            values[judge][inside], rows.clusters[inside], confidence=1 - level
        ).low
        for judge in JUDGES
    }
    above = [judge for judge in JUDGES if lowest[judge] > chances[inside].mean()]
    return Subset(
        name=name,
        n=size,
        prompts=prompts,
        lead=lead(size, USUAL, effect if prompts > 1 else size),
        judges=judges,
        above=tuple(sorted(above, key=lambda judge: -judges[judge].value)),
    )


def subset_names(comparisons: Sequence[Comparison]) -> list[str] | None:
    """The part of the benchmark that each comparison is of; None where no parts are known.

    A part is a batch; where all have one, a source; where all have one, what `meta` calls it.
    """
    ways: list[Callable[[Comparison], str]] = [lambda c: c.batch, lambda c: c.source]
    ways += [lambda c, key=key: str(c.meta.get(key) or "") for key in SUBSETS]  # type: ignore[misc]
    for way in ways:
        names = [way(c) for c in comparisons]
        if all(names) and 1 < len(set(names)) <= MOST_SUBSETS:
            return names
    return None


def _subsets(
    rows: _Rows, values: Mapping[str, Floats], effect: float, chances: Floats
) -> Iterable[Subset]:
    names = subset_names(rows.comparisons)
    if names is None:
        return
    of, parts = np.array(names), sorted(set(names))
    for name in parts:
        yield _subset(name, rows, values, of == name, effect, chances, len(parts))


# Length and form.


def _by_length(rows: _Rows) -> Iterable[LengthBin]:
    """The share of pairs in which the longer response was preferred, by how much longer it is."""
    chosen, rejected = rows.lengths.T
    longest, shortest = np.maximum(chosen, rejected), np.minimum(chosen, rejected)
    ratio = np.divide(longest, shortest, out=np.full(longest.shape, np.inf), where=shortest > 0)
    longer = (chosen > rejected).astype(np.float64)
    for low, high in pairwise(RATIOS):
        inside = (chosen != rejected) & (ratio >= low) & ((ratio < high) | (high == math.inf))
        if inside.any():
            yield LengthBin(low, high, rows.accuracy(longer, inside))


def _styles(rows: _Rows) -> Iterable[Style]:
    """Every style that some response has, tested as one family."""
    used = [at for at in range(len(STYLES)) if rows.styles[:, :, at].any()]
    rng = np.random.default_rng(SEED)
    sides = [rows.styles[:, :, at].astype(np.float64).T for at in used]
    tested = stats.holm_family(
        [
            stats.paired_difference(
                chosen, rejected, rows.clusters, rng, fingerprint=rows.fingerprint
            )
            for chosen, rejected in sides
        ]
    )
    names = list(STYLES)
    for at, (chosen, rejected), difference in zip(used, sides, tested, strict=True):
        alone = chosen != rejected
        yield Style(
            name=names[at],
            chosen=float(chosen.mean()),
            rejected=float(rejected.mean()),
            difference=difference.estimate,
            p_value=difference.p_value,
            wins=rows.accuracy(chosen, alone) if alone.any() else None,
        )


# What stands in it twice, and elsewhere.


def _doubles(comparisons: Sequence[Comparison]) -> Doubles:
    report = LintReport()
    for _ in lint(comparisons, report):
        pass
    kinds = Counter(finding.kind.value for finding in report.findings)
    first: dict[str, Comparison] = {}
    for c in comparisons:
        first.setdefault(c.prompt_id, c)
    prompt_of = {c.id: prompt for prompt, c in first.items()}
    index = BenchmarkIndex.build({"itself": first.values()})
    openings = Counter(prompt_key(c.prompt) for c in first.values())
    repeated, near = 0, 0
    examples: list[tuple[str, str]] = []
    for prompt, c in first.items():
        others = [o for o in index.find(c) if prompt_of[o.benchmark_id] != prompt]
        same = openings[prompt_key(c.prompt)] > 1
        repeated, near = repeated + same, near + (bool(others) and not same)
        if others and len(examples) < EXAMPLES:
            examples.append((c.id, others[0].benchmark_id))
    return Doubles(
        findings=dict(sorted(kinds.items())),
        repeated=repeated,
        near=near,
        examples=tuple(examples),
    )


def _training_set(
    name: str, comparisons: Iterable[Comparison], index: BenchmarkIndex
) -> TrainingSet:
    report = OverlapReport(benchmarks=list(index.benchmarks))
    for c in comparisons:
        report.add(c.id, name, index.find(c))
    if not report.rows:
        raise PalateError(f"{name}: no comparisons to look for prompts in")
    (row,) = report.table(EXAMPLES)
    return TrainingSet(
        name=name,
        rows=row["rows"],
        overlapping=row["overlapping"],
        prompts=row["benchmark_prompts"],
        exact=row["exact"],
        contains=row["contains"],
        near=row["near"],
        examples=tuple((one, other) for one, other in row["examples"]),
    )


# What its annotators say, and another version of it.


def _agreement(name: str, comparisons: Sequence[Comparison]) -> Iterable[Agreement]:
    votes = Votes()
    for c in comparisons:
        votes.add(c)
    groups: list[Group] = [one for one in votes.disagreement().groups if not one.batch]
    for group in groups:
        yield Agreement(
            group.source, group.annotators, group.votes,
            group.agreement, group.alpha, group.ceiling,
        )  # fmt: skip
    counted = [len(answers_of(c)) for c in comparisons]
    if not groups and max(counted) > 1 and (result := noise_ceiling(name, comparisons)):
        # Counts of votes without names.
        yield Agreement(comparisons[0].source, 0, sum(counted), None, None, result.overall)


def _label_key(c: Comparison) -> tuple[int, bool]:
    """A key of prompt and unordered pair but for case, white space and punctuation of the prompt;
    whether `chosen` sorts first."""
    chosen, rejected = (" ".join(in_words(text).split()) for text in (c.chosen, c.rejected))
    low, high = sorted((chosen, rejected))
    turns = [normalise(in_words(turn.content)) for turn in c.prompt if turn.role != "system"]
    return hash64(*turns, "pair", low, high), chosen == low


@dataclass(slots=True)
class _Label:
    """Votes for the side that sorts first, ties, votes for the other; of the first row its id."""

    id: str
    prompt: str
    votes: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])

    @property
    def said(self) -> int:
        """0 first side, 1 tie, 2 other side, by majority."""
        first, tie, second = self.votes
        if first > max(tie, second):
            return 0
        return 2 if second > max(first, tie) else 1


def _labels(comparisons: Iterable[Comparison]) -> dict[int, _Label]:
    labels: dict[int, _Label] = {}
    for c in comparisons:
        key, chosen_first = _label_key(c)
        label = labels.setdefault(key, _Label(c.id, c.prompt_id))
        chosen, tie, rejected = c.judgement.shares
        for at, share in enumerate((chosen, tie, rejected)):
            label.votes[at if chosen_first else 2 - at] += share
    return labels


def _stability(
    title: str, comparisons: Sequence[Comparison], others: Iterable[Comparison], mark: str
) -> Stability:
    here, there = _labels(comparisons), _labels(others)
    shared = [key for key in here if key in there]
    if not shared:
        raise PalateError(
            f"{title}: has no pair of responses in common with this benchmark; is it another "
            "version of it?"
        )
    decided = [key for key in shared if 1 not in (here[key].said, there[key].said)]
    tie_in_one = sum((here[key].said == 1) != (there[key].said == 1) for key in shared)
    same = np.array([float(here[key].said == there[key].said) for key in decided])
    return Stability(
        other=title,
        shared=len(shared),
        only_here=len(here) - len(shared),
        only_there=len(there) - len(shared),
        tie_in_one=tie_in_one,
        same=stats.accuracy(
            same,
            [here[key].prompt for key in decided],
            fingerprint=digest("stability", mark, title),
        ),
        flipped=tuple(here[k].id for k, equal in zip(decided, same, strict=True) if not equal),
    )


# JSON has no infinity: it is written as a string and read back.
_AUDITS = TypeAdapter(list[Audit], config=ConfigDict(ser_json_inf_nan="strings"))


def to_json(made: Audit) -> dict[str, Any]:
    """The audit as JSON values."""
    (values,) = json.loads(_AUDITS.dump_json([made]))
    return dict(values)


def read_audit(path: Path) -> Audit:
    """Read an audit that was written as JSON.

    Raises:
        PalateError: the file is not one; names the first thing wrong.
    """
    try:
        return _AUDITS.validate_json(b"[" + path.read_bytes() + b"]")[0]
    except ValidationError as error:
        mistake = explain(error, root="file", show_input=False)
        raise PalateError(f"{path}: {mistake}; remake it with `palate audit`") from None
