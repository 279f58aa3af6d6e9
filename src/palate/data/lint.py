"""Lint: comparisons that cannot teach or would teach the wrong thing are found and excluded.

Nothing is silent: every excluded row is in the report with its id, its kinds and the reason, and
counts are kept by source and kind. Memory holds 8 bytes of digest a row, never text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import pyarrow as pa

from palate.data.prompts import hash64
from palate.records import Header, write_table
from palate.types import Comparison

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


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong with one comparison."""

    id: str
    source: str
    kind: Kind
    detail: str


@dataclass(slots=True)
class LintReport:
    """What lint saw: rows read and excluded by source, and every finding.

    A row may have several findings; it is excluded once.
    """

    rows: Counter[str] = field(default_factory=Counter[str])
    excluded: Counter[str] = field(default_factory=Counter[str])
    findings: list[Finding] = field(default_factory=list[Finding])

    @property
    def counts(self) -> Counter[tuple[str, Kind]]:
        """Findings by source and kind."""
        return Counter((f.source, f.kind) for f in self.findings)

    def table(self) -> list[dict[str, Any]]:
        """One row for each source and kind found: source, kind, findings, share of rows."""
        return [
            {"source": s, "kind": k.value, "findings": n, "share": n / self.rows[s]}
            for (s, k), n in sorted(self.counts.items())
        ]

    def to_json(self) -> dict[str, Any]:
        """Counts as JSON values; the findings themselves go to `write`."""
        return {
            "rows": dict(sorted(self.rows.items())),
            "excluded": dict(sorted(self.excluded.items())),
            "findings": self.table(),
        }

    def write(self, path: Path) -> Header:
        """Write the findings (id, source, kind, detail) to Parquet, with the counts in its head."""
        rows = (
            {"id": f.id, "source": f.source, "kind": f.kind.value, "detail": f.detail}
            for f in self.findings
        )
        return write_table(path, rows, FINDING_SCHEMA, kind="lint", details=self.to_json())


def lint(
    comparisons: Iterable[Comparison],
    report: LintReport,
    *,
    max_characters: int | None = None,
) -> Iterator[Comparison]:
    """Yield the comparisons with nothing wrong, in order; put the others into `report`.

    `max_characters` bounds prompt and responses together; None sets no bound (the tokeniser's
    own limit is applied where the model is known).
    """
    seen = _Seen()
    for comparison in comparisons:
        report.rows[comparison.source] += 1
        wrong = list(_inspect(comparison, max_characters)) or list(seen.check(comparison))
        if not wrong:
            yield comparison
            continue
        report.excluded[comparison.source] += 1
        report.findings.extend(
            Finding(comparison.id, comparison.source, kind, detail) for kind, detail in wrong
        )


def _inspect(c: Comparison, max_characters: int | None) -> Iterator[tuple[Kind, str]]:
    """What is wrong with a comparison by itself."""
    if not any(turn.content.strip() for turn in c.prompt):
        yield Kind.EMPTY_PROMPT, "no turn of the prompt has text"
    elif c.prompt[-1].role != "user":
        yield Kind.LAST_TURN, f"the prompt ends with a turn of the {c.prompt[-1].role}"
    elif not c.prompt[-1].content.strip():
        yield Kind.EMPTY_PROMPT, "the last turn of the prompt is empty"
    if not c.chosen.strip():
        yield Kind.EMPTY_CHOSEN, "the chosen reply is empty"
    if not c.rejected.strip():
        yield Kind.EMPTY_REJECTED, "the rejected reply is empty"
    if _spaced(c.chosen) == _spaced(c.rejected):
        yield Kind.IDENTICAL, "the replies differ in nothing but white space"
    if c.meta.get("rejected_prompt_differs"):
        yield Kind.MISMATCHED, "the two replies answer different prompts"
    if c.chosen_safe is False and c.rejected_safe is True:
        yield Kind.UNSAFE_CHOSEN, "the chosen reply is unsafe and the rejected one is safe"
    texts = [*(turn.content for turn in c.prompt), c.chosen, c.rejected]
    if reason := next(filter(None, map(_garbage, texts)), ""):
        yield Kind.NOT_TEXT, reason
    characters = sum(map(len, texts))
    if max_characters is not None and characters > max_characters:
        yield Kind.TOO_LONG, f"{characters} characters, the limit is {max_characters}"


# C0 and C1 controls except the white space ones and NEL; surrogates; noncharacters.
_CONTROL = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)
_MAX_REPLACED_SHARE = 0.05  # Assumed: a few U+FFFD are a scar, more is a wrong decoding.


def _garbage(text: str) -> str:
    """Why a text is not text, or ""."""
    if not text.isprintable() and (found := _CONTROL.search(text)):
        return f"control or invalid character U+{ord(found[0]):04X}"
    replaced = 0 if text.isascii() else text.count("\ufffd")
    if replaced > _MAX_REPLACED_SHARE * len(text):
        return f"{replaced} of {len(text)} characters were lost in decoding (U+FFFD)"
    return ""


def _spaced(text: str) -> str:
    return " ".join(text.split())


class _Seen:
    """Judgements seen so far, as 64-bit digests of prompt, unordered pair and annotator.

    Judgements of one pair by two named annotators are two observations, not duplicates.
    """

    def __init__(self) -> None:
        self._exact: set[int] = set()
        self._near: set[int] = set()  # Lowest bit: which of the two sides, sorted, was chosen.

    def check(self, c: Comparison) -> Iterator[tuple[Kind, str]]:
        exact = _judgement(c, [f"{t.role}\0{t.content}" for t in c.prompt], c.chosen, c.rejected)
        turns = [_loose(turn.content) for turn in c.prompt]
        near = _judgement(c, turns, _loose(c.chosen), _loose(c.rejected))
        if near ^ 1 in self._near and near not in self._near:
            detail = "an earlier row has this prompt and pair with the labels swapped"
            yield Kind.CONTRADICTORY, detail
        elif exact in self._exact:
            yield Kind.DUPLICATE, "an earlier row has this prompt and this pair"
        elif near in self._near:
            detail = "an earlier row has this prompt and pair but for case and white space"
            yield Kind.NEAR_DUPLICATE, detail
        else:
            self._exact.add(exact)
            self._near.add(near)


def _loose(text: str) -> str:
    return _spaced(text).casefold()


def _judgement(c: Comparison, turns: Sequence[str], chosen: str, rejected: str) -> int:
    low, high = sorted((chosen, rejected))
    key = hash64(*turns, "pair", low, high, c.annotator or "")
    return key & ~1 | (chosen == low)
