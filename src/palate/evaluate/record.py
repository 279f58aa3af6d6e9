"""One answer in its three forms: a judge's preference, a journal's record, a verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from palate.evaluate.benchmark import Item
from palate.types import Outcome, PalateError, Preference, Verdict

CHOICES = ("first", "second", "tie", None)
Record = list[Any]
"""[choice, first score, second score, reason, truncated, answer, seconds] as JSON values."""


def record_of(judge: str, preference: Preference) -> Record:
    """A preference as a record; a score that is not finite makes it unscored.

    Raises:
        PalateError: a choice that is none of first, second, tie and None.
    """
    if preference.choice not in CHOICES:
        raise PalateError(
            f"judge {judge}: expected first, second, tie or None, got {preference.choice!r}"
        )
    choice, reason = preference.choice, preference.reason
    scores = [_float(preference.first_score), _float(preference.second_score)]
    if any(score is not None and not math.isfinite(score) for score in scores):
        choice, scores, reason = None, [None, None], "non-finite"
    if choice is None:
        reason = reason or "no reason given"
    seconds = _float(preference.seconds)
    timed = seconds is not None and math.isfinite(seconds)
    said = [preference.answer, seconds if timed else None]
    return [choice, *scores, reason, preference.truncated, *said]


def _float(score: float | None) -> float | None:
    return None if score is None else float(score)


def verdict_of(item: Item, record: Record, details: Mapping[str, Any]) -> Verdict:
    """Put the label back on a record; one of an earlier Palate ends at `truncated`."""
    choice, first_score, second_score, reason, truncated, *said = record
    answer, seconds = said or ("", None)
    chosen, rejected = (
        (first_score, second_score) if item.chosen_first else (second_score, first_score)
    )
    comparison = item.comparison
    return Verdict(
        judge=details["judge"],
        benchmark=details["benchmark"],
        comparison_id=comparison.id,
        outcome=_outcome(choice, item.chosen_first),
        chosen_score=chosen,
        rejected_score=rejected,
        reason=reason,
        truncated=truncated,
        cluster=comparison.prompt_id,
        source=comparison.source,
        rating=comparison.rating,
        bin=comparison.bin,
        chosen_first=item.chosen_first,
        protocol=details["protocol_fingerprint"],
        answer=answer,
        seconds=seconds,
        chosen_length=len(comparison.chosen),
        rejected_length=len(comparison.rejected),
    )


def _outcome(choice: str | None, chosen_first: bool) -> Outcome:
    if choice is None:
        return Outcome.UNSCORED
    if choice == "tie":
        return Outcome.TIE
    return Outcome.CORRECT if (choice == "first") == chosen_first else Outcome.WRONG


def record_from(verdict: Verdict) -> Record:
    """The record that a verdict was made of."""
    scores = [verdict.chosen_score, verdict.rejected_score]
    if not verdict.chosen_first:
        scores.reverse()
    said = [verdict.answer, verdict.seconds]
    return [_choice(verdict), *scores, verdict.reason, verdict.truncated, *said]


def _choice(verdict: Verdict) -> str | None:
    if verdict.outcome is Outcome.UNSCORED:
        return None
    if verdict.outcome is Outcome.TIE:
        return "tie"
    right = verdict.outcome is Outcome.CORRECT
    return "first" if right == verdict.chosen_first else "second"
