"""How far people's marks agree with the labels, with the judges, and with one another."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np

from palate import stats
from palate.evaluate.benchmark import seeded_side
from palate.explorer.index import CORRECT, TIE, UNSCORED, Index, comparisons_at
from palate.records import write_comparisons
from palate.stats import Estimate, NoiseCeiling
from palate.types import Comparison, PalateError, Rating, comparison_id, digest

# What people said of comparisons, in one SQLite file beside the run.
#
# Every change is one transaction in write-ahead mode, on disk before it is answered: a process
# that
# is killed, or a machine that loses power, loses none. Several people may write to one file on a
# local disk (SQLite's WAL does not work over NFS).

Choice = Literal["chosen", "rejected", ""]
VERSION = 1
LOCK_SECONDS = 30.0
MAX_NOTE_CHARACTERS = 4_000
MAX_NAME_CHARACTERS = 40
_SCHEMA = """
CREATE TABLE IF NOT EXISTS marks (
  annotator TEXT NOT NULL, comparison_id TEXT NOT NULL,
  choice TEXT NOT NULL CHECK (choice IN ('chosen', 'rejected', '')),
  rating INTEGER CHECK (rating BETWEEN 1 AND 4), note TEXT NOT NULL,
  blind INTEGER NOT NULL, part TEXT NOT NULL, changed_at TEXT NOT NULL,
  PRIMARY KEY (annotator, comparison_id)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Annotation:
    """One person's opinion of one comparison.

    `choice` is the response they prefer by its label (`chosen`: they agree with the label), ""
    where they only wrote a note. `blind` says that label and scores were hidden; `part` is the
    file they saw it in.
    """

    annotator: str
    comparison_id: str
    choice: Choice = ""
    rating: Rating | None = None
    note: str = ""
    blind: bool = False
    part: str = ""
    changed_at: str = ""


_SELECT = f"SELECT {', '.join(field.name for field in fields(Annotation))} FROM marks"
_ONE = "WHERE annotator = ? AND comparison_id = ?"


class Annotations:
    """The file of marks; it is made with the first mark, so that looking writes nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists():
            with self._open():  # Says at once where it is no file of marks.
                pass

    def put(self, mark: Annotation) -> None:
        """Keep a mark in place of an earlier one of the same person and comparison."""
        with self._open() as database:
            _write(database, mark)

    def change(self, blank: Annotation, change: Callable[[Annotation], Annotation]) -> None:
        """Change the mark of one person and comparison, or `blank` where there is none.

        Nobody else writes meanwhile: of two keys pressed at once none is lost.
        """
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            where = (blank.annotator, blank.comparison_id)
            row = database.execute(f"{_SELECT} {_ONE}", where).fetchone()
            old = _mark(*row) if row else blank
            new = change(old)
            if new != old:
                _write(database, new)

    def remove(self, annotator: str, comparison_id: str) -> None:
        """Forget a mark."""
        with self._open() as database:
            database.execute(
                "DELETE FROM marks WHERE annotator = ? AND comparison_id = ?",
                (annotator, comparison_id),
            )

    def get(self, annotator: str, comparison_id: str) -> Annotation | None:
        """A person's mark of a comparison."""
        found = self._read(_ONE, annotator, comparison_id)
        return found[0] if found else None

    def of(self, annotator: str) -> list[Annotation]:
        """All marks of a person, in the order they were made."""
        return self._read("WHERE annotator = ? ORDER BY changed_at", annotator)

    def all(self) -> list[Annotation]:
        """Everybody's marks, by person and then in the order they were made."""
        return self._read("ORDER BY annotator, changed_at")

    def _read(self, where: str, *values: str) -> list[Annotation]:
        if not self.path.exists():
            return []
        with self._open() as database:
            rows = database.execute(f"{_SELECT} {where}", values).fetchall()
        return [_mark(*row) for row in rows]

    @contextmanager
    def _open(self) -> Generator[sqlite3.Connection]:
        """A connection of this thread's own; what is done with it is one transaction."""
        try:
            with closing(sqlite3.connect(self.path, timeout=LOCK_SECONDS)) as database:
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = FULL")
                self._prepare(database)
                with database:
                    yield database
        except sqlite3.Error as error:
            raise PalateError(
                f"{self.path}: cannot be used for marks ({error}); use --marks FILE"
            ) from None

    def _prepare(self, database: sqlite3.Connection) -> None:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version == 0:
            database.executescript(f"{_SCHEMA} PRAGMA user_version = {VERSION};")
        elif version != VERSION:
            raise PalateError(
                f"{self.path}: marks of format {version}, this Palate reads {VERSION}"
            )


def _write(database: sqlite3.Connection, mark: Annotation) -> None:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    row = (
        mark.annotator, mark.comparison_id, mark.choice, mark.rating,
        mark.note[:MAX_NOTE_CHARACTERS], mark.blind, mark.part, now,
    )  # fmt: skip
    database.execute("INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)


def _mark(
    annotator: str, comparison_id: str, choice: Choice, rating: int | None, note: str, blind: int,
    part: str, changed_at: str,
) -> Annotation:  # fmt: skip
    level = None if rating is None else Rating(rating)
    return Annotation(annotator, comparison_id, choice, level, note, bool(blind), part, changed_at)


def chosen_stands_first(annotator: str, comparison_id: str) -> bool:
    """The side of the chosen response for one person in blind mode: a hash, so it stays."""
    return int(digest("blind", annotator, comparison_id)[-1], 16) % 2 == 0


def annotator_name(text: str) -> str:
    """A name as it is kept: one line, printable.

    Raises:
        PalateError: nothing is left of it, or it is too long.
    """
    name = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if not 0 < len(name) <= MAX_NAME_CHARACTERS:
        raise PalateError(f"a name of 1 to {MAX_NAME_CHARACTERS} characters was expected")
    return name


LABEL = "the label"


@dataclass(frozen=True, slots=True)
class Annotator:
    """A person's marks: how many, how many blind, and their agreement with the labels."""

    name: str
    marks: int
    decided: int
    blind: int
    with_label: Estimate
    kappa: Estimate


@dataclass(frozen=True, slots=True)
class Couple:
    """Two people on the comparisons that both marked."""

    first: str
    second: str
    agreement: Estimate
    kappa: Estimate


@dataclass(frozen=True, slots=True)
class JudgeOnMarks:
    """A judge on the marked comparisons it was asked: right by the label, right by the people."""

    judge: str
    by_label: Estimate
    by_marks: Estimate


@dataclass(frozen=True, slots=True)
class Agreement:
    """All figures of a file of marks on one run; None where too little was marked.

    `alpha` is over people, of which response is better; `alpha_strength` of how much better, from
    -4 to 4. `ceiling` is of people among themselves, `ceiling_with_label` counts the label as one
    more annotator: what a judge can reach against the labels. `absent` marks are of comparisons
    that are not in this run.
    """

    annotators: tuple[Annotator, ...]
    couples: tuple[Couple, ...]
    judges: tuple[JudgeOnMarks, ...]
    alpha: Estimate | None
    alpha_strength: Estimate | None
    ceiling: NoiseCeiling | None
    ceiling_with_label: NoiseCeiling | None
    absent: int


@dataclass(frozen=True, slots=True)
class _Vote:
    """A mark with the side it prefers.

    Sides are drawn by a hash of the id, as a judge sees them. By label, nearly every mark would
    be "chosen", and agreement by chance so high that kappa says nothing.
    """

    annotator: str
    item: int
    prompt: str
    first: bool
    label_first: bool
    strength: int | None


def measure_agreement(catalogue: Index, marks: Sequence[Annotation]) -> Agreement:
    """Every figure of these marks; those without a preference count as marks only."""
    decided = [mark for mark in marks if mark.choice]
    known = catalogue.items_of([mark.comparison_id for mark in decided])
    votes = [
        _vote(mark, *known[mark.comparison_id]) for mark in decided if mark.comparison_id in known
    ]
    people = sorted({mark.annotator for mark in marks})
    by_person = {name: [v for v in votes if v.annotator == name] for name in people}
    labels = {vote.item: _label_of(vote) for vote in votes}
    return Agreement(
        annotators=tuple(_annotator(name, marks, by_person[name]) for name in people),
        couples=tuple(
            couple for a, b in combinations(people, 2) if (couple := _couple(a, b, by_person))
        ),
        judges=_judges(catalogue, votes),
        alpha=_alpha([(vote, int(vote.first)) for vote in votes]),
        alpha_strength=_alpha([(v, v.strength) for v in votes if v.strength is not None]),
        ceiling=_ceiling(votes),
        ceiling_with_label=_ceiling([*votes, *labels.values()]),
        absent=len(decided) - len(votes),
    )


def _vote(mark: Annotation, item: int, prompt: str) -> _Vote:
    label_first = seeded_side(0, mark.comparison_id)
    first = label_first if mark.choice == "chosen" else not label_first
    strength = None if mark.rating is None else int(mark.rating) * (1 if first else -1)
    return _Vote(mark.annotator, item, prompt, first, label_first, strength)


def _label_of(vote: _Vote) -> _Vote:
    return _Vote(LABEL, vote.item, vote.prompt, vote.label_first, vote.label_first, None)


def _annotator(name: str, marks: Sequence[Annotation], votes: Sequence[_Vote]) -> Annotator:
    own = [mark for mark in marks if mark.annotator == name]
    first, label = [v.first for v in votes], [v.label_first for v in votes]
    return Annotator(
        name=name,
        marks=len(own),
        decided=len(votes),
        blind=sum(mark.blind for mark in own if mark.choice),
        with_label=_share([a == b for a, b in zip(first, label, strict=True)], votes),
        kappa=stats.cohen_kappa(first, label),
    )


def _share(agreeing: Sequence[bool | float], votes: Sequence[_Vote]) -> Estimate:
    return stats.accuracy(np.array(agreeing, dtype=np.float64), [v.prompt for v in votes])


def _couple(a: str, b: str, by_person: Mapping[str, Sequence[_Vote]]) -> Couple | None:
    others = {vote.item: vote for vote in by_person[b]}
    shared = [(vote, others[vote.item]) for vote in by_person[a] if vote.item in others]
    if not shared:
        return None
    first, second = [v.first for v, _ in shared], [w.first for _, w in shared]
    agreeing = [x == y for x, y in zip(first, second, strict=True)]
    share = _share(agreeing, [vote for vote, _ in shared])
    return Couple(a, b, share, stats.cohen_kappa(first, second))


def _judges(catalogue: Index, votes: Sequence[_Vote]) -> tuple[JudgeOnMarks, ...]:
    """Each judge by the label and by the people, on the same votes of decided answers."""
    items = np.array([vote.item for vote in votes], dtype=np.int64)
    agrees = np.array([vote.first == vote.label_first for vote in votes], dtype=bool)
    found = []
    for judge, opinions in catalogue.opinions.items():
        outcomes = opinions.outcomes[items]
        asked = (outcomes > 0) & (outcomes != UNSCORED)
        if not asked.any():
            continue
        right = np.where(outcomes == TIE, stats.TIE_VALUE, (outcomes == CORRECT).astype(float))
        by_marks = np.where(agrees, right, 1 - right)
        kept = [vote for vote, use in zip(votes, asked, strict=True) if use]
        found.append(
            JudgeOnMarks(
                judge, _share(right[asked].tolist(), kept), _share(by_marks[asked].tolist(), kept)
            )
        )
    return tuple(found)


def _alpha(values: Sequence[tuple[_Vote, int]]) -> Estimate | None:
    """None where no item has two people's labels."""
    if not values:
        return None
    votes = [vote for vote, _ in values]
    found = stats.krippendorff_alpha(
        [value for _, value in values],
        [vote.item for vote in votes],
        [vote.prompt for vote in votes],
        rng=np.random.default_rng(0),
        distance="nominal" if {value for _, value in values} <= {0, 1} else "interval",
    )
    return found if found.n else None


def _ceiling(votes: Sequence[_Vote]) -> NoiseCeiling | None:
    return (
        stats.noise_ceiling(
            [vote.first for vote in votes],
            [vote.item for vote in votes],
            [vote.prompt for vote in votes],
        )
        if votes
        else None
    )


# Marks as comparisons: another annotation batch, which a recipe mixes like any other.

BATCH = "marks"


@dataclass(frozen=True, slots=True)
class Exported:
    """What became of the marks: rows written, marks without a choice, of comparisons not here."""

    rows: int
    undecided: int
    absent: int

    def __str__(self) -> str:
        left = {"without a choice": self.undecided, "of comparisons not in this run": self.absent}
        said = [f"{count:,} {why}" for why, count in left.items() if count]
        return f"{self.rows:,} comparisons" + (f"; left out: {', '.join(said)}" if said else "")


def export_marks(
    catalogue: Index, marks: Iterable[Annotation], path: Path, batch: str = BATCH
) -> Exported:
    """Write the marks that prefer a response as a file of comparisons.

    Raises:
        PalateError: no mark prefers a response of this run, or the file cannot be written.
    """
    marks = list(marks)
    decided = [mark for mark in marks if mark.choice]
    items = catalogue.items_of([mark.comparison_id for mark in decided])
    kept = [(mark, items[mark.comparison_id][0]) for mark in decided if mark.comparison_id in items]
    if not kept:
        raise PalateError(f"{path}: none of {len(marks)} marks prefers a response of this run")
    texts = comparisons_at(catalogue, (item for _, item in kept))
    rows = (relabelled(texts[item], mark, batch) for mark, item in kept)
    header = write_comparisons(path, rows, details={"marks": len(marks)})
    return Exported(header.rows, len(marks) - len(decided), len(decided) - len(kept))


def relabelled(comparison: Comparison, mark: Annotation, batch: str = BATCH) -> Comparison:
    """The comparison as the person who marked it sees it.

    The prompt's id is kept, so that splits and statistics keep its cluster whole. What `meta`
    says of the old label (strength, a simulation's truth) is left behind.
    """
    agrees = mark.choice == "chosen"
    sides = (comparison.chosen, comparison.rejected)
    safe = (comparison.chosen_safe, comparison.rejected_safe)
    chosen, rejected = sides if agrees else sides[::-1]
    chosen_safe, rejected_safe = safe if agrees else safe[::-1]
    row = f"{BATCH}:{mark.annotator}"
    return Comparison(
        id=comparison_id(comparison.source, comparison.prompt, chosen, rejected, row),
        source=comparison.source,
        prompt=comparison.prompt,
        chosen=chosen,
        rejected=rejected,
        prompt_id=comparison.prompt_id,
        batch=batch,
        rating=mark.rating,
        chosen_safe=chosen_safe,
        rejected_safe=rejected_safe,
        annotator=mark.annotator,
        meta={
            "of": comparison.id,
            "part": mark.part,
            "label": "agree" if agrees else "disagree",
            "blind": mark.blind,
            "note": mark.note,
            "marked_at": mark.changed_at,
        },
    )
