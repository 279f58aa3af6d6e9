"""What people say of comparisons: kept in SQLite, measured, and exported as another batch.

The file of annotations is beside the run. Every change is one transaction in write-ahead mode, on
disk before it is answered: a process that is killed, or a machine that loses power, loses none.
Several people may write to one file on a local disk (SQLite's WAL does not work over NFS).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, fields, replace
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tenacity import retry, retry_if_exception_message, stop_after_delay, wait_random

from palate import escape, stats
from palate.evaluate.benchmark import seeded_side
from palate.explorer.index import CORRECT, TIE, WRONG, Index, read_items
from palate.records import write_comparisons
from palate.stats import Estimate, NoiseCeiling
from palate.types import Comparison, PalateError, Rating, comparison_id, digest

Choice = Literal["chosen", "rejected", ""]
VERSION = 1
LOCK_SECONDS = 30.0
MAX_NOTE_CHARACTERS = 4_000
MAX_NAME_CHARACTERS = 40
MARKS = "marks.sqlite"
"""The file of annotations in a run's folder."""
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
    """The file of annotations; it is made with the first one, so that looking writes nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists():
            with self._open():  # Raises at once where it is no file of annotations.
                pass

    def put(self, annotation: Annotation) -> None:
        """Keep an annotation in place of an earlier one of the same person and comparison."""
        with self._open() as database:
            _insert(database, annotation)

    def change(self, blank: Annotation, change: Callable[[Annotation], Annotation]) -> None:
        """Change one person's annotation of a comparison, or `blank` where there is none.

        Nobody else writes meanwhile: of two keys pressed at once none is lost.
        """
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            key = (blank.annotator, blank.comparison_id)
            row = database.execute(f"{_SELECT} {_ONE}", key).fetchone()
            old = _from_row(*row) if row else blank
            new = change(old)
            if new != old:
                _insert(database, new)

    def remove(self, annotator: str, comparison_id: str) -> None:
        """Forget an annotation."""
        with self._open() as database:
            database.execute(f"DELETE FROM marks {_ONE}", (annotator, comparison_id))

    def get(self, annotator: str, comparison_id: str) -> Annotation | None:
        """A person's annotation of a comparison."""
        return next(iter(self._select(_ONE, annotator, comparison_id)), None)

    def by(self, annotator: str) -> list[Annotation]:
        """All annotations of a person, in the order they were made."""
        return self._select("WHERE annotator = ? ORDER BY changed_at", annotator)

    def all(self) -> list[Annotation]:
        """Everybody's annotations, by person and then in the order they were made."""
        return self._select("ORDER BY annotator, changed_at")

    def _select(self, where: str, *values: str) -> list[Annotation]:
        if not self.path.exists():
            return []
        with self._open() as database:
            rows = database.execute(f"{_SELECT} {where}", values).fetchall()
        return [_from_row(*row) for row in rows]

    @contextmanager
    def _open(self) -> Generator[sqlite3.Connection]:
        """A connection of this thread's own; what is done with it is one transaction."""
        try:
            with closing(sqlite3.connect(self.path, timeout=LOCK_SECONDS)) as database:
                self._prepare(database)
                with database:
                    yield database
        except sqlite3.Error as error:
            raise PalateError(
                f"{self.path}: cannot be used for marks ({error}); use --marks FILE"
            ) from None

    # SQLite does not wait for a lock where a file becomes one of write-ahead logging: of two first
    # marks at once one would be refused.
    @retry(
        retry=retry_if_exception_message(match=".*locked"),
        stop=stop_after_delay(LOCK_SECONDS),
        wait=wait_random(0.01, 0.05),
        reraise=True,
    )
    def _prepare(self, database: sqlite3.Connection) -> None:
        """Make the table in a new file, and refuse one of another format."""
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version == 0:
            database.executescript(f"{_SCHEMA} PRAGMA user_version = {VERSION};")
        elif version != VERSION:
            raise PalateError(
                f"{self.path}: marks of format {version}, this Palate reads {VERSION}"
            )


def _insert(database: sqlite3.Connection, annotation: Annotation) -> None:
    row = replace(
        annotation,
        note=annotation.note[:MAX_NOTE_CHARACTERS],
        changed_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )
    database.execute("INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?, ?, ?, ?, ?)", astuple(row))


def _from_row(
    annotator: str, comparison_id: str, choice: Choice, rating: int | None, note: str, blind: int,
    part: str, changed_at: str,
) -> Annotation:  # fmt: skip
    level = None if rating is None else Rating(rating)
    return Annotation(annotator, comparison_id, choice, level, note, bool(blind), part, changed_at)


def chosen_is_first(annotator: str, comparison_id: str) -> bool:
    """Whether the chosen response is first for a person in blind mode: a hash, so it stays."""
    return int(digest("blind", annotator, comparison_id)[-1], 16) % 2 == 0


def annotator_name(text: str) -> str:
    """A name as it is kept: one line, printable.

    Raises:
        PalateError: nothing is left of it, or it is too long.
    """
    name = escape.plain(text)
    if not 0 < len(name) <= MAX_NAME_CHARACTERS:
        raise PalateError(f"a name of 1 to {MAX_NAME_CHARACTERS} characters was expected")
    return name


# Agreement of people with the labels, with the judges, and with one another.


@dataclass(frozen=True, slots=True)
class Annotator:
    """A person's annotations: how many, how many blind, and their agreement with the labels."""

    name: str
    marks: int
    decided: int
    blind: int
    with_label: Estimate
    kappa: Estimate


@dataclass(frozen=True, slots=True)
class Couple:
    """Two people on the comparisons that both annotated."""

    first: str
    second: str
    agreement: Estimate
    kappa: Estimate


@dataclass(frozen=True, slots=True)
class JudgeOnMarks:
    """A judge on the annotated comparisons: right by the label, right by the people."""

    judge: str
    by_label: Estimate
    by_marks: Estimate


@dataclass(frozen=True, slots=True)
class Agreement:
    """All figures of a file of annotations on one run; None where too little was annotated.

    `alpha` is over people, of which response is better; `alpha_strength` of how much better, from
    -4 to 4. `ceiling` is of people among themselves, `ceiling_with_label` counts the label as one
    more annotator: what a judge can reach against the labels. `absent` annotations are of
    comparisons that are not in this run.
    """

    annotators: tuple[Annotator, ...]
    couples: tuple[Couple, ...]
    judges: tuple[JudgeOnMarks, ...]
    alpha: Estimate | None
    alpha_strength: Estimate | None
    ceiling: NoiseCeiling | None
    ceiling_with_label: NoiseCeiling | None
    absent: int


def measure_agreement(index: Index, annotations: Sequence[Annotation]) -> Agreement:
    """Every figure of these annotations; those without a preference are counted only.

    Kappa and alpha are of sides, which are drawn by a hash of the id, as a judge sees them. By
    label, nearly every annotation would be "chosen", and agreement by chance so high that kappa
    says nothing. A label that is a tie has no side, so nobody can agree with it.
    """
    decided = [a for a in annotations if a.choice]
    items_of = index.first_items([a.comparison_id for a in decided])
    here = [a for a in decided if a.comparison_id in items_of]
    # One entry for each of V annotations that prefer a response of this run.
    names = np.array([a.annotator for a in here], dtype=object)
    items = np.array([items_of[a.comparison_id][0] for a in here], dtype=np.int64)
    prompts = np.array([items_of[a.comparison_id][1] for a in here], dtype=object)
    agrees = np.array([a.choice == "chosen" for a in here], dtype=bool)
    label_first = np.array([seeded_side(0, a.comparison_id) for a in here], dtype=bool)
    first = agrees == label_first
    ratings = np.array([a.rating or 0 for a in here], dtype=np.int64)
    has_side = ~np.isin(items, list(index.ties_among(items.tolist())))

    def share(right: NDArray[Any], rows: NDArray[Any]) -> Estimate:
        return stats.accuracy(right.astype(np.float64), prompts[rows])

    def alpha(
        values: NDArray[Any], rows: NDArray[Any], distance: Literal["nominal", "interval"]
    ) -> Estimate | None:
        estimate = stats.krippendorff_alpha(
            values[rows].astype(int), items[rows], prompts[rows], distance=distance,
            rng=np.random.default_rng(0),
        )  # fmt: skip
        return estimate if estimate.n else None  # No item has two people's labels.

    people = sorted({a.annotator for a in annotations})
    annotators = []
    for name in people:
        own, rows = [a for a in annotations if a.annotator == name], np.flatnonzero(names == name)
        with_side = rows[has_side[rows]]
        annotators.append(
            Annotator(
                name=name,
                marks=len(own),
                decided=rows.size,
                blind=sum(a.blind for a in own if a.choice),
                with_label=share(agrees[with_side], with_side),
                kappa=stats.cohen_kappa(first[with_side], label_first[with_side]),
            )
        )
    couples = []
    for name, other in combinations(people, 2):
        rows, others = np.flatnonzero(names == name), np.flatnonzero(names == other)
        _, at, at_other = np.intersect1d(items[rows], items[others], return_indices=True)
        rows, others = rows[at], others[at_other]
        if rows.size:
            agreement = share(first[rows] == first[others], rows)
            kappa = stats.cohen_kappa(first[rows], first[others])
            couples.append(Couple(name, other, agreement, kappa))
    judges = []
    for judge, columns in index.judges.items():
        outcomes = columns.outcomes[items]
        rows = np.flatnonzero(np.isin(outcomes, (CORRECT, WRONG, TIE)))
        if rows.size:
            right = np.where(outcomes == TIE, stats.TIE_VALUE, outcomes == CORRECT)[rows]
            by_marks = np.where(agrees[rows], right, 1 - right)
            judges.append(JudgeOnMarks(judge, share(right, rows), share(by_marks, rows)))
    _, labelled = np.unique(items, return_index=True)  # The label of each item, once.
    labelled = labelled[has_side[labelled]]
    return Agreement(
        annotators=tuple(annotators),
        couples=tuple(couples),
        judges=tuple(judges),
        alpha=alpha(first, np.arange(len(here)), "nominal"),
        alpha_strength=alpha(
            np.where(first, ratings, -ratings), np.flatnonzero(ratings), "interval"
        ),
        ceiling=stats.noise_ceiling(first, items, prompts),
        ceiling_with_label=stats.noise_ceiling(
            *(
                np.concatenate(pair)
                for pair in (
                    (first, label_first[labelled]),
                    (items, items[labelled]),
                    (prompts, prompts[labelled]),
                )
            )
        ),
        absent=len(decided) - len(here),
    )


# Annotations as comparisons: another annotation batch, which a recipe mixes like any other.

BATCH = "marks"


@dataclass(frozen=True, slots=True)
class ExportCounts:
    """Rows written, and annotations left out: without a choice, or of comparisons not here."""

    rows: int
    undecided: int
    absent: int

    def __str__(self) -> str:
        counts = {"without a choice": self.undecided, "of comparisons not in this run": self.absent}
        left_out = [f"{count:,} {reason}" for reason, count in counts.items() if count]
        return f"{self.rows:,} comparisons" + (
            f"; left out: {', '.join(left_out)}" if left_out else ""
        )


def export_annotations(
    index: Index, annotations: Sequence[Annotation], path: Path, batch: str = BATCH
) -> ExportCounts:
    """Write the annotations that prefer a response as a file of comparisons.

    Raises:
        PalateError: none prefers a response of this run, or the file cannot be written.
    """
    decided = [a for a in annotations if a.choice]
    items = index.first_items([a.comparison_id for a in decided])
    here = [(a, items[a.comparison_id][0]) for a in decided if a.comparison_id in items]
    if not here:
        raise PalateError(
            f"{path}: none of {len(annotations)} marks prefers a response of this run"
        )
    found = read_items(index, (item for _, item in here))
    rows = (
        relabelled(row, annotation, batch)
        for annotation, item in here
        if isinstance(row := found[item], Comparison)  # Items of K have notes alone.
    )
    header = write_comparisons(path, rows, details={"marks": len(annotations)})
    return ExportCounts(header.rows, len(annotations) - len(decided), len(decided) - len(here))


def relabelled(comparison: Comparison, annotation: Annotation, batch: str = BATCH) -> Comparison:
    """The comparison as the person who annotated it sees it.

    The prompt's id is kept, so that splits and statistics keep its cluster whole. The judgement is
    this person's one vote. What tells of the old label (its votes, shares and weight, its places in
    a ranking, strength, a simulation's truth) is left behind; where it was a tie, nobody can agree.
    """
    agrees, tied = annotation.choice == "chosen", comparison.judgement.decides == "tie"
    sides = [
        (comparison.chosen, comparison.chosen_safe, comparison.chosen_attributes),
        (comparison.rejected, comparison.rejected_safe, comparison.rejected_attributes),
    ]
    (chosen, chosen_safe, chosen_attributes), (rejected, rejected_safe, rejected_attributes) = (
        sides if agrees else reversed(sides)
    )
    row = f"{BATCH}:{annotation.annotator}"
    return Comparison(
        id=comparison_id(comparison.source, comparison.prompt, chosen, rejected, row),
        source=comparison.source,
        prompt=comparison.prompt,
        chosen=chosen,
        rejected=rejected,
        prompt_id=comparison.prompt_id,
        batch=batch,
        rating=annotation.rating,
        chosen_safe=chosen_safe,
        rejected_safe=rejected_safe,
        annotator=annotation.annotator,
        meta={
            "of": comparison.id,
            "part": annotation.part,
            "label": "tie" if tied else "agree" if agrees else "disagree",
            "blind": annotation.blind,
            "note": annotation.note,
            "marked_at": annotation.changed_at,
        },
        chosen_attributes=chosen_attributes,
        rejected_attributes=rejected_attributes,
    )
