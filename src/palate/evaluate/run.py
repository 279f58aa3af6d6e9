"""Put a benchmark to a judge: one file of verdicts a judge and benchmark, resumable.

A verdict file is the only thing that tables are made of; it names the protocol under which it
was made (pitfall 28), and a judge is never asked twice for the same answer.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

from palate.evaluate.benchmark import Benchmark, Choice, Item, Order
from palate.evaluate.journal import ALONE, Progress, Shard, ask_missing, journal_path, no_progress
from palate.judges.scorer import NON_FINITE, keyed_scores, scorer_of
from palate.records import (
    Header,
    read_header,
    read_verdicts,
    version_of,
    write_json,
    write_verdicts,
)
from palate.types import (
    Attributes,
    Candidates,
    Judge,
    JudgedResponse,
    Outcome,
    Pairs,
    PalateError,
    Preference,
    RatedAttribute,
    Score,
    Scorer,
    Side,
    Verdict,
    digest,
    in_words,
)

# One answer in its three forms: a judge's preference, a journal's record, a verdict.

CHOICES = ("first", "second", "tie", None)
Record = list[Any]
"""[choice, first score, second score, reason, truncated, answer, seconds] as JSON values, and where
heads say more of the responses [attributes of the first, attributes of the second], and how far the
members of an ensemble are apart."""


def record_of(judge: str, preference: Preference) -> Record:
    """A preference as a record; a score that is not finite makes it unscored.

    Raises:
        PalateError: a choice that is none of first, second, tie and None.
    """
    if preference.choice not in CHOICES:
        raise PalateError(
            f"judge {judge}: expected first, second, tie or None, got {preference.choice!r}"
        )
    numbers = (preference.first_score, preference.second_score, preference.seconds)
    # float: numbers of numpy are no JSON.
    first, second, seconds = (None if number is None else float(number) for number in numbers)
    if seconds is not None and not math.isfinite(seconds):
        seconds = None
    choice, reason = preference.choice, preference.reason
    if any(score is not None and not math.isfinite(score) for score in (first, second)):
        choice, first, second, reason = None, None, None, NON_FINITE
    if choice is None:
        reason = reason or "no reason given"
    record = [choice, first, second, reason, preference.truncated, preference.answer, seconds]
    attributes = [dict(preference.first_attributes), dict(preference.second_attributes)]
    if choice is None:
        return record
    if preference.spread is not None:
        return [*record, attributes, float(preference.spread)]
    return [*record, attributes] if any(attributes) else record


OUTCOMES: Mapping[Side | None, Outcome] = {
    "chosen": Outcome.CORRECT,
    "rejected": Outcome.WRONG,
    "tie": Outcome.TIE,
    None: Outcome.UNSCORED,
}
"""Of an item that the annotators decided, by the response that the judge prefers."""


def verdict_of(item: Item, record: Record, details: Mapping[str, Any]) -> Verdict:
    """Put the label back on a record; one of an earlier Palate ends at `truncated`."""
    choice, first_score, second_score, reason, truncated, *spoken = record
    answer, seconds = spoken[:2] or ("", None)
    attributes, spread = [*spoken[2:], None, None][:2]
    preferred: Side | None = None
    if choice == "tie":
        preferred = "tie"
    elif choice is not None:
        preferred = "chosen" if (choice == "first") == item.chosen_first else "rejected"
    undecided = item.comparison.judgement.decides == "tie"
    outcome = Outcome.UNDECIDED if undecided else OUTCOMES[preferred]
    chosen, rejected = (
        (first_score, second_score) if item.chosen_first else (second_score, first_score)
    )
    comparison = item.comparison
    return Verdict(
        judge=details["judge"],
        benchmark=details["benchmark"],
        comparison_id=comparison.id,
        outcome=outcome,
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
        chosen_length=len(in_words(comparison.chosen)),
        rejected_length=len(in_words(comparison.rejected)),
        judgement=comparison.judgement,
        preferred=preferred if undecided else None,
        attributes=_rated(item, attributes) if attributes else (),
        spread=spread,
    )


def _rated(item: Item, attributes: Sequence[Attributes]) -> tuple[RatedAttribute, ...]:
    """What people rated of an item's responses beside what the judge's heads say of them."""
    said = dict(zip(_sides(item.chosen_first), attributes, strict=True))
    rated: Mapping[SideOfPair, Attributes] = {
        "chosen": item.comparison.chosen_attributes,
        "rejected": item.comparison.rejected_attributes,
    }
    return tuple(
        RatedAttribute(name, side, value, said[side][name])
        for side, values in rated.items()
        for name, value in sorted(values.items())
        if math.isfinite(said[side].get(name, math.nan))
    )


SideOfPair = Literal["chosen", "rejected"]


def _sides(chosen_first: bool) -> tuple[SideOfPair, SideOfPair]:
    """The sides in the order in which they were shown."""
    return ("chosen", "rejected") if chosen_first else ("rejected", "chosen")


def record_from(verdict: Verdict) -> Record:
    """The record that a verdict was made of."""
    scores = [verdict.chosen_score, verdict.rejected_score]
    if not verdict.chosen_first:
        scores.reverse()
    preferred = verdict.preferred
    if verdict.outcome is not Outcome.UNDECIDED:
        preferred = next(side for side, of in OUTCOMES.items() if of is verdict.outcome)
    choice: str | None = preferred
    if preferred in ("chosen", "rejected"):
        choice = "first" if (preferred == "chosen") == verdict.chosen_first else "second"
    spoken: Record = [verdict.answer, verdict.seconds]
    if verdict.attributes or verdict.spread is not None:
        said: dict[str, dict[str, float]] = {"chosen": {}, "rejected": {}}
        for rated in verdict.attributes:
            said[rated.side][rated.name] = rated.predicted
        spoken.append([said[side] for side in _sides(verdict.chosen_first)])
    if verdict.spread is not None:
        spoken.append(verdict.spread)
    return [choice, *scores, verdict.reason, verdict.truncated, *spoken]


# An item of K: the scores of its responses in the order shown, and its verdict.

ItemRecord = list[Any]
"""Of each response as it was shown [score or None, reason, truncated] as JSON values."""


def item_record(scores: Sequence[Score]) -> ItemRecord:
    """The scores of an item's responses as a record."""
    # float: numbers of numpy are no JSON.
    return [
        [None if one.value is None else float(one.value), one.reason, one.truncated]
        for one in scores
    ]


def verdict_of_item(choice: Choice, record: ItemRecord, details: Mapping[str, Any]) -> Verdict:
    """Put the truth beside the scores of an item's responses."""
    item = choice.item
    by_number = dict(zip(choice.shown, record, strict=True))
    scores = [by_number[number][0] for number in range(len(item.responses))]
    responses = tuple(
        JudgedResponse(place, len(in_words(text)), by_number[n][0], by_number[n][1])
        for n, (place, text) in enumerate(zip(item.places, item.responses, strict=True))
    )
    value = item_value(scores, item.places, item.pairs)
    # Of votes that are a tie no place is right: the two responses as they stand.
    right = [place == 0 for place in (range(2) if item.undecided else item.places)]
    sides = {
        side: [one for one, is_right in zip(responses, right, strict=True) if is_right == chosen]
        for side, chosen in (("chosen", True), ("rejected", False))
    }
    tops = {
        side: None if value is None else max(one.score for one in of if one.score is not None)
        for side, of in sides.items()
    }
    lengths = {side: round(sum(r.length for r in of) / len(of)) for side, of in sides.items()}
    outcome = Outcome.UNSCORED
    preferred: Side | None = None
    if value is not None:
        outcome = {1.0: Outcome.CORRECT, 0.0: Outcome.WRONG}.get(value, Outcome.TIE)
    if item.undecided:
        outcome = Outcome.UNDECIDED
        if value is not None:
            preferred = "chosen" if scores[0] > scores[1] else "rejected"
            preferred = "tie" if scores[0] == scores[1] else preferred
    reasons = [reason for _, reason, _ in record if reason]
    return Verdict(
        judge=details["judge"],
        benchmark=details["benchmark"],
        comparison_id=item.id,
        outcome=outcome,
        chosen_score=tops["chosen"],
        rejected_score=tops["rejected"],
        reason=reasons[0] if value is None else "",
        truncated=any(truncated for _, _, truncated in record),
        cluster=item.prompt_id,
        source=item.source,
        rating=None,
        bin=None,
        chosen_first=item.places[choice.shown[0]] == 0,
        protocol=details["protocol_fingerprint"],
        chosen_length=lengths["chosen"],
        rejected_length=lengths["rejected"],
        judgement=item.judgement,
        preferred=preferred,
        value=value,
        chance=item.chance,
        responses=responses,
    )


def item_value(
    scores: Sequence[float | None], places: Sequence[int], pairs: Pairs = ()
) -> float | None:
    """What a judge is right about: of the responses scored highest the share at place 0.

    Of the item's pairs, where it has some, the share in which the better one is scored higher, a
    tie one half. None where a response has no score.

    >>> item_value([2.0, 2.0, 1.0], [0, 1, 1])
    0.5
    """
    known = [score for score in scores if score is not None]
    if len(known) < len(scores):
        return None
    if pairs:
        ordered = ((known[better], known[worse]) for better, worse in pairs)
        right = sum(1.0 if a > b else 0.5 * (a == b) for a, b in ordered)
        return right / len(pairs)
    top = [place for score, place in zip(known, places, strict=True) if score == max(known)]
    return sum(place == 0 for place in top) / len(top)


PAIRS_PER_CALL = 4_096  # Bounds memory; a judge batches within it as it likes.
TIE_RULE = "exactly equal scores tie; ties and unscored items are outcomes of their own"
ITEM_RULE = (
    "of K responses the highest score is the answer, of several at the top each its share; of an "
    "item's pairs exactly equal scores tie; an item with a response without a score is unscored"
)


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
    """Judge every pair, or every item of K, of `benchmark`; return the verdict file in `folder`.

    A finished file of the same protocol is returned as it is; one of another protocol is
    replaced. Of one that differs in the order of sides alone, or is of an earlier format, the
    answers are kept. Answers go to a journal as they arrive: a killed run continues, asks only
    what is missing, and ends in the same verdicts as one that was not killed.

    Args:
        judge: asked in chunks of at most `PAIRS_PER_CALL`, or its own `pairs_per_call`; sees pairs,
            never labels.
        benchmark: the comparisons.
        folder: made where absent.
        seed: decides which response stands first.
        order: `seeded` shows each pair once; `both` shows both orders, two verdicts an item. Of K
            responses there is one seeded order; a judge of pairs is asked of every two of them.
        progress: called after each answer.
        share: which pairs this process asks, where several evaluate together; the file holds the
            same items in the same order whatever their number.

    Raises:
        PalateError: an empty benchmark, a folder that cannot be written, a judge that answers
            out of order, two judges or benchmarks that would share a file.
    """
    progress = no_progress if progress is None else progress
    if order not in get_args(Order):
        raise PalateError(f"order: expected seeded or both, got {order!r}")
    path = folder / f"{slug(judge.name)}--{slug(benchmark.name)}.parquet"
    of_items = benchmark.of_items
    if of_items:
        order = "seeded"
    total = benchmark.rows * (2 if order == "both" else 1)
    protocol = _protocol(scorer_of(judge) if of_items else judge, benchmark, seed, order)
    fingerprint = digest(protocol)
    details: dict[str, Any] = {
        "judge": judge.name,
        "benchmark": benchmark.name,
        "paper_column": benchmark.paper_column,
        **benchmark.named,
        "protocol": protocol,
        "protocol_fingerprint": fingerprint,
    }

    # What a file at `path` holds: these verdicts, answers that can be kept, or nothing of use.
    header, problem = _existing(path, judge.name, benchmark.name)
    earlier: dict[str, Record] = {}
    if header is not None:
        current = header.version == version_of("verdicts")
        if current and header.details.get("protocol_fingerprint") == fingerprint:
            progress(total, total, "already judged")
            return path
        before = header.details.get("protocol", {})
        changed = _changed_keys(before, protocol)
        problem = f"the protocol changed ({', '.join(changed)})"
        if not changed:
            problem = f"written in format {header.version}"
        if not of_items and {**before, "order": None} == {**protocol, "order": None}:
            # The same judge was shown the same pairs.
            earlier = _earlier_answers(path, benchmark.items(seed, order))
    if problem:
        progress(0, total, f"judged again: {problem}")

    def ask_items(missing: Iterator[Choice]) -> Iterator[tuple[str, ItemRecord]]:
        parts: dict[str, list[Score]] = {}
        sizes: dict[str, int] = {}

        def questions() -> Iterator[tuple[str, Candidates]]:
            for choice in missing:
                sizes[choice.id] = len(choice.shown)
                for shown in choice.candidates():
                    yield choice.id, shown

        for key, scores in keyed_scores(scorer_of(judge), questions()):
            parts.setdefault(key, []).extend(scores)
            if len(parts[key]) == sizes[key]:
                yield key, item_record(parts.pop(key))
                del sizes[key]

    def ask(missing: Iterator[Item]) -> Iterator[tuple[str, Record]]:
        # A judge that collects its questions before any is answered wants all of them at once.
        pairs_per_call = int(getattr(judge, "pairs_per_call", PAIRS_PER_CALL))
        while chunk := list(islice(missing, pairs_per_call)):
            pairs = [item.pair for item in chunk]
            answers = iter(judge.judge(pairs))
            for pair in pairs:
                answer = next(answers, None)
                if answer is None or answer.pair_id != pair.id:
                    got = "no answer" if answer is None else f"one to {answer.pair_id}"
                    raise PalateError(
                        f"judge {judge.name}: expected an answer to pair {pair.id}, got {got}; "
                        "a judge answers every pair, in order"
                    )
                yield pair.id, record_of(judge.name, answer)

    def write(answers: Mapping[str, Record]) -> None:
        counts: Counter[str] = Counter()

        def made() -> Iterator[Verdict]:
            if of_items:
                for choice in benchmark.choices(seed):
                    yield verdict_of_item(choice, answers[choice.id], details)
                return
            for item in benchmark.items(seed, order):
                yield verdict_of(item, answers[item.pair.id], details)

        def verdicts() -> Iterator[Verdict]:
            for verdict in made():
                counts[verdict.outcome.value] += 1
                yield verdict

        write_verdicts(
            path,
            verdicts(),
            inputs={"benchmark": protocol["benchmark"]},
            details=lambda: details | {"outcomes": {o.value: counts[o.value] for o in Outcome}},
        )

    journal = journal_path(path.with_suffix(""), fingerprint)
    if of_items:
        ask_missing(
            journal, fingerprint, benchmark.choices(seed), lambda choice: choice.id, ask_items,
            write, total=total, progress=progress, shard=share,
        )  # fmt: skip
        return path
    ask_missing(
        journal,
        fingerprint,
        benchmark.items(seed, order),
        lambda item: item.pair.id,
        ask,
        write,
        total=total,
        earlier=earlier,
        progress=progress,
        shard=share,
    )
    return path


def slug(name: str) -> str:
    """A file name of letters, digits, dots and single hyphens, at most 80 characters."""
    plain = re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.")
    if not plain:
        raise PalateError(f"{name!r}: a judge or benchmark needs a name with letters or digits")
    return plain if len(plain) <= 80 else f"{plain[:67]}-{digest(name)[:12]}"


def _protocol(
    judge: Judge | Scorer, benchmark: Benchmark, seed: int, order: Order
) -> dict[str, Any]:
    protocol = {
        "judge": {"name": judge.name, **judge.protocol},
        "benchmark": benchmark.fingerprint,
        "order": order,
        "seed": seed,
        "tie_rule": ITEM_RULE if benchmark.of_items else TIE_RULE,
    }
    try:
        plain: dict[str, Any] = json.loads(json.dumps(protocol))  # As a header gives it back.
    except (TypeError, ValueError) as error:
        raise PalateError(
            f"judge {judge.name}: its protocol must be JSON values ({error})"
        ) from None
    return plain


def _existing(path: Path, judge: str, benchmark: str) -> tuple[Header | None, str]:
    """The header of the verdicts at `path`, or None and why the file there is not whole.

    Raises:
        PalateError: the verdicts are of another judge or benchmark, whose name is as a file the
            same.
    """
    if not path.exists():
        return None, ""
    try:
        header = read_header(path, "verdicts", older=True)
    except PalateError as error:
        return None, str(error)  # Costs time only: verdicts can be remade.
    for kind, name in (("judge", judge), ("benchmark", benchmark)):
        if header.details.get(kind) != name:
            raise PalateError(
                f"{path}: holds verdicts of {kind} {header.details.get(kind)!r}, and {name!r} "
                f"would take the same file; rename one {kind}"
            )
    return header, ""


def _changed_keys(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The keys in which two protocols differ; those of the judge as `judge.KEY`."""
    old, new = (
        {key: value for key, value in protocol.items() if key != "judge"}
        | {f"judge.{key}": value for key, value in protocol.get("judge", {}).items()}
        for protocol in (before, now)
    )
    return sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))


def _earlier_answers(path: Path, items: Iterable[Item]) -> dict[str, Record]:
    """The answers that the verdicts at `path` were made of, by pair id; none where damaged."""
    try:
        records = {
            (verdict.comparison_id, verdict.chosen_first): record_from(verdict)
            for verdict in read_verdicts(path, older=True)
        }
    except PalateError:
        return {}  # Its header is whole and its rows are not.
    keys = ((item.pair.id, (item.comparison.id, item.chosen_first)) for item in items)
    return {pair_id: records[key] for pair_id, key in keys if key in records}


# Judges that a run could not ask, and why: kept beside its verdicts, so that tables can say so.

FILE = "absent.json"


def write_skipped(verdicts: Path, reasons: Mapping[str, str]) -> None:
    """Keep each skipped judge's reason in the folder of verdicts; none, and the file goes."""
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
        reasons = json.loads(path.read_text(encoding="utf-8"))
        return {str(judge): str(reason) for judge, reason in reasons.items()}
    except (OSError, ValueError, AttributeError):
        raise PalateError(f"{path}: cannot be read; evaluate again") from None
