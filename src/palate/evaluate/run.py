"""Put a benchmark to a judge: one file of verdicts a judge and benchmark, resumable.

A verdict file is the only thing that tables are made of; it names the protocol under which it
was made (pitfall 28), and a judge is never asked twice for the same answer.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from palate.evaluate.benchmark import Benchmark, Item, Order
from palate.evaluate.journal import ALONE, Journal, Shard, gathered, journal, journals
from palate.records import (
    Header,
    read_header,
    read_verdicts,
    version_of,
    write_json,
    write_verdicts,
)
from palate.types import Judge, Outcome, PalateError, Preference, Verdict, digest

# One answer in its three forms: a judge's preference, a journal's record, a verdict.

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


# The verdict file that already stands where one is to be made: is it current, what can be kept.


@dataclass(frozen=True, slots=True)
class ExistingVerdicts:
    """What is at `path`: the header of whole verdicts, or None and the `problem` with the file."""

    path: Path
    header: Header | None = None
    problem: str = ""

    def is_current(self, fingerprint: str) -> bool:
        """Whether these are the verdicts under the protocol of that fingerprint."""
        if self.header is None or self.header.version != version_of("verdicts"):
            return False
        return bool(self.header.details.get("protocol_fingerprint") == fingerprint)

    def changes(self, protocol: Mapping[str, Any]) -> str:
        """What makes the file out of date under `protocol`, in words; "" where there is none."""
        if self.header is None:
            return self.problem
        old, new = _flat(self.header.details.get("protocol", {})), _flat(protocol)
        keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
        if not keys:
            return f"written in format {self.header.version}"
        return f"the protocol changed ({', '.join(keys)})"

    def answers(self, protocol: Mapping[str, Any], items: Iterable[Item]) -> dict[str, Record]:
        """The answers that hold under `protocol` too, by pair id.

        All of them where it changed in nothing but the order of sides: the same judge was shown
        the same pairs.
        """
        if self.header is None:
            return {}
        before = self.header.details.get("protocol", {})
        if {**before, "order": None} != {**protocol, "order": None}:
            return {}
        try:
            verdicts = list(read_verdicts(self.path, older=True))
        except PalateError:
            return {}  # Its header is whole and its rows are not.
        said = {(v.comparison_id, v.chosen_first): record_from(v) for v in verdicts}
        asked = ((item.pair.id, (item.comparison.id, item.chosen_first)) for item in items)
        return {pair_id: said[key] for pair_id, key in asked if key in said}


def existing_verdicts(path: Path, judge: str, benchmark: str) -> ExistingVerdicts:
    """What stands at `path`; a file that is not whole is a problem, not an error.

    Raises:
        PalateError: the verdicts are of another judge or benchmark, whose name is as a file the
            same.
    """
    if not path.exists():
        return ExistingVerdicts(path)
    try:
        header = read_header(path, "verdicts", older=True)
    except PalateError as error:
        return ExistingVerdicts(
            path, problem=str(error)
        )  # Costs time only: verdicts can be remade.
    for kind, name in (("judge", judge), ("benchmark", benchmark)):
        if header.details.get(kind) != name:
            raise PalateError(
                f"{path}: holds verdicts of {kind} {header.details.get(kind)!r}, and {name!r} "
                f"would take the same file; rename one {kind}"
            )
    return ExistingVerdicts(path, header)


def _flat(protocol: Mapping[str, Any]) -> dict[str, Any]:
    judge = protocol.get("judge", {})
    rest = {key: value for key, value in protocol.items() if key != "judge"}
    return rest | {f"judge.{key}": value for key, value in judge.items()}


Progress = Callable[[int, int, str], None]
"""Called with (answers so far, answers in all, what there is to say or "")."""

PAIRS_PER_CALL = 4_096  # Bounds memory; a judge batches within it as it likes.
TIE_RULE = "exactly equal scores tie; ties and unscored items are outcomes of their own"


def evaluate(
    judge: Judge,
    benchmark: Benchmark,
    folder: Path,
    *,
    seed: int = 0,
    order: Order = "seeded",
    progress: Progress | None = None,
    share: Shard = ALONE,
) -> Path:
    """Judge every pair of `benchmark` and return the verdict file in `folder`.

    A finished file of the same protocol is returned as it stands; one of another protocol is
    replaced. Of one that differs in the order of sides alone, or is of an earlier format, the
    answers are kept. Answers go to a journal as they arrive: a killed run continues, asks only
    what is missing, and ends in the same verdicts as one that was not killed.

    Args:
        judge: asked in chunks of at most `PAIRS_PER_CALL`; sees pairs, never labels.
        benchmark: the comparisons.
        folder: made where absent.
        seed: decides which response stands first.
        order: `seeded` shows each pair once; `both` shows both orders, two verdicts an item.
        progress: told after each answer.
        share: which pairs this process asks, where several evaluate together; the file holds the
            same items in the same order whatever their number.

    Raises:
        PalateError: an empty benchmark, a folder that cannot be written, a judge that answers
            out of order, two judges or benchmarks that would share a file.
    """
    tell = _silent if progress is None else progress
    if order not in get_args(Order):
        raise PalateError(f"order: expected seeded or both, got {order!r}")
    path = folder / f"{slug(judge.name)}--{slug(benchmark.name)}.parquet"
    total = benchmark.rows * (2 if order == "both" else 1)
    protocol = _protocol(judge, benchmark, seed, order)
    fingerprint = digest(protocol)
    before = existing_verdicts(path, judge.name, benchmark.name)
    if before.is_current(fingerprint):
        tell(total, total, "already judged")
        return path
    if changes := before.changes(protocol):
        tell(0, total, f"judged again: {changes}")
    answers_path = path.with_name(f"{path.stem}.{fingerprint[:12]}.journal.jsonl")
    earlier = before.answers(protocol, benchmark.items(seed, order))
    known = earlier | gathered(answers_path, fingerprint)
    # At once, for the first answer may take long, and a bar without a total says nothing.
    tell(len(known), total, f"continued: {len(known)} answers were kept" if known else "")
    items = share.part(benchmark.items(seed, order), total)
    missing = (item for item in items if item.pair.id not in known)

    def ask() -> None:
        with journal(share.journal(answers_path), fingerprint) as kept:
            _ask(judge, missing, kept, lambda done: tell(len(known) + done, total, ""))

    share.together(ask)
    details: dict[str, Any] = {
        "judge": judge.name,
        "benchmark": benchmark.name,
        "paper_column": benchmark.paper_column,
        "protocol": protocol,
        "protocol_fingerprint": fingerprint,
    }

    def finish() -> None:
        if share.leads:
            answers = earlier | gathered(answers_path, fingerprint)
            _finish(path, benchmark.items(seed, order), answers, details)
            for used in journals(answers_path):
                used.unlink()

    share.together(finish)
    return path


def slug(name: str) -> str:
    """A file name of letters, digits, dots and single hyphens, at most 80 characters."""
    plain = re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.")
    if not plain:
        raise PalateError(f"{name!r}: a judge or benchmark needs a name with letters or digits")
    return plain if len(plain) <= 80 else f"{plain[:67]}-{digest(name)[:12]}"


def _silent(_done: int, _total: int, _note: str) -> None:
    """The progress of a run that nobody watches."""


def _protocol(judge: Judge, benchmark: Benchmark, seed: int, order: Order) -> dict[str, Any]:
    protocol = {
        "judge": {"name": judge.name, **judge.protocol},
        "benchmark": benchmark.fingerprint,
        "order": order,
        "seed": seed,
        "tie_rule": TIE_RULE,
    }
    try:
        plain: dict[str, Any] = json.loads(json.dumps(protocol))  # As a header gives it back.
    except (TypeError, ValueError) as error:
        raise PalateError(
            f"judge {judge.name}: its protocol must be JSON values ({error})"
        ) from None
    return plain


def _ask(judge: Judge, missing: Iterator[Item], kept: Journal, tell: Callable[[int], None]) -> None:
    asked = 0
    while chunk := list(islice(missing, PAIRS_PER_CALL)):
        pairs = [item.pair for item in chunk]
        answers = iter(judge.judge(pairs))
        for pair in pairs:
            preference = next(answers, None)
            if preference is None or preference.pair_id != pair.id:
                got = "no answer" if preference is None else f"one to {preference.pair_id}"
                raise PalateError(
                    f"judge {judge.name}: expected an answer to pair {pair.id}, got {got}; "
                    "a judge answers every pair, in order"
                )
            kept.add(pair.id, record_of(judge.name, preference))
            asked += 1
            tell(asked)


def _finish(
    path: Path, items: Iterator[Item], answers: Mapping[str, Record], details: dict[str, Any]
) -> None:
    counts: Counter[str] = Counter()

    def verdicts() -> Iterator[Verdict]:
        for item in items:
            verdict = verdict_of(item, answers[item.pair.id], details)
            counts[verdict.outcome.value] += 1
            yield verdict

    write_verdicts(
        path,
        verdicts(),
        inputs={"benchmark": details["protocol"]["benchmark"]},
        details=lambda: details | {"outcomes": {o.value: counts[o.value] for o in Outcome}},
    )


# Judges that a run could not ask, and why: kept beside its verdicts, so that tables can say so.

FILE = "absent.json"


def write_skipped(verdicts: Path, reasons: Mapping[str, str]) -> None:
    """Keep each absent judge's reason in the folder of verdicts; none, and the file goes."""
    if reasons:
        write_json(verdicts / FILE, dict(reasons))
    else:
        (verdicts / FILE).unlink(missing_ok=True)


def read_skipped(verdicts: Path) -> dict[str, str]:
    """The reason of each judge that could not be asked when these verdicts were made.

    Raises:
        PalateError: the file is not what `write_skipped` wrote.
    """
    path = verdicts / FILE
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(judge): str(reason) for judge, reason in found.items()}
    except (OSError, ValueError, AttributeError):
        raise PalateError(f"{path}: cannot be read; evaluate again") from None
