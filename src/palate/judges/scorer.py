"""Any scorer as a judge: the response with the higher score is better."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from palate.judges.baselines import better
from palate.types import Candidates, Pair, PalateError, Preference, Score, Scorer, spread_of

NON_FINITE = "non-finite"


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


def _reason(score: Score) -> str:
    """Why a score is none that can be compared; "" where it can."""
    if score.value is None:
        return score.reason or "no score, no reason given"
    return "" if math.isfinite(score.value) else NON_FINITE
