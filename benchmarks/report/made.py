"""A run of many verdicts on disk: texts, scores, training; made once for each size."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np

from palate.records import write_comparisons, write_verdicts
from palate.types import Comparison, Message, Outcome, Rating, Verdict, digest

JUDGES = {"random": "random", "longer": "longer"} | dict.fromkeys(
    ("helpfulness", "safety", "other"), "reward-model"
)
BENCHMARKS = ("helpful", "harmless")
STARTS = ("ba", "ce", "di", "fo", "gu", "ha", "ki", "lo", "mu", "na")
WORDS = [f"{start}{end}" for start in STARTS for end in "rsthing" * 3]
VERSION = 1


def make_run(folder: Path, verdicts: int) -> None:
    """Write the folder, unless it is there in this size already."""
    size = {"verdicts": verdicts, "version": VERSION}
    mark = folder / "size.json"
    if mark.exists() and json.loads(mark.read_text()) == size:
        return
    shutil.rmtree(folder, ignore_errors=True)
    items = verdicts // (len(JUDGES) * len(BENCHMARKS))
    for place, benchmark in enumerate(BENCHMARKS):
        path = folder / "benchmarks" / f"{benchmark}.parquet"
        header = write_comparisons(path, comparisons(benchmark, items, place))
        rows = list(comparisons(benchmark, items, place))
        for number, (judge, kind) in enumerate(JUDGES.items()):
            protocol = {
                "judge": {"name": judge, "judge": kind},
                "benchmark": header.fingerprint,
                "order": "seeded",
                "seed": 0,
            }
            write_verdicts(
                folder / "verdicts" / f"{judge}--{benchmark}.parquet",
                answers(judge, number + place, benchmark, rows, digest(protocol)),
                details={"judge": judge, "benchmark": benchmark, "protocol": protocol},
            )
    mark.write_text(json.dumps(size))


def comparisons(benchmark: str, items: int, seed: int) -> Iterator[Comparison]:
    """Prompts of some 20 words, responses of some 90, about 1.7 items a prompt."""
    rng = Random(seed)
    for i in range(items):
        prompt = (Message("user", text(rng, 20)),) * (1 + 2 * (i % 3))
        sides = [bool(i % 2), bool(i % 3)]
        yield Comparison(
            id=digest(benchmark, i), source=f"source-{i % 4}", prompt=prompt,
            chosen=text(rng, 90), rejected=text(rng, 90), prompt_id=f"prompt {i * 3 // 5}",
            batch=f"week-{1 + i * 12 // items:02d}", rating=Rating(1 + i % 4),
            chosen_safe=max(sides), rejected_safe=min(sides),
        )  # fmt: skip


def text(rng: Random, words: int) -> str:
    """Made-up words, a number of them around `words`."""
    return " ".join(rng.choices(WORDS, k=rng.randint(words // 3, 2 * words)))


def answers(
    judge: str, number: int, benchmark: str, rows: list[Comparison], protocol: str
) -> Iterator[Verdict]:
    """Verdicts of a judge that is right a little more often than not."""
    rng = np.random.default_rng(number)
    lean = rng.normal(0.15 + 0.1 * number, 1.2, len(rows)).tolist()
    level = rng.normal(0, 1, len(rows)).tolist()
    for c, gap, start in zip(rows, lean, level, strict=True):
        yield Verdict(
            judge=judge, benchmark=benchmark, comparison_id=c.id,
            outcome=Outcome.CORRECT if gap > 0 else Outcome.WRONG,
            chosen_score=start + gap, rejected_score=start, reason="", truncated=False,
            cluster=c.prompt_id, source=c.source, rating=c.rating, bin=c.bin, chosen_first=True,
            protocol=protocol, chosen_length=len(c.chosen), rejected_length=len(c.rejected),
        )  # fmt: skip
