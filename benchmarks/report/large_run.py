"""A made-up run folder of any size, for measuring: lengths of real data, words of nobody.

    python -m benchmarks.report.large_run FOLDER [--rows 100000]

Prompts and responses have the mean lengths and turns of the two Anthropic benchmarks of the real
`llama2` run (four turns and 470 characters before two responses of 220 each); words are drawn by
Zipf's law, so that some searches find a third of all rows and others a handful.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from palate.judges.baselines import TRIVIAL
from palate.records import write_comparisons, write_verdicts
from palate.types import Comparison, Message, Outcome, Rating, Verdict, digest

MODELS = ("helpfulness", "safety")
SOURCES = ("helpful", "harmless", "forum", "open")
BENCHMARKS = {"held-out helpfulness": 0.5, "held-out safety": 0.3, "forum": 0.2}
WORDS, LETTERS = 20_000, np.array(list("aaabcdeeefghiiklmnooprsttuvwy"))
TURN_CHARACTERS, REPLY_CHARACTERS, CHARACTERS_PER_WORD = 120, 220, 6.2


def large_run(folder: Path, rows: int = 100_000, seed: int = 0) -> Path:
    """Write benchmarks of `rows` comparisons in all, each judged by two models and four others."""
    rng = np.random.default_rng(seed)
    vocabulary = _vocabulary(rng)
    for name, share in BENCHMARKS.items():
        made = list(_comparisons(name, round(rows * share), vocabulary, rng))
        write_comparisons(folder / "benchmarks" / f"{name}.parquet", made)
        for judge in (*MODELS, *TRIVIAL):
            _judge(folder, judge, name, made, rng)
    return folder


def _vocabulary(rng: np.random.Generator) -> np.ndarray:
    lengths = rng.integers(2, 9, WORDS)
    return np.array(["".join(rng.choice(LETTERS, n)) for n in lengths], dtype=object)


def _text(vocabulary: np.ndarray, characters: int, rng: np.random.Generator) -> str:
    count = max(1, round(rng.gamma(1.5, characters / 1.5) / CHARACTERS_PER_WORD))
    # The inverse of Zipf's distribution function, without a table: word k comes as often as 1/k.
    ranks = np.exp(rng.random(count) * np.log(WORDS)).astype(np.int64) - 1
    return " ".join(vocabulary[ranks])


def _comparisons(
    name: str, rows: int, vocabulary: np.ndarray, rng: np.random.Generator
) -> Iterator[Comparison]:
    for row in range(rows):
        turns = 2 * int(rng.integers(0, 4)) + 1
        prompt = tuple(
            Message("assistant" if i % 2 else "user", _text(vocabulary, TURN_CHARACTERS, rng))
            for i in range(turns)
        )
        safe = [bool(s) for s in rng.random(2) < 0.7]
        yield Comparison(
            id=digest(name, row),
            source=SOURCES[int(rng.integers(len(SOURCES)))],
            prompt=prompt,
            chosen=_text(vocabulary, REPLY_CHARACTERS, rng),
            rejected=_text(vocabulary, REPLY_CHARACTERS, rng),
            prompt_id=f"{name} {row // 2}",
            batch=f"week {1 + row * 8 // rows}",
            rating=Rating(int(rng.integers(1, 5))),
            chosen_safe=max(safe) if "safety" in name else None,
            rejected_safe=min(safe) if "safety" in name else None,
        )


def _judge(
    folder: Path, judge: str, benchmark: str, items: list[Comparison], rng: np.random.Generator
) -> None:
    kind = judge if judge in TRIVIAL else "reward-model"
    protocol = {"judge": {"name": judge, "judge": kind}, "order": "seeded", "seed": 0}
    margins = rng.normal(0.5 if judge in MODELS else 0.0, 1.5, len(items))
    scored = judge not in ("random", "first")
    verdicts = [
        Verdict(
            judge=judge,
            benchmark=benchmark,
            comparison_id=item.id,
            outcome=Outcome.CORRECT if margin > 0 else Outcome.WRONG,
            chosen_score=float(margin / 2) if scored else None,
            rejected_score=float(-margin / 2) if scored else None,
            reason="",
            truncated=False,
            cluster=item.prompt_id,
            source=item.source,
            rating=item.rating,
            bin=item.bin,
            chosen_first=True,
            protocol=digest(protocol),
            chosen_length=len(item.chosen),
            rejected_length=len(item.rejected),
        )
        for item, margin in zip(items, margins, strict=True)
    ]
    path = folder / "verdicts" / f"{judge}--{benchmark.replace(' ', '-')}.parquet"
    details = {"judge": judge, "benchmark": benchmark, "protocol": protocol}
    write_verdicts(path, verdicts, details=details)


def main() -> None:
    """Write a run for looking at by hand."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=100_000)
    options = parser.parse_args()
    print(large_run(options.folder, options.rows))


if __name__ == "__main__":
    main()
