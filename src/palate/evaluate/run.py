"""Put a benchmark to a judge: one file of verdicts a judge and benchmark, resumable.

A verdict file is the only thing that tables are made of; it names the protocol under which it
was made (pitfall 28), and a judge is never asked twice for the same answer.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from palate.evaluate.benchmark import Benchmark, Item, Order
from palate.evaluate.journal import Journal, journal
from palate.evaluate.share import ALONE, Share, gathered, journals
from palate.records import Header, read_header, write_verdicts
from palate.types import Judge, Outcome, PalateError, Preference, Verdict, digest

Progress = Callable[[int, int, str], None]
"""Called with (answers so far, answers in all, what there is to say or "")."""

PAIRS_PER_CALL = 4_096  # Bounds memory; a judge batches within it as it likes.
CHOICES = ("first", "second", "tie", None)
TIE_RULE = "exactly equal scores tie; ties and unscored items are outcomes of their own"


def evaluate(
    judge: Judge,
    benchmark: Benchmark,
    folder: Path,
    *,
    seed: int = 0,
    order: Order = "seeded",
    progress: Progress | None = None,
    share: Share = ALONE,
) -> Path:
    """Judge every pair of `benchmark` and return the verdict file in `folder`.

    A finished file of the same protocol is returned as it stands; one of another protocol is
    replaced. Answers are kept in a journal as they arrive: a killed run continues, asks only
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
    total = _count(benchmark, order)
    protocol = _protocol(judge, benchmark, seed, order)
    fingerprint = digest(protocol)
    if standing := _standing(path, judge, benchmark):
        if standing.details.get("protocol_fingerprint") == fingerprint:
            tell(total, total, "already judged")
            return path
        tell(0, total, f"judged again: {_changes(standing, protocol)}")
    answers_path = path.with_name(f"{path.stem}.{fingerprint[:12]}.journal.jsonl")
    known = gathered(answers_path, fingerprint)
    if known:
        tell(len(known), total, f"continued: {len(known)} answers were kept")
    items = share.part(benchmark.items(seed, order), total)
    missing = (item for item in items if item.pair.id not in known)
    with journal(share.journal(answers_path), fingerprint) as kept:
        _ask(judge, missing, kept, lambda done: tell(len(known) + done, total, ""))
    share.wait()
    details: dict[str, Any] = {
        "judge": judge.name,
        "benchmark": benchmark.name,
        "paper_column": benchmark.paper_column,
        "protocol": protocol,
        "protocol_fingerprint": fingerprint,
    }
    if share.leads:
        _finish(path, benchmark.items(seed, order), gathered(answers_path, fingerprint), details)
        for used in journals(answers_path):
            used.unlink()
    share.wait()
    return path


def slug(name: str) -> str:
    """A file name of letters, digits, dots and single hyphens, at most 80 characters."""
    plain = re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.")
    if not plain:
        raise PalateError(f"{name!r}: a judge or benchmark needs a name with letters or digits")
    return plain if len(plain) <= 80 else f"{plain[:67]}-{digest(name)[:12]}"


def _silent(_done: int, _total: int, _note: str) -> None:
    """The progress of a run that nobody watches."""


def _count(benchmark: Benchmark, order: Order) -> int:
    rows = benchmark.header.rows
    if not rows:
        raise PalateError(
            f"benchmark {benchmark.name}: {benchmark.path} holds no comparisons; "
            "import its source again or leave it out"
        )
    return rows * 2 if order == "both" else rows


def _protocol(judge: Judge, benchmark: Benchmark, seed: int, order: Order) -> dict[str, Any]:
    protocol = {
        "judge": {"name": judge.name, **judge.protocol},
        "benchmark": benchmark.fingerprint,
        "order": order,
        "seed": seed,
        "tie_rule": TIE_RULE,
    }
    try:
        digest(protocol)
    except TypeError as error:
        raise PalateError(
            f"judge {judge.name}: its protocol must be JSON values ({error})"
        ) from None
    return protocol


def _standing(path: Path, judge: Judge, benchmark: Benchmark) -> Header | None:
    """The header of the verdicts already at `path`; None where there is no whole file."""
    if not path.exists():
        return None
    try:
        header = read_header(path, "verdicts")
    except PalateError:
        return None  # Verdicts are remade from the benchmark, so a broken file costs time only.
    for kind, name in (("judge", judge.name), ("benchmark", benchmark.name)):
        if header.details.get(kind) != name:
            raise PalateError(
                f"{path}: holds verdicts of {kind} {header.details.get(kind)!r}, and {name!r} "
                f"would take the same file; rename one {kind}"
            )
    return header


def _changes(standing: Header, protocol: Mapping[str, Any]) -> str:
    """The keys in which the standing verdicts' protocol differs, by name."""
    old, new = _flat(standing.details.get("protocol", {})), _flat(protocol)
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return f"the protocol changed ({', '.join(keys)})"


def _flat(protocol: Mapping[str, Any]) -> dict[str, Any]:
    judge = protocol.get("judge", {})
    rest = {key: value for key, value in protocol.items() if key != "judge"}
    return rest | {f"judge.{key}": value for key, value in judge.items()}


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
            kept.add(pair.id, _record(judge, preference))
            asked += 1
            tell(asked)


def _record(judge: Judge, preference: Preference) -> list[Any]:
    """A preference as JSON values; a score that is not finite makes it unscored."""
    if preference.choice not in CHOICES:
        raise PalateError(
            f"judge {judge.name}: expected first, second, tie or None, got {preference.choice!r}"
        )
    choice, reason = preference.choice, preference.reason
    scores = [_float(preference.first_score), _float(preference.second_score)]
    if any(score is not None and not math.isfinite(score) for score in scores):
        choice, scores, reason = None, [None, None], "non-finite"
    if choice is None:
        reason = reason or "no reason given"
    return [choice, *scores, reason, preference.truncated]


def _float(score: float | None) -> float | None:
    return None if score is None else float(score)


def _finish(
    path: Path, items: Iterator[Item], answers: Mapping[str, list[Any]], details: dict[str, Any]
) -> None:
    counts: Counter[str] = Counter()

    def verdicts() -> Iterator[Verdict]:
        for item in items:
            verdict = _verdict(item, answers[item.pair.id], details)
            counts[verdict.outcome.value] += 1
            yield verdict

    write_verdicts(
        path,
        verdicts(),
        inputs={"benchmark": details["protocol"]["benchmark"]},
        details=lambda: details | {"outcomes": {o.value: counts[o.value] for o in Outcome}},
    )


def _verdict(item: Item, answer: list[Any], details: Mapping[str, Any]) -> Verdict:
    """Put the label back on an answer."""
    choice, first_score, second_score, reason, truncated = answer
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
    )


def _outcome(choice: str | None, chosen_first: bool) -> Outcome:
    if choice is None:
        return Outcome.UNSCORED
    if choice == "tie":
        return Outcome.TIE
    return Outcome.CORRECT if (choice == "first") == chosen_first else Outcome.WRONG
