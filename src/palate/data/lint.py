"""Lint: comparisons that cannot teach or would teach the wrong thing are found and excluded.

Nothing is silent: every excluded row is in the report with its id, its kinds and the reason, and
counts are kept by source and kind. Some findings (`NOTES`) leave the row where it is: they say what
to look at. Memory holds digests of a row, never text.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from palate.data.annotators import DISAGREEMENT, Disagreement, RowVotes, Votes
from palate.data.prompts import hash64
from palate.data.transcript import as_turns, marks_in
from palate.records import (
    COMPARISON_SCHEMA,
    Header,
    PackedRows,
    PackedRun,
    comparison_to_row,
    count_groups,
    read_comparisons,
    read_header,
    write_packed,
    write_table,
)
from palate.types import UNREAD_COLUMNS, Comparison, in_words
from palate.workers import in_order, workers_for

FINDING_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
    ]
)


class Kind(StrEnum):
    """What can be wrong with a comparison, as named in reports and files."""

    EMPTY_PROMPT = "empty-prompt"
    EMPTY_CHOSEN = "empty-chosen"
    EMPTY_REJECTED = "empty-rejected"
    IDENTICAL = "identical-replies"
    LAST_TURN = "last-turn-not-user"
    MISMATCHED = "mismatched-prompts"
    UNSAFE_CHOSEN = "unsafe-chosen-safe-rejected"
    NOT_TEXT = "not-text"
    TOO_LONG = "too-long"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near-duplicate"
    CONTRADICTORY = "contradictory"
    SCORES_EQUAL = "scores-equal"
    SCORES_CONTRADICT = "scores-contradict"
    DISAGREEMENT = "annotators-disagree"
    MARKS = "template-marks"


NOTES = frozenset({Kind.DISAGREEMENT, Kind.MARKS})
"""Findings that leave the row: two annotators are two observations, and a text may quote a mark."""
# Columns that users' files have beside a pair: chosen and rejected, on one scale.
_SCORES = (
    ("score_chosen", "score_rejected"),
    ("chosen_score", "rejected_score"),
    ("chosen_rating", "rejected_rating"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong with one comparison."""

    id: str
    source: str
    kind: Kind
    detail: str


@dataclass(slots=True)
class LintReport:
    """What lint read and found: rows read and excluded by source, and every finding.

    A row may have several findings; it is excluded once. `pairs`, by source, counts the pairs of
    replies to a prompt; `judged_again` those that stand in several rows, whoever judged them and
    whether or not that is said; `disagreed` those of them in which the rows say different things.
    `votes` are those of named annotators in the rows that stay.
    """

    rows: Counter[str] = field(default_factory=Counter[str])
    excluded: Counter[str] = field(default_factory=Counter[str])
    findings: list[Finding] = field(default_factory=list[Finding])
    pairs: Counter[str] = field(default_factory=Counter[str])
    judged_again: Counter[str] = field(default_factory=Counter[str])
    disagreed: Counter[str] = field(default_factory=Counter[str])
    votes: Votes = field(default_factory=Votes)

    @property
    def counts(self) -> Counter[tuple[str, Kind]]:
        """Findings by source and kind."""
        return Counter((f.source, f.kind) for f in self.findings)

    def table(self) -> list[dict[str, Any]]:
        """One row for each source and kind found: findings, share of rows, what became of them."""
        return [
            {
                "source": s,
                "kind": k.value,
                "findings": n,
                "share": n / self.rows[s],
                "rows": "kept" if k in NOTES else "left out",
            }
            for (s, k), n in sorted(self.counts.items())
        ]

    def to_json(self) -> dict[str, Any]:
        """Counts as JSON values; the findings themselves go to `write`."""
        return {
            "rows": dict(sorted(self.rows.items())),
            "excluded": dict(sorted(self.excluded.items())),
            "findings": self.table(),
            "agreement": self.agreement(),
        }

    def agreement(self) -> list[dict[str, Any]]:
        """One row for each source in which a pair is judged more than once."""
        return [
            {
                "source": source,
                "pairs": self.pairs[source],
                "judged_again": again,
                "disagreed": self.disagreed[source],
            }
            for source, again in sorted(self.judged_again.items())
        ]

    def disagreement(self) -> Disagreement:
        """How far named annotators agree, by source, batch and annotator; see `data.annotators`."""
        return self.votes.disagreement()

    def write(self, path: Path) -> Header:
        """Write the findings (id, source, kind, detail) to Parquet.

        Counts and the disagreement of annotators stand in its head.
        """
        details = self.to_json()
        if (disagreement := self.disagreement()).groups:
            details[DISAGREEMENT] = disagreement.to_json()
        rows = (
            {"id": f.id, "source": f.source, "kind": f.kind.value, "detail": f.detail}
            for f in self.findings
        )
        return write_table(path, rows, FINDING_SCHEMA, kind="lint", details=details)


def lint(
    comparisons: Iterable[Comparison],
    report: LintReport | None = None,
    *,
    max_characters: int | None = None,
) -> Iterator[Comparison]:
    """Yield the comparisons with nothing wrong but `NOTES`, in order; put findings into `report`.

    `max_characters` bounds prompt and responses together; None sets no bound (the tokeniser's
    own limit is applied where the model is known).
    """
    earlier = _EarlierRows(LintReport() if report is None else report)
    for comparison in comparisons:
        if earlier.add(_Row.of(comparison, max_characters)):
            yield comparison


def lint_of(
    path: Path,
    out: Path,
    report: LintReport,
    *,
    max_characters: int | None = None,
    workers: int | None = None,
) -> Header:
    """`lint` of a file of comparisons, to a file, which does not depend on `workers`.

    What is wrong with a row by itself is found by processes, a row group at a time; this one
    compares digests. None: one for each core, as far as the rows pay for it.
    """
    header = read_header(path, "comparisons")
    workers = workers or workers_for(header.rows, ROWS_PER_WORKER)
    groups = in_order(
        partial(_lint_group, path, max_characters), range(count_groups(path)), workers,
        name="linting process", cure="nothing was written",
    )  # fmt: skip
    earlier = _EarlierRows(report)

    def runs() -> Iterator[PackedRun]:
        for rows, packed in groups:
            kept = [earlier.add(row) for row in rows]
            yield from packed.runs(kept, COMPARISON_SCHEMA)

    with closing(groups):
        return write_packed(
            out, runs(), COMPARISON_SCHEMA, kind="comparisons",
            inputs={"imported": header.fingerprint}, details=report.to_json,
        )  # fmt: skip


# A process starts in two seconds of a core and lints some 8,000 rows in another: fewer do not pay.
ROWS_PER_WORKER = 32_768


def _lint_group(
    path: Path, max_characters: int | None, number: int
) -> tuple[list[_Row], PackedRows]:
    comparisons = list(read_comparisons(path, groups=[number]))
    rows = [_Row.of(comparison, max_characters) for comparison in comparisons]
    return rows, PackedRows.of(list(map(comparison_to_row, comparisons)), COMPARISON_SCHEMA)


@dataclass(frozen=True, slots=True)
class _Row:
    """What lint needs of a row: its own problems, or digests of its judgement and `NOTES` on it.

    `exact`, `near` and `anybody` (by whomever) are as `_digest` makes them; `votes` is None where
    nobody is named.
    """

    id: str
    source: str
    problems: list[tuple[Kind, str]]
    exact: int = 0
    near: int = 0
    anybody: int = 0
    tie: bool = False
    marks: tuple[tuple[Kind, str], ...] = ()
    votes: RowVotes | None = None

    @classmethod
    def of(cls, c: Comparison, max_characters: int | None) -> _Row:
        """The row of a comparison."""
        if problems := list(_inspect(c, max_characters)):
            return cls(c.id, c.source, problems)
        annotator, turns = c.annotator or "", [f"{t.role}\0{t.content}" for t in c.prompt]
        tie = c.judgement.decides == "tie"
        folded = [_fold(turn.content) for turn in c.prompt], _fold(c.chosen), _fold(c.rejected)
        near = _digest(*folded, annotator, tie)
        return cls(
            c.id, c.source, [],
            exact=_digest(turns, c.chosen, c.rejected, annotator, tie),
            near=near,
            anybody=_digest(*folded, "", tie) if annotator else near,
            tie=tie,
            marks=tuple(_marks(c)),
            votes=RowVotes.of(c),
        )  # fmt: skip


def _inspect(c: Comparison, max_characters: int | None) -> Iterator[tuple[Kind, str]]:
    """What is wrong with a comparison by itself."""
    if not any(turn.content.strip() for turn in c.prompt):
        yield Kind.EMPTY_PROMPT, "no turn of the prompt has text"
    elif c.prompt[-1].role not in ("user", "tool"):
        yield Kind.LAST_TURN, f"the prompt ends with a turn of the {c.prompt[-1].role}"
    elif not c.prompt[-1].content.strip():
        yield Kind.EMPTY_PROMPT, "the last turn of the prompt is empty"
    if not c.chosen.strip():
        yield Kind.EMPTY_CHOSEN, "the chosen reply is empty"
    if not c.rejected.strip():
        yield Kind.EMPTY_REJECTED, "the rejected reply is empty"
    if _single_spaced(c.chosen) == _single_spaced(c.rejected):
        yield Kind.IDENTICAL, "the replies differ in nothing but white space"
    if c.meta.get("rejected_prompt_differs"):
        yield Kind.MISMATCHED, "the two replies answer different prompts"
    if c.judgement.decides != "tie":  # Its sides are the first and the second, and none is better.
        if c.chosen_safe is False and c.rejected_safe is True:
            yield Kind.UNSAFE_CHOSEN, "the chosen reply is unsafe and the rejected one is safe"
        yield from _contradicting_scores(c.meta.get(UNREAD_COLUMNS) or {})
    texts = [in_words(text) for text in (*(t.content for t in c.prompt), c.chosen, c.rejected)]
    if reason := next(filter(None, map(_not_text, texts)), ""):
        yield Kind.NOT_TEXT, reason
    characters = sum(map(len, texts))
    if max_characters is not None and characters > max_characters:
        yield Kind.TOO_LONG, f"{characters} characters, the limit is {max_characters}"


def _contradicting_scores(columns: Mapping[str, Any]) -> Iterator[tuple[Kind, str]]:
    """Whether scores that stand beside a pair deny its label."""
    for names in _SCORES:
        chosen, rejected = (_number(columns.get(name)) for name in names)
        if chosen is None or rejected is None or chosen > rejected:
            continue
        detail = f"{names[0]} is {chosen:g} and {names[1]} {rejected:g}"
        if chosen == rejected:
            yield Kind.SCORES_EQUAL, f"a tie written as a win: {detail}"
        else:
            yield Kind.SCORES_CONTRADICT, f"the label is the other way round: {detail}"
    if (margin := _number(columns.get("margin"))) is not None and margin < 0:
        yield Kind.SCORES_CONTRADICT, f"the chosen reply is worse by its margin of {margin:g}"


def _number(value: object) -> float | None:
    """A finite number, also as the text of a CSV; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _marks(c: Comparison) -> Iterator[tuple[Kind, str]]:
    """Marks of a template or transcript that are left in the texts: judges read them as words."""
    if as_turns(c.prompt) is not c.prompt:
        yield Kind.MARKS, "the prompt is a conversation in one text; import its file again"
        return
    texts = {f"prompt[{at}]": turn.content for at, turn in enumerate(c.prompt)}
    for name, text in (texts | {"chosen": c.chosen, "rejected": c.rejected}).items():
        if mark := marks_in(in_words(text)):
            yield Kind.MARKS, f"{name} holds {mark}"
            return


# C0 and C1 controls except the white space ones and NEL; surrogates; noncharacters.
_CONTROL = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)
_MAX_REPLACED_SHARE = 0.05  # Assumed: a few U+FFFD are a scar, more is a wrong decoding.


def _not_text(text: str) -> str:
    """Why a text is not text, or ""."""
    if not text.isprintable() and (match := _CONTROL.search(text)):
        return f"control or invalid character U+{ord(match[0]):04X}"
    replaced = 0 if text.isascii() else text.count("\ufffd")
    if replaced > _MAX_REPLACED_SHARE * len(text):
        return f"{replaced} of {len(text)} characters were lost in decoding (U+FFFD)"
    return ""


def _single_spaced(text: str) -> str:
    return " ".join(text.split())


_TIE = 2  # As the last bits of a digest: 0 and 1 are the sides.


class _EarlierRows:
    """Judgements of earlier rows, as 64-bit digests of prompt, unordered pair and annotator.

    Judgements of one pair by two named annotators are two observations, not duplicates. The two
    lowest bits of a digest are the answer: which of the two sides, sorted, was chosen, or a tie.
    """

    _ANSWERS = 0, 1, _TIE
    _AGAIN, _SPLIT = 8, 16  # Beside a bit for each answer.

    def __init__(self, report: LintReport) -> None:
        self._report = report
        self._exact: set[int] = set()
        self._near: set[int] = set()  # But for case and white space.
        self._pairs: dict[int, int] = {}  # By anybody: which sides were preferred, and how often.

    def add(self, row: _Row) -> bool:
        """Put a row and what is wrong with it into the report; whether it stays."""
        report, problems = self._report, row.problems
        report.rows[row.source] += 1
        if not problems:
            problems = self._compare(row)
            if all(kind in NOTES for kind, _ in problems):
                problems += row.marks
        report.findings += [Finding(row.id, row.source, kind, detail) for kind, detail in problems]
        if all(kind in NOTES for kind, _ in problems):
            if row.votes is not None:
                report.votes.count(row.votes)
            return True
        report.excluded[row.source] += 1
        return False

    def _compare(self, row: _Row) -> list[tuple[Kind, str]]:
        """Count the judgement; what is wrong with it beside those of earlier rows."""
        exact, near, tie = row.exact, row.near, row.tie
        disagrees = self._count(row.source, row.anybody)
        others = [a for a in self._ANSWERS if a != near & 3 and near & ~3 | a in self._near]
        if others and near not in self._near:
            tied = tie or others == [_TIE]
            detail = "an earlier row has this prompt and pair with "
            detail += "another label, one of them a tie" if tied else "the labels swapped"
            return [(Kind.CONTRADICTORY, detail)]
        if exact in self._exact:
            return [(Kind.DUPLICATE, "an earlier row has this prompt and this pair")]
        if near in self._near:
            detail = "an earlier row has this prompt and pair but for case and white space"
            return [(Kind.NEAR_DUPLICATE, detail)]
        self._exact.add(exact)
        self._near.add(near)
        detail = "an earlier row, by another annotator, prefers the other reply"
        if tie or disagrees == {_TIE}:
            detail = "of this row and an earlier one, by another annotator, one is a tie"
        return [(Kind.DISAGREEMENT, detail)] if disagrees else []

    def _count(self, source: str, key: int) -> set[int]:
        """Count a pair as judged; what earlier rows say otherwise."""
        before = now = self._pairs.get(key & ~3, 0)
        if not before:
            self._report.pairs[source] += 1
        elif not before & self._AGAIN:
            self._report.judged_again[source] += 1
            now |= self._AGAIN
        disagrees = {answer for answer in self._ANSWERS if before >> answer & 1} - {key & 3}
        if disagrees and not before & self._SPLIT:
            self._report.disagreed[source] += 1
            now |= self._SPLIT
        self._pairs[key & ~3] = now | 1 << (key & 3)
        return disagrees


def _fold(text: str) -> str:
    return _single_spaced(text).casefold()


def _digest(turns: Sequence[str], chosen: str, rejected: str, annotator: str, tie: bool) -> int:
    low, high = sorted((chosen, rejected))
    answer = _TIE if tie else int(chosen == low)
    return hash64(*turns, "pair", low, high, annotator) & ~3 | answer
