"""What is compared: the same judgements of the simulated campaign, used in one way or another.

An arm is a way to learn from a question's judgements: rows and a loss. All of a question's arms are
made of campaigns with one seed, so they are paired by it.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby, islice

from palate.data.annotators import Rule, aggregate
from palate.data.simulation import CampaignOptions, simulate
from palate.types import Comparison

TIE_THRESHOLD = 1.0  # Logits: what would be "negligibly better" is a tie.
VOTES, ANNOTATORS, RANKED = 3, 12, 4
TEST_SEED = 10_000
TEXTS = 4_000


@dataclass(frozen=True)
class Arm:
    """Rows and the loss that learns from them; `cost` of them is counted in the question's unit."""

    name: str
    loss: str
    rows: list[Comparison]
    cost: int
    tie_share: float | None = None


@dataclass(frozen=True)
class Question:
    """What `cost` counts, and which arms are compared: each first one with its second."""

    cost: str
    compared: tuple[tuple[str, str], ...]


DROPPED, HALVES, KNOWN = "ties left out", "half a vote each", "rao-kupper, share known"
MAJORITY, COUNTS, POSTERIOR = "majority", "vote counts", "dawid-skene"
SPREAD, FIRST = "one vote, thrice the pairs", "first vote alone"
ONE_PAIR, OTHER_PROMPTS, ALL_PAIRS = "one pair each", "one pair, twice the prompts", "all pairs"

QUESTIONS = {
    "ties": Question(
        "judgements",
        tuple((name, DROPPED) for name in (HALVES, "rao-kupper", KNOWN, "davidson")),
    ),
    "votes": Question(
        "votes",
        ((COUNTS, MAJORITY), (COUNTS, SPREAD), (MAJORITY, SPREAD), (COUNTS, FIRST)),
    ),
    "annotators": Question(
        "votes",
        (
            (COUNTS, MAJORITY),
            (POSTERIOR, MAJORITY),
            (POSTERIOR, COUNTS),
            (COUNTS, SPREAD),
            (POSTERIOR, SPREAD),
            (MAJORITY, SPREAD),
        ),
    ),
    "rankings": Question(
        "responses read",
        (
            ("plackett-luce", ALL_PAIRS),
            ("plackett-luce", ONE_PAIR),
            ("plackett-luce", OTHER_PROMPTS),
            (ALL_PAIRS, OTHER_PROMPTS),
        ),
    ),
}


def is_held_out(comparison: Comparison) -> bool:
    """Whether the prompt is one of the quarter that nothing is trained on."""
    return int(comparison.prompt_id[:8], 16) % 4 == 0


def campaign(seed: int, held_out: bool = False, **options: object) -> Iterator[Comparison]:
    """The first week's rows, more than anybody takes, of the trained or the held-out prompts."""
    made = CampaignOptions(weeks=1, comparisons_per_week=1_000_000, **options)  # type: ignore[arg-type]
    return (row for row in simulate(made, seed) if is_held_out(row) == held_out)


def test_set(rows: int) -> list[Comparison]:
    """Judgements with ties on held-out prompts; which response is better is in `meta`."""
    return list(islice(campaign(TEST_SEED, held_out=True, tie_threshold=TIE_THRESHOLD), rows))


def texts(seed: int) -> Iterator[Comparison]:
    """Prompts and responses to learn words from."""
    return islice(campaign(seed), TEXTS)


def arms_of(question: str, seed: int, cost: int) -> Iterator[Arm]:
    """The arms of a question, of `cost` judgements, votes or responses, but for those that drop."""
    if question == "ties":
        rows = list(islice(campaign(seed, tie_threshold=TIE_THRESHOLD), cost))
        yield Arm(DROPPED, "ranking", rows, cost)
        yield Arm(HALVES, "bradley-terry", rows, cost)
        yield Arm("rao-kupper", "rao-kupper", rows, cost)
        yield Arm(KNOWN, "rao-kupper", rows, cost, math.tanh(TIE_THRESHOLD / 2))
        yield Arm("davidson", "davidson", rows, cost)
    elif question in ("votes", "annotators"):
        least = 1.0 if question == "votes" else 0.0
        several = campaign(seed, votes_per_pair=VOTES, annotators=ANNOTATORS, least_care=least)
        votes = list(islice(several, cost - cost % VOTES))
        yield Arm(MAJORITY, "ranking", _aggregated(votes, "majority"), cost)
        yield Arm(COUNTS, "bradley-terry", _aggregated(votes, "votes"), cost)
        if question == "annotators":
            yield Arm(POSTERIOR, "bradley-terry", _aggregated(votes, "dawid-skene"), cost)
        else:
            yield Arm(FIRST, "ranking", votes[::VOTES], cost // VOTES)
        single = campaign(seed, annotators=ANNOTATORS, least_care=least)
        yield Arm(SPREAD, "ranking", list(islice(single, cost)), cost)
    elif question == "rankings":
        size, pairs = cost // RANKED, math.comb(RANKED, 2)
        ranked = list(islice(campaign(seed, ranked=RANKED), size * pairs))
        yield Arm("plackett-luce", "plackett-luce", ranked, cost)
        yield Arm(ALL_PAIRS, "ranking", ranked, cost)
        more = list(islice(campaign(seed, ranked=RANKED), cost // 2 * pairs))
        single = one_of_each(more)
        yield Arm(ONE_PAIR, "ranking", single[:size], cost // 2)
        yield Arm(OTHER_PROMPTS, "ranking", single, cost)


def one_of_each(rankings: Iterable[Comparison]) -> list[Comparison]:
    """A pair of each ranking by itself, the pairs in turn: one, the next of the next."""
    whole = groupby(rankings, key=lambda row: row.ranks and row.ranks.ranking)
    pairs = []
    for number, (_, rows) in enumerate(whole):
        ranked = list(rows)
        pairs.append(replace(ranked[number % len(ranked)], ranks=None))
    return pairs


def _aggregated(votes: list[Comparison], rule: Rule) -> list[Comparison]:
    return list(aggregate(votes, rule))
