"""Several annotators of one pair: their votes aggregated by a rule, and how far they agree.

Rows of one prompt and the same two responses, in either order, are votes on one item. Kept apart
(`separate`), each is an observation of its own; aggregated, they are one comparison whose
`judgement` says what the rule made of them and whose `meta` keeps who said what.

`Votes` collects what named annotators said, of either form; `Votes.disagreement` is what lint, the
report and the explorer show of it.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from palate import escape, stats
from palate.data.prompts import hash64
from palate.data.sources.files import place_of
from palate.progress import warn
from palate.records import read_comparisons, read_header, write_comparisons
from palate.stats import Estimate, cluster_codes
from palate.types import Comparison, Judgement, PalateError, Rating, comparison_id

Rule = Literal["separate", "votes", "majority", "mean", "dawid-skene"]
RULES: tuple[Rule, ...] = get_args(Rule)
VOTES = "votes"
"""In an aggregated comparison's `meta`: each annotator, vote and rating, in the order of rows; and
the row's `judgement` where it is more than one vote of weight 1."""
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


Ratings = dict[str, list[float]]
"""What was rated of one response, by attribute."""


@dataclass(slots=True)
class Item:
    """What was said of one pair: votes, safety and attributes of either side, and its first row by
    orientation.

    `rows` maps whether the first side was `chosen` to the number of the first row that has it so;
    `repeated` counts answers of annotators who had given one before.
    """

    votes: list[Vote] = field(default_factory=list[Vote])
    safe: tuple[list[bool], list[bool]] = field(default_factory=lambda: ([], []))
    attributes: tuple[Ratings, Ratings] = field(default_factory=lambda: ({}, {}))
    rows: dict[bool, int] = field(default_factory=dict[bool, int])
    repeated: int = 0

    def add(self, c: Comparison, chosen_first: bool) -> None:
        """Count a row, or the votes of an aggregated one; of one annotator the first stands."""
        votes = _kept_votes(c)
        if votes is None:
            self._vote(c.annotator, c.judgement, c.rating, chosen_first)
        for vote in votes or ():
            said = Judgement(**{"chosen": 0.0} | vote.get("judgement", {vote["vote"]: 1.0}))
            rating = Rating[vote["rating"].upper()] if "rating" in vote else None
            self._vote(vote["annotator"], said, rating, chosen_first)
        safe = (c.chosen_safe, c.rejected_safe)[:: 1 if chosen_first else -1]
        for known, label in zip(self.safe, safe, strict=True):
            if label is not None:
                known.append(label)
        rated = (c.chosen_attributes, c.rejected_attributes)[:: 1 if chosen_first else -1]
        for ratings, attributes in zip(self.attributes, rated, strict=True):
            for attribute, value in attributes.items():
                ratings.setdefault(attribute, []).append(value)

    def _vote(
        self, name: str | None, said: Judgement, rating: Rating | None, chosen_first: bool
    ) -> None:
        if name and any(vote.annotator == name for vote in self.votes):
            self.repeated += 1
            return
        first, second = (said.chosen, said.rejected)[:: 1 if chosen_first else -1]
        vote = Vote(name, first, second, said.tie, said.both_bad, said.weight, rating)
        self.votes.append(vote)


def aggregate(
    comparisons: Iterable[Comparison], rule: Rule, paths: Mapping[str, str] | None = None
) -> Iterator[Comparison]:
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
    where they are even, and an attribute the mean of its ratings. `annotator` and `ranks` are None:
    they are of one annotator. An annotator's first answer to an item is the one that counts; rows
    without an annotator are one vote each. Of comparisons that were aggregated before, the votes
    that `meta` keeps are aggregated anew.

    `paths` are the files by the names that `meta` gives them, for messages.

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
        write_comparisons(first_rows, _collect(comparisons, items, rule, paths or {}))
        if repeated := sum(item.repeated for item in items.values()):
            warn(
                f"annotators: {repeated:,} answers left out, by annotators who had judged the same "
                "pair before; their first counts"
            )
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
    comparisons: Iterable[Comparison],
    items: dict[int, Item],
    rule: Rule,
    paths: Mapping[str, str],
) -> Iterator[Comparison]:
    """Fill `items`; yield the first row of each item and orientation, which is kept."""
    kept = 0
    for c in comparisons:
        if rule == "dawid-skene" and not all(name for name, _ in answers_of(c)):
            raise PalateError(
                f"{c.source}: {place_of(c, paths)}: dawid-skene "
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
        posterior = stats.dawid_skene(
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
    step = 1 if chosen_first else -1
    chosen_safe, rejected_safe = map(_of_most, item.safe[::step])
    chosen_attributes, rejected_attributes = map(_means, item.attributes[::step])
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
        chosen_attributes=chosen_attributes,
        rejected_attributes=rejected_attributes,
    )


def _said(vote: Vote, chosen_first: bool) -> dict[str, Any]:
    """A vote as `meta` holds it."""
    side = {"first": chosen_first, "second": not chosen_first}.get(vote.answer)
    answer = vote.answer if side is None else ("rejected", "chosen")[side]
    rating = {"rating": vote.rating.label} if vote.rating else {}
    chosen, rejected = (vote.first, vote.second)[:: 1 if chosen_first else -1]
    amounts = asdict(Judgement(chosen, rejected, vote.tie, vote.both_bad, vote.weight))
    amounts = {name: amount for name, amount in amounts.items() if amount}
    is_one = amounts == {answer: 1, "weight": 1}
    return {
        "annotator": vote.annotator,
        "vote": answer,
        **rating,
        **({} if is_one else {"judgement": amounts}),
    }


def _means(ratings: Ratings) -> dict[str, float]:
    return {name: math.fsum(values) / len(values) for name, values in ratings.items()}


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


# How far annotators agree: by source, by batch and by annotator.

DISAGREEMENT = "disagreement"
"""In the head of a file of findings."""
SHOWN_ANNOTATORS = 100
"""How many annotators of a source a `Disagreement` lists: first those far from the rest."""
MOST_DRAWN = 5_000  # Clusters of a bootstrap, which needs 8 kB for each; of more, groups of them.


@dataclass(frozen=True, slots=True)
class Group:
    """How far the annotators of a source, or of one batch of it (`batch`), agree.

    `pairs` of prompt and responses have `votes` of `annotators`; `agreement` is that of two
    annotators of one pair, a tie being an answer like others, and counts the pairs with several
    votes; `alpha` is nominal Krippendorff's; `ceiling` the noise ceiling, of votes that prefer a
    side. None where too little was judged twice.
    """

    source: str
    batch: str
    pairs: int
    votes: int
    annotators: int
    agreement: Estimate | None
    alpha: Estimate | None
    ceiling: Estimate | None
    ties: Estimate


@dataclass(frozen=True, slots=True)
class Annotator:
    """One annotator of a source beside the others; see `stats.AgainstOthers`."""

    source: str
    name: str
    votes: int
    agreement: Estimate | None
    others: float | None
    p_value: float | None
    is_far: bool
    ties: Estimate


@dataclass(frozen=True, slots=True)
class Disagreement:
    """How far named annotators agree; empty where no pair has votes of two of them.

    `annotators` are the first `SHOWN_ANNOTATORS` of each source, of `Group.annotators` in all.
    """

    groups: tuple[Group, ...] = ()
    annotators: tuple[Annotator, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON values, which `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Disagreement:
        """What `to_json` wrote."""

        def typed(row: Mapping[str, Any]) -> dict[str, Any]:
            return {
                name: Estimate(**value) if isinstance(value, Mapping) else value
                for name, value in row.items()
            }

        return cls(
            tuple(Group(**typed(row)) for row in values.get("groups", ())),
            tuple(Annotator(**typed(row)) for row in values.get("annotators", ())),
        )

    @classmethod
    def of_run(cls, run: Path) -> Disagreement:
        """What lint wrote of the sources of a run; empty where it wrote nothing."""
        parts = []
        for path in sorted((run / "data" / "clean").glob("*.findings.parquet")):
            with suppress(PalateError, TypeError):  # Of a broken file, or of a later Palate.
                parts.append(cls.from_json(read_header(path).details.get(DISAGREEMENT, {})))
        return cls(
            tuple(group for part in parts for group in part.groups),
            tuple(one for part in parts for one in part.annotators),
        )

    def lines(self) -> list[str]:
        """What a log says of it, a line a source, and one for each annotator far from the rest."""
        said = []
        for group in self.groups:
            if group.batch:
                continue
            figures = [f"{group.annotators:,} annotators, {group.votes:,} votes"]
            if group.agreement:
                figures.append(
                    f"{_percent(group.agreement)} agreement on {group.agreement.n:,} pairs"
                )
            if group.alpha:
                alpha = group.alpha
                figures.append(f"alpha {alpha.value:.2f} [{alpha.low:.2f}, {alpha.high:.2f}]")
            if group.ceiling:
                figures.append(f"noise ceiling {_percent(group.ceiling)}")
            said.append(f"{escape.plain(group.source)}: {', '.join(figures)}")
        for one in self.annotators:
            if one.is_far and one.agreement and one.others is not None:
                name = f"{escape.plain(one.source)}: {escape.plain(one.name)}"
                said.append(
                    f"{name} agrees with the others in "
                    f"{_percent(one.agreement)} of {one.agreement.n:,} votes, they among "
                    f"themselves in {one.others:.1%}; look at these votes"
                )
        return said


def _percent(estimate: Estimate) -> str:
    return f"{estimate.value:.1%} [{estimate.low:.1%}, {estimate.high:.1%}]"


@dataclass(slots=True)
class _Source:
    """The votes of one source as numbers, 26 bytes each; names by their number."""

    items: array[int] = field(default_factory=lambda: array("Q"))
    prompts: array[int] = field(default_factory=lambda: array("Q"))
    answers: array[int] = field(default_factory=lambda: array("b"))
    people: array[int] = field(default_factory=lambda: array("l"))
    batches: array[int] = field(default_factory=lambda: array("l"))
    names: dict[str, int] = field(default_factory=dict[str, int])
    batch_names: dict[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True)
class RowVotes:
    """What named annotators said of a row: (name, code) of each, and which pair of what it is.

    Codes: 0 the first of the sorted sides or the second, by a bit of `key`; 1 a tie; 2 the other.
    """

    source: str
    batch: str
    key: int
    prompt: int
    said: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, c: Comparison) -> RowVotes | None:
        """The votes of a row; None where nobody is named."""
        said = [(name, answer) for name, answer in answers_of(c) if name]
        if not said:
            return None
        key, chosen_first = item_key(c)
        # Sides by a bit of the key: alpha takes what is said of a side by chance into account, and
        # neither the order of a file nor that of the alphabet is chance.
        straight = chosen_first == bool(key >> 1 & 1)
        codes = tuple(
            (name, 1 if answer == "tie" else (0 if (answer == "chosen") == straight else 2))
            for name, answer in said
        )
        return cls(c.source, c.batch, key, hash64(c.prompt_id), codes)


class Votes:
    """What named annotators said of which pair, collected row by row.

    Of a row of one annotator it is its judgement, of an aggregated one all that `meta` keeps.
    Rows without a name say nothing about anybody.
    """

    def __init__(self) -> None:
        self._sources: dict[str, _Source] = {}
        self._disagreement: Disagreement | None = None  # Of the votes so far.

    def add(self, c: Comparison) -> None:
        """Count the votes of a row."""
        if (vote := RowVotes.of(c)) is not None:
            self.count(vote)

    def count(self, vote: RowVotes) -> None:
        """Count the votes of a row."""
        self._disagreement = None
        source = self._sources.setdefault(vote.source, _Source())
        batch = source.batch_names.setdefault(vote.batch, len(source.batch_names))
        for name, code in vote.said:
            source.items.append(vote.key)
            source.prompts.append(vote.prompt)
            source.answers.append(code)
            source.people.append(source.names.setdefault(name, len(source.names)))
            source.batches.append(batch)

    def disagreement(self) -> Disagreement:
        """How far the annotators of each source agree, and those of each of several batches.

        An annotator's first answer to a pair counts.
        """
        if self._disagreement is None:
            self._disagreement = self._measure()
        return self._disagreement

    def _measure(self) -> Disagreement:
        groups: list[Group] = []
        annotators: list[Annotator] = []
        for name, source in self._sources.items():
            votes = _Table.of(name, source)
            if not votes.has_pairs:
                continue
            groups.append(votes.group(""))
            if len(source.batch_names) > 1:
                groups += (
                    votes.of_rows(votes.batches == code).group(batch)
                    for batch, code in source.batch_names.items()
                )
            annotators += votes.annotators(list(source.names))
        return Disagreement(tuple(groups), tuple(annotators))


def answers_of(c: Comparison) -> list[tuple[str | None, str]]:
    """Who said what of a comparison, `chosen`, `rejected` or `tie`: its annotator, or its votes.

    Of counts of votes without a name there is one answer a vote.
    """
    votes = _kept_votes(c)
    if votes is None:
        return [(c.annotator, answer) for answer in _answers(c.judgement, c.annotator)]
    said: list[tuple[str | None, str]] = []
    for vote in votes:
        name, amounts = vote["annotator"], vote.get("judgement", {vote["vote"]: 1})
        judgement = Judgement(**{"chosen": 0.0} | amounts)
        said += [(name, answer) for answer in _answers(judgement, name)]
    return said


def _answers(judgement: Judgement, annotator: str | None) -> list[str]:
    amounts = {
        "chosen": judgement.chosen,
        "rejected": judgement.rejected,
        "tie": judgement.tie + judgement.both_bad,
    }
    if annotator or judgement.total == 1 or any(amount % 1 for amount in amounts.values()):
        return [judgement.decides]
    return [answer for answer, amount in amounts.items() for _ in range(int(amount))]


def _kept_votes(c: Comparison) -> list[dict[str, Any]] | None:
    """The votes that an aggregated comparison was made of; None for a vote."""
    votes = c.meta.get(VOTES)
    return votes if isinstance(votes, list) and not c.annotator else None


@dataclass(frozen=True, slots=True)
class _Table:
    """The votes of one source as arrays [M]; answers: 0 first side, 1 tie, 2 second side."""

    source: str
    fingerprint: str
    items: NDArray[Any]
    prompts: NDArray[Any]
    answers: NDArray[Any]
    people: NDArray[Any]
    batches: NDArray[Any]

    @classmethod
    def of(cls, name: str, source: _Source) -> _Table:
        """The votes as they came."""
        arrays = [
            np.frombuffer(values, dtype=values.typecode)
            for values in (source.items, source.prompts, source.answers, source.people)
        ]
        hashed = hashlib.blake2b(repr((name, list(source.names))).encode(), digest_size=16)
        for values in arrays:
            hashed.update(values.tobytes())
        items, prompts, answers, people = arrays
        batches = np.frombuffer(source.batches, dtype=source.batches.typecode)
        items = cluster_codes(items)
        _, first = np.unique(items * len(source.names) + people, return_index=True)
        first.sort()
        every = cls(
            name, hashed.hexdigest(), items, prompts, answers.astype(np.int64), people, batches
        )
        return every.of_rows(first)

    @property
    def has_pairs(self) -> bool:
        """Whether two annotators judged a pair."""
        return bool((np.bincount(self.items) > 1).any())

    def of_rows(self, rows: NDArray[Any]) -> _Table:
        """The same of some of the votes."""
        return replace(
            self, items=cluster_codes(self.items[rows]), prompts=cluster_codes(self.prompts[rows]),
            answers=self.answers[rows], people=self.people[rows], batches=self.batches[rows],
        )  # fmt: skip

    def group(self, batch: str) -> Group:
        """How far its annotators agree."""
        mark = self.fingerprint
        agreement = stats.agreement_of_labels(
            self.answers, self.items, self.prompts, fingerprint=mark
        )
        alpha = stats.krippendorff_alpha(
            self.answers, self.items, self.prompts % MOST_DRAWN,
            rng=np.random.default_rng(0), fingerprint=mark,
        )  # fmt: skip
        decided = self.of_rows(self.answers != 1)
        ceiling = stats.noise_ceiling(
            decided.answers == 0, decided.items, decided.prompts, fingerprint=mark
        )
        return Group(
            source=self.source,
            batch=batch,
            pairs=int(np.unique(self.items).size),
            votes=self.answers.size,
            annotators=int(np.unique(self.people).size),
            agreement=agreement if math.isfinite(agreement.error) else None,
            alpha=alpha if math.isfinite(alpha.error) else None,
            ceiling=ceiling.ceiling if ceiling else None,
            ties=self._ties(),
        )

    def annotators(self, names: Sequence[str]) -> list[Annotator]:
        """Each annotator beside the others: those far from the rest, then those with most votes."""
        compared = stats.against_others(
            self.answers, self.items, self.people, self.prompts, fingerprint=self.fingerprint
        )
        votes = np.bincount(self.people)
        compared.sort(key=lambda one: (not one.is_far, -votes[one.annotator]))
        return [
            Annotator(
                source=self.source,
                name=names[one.annotator],
                votes=int(votes[one.annotator]),
                agreement=one.agreement if one.agreement.n else None,
                others=one.others,
                p_value=one.p_value,
                is_far=one.is_far,
                ties=self.of_rows(self.people == one.annotator)._ties(),
            )
            for one in compared[:SHOWN_ANNOTATORS]
        ]

    def _ties(self) -> Estimate:
        ties = (self.answers == 1).astype(np.float64)
        return stats.accuracy(ties, self.prompts, fingerprint=self.fingerprint)
