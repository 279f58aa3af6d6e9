"""How far people's marks agree with the labels, with the judges, and with one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from palate import stats
from palate.evaluate.benchmark import seeded_side
from palate.stats import Estimate, NoiseCeiling
from palate.view.catalogue import Catalogue
from palate.view.marks import Mark
from palate.view.opinions import CORRECT, TIE, UNSCORED

LABEL = "the label"


@dataclass(frozen=True, slots=True)
class Annotator:
    """A person's marks: how many, how many blind, and their agreement with the labels."""

    name: str
    marks: int
    decided: int
    blind: int
    with_label: Estimate
    kappa: Estimate


@dataclass(frozen=True, slots=True)
class Couple:
    """Two people on the comparisons that both marked."""

    first: str
    second: str
    agreement: Estimate
    kappa: Estimate


@dataclass(frozen=True, slots=True)
class JudgeOnMarks:
    """A judge on the marked comparisons it was asked: right by the label, right by the people."""

    judge: str
    by_label: Estimate
    by_marks: Estimate


@dataclass(frozen=True, slots=True)
class Agreement:
    """All figures of a file of marks on one run; None where too little was marked.

    `alpha` is over people, of which response is better; `alpha_strength` of how much better, from
    -4 to 4. `ceiling` is of people among themselves, `ceiling_with_label` counts the label as one
    more annotator: what a judge can reach against the labels. `absent` marks are of comparisons
    that are not in this run.
    """

    annotators: tuple[Annotator, ...]
    couples: tuple[Couple, ...]
    judges: tuple[JudgeOnMarks, ...]
    alpha: Estimate | None
    alpha_strength: Estimate | None
    ceiling: NoiseCeiling | None
    ceiling_with_label: NoiseCeiling | None
    absent: int


@dataclass(frozen=True, slots=True)
class _Vote:
    """A mark with the side it prefers.

    Sides are drawn by a hash of the id, as a judge sees them. By label, nearly every mark would
    be "chosen", and agreement by chance so high that kappa says nothing.
    """

    annotator: str
    item: int
    prompt: str
    first: bool
    label_first: bool
    strength: int | None


def measure_agreement(catalogue: Catalogue, marks: Sequence[Mark]) -> Agreement:
    """Every figure of these marks; those without a preference count as marks only."""
    decided = [mark for mark in marks if mark.choice]
    known = catalogue.items_of([mark.comparison_id for mark in decided])
    votes = [
        _vote(mark, *known[mark.comparison_id]) for mark in decided if mark.comparison_id in known
    ]
    people = sorted({mark.annotator for mark in marks})
    by_person = {name: [v for v in votes if v.annotator == name] for name in people}
    labels = {vote.item: _label_of(vote) for vote in votes}
    return Agreement(
        annotators=tuple(_annotator(name, marks, by_person[name]) for name in people),
        couples=tuple(
            couple for a, b in combinations(people, 2) if (couple := _couple(a, b, by_person))
        ),
        judges=_judges(catalogue, votes),
        alpha=_alpha([(vote, int(vote.first)) for vote in votes]),
        alpha_strength=_alpha([(v, v.strength) for v in votes if v.strength is not None]),
        ceiling=_ceiling(votes),
        ceiling_with_label=_ceiling([*votes, *labels.values()]),
        absent=len(decided) - len(votes),
    )


def _vote(mark: Mark, item: int, prompt: str) -> _Vote:
    label_first = seeded_side(0, mark.comparison_id)
    first = label_first if mark.choice == "chosen" else not label_first
    strength = None if mark.rating is None else int(mark.rating) * (1 if first else -1)
    return _Vote(mark.annotator, item, prompt, first, label_first, strength)


def _label_of(vote: _Vote) -> _Vote:
    return _Vote(LABEL, vote.item, vote.prompt, vote.label_first, vote.label_first, None)


def _annotator(name: str, marks: Sequence[Mark], votes: Sequence[_Vote]) -> Annotator:
    own = [mark for mark in marks if mark.annotator == name]
    first, label = [v.first for v in votes], [v.label_first for v in votes]
    return Annotator(
        name=name,
        marks=len(own),
        decided=len(votes),
        blind=sum(mark.blind for mark in own if mark.choice),
        with_label=_share([a == b for a, b in zip(first, label, strict=True)], votes),
        kappa=stats.cohen_kappa(first, label),
    )


def _share(agreeing: Sequence[bool | float], votes: Sequence[_Vote]) -> Estimate:
    return stats.accuracy(np.array(agreeing, dtype=np.float64), [v.prompt for v in votes])


def _couple(a: str, b: str, by_person: Mapping[str, Sequence[_Vote]]) -> Couple | None:
    others = {vote.item: vote for vote in by_person[b]}
    shared = [(vote, others[vote.item]) for vote in by_person[a] if vote.item in others]
    if not shared:
        return None
    first, second = [v.first for v, _ in shared], [w.first for _, w in shared]
    agreeing = [x == y for x, y in zip(first, second, strict=True)]
    share = _share(agreeing, [vote for vote, _ in shared])
    return Couple(a, b, share, stats.cohen_kappa(first, second))


def _judges(catalogue: Catalogue, votes: Sequence[_Vote]) -> tuple[JudgeOnMarks, ...]:
    """Each judge by the label and by the people, on the same votes of decided answers."""
    items = np.array([vote.item for vote in votes], dtype=np.int64)
    agrees = np.array([vote.first == vote.label_first for vote in votes], dtype=bool)
    found = []
    for judge, opinions in catalogue.opinions.items():
        outcomes = opinions.outcomes[items]
        asked = (outcomes > 0) & (outcomes != UNSCORED)
        if not asked.any():
            continue
        right = np.where(outcomes == TIE, stats.TIE_VALUE, (outcomes == CORRECT).astype(float))
        by_marks = np.where(agrees, right, 1 - right)
        kept = [vote for vote, use in zip(votes, asked, strict=True) if use]
        found.append(
            JudgeOnMarks(
                judge, _share(right[asked].tolist(), kept), _share(by_marks[asked].tolist(), kept)
            )
        )
    return tuple(found)


def _alpha(values: Sequence[tuple[_Vote, int]]) -> Estimate | None:
    """None where no item has two people's labels."""
    if not values:
        return None
    votes = [vote for vote, _ in values]
    found = stats.krippendorff_alpha(
        [value for _, value in values],
        [vote.item for vote in votes],
        [vote.prompt for vote in votes],
        rng=np.random.default_rng(0),
        distance="nominal" if {value for _, value in values} <= {0, 1} else "interval",
    )
    return found if found.n else None


def _ceiling(votes: Sequence[_Vote]) -> NoiseCeiling | None:
    return (
        stats.noise_ceiling(
            [vote.first for vote in votes],
            [vote.item for vote in votes],
            [vote.prompt for vote in votes],
        )
        if votes
        else None
    )
