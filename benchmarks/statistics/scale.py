"""A run of many verdicts and judges on disk, and the time of all that is said of it."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from palate.data.benchmarks import NAMED
from palate.evaluate.run import item_value
from palate.evaluate.scores import letters, read_score
from palate.records import write_verdicts
from palate.report import report
from palate.types import Bin, JudgedResponse, Outcome, Rating, Verdict, digest

TRIVIAL = ("random", "longer")
BINS = tuple(Bin)
# Of items of four: the rule by which they are scored, and its subsets of four responses an item.
RULE = "rewardbench-2"
SUBSETS = ("Factuality", "Precise IF", "Math", "Safety", "Focus")
PLACES = (0, 1, 1, 1)

Verdicts = Callable[[str, int, int, str], Iterator[Verdict]]


def verdicts(judge: str, number: int, items: int, protocol: str) -> Iterator[Verdict]:
    """Made-up answers: ratings, bins, scores, lengths, about 1.7 items a prompt."""
    lengths = np.random.default_rng(0).integers(20, 2_000, (items, 2)).tolist()
    rng = np.random.default_rng(number + 1)
    lean = rng.normal(0.2 + 0.05 * number, 1.5, items).tolist()
    level = rng.normal(0, 1, items).tolist()
    for i in range(items):
        yield Verdict(
            judge=judge,
            benchmark="made",
            comparison_id=digest("item", i),
            outcome=Outcome.CORRECT if lean[i] > 0 else Outcome.WRONG,
            chosen_score=level[i] + lean[i],
            rejected_score=level[i],
            reason="",
            truncated=i % 50 == 0,
            cluster=digest("prompt", i * 3 // 5),
            source="made",
            rating=Rating(1 + i % 4),
            bin=BINS[i % 3],
            chosen_first=i % 2 == 0,
            protocol=protocol,
            chosen_length=lengths[i][0],
            rejected_length=lengths[i][1],
        )


def verdicts_of_four(judge: str, number: int, items: int, protocol: str) -> Iterator[Verdict]:
    """The same of items of four in five subsets: one of ten has a tie at the top."""
    lengths = np.random.default_rng(0).integers(20, 2_000, (items, 4)).tolist()
    rng = np.random.default_rng(number + 1)
    table = rng.normal(0, 1, (items, 4))
    table[:, 0] += 0.3 + 0.05 * number
    table[::10, 1] = table[::10].max(axis=1)
    for i, scores in enumerate(table.tolist()):
        value = item_value(scores, PLACES)
        yield Verdict(
            judge=judge,
            benchmark="made",
            comparison_id=digest("item", i),
            outcome={1.0: Outcome.CORRECT, 0.0: Outcome.WRONG}.get(value or 0.0, Outcome.TIE),
            chosen_score=scores[0],
            rejected_score=max(scores[1:]),
            reason="",
            truncated=i % 50 == 0,
            cluster=digest("prompt", i * 3 // 5),
            source=SUBSETS[i % len(SUBSETS)],
            rating=None,
            bin=None,
            chosen_first=i % 4 == 0,
            protocol=protocol,
            chosen_length=lengths[i][0],
            rejected_length=sum(lengths[i][1:]) // 3,
            value=value,
            chance=0.25,
            responses=tuple(map(JudgedResponse, PLACES, lengths[i], scores)),
        )


def make_run(folder: Path, items: int, judges: int, verdicts: Verdicts = verdicts) -> None:
    """Write the verdict files, once for each size."""
    size = {"items": items, "judges": judges, "version": 1}
    mark = folder / "size.json"
    if mark.exists() and json.loads(mark.read_text()) == size:
        return
    shutil.rmtree(folder, ignore_errors=True)
    names = [*TRIVIAL, *(f"model-{i}" for i in range(judges))][:judges]
    for number, judge in enumerate(names):
        kind = judge if judge in TRIVIAL else "reward-model"
        protocol = {"judge": {"name": judge, "judge": kind}, "order": "seeded", "seed": 0}
        fingerprint = digest(protocol)
        details = {
            "judge": judge,
            "benchmark": "made",
            "protocol": protocol,
            "protocol_fingerprint": fingerprint,
            **({NAMED: RULE} if verdicts is verdicts_of_four else {}),
        }
        path = folder / "verdicts" / f"{judge}--made.parquet"
        write_verdicts(path, verdicts(judge, number, items, fingerprint), details=details)
    mark.write_text(json.dumps(size))


def seconds_of_report(folder: Path) -> tuple[float, list[str]]:
    """From verdict files to every table of the report on disk; and the tables' names."""
    start = time.perf_counter()
    made = report(folder)
    return time.perf_counter() - start, [table.name for table in made.tables]


def seconds_of_scores(folder: Path) -> tuple[float, int]:
    """From verdict files to what `palate judge` says of them; and how many figures that is.

    The benchmark's score of each judge and of each subset with its interval, every two judges
    compared on the score, and the groups that Holm's correction leaves.
    """
    start = time.perf_counter()
    scores = [read_score(path) for path in sorted((folder / "verdicts").glob("*.parquet"))]
    known = [score for score in scores if score is not None]
    groups = letters(known, np.random.default_rng(0))
    figures = [score.estimate(part) for score in known for part in score.parts]
    assert len(groups) == len(known)
    return time.perf_counter() - start, len(figures)
