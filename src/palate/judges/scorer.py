"""Any scorer as a judge, which prefers the higher score; and any judge as a scorer."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, cast

from palate.judges.baselines import better
from palate.types import (
    Candidates,
    Judge,
    Pair,
    PalateError,
    Preference,
    Score,
    Scorer,
    digest,
    spread_of,
)

NON_FINITE = "non-finite"
ALONE = "no other response to choose from"


@dataclass(frozen=True, slots=True)
class ScorerJudge:
    """Scores both responses of a pair and prefers the higher score.

    Scores that are exactly equal are a tie. A side without a score, or with one that is not
    finite, leaves the pair unscored with the reason; it is never counted as half right.
    """

    scorer: Scorer

    @property
    def name(self) -> str:
        return self.scorer.name

    @property
    def protocol(self) -> Mapping[str, Any]:
        return dict(self.scorer.protocol)

    def judge(self, pairs: Sequence[Pair]) -> Iterator[Preference]:
        candidates = (Candidates(pair.prompt, (pair.first, pair.second)) for pair in pairs)
        answers = self.scorer.score(candidates)
        for number, pair in enumerate(pairs):
            scores = next(answers, None)
            if scores is None or len(scores) != 2:
                got = "no answer" if scores is None else f"{len(scores)} scores"
                raise PalateError(
                    f"scorer {self.name}: expected 2 scores for pair {number}, got {got}; "
                    "a scorer answers every Candidates in order"
                )
            first, second = scores
            reason = _reason(first) or _reason(second)
            truncated = first.truncated or second.truncated
            if reason or first.value is None or second.value is None:
                yield Preference(pair.id, None, reason=reason, truncated=truncated)
                continue
            choice = better(first.value, second.value)
            said = zip(first.members, second.members, strict=True)
            gaps = [one - other for one, other in said]
            yield Preference(
                pair.id,
                choice,
                first.value,
                second.value,
                truncated=truncated,
                first_attributes=first.attributes,
                second_attributes=second.attributes,
                spread=spread_of(gaps) if gaps else None,
            )


def scorer_of(judge: Judge) -> Scorer:
    """What scores the responses of an item of K: the judge's own scores, or a tournament of it."""
    if isinstance(judge, ScorerJudge):
        return judge.scorer
    return cast(Scorer, judge) if hasattr(judge, "score") else Tournament(judge)


@dataclass(frozen=True, slots=True)
class Tournament:
    """A judge of pairs as a scorer: a response's score is the share of the others that it beats.

    Every two responses are asked, in both orders where the judge reads both at once; a tie is one
    half. An answer that is none leaves both responses without a score. K responses are K (K - 1) /
    2 pairs.
    """

    judge: Judge

    @property
    def name(self) -> str:
        return self.judge.name

    @property
    def protocol(self) -> Mapping[str, Any]:
        asked = "both orders" if self._both else "one order"
        return {**self.judge.protocol, "items": f"every two responses, {asked}; share of wins"}

    @property
    def _both(self) -> bool:
        return bool(getattr(self.judge, "sees_both", False))

    def score(self, candidates: Iterable[Candidates]) -> Iterator[tuple[Score, ...]]:
        for shown in candidates:
            texts = shown.responses
            if len(texts) < 2:
                yield (Score(None, ALONE),) * len(texts)
                continue
            duels = list(combinations(range(len(texts)), 2))
            if self._both:
                duels = [pair for a, b in duels for pair in ((a, b), (b, a))]
            turns = [[turn.role, turn.content] for turn in shown.prompt]
            pairs = [
                Pair(
                    digest("duel", turns, texts[a], texts[b], a, b),
                    shown.prompt,
                    texts[a],
                    texts[b],
                )
                for a, b in duels
            ]
            won, reasons = [0.0] * len(texts), [""] * len(texts)
            truncated = False
            for (a, b), answer in zip(duels, self.judge.judge(pairs), strict=True):
                truncated |= answer.truncated
                if answer.choice is None:
                    reasons[a] = reasons[b] = answer.reason or "no reason given"
                share = {"first": 1.0, "second": 0.0}.get(answer.choice or "tie", 0.5)
                won[a] += share
                won[b] += 1 - share
            each = len(duels) * 2 / len(texts)
            yield tuple(
                Score(None if why else wins / each, why, truncated)
                for wins, why in zip(won, reasons, strict=True)
            )


def keyed_scores(
    scorer: Scorer, questions: Iterable[tuple[str, Candidates]]
) -> Iterator[tuple[str, tuple[Score, ...]]]:
    """Each question's key with the scores of its responses, in order; may read ahead.

    A score that is not finite is none, with that reason.

    Raises:
        PalateError: a scorer that leaves questions or responses without an answer.
    """
    waiting: deque[tuple[str, int]] = deque()  # What it has taken and not yet answered.

    def candidates() -> Iterator[Candidates]:
        for key, shown in questions:
            waiting.append((key, len(shown.responses)))
            yield shown

    for scores in scorer.score(candidates()):
        key, count = waiting.popleft()
        if len(scores) != count:
            raise PalateError(
                f"scorer {scorer.name}: gave {len(scores)} scores to {count} responses of {key}"
            )
        yield (
            key,
            tuple(
                replace(score, value=None, reason=_reason(score)) if _reason(score) else score
                for score in scores
            ),
        )
    if waiting:
        raise PalateError(f"scorer {scorer.name}: left {len(waiting)} questions without an answer")


def _reason(score: Score) -> str:
    """Why a score is none that can be compared; "" where it can."""
    if score.value is None:
        return score.reason or "no score, no reason given"
    return "" if math.isfinite(score.value) else NON_FINITE
