"""Put a benchmark to a judge: one file of verdicts a judge and benchmark, resumable.

A verdict file is the only thing that tables are made of; it names the protocol under which it
was made (pitfall 28), and a judge is never asked twice for the same answer.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from palate.evaluate.benchmark import Benchmark, Item, Order
from palate.evaluate.journal import Journal, journal
from palate.evaluate.record import Record, record_of, verdict_of
from palate.evaluate.share import ALONE, Share, gathered, journals
from palate.evaluate.standing import standing
from palate.records import write_verdicts
from palate.types import Judge, Outcome, PalateError, Verdict, digest

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
    share: Share = ALONE,
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
    before = standing(path, judge.name, benchmark.name)
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
