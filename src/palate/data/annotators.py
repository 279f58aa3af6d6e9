"""Several annotators of one pair: their votes, aggregated by a rule.

Rows of one prompt and the same two responses, in either order, are votes on one item. Kept apart
(`separate`), each is an observation of its own; aggregated, they are one comparison whose
`judgement` says what the rule made of them and whose `meta` keeps who said what.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import numpy as np

from palate.data.prompts import hash64
from palate.records import read_comparisons, write_comparisons
from palate.stats import dawid_skene
from palate.types import Comparison, Judgement, PalateError, Rating, comparison_id

Rule = Literal["separate", "votes", "majority", "mean", "dawid-skene"]
RULES: tuple[Rule, ...] = get_args(Rule)
VOTES = "votes"
"""In an aggregated comparison's `meta`: each annotator, vote and rating, in the order of rows."""
KEY = "annotators"  # Tells the id of an aggregated comparison from that of a vote.


@dataclass(frozen=True, slots=True)
class Vote:
    """One annotator's answer to one item, of which `first` and `second` are the two sides.

    Amounts are those of a `Judgement`: one vote, or shares. The rating is of the preferred side.
    """

    annotator: str | None
    first: float
    second: float
    tie: float
    both_bad: float
    weight: float
    rating: Rating | None

    @property
    def shares(self) -> tuple[float, float, float]:
        """Shares of the first side, a tie (both bad is one) and the second; they add up to 1."""
        return Judgement(self.first, self.second, self.tie, self.both_bad).shares

    @property
    def answer(self) -> Literal["first", "tie", "second", "both_bad"]:
        """The outcome with the largest share."""
        match Judgement(self.first, self.second, self.tie, self.both_bad).decides:
            case "chosen":
                return "first"
            case "rejected":
                return "second"
            case "tie":
                return "both_bad" if self.both_bad > self.tie else "tie"


@dataclass(slots=True)
class Item:
    """What was said of one pair: votes, safety of either side, and its first row by orientation.

    `rows` maps whether the first side was `chosen` to the number of the first row that has it so.
    """

    votes: list[Vote] = field(default_factory=list[Vote])
    safe: tuple[list[bool], list[bool]] = field(default_factory=lambda: ([], []))
    rows: dict[bool, int] = field(default_factory=dict[bool, int])

    def add(self, c: Comparison, chosen_first: bool) -> None:
        """Count a row, unless its annotator has answered already: the first answer stands."""
        if c.annotator and any(vote.annotator == c.annotator for vote in self.votes):
            return
        said, level = c.judgement, c.rating
        first, second = (said.chosen, said.rejected)[:: 1 if chosen_first else -1]
        vote = Vote(c.annotator, first, second, said.tie, said.both_bad, said.weight, level)
        self.votes.append(vote)
        safe = (c.chosen_safe, c.rejected_safe)[:: 1 if chosen_first else -1]
        for known, label in zip(self.safe, safe, strict=True):
            if label is not None:
                known.append(label)


def aggregate(comparisons: Iterable[Comparison], rule: Rule) -> Iterator[Comparison]:
    """One comparison for each prompt and unordered pair of responses, in order of first rows.

    | rule | `judgement` |
    |---|---|
    | `separate` | the rows as they are |
    | `votes` | sums of votes: two for one response and a tie are `chosen=2, tie=1` |
    | `majority` | one vote for what most annotators said; a tie where no answer has most votes |
    | `mean` | shares: the mean of the votes' shares, by their weights |
    | `dawid-skene` | shares: the posterior by annotators' reliability (`stats.dawid_skene`) |

    `chosen` is the side with the larger share; of equal ones, that of the first row. `weight` is
    the mean weight of the votes. `rating` is their mean strength towards the chosen side, where a
    vote for the other counts below zero and a tie is 0, rounded to a level and at least the lowest;
    votes without a rating say nothing, a tie has none. A safety label is that of most rows, None
    where they are even. `annotator` and `ranks` are None: they are of one annotator. An annotator's
    first answer to an item is the one that counts; rows without an annotator are one vote each.

    Texts wait in a temporary file, votes in memory: about 0.5 kB each.

    Raises:
        PalateError: an unknown rule; for `dawid-skene`, a row without an annotator, or no pair
            that two annotators judged.
    """
    if rule not in RULES:
        raise PalateError(f"annotators.rule: expected {', '.join(RULES)}, got {rule!r}")
    if rule == "separate":
        yield from comparisons
        return
    items: dict[int, Item] = {}
    with TemporaryDirectory(prefix="palate-votes-") as folder:
        first_rows = Path(folder) / "rows.parquet"
        write_comparisons(first_rows, _collect(comparisons, items, rule))
        judgements = _judgements([item.votes for item in items.values()], rule)
        # Of the rows that were kept, those whose sides stand as the judgement has them.
        wanted: dict[int, tuple[Item, Judgement, bool]] = {}
        for item, judgement in zip(items.values(), judgements, strict=True):
            towards = judgement.chosen - judgement.rejected
            chosen_first = towards > 0 if towards else min(item.rows, key=item.rows.__getitem__)
            number = item.rows.get(chosen_first, next(iter(item.rows.values())))
            wanted[number] = (item, judgement, chosen_first)
        for number, row in enumerate(read_comparisons(first_rows)):
            if number in wanted:
                yield _aggregated(row, *wanted[number])


def item_key(c: Comparison) -> tuple[int, bool]:
    """A 64-bit key of a comparison's prompt and unordered pair; whether `chosen` sorts first."""
    low, high = sorted((c.chosen, c.rejected))
    turns = [f"{turn.role}\0{turn.content}" for turn in c.prompt]
    return hash64(c.source, *turns, "pair", low, high), c.chosen == low


def _collect(
    comparisons: Iterable[Comparison], items: dict[int, Item], rule: Rule
) -> Iterator[Comparison]:
    """Fill `items`; yield the first row of each item and orientation, which is kept."""
    kept = 0
    for c in comparisons:
        if rule == "dawid-skene" and not c.annotator:
            raise PalateError(
                f"{c.source}: {c.meta.get('file', 'row')}:{c.meta.get('row', c.id)}: dawid-skene "
                "needs to know who voted and this row has no annotator; name the column of "
                "annotators, or take the rule majority, votes or mean"
            )
        key, chosen_first = item_key(c)
        item = items.setdefault(key, Item())
        item.add(c, chosen_first)
        if chosen_first not in item.rows:
            item.rows[chosen_first] = kept
            kept += 1
            yield c


def _judgements(items: Sequence[Sequence[Vote]], rule: Rule) -> list[Judgement]:
    """What the rule makes of each item's votes, with the first side for `chosen`."""
    if rule == "votes":
        return [_summed(votes) for votes in items]
    if rule == "majority":
        return [_majority(votes) for votes in items]
    if rule == "mean":
        return [_mean(votes) for votes in items]
    every = [(number, vote) for number, votes in enumerate(items) for vote in votes]
    try:
        posterior = dawid_skene(
            np.array([vote.shares for _, vote in every]).reshape(-1, 3),
            np.array([number for number, _ in every], np.int64),
            [vote.annotator for _, vote in every],
        )
    except ValueError:
        raise PalateError(
            "dawid-skene learns who is reliable from pairs that several annotators judged, and "
            "there is none; take the rule separate"
        ) from None
    return [
        _with_ties(votes, first, tie, second)
        for votes, (first, tie, second) in zip(items, posterior.shares.tolist(), strict=True)
    ]


def _weight(votes: Sequence[Vote]) -> float:
    return math.fsum(vote.weight for vote in votes) / len(votes)


def _summed(votes: Sequence[Vote]) -> Judgement:
    return Judgement(
        chosen=math.fsum(vote.first for vote in votes),
        rejected=math.fsum(vote.second for vote in votes),
        tie=math.fsum(vote.tie for vote in votes),
        both_bad=math.fsum(vote.both_bad for vote in votes),
        weight=_weight(votes),
    )


def _majority(votes: Sequence[Vote]) -> Judgement:
    said = Counter(vote.answer for vote in votes)
    weight = _weight(votes)
    match Judgement(said["first"], said["second"], said["tie"], said["both_bad"]).decides:
        case "chosen":
            return Judgement(weight=weight)
        case "rejected":
            return Judgement(0, 1, weight=weight)
        case "tie":
            ties = (0, 1) if said["both_bad"] > said["tie"] else (1, 0)
            return Judgement(0, 0, *ties, weight=weight)


def _mean(votes: Sequence[Vote]) -> Judgement:
    weights = [vote.weight for vote in votes]
    if not any(weights):
        weights = [1.0] * len(votes)
    total, shares = math.fsum(weights), [vote.shares for vote in votes]
    first, tie, second = (
        math.fsum(w * share[side] for w, share in zip(weights, shares, strict=True)) / total
        for side in range(3)
    )
    return _with_ties(votes, first, tie, second)


def _with_ties(votes: Sequence[Vote], first: float, tie: float, second: float) -> Judgement:
    """Shares as a judgement; a tie's is both bad as far as the votes for a tie are."""
    both_bad = math.fsum(vote.both_bad for vote in votes)
    ties = both_bad + math.fsum(vote.tie for vote in votes)
    bad = tie * (both_bad / ties) if ties else 0.0
    return Judgement(first, second, tie - bad, bad, _weight(votes))


def _aggregated(c: Comparison, item: Item, judgement: Judgement, chosen_first: bool) -> Comparison:
    """The comparison of an item, made of its row `c`."""
    as_it_stands = item_key(c)[1] == chosen_first
    meta: Mapping[str, Any] = c.meta
    if not as_it_stands:  # Nobody preferred this side: what else is known of the row is reversed.
        c = replace(c, chosen=c.rejected, rejected=c.chosen)
        meta = {name: c.meta[name] for name in ("file", "row") if name in c.meta}
    if not chosen_first:
        judgement = replace(judgement, chosen=judgement.rejected, rejected=judgement.chosen)
    chosen_safe, rejected_safe = map(_of_most, item.safe[:: 1 if chosen_first else -1])
    return replace(
        c,
        id=comparison_id(c.source, c.prompt, c.chosen, c.rejected, KEY),
        rating=_rating(item.votes, judgement, chosen_first),
        chosen_safe=chosen_safe,
        rejected_safe=rejected_safe,
        annotator=None,
        meta={**meta, VOTES: [_said(vote, chosen_first) for vote in item.votes]},
        judgement=judgement,
        ranks=None,
    )


def _said(vote: Vote, chosen_first: bool) -> dict[str, Any]:
    """A vote as `meta` holds it."""
    side = {"first": chosen_first, "second": not chosen_first}.get(vote.answer)
    answer = vote.answer if side is None else ("rejected", "chosen")[side]
    rating = {"rating": vote.rating.label} if vote.rating else {}
    return {"annotator": vote.annotator, "vote": answer, **rating}


def _of_most(labels: Sequence[bool]) -> bool | None:
    safe = 2 * sum(labels) - len(labels)
    return safe > 0 if safe else None


def _rating(votes: Sequence[Vote], judgement: Judgement, chosen_first: bool) -> Rating | None:
    """The mean strength of the rated votes towards the chosen side, as a level."""
    if judgement.decides == "tie":
        return None
    strengths = []
    for vote in votes:
        if vote.answer in ("tie", "both_bad"):
            strengths.append(0)
        elif vote.rating is not None:
            strengths.append(
                vote.rating if (vote.answer == "first") == chosen_first else -vote.rating
            )
    if not any(strengths):
        return None
    return Rating(max(1, math.floor(sum(strengths) / len(strengths) + 0.5)))
