"""An ONNX export against torch on the CPU, on the same conversations, in turns.

    python -m benchmarks.onnx_speed MODEL ONNX_FOLDER COMPARISONS.parquet [COUNT REPEATS]

Three ways to the same rewards: Palate's engine (prompts shared), transformers' classifier and ONNX
Runtime (both in padded batches of like length). One JSON line: median seconds, conversations a
second, largest difference. OMP_NUM_THREADS sets the threads of all three.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from itertools import islice
from pathlib import Path

import torch

from palate.judges import sequence_classifier_spec
from palate.judges.reward_model import OnnxScorer, RewardScorer
from palate.judges.sequence_classifier import SequenceClassifier
from palate.records import read_comparisons
from palate.types import Candidates, Scorer

BATCH_TOKENS = 4_096


def main() -> None:
    """Time the three in turns."""
    model, graph, path = sys.argv[1:4]
    count, repeats = map(int, sys.argv[4:6] or ("150", "3"))
    rows = islice(read_comparisons(Path(path)), count)
    asked = [Candidates(c.prompt, (c.chosen, c.rejected)) for c in rows]
    spec = {"model": model, "format": "chat", "batch_tokens": BATCH_TOKENS}
    ways: dict[str, Scorer] = {
        "palate": RewardScorer(model, tokens_per_microbatch=BATCH_TOKENS),
        "transformers": SequenceClassifier(sequence_classifier_spec(spec)),
        "onnx": OnnxScorer(graph, batch_tokens=BATCH_TOKENS),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    rewards: dict[str, list[float | None]] = {}
    for _ in range(repeats):
        for name, scorer in ways.items():
            start = time.perf_counter()
            rewards[name] = [s.value for scores in scorer.score(iter(asked)) for s in scores]
            seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(found) for name, found in seconds.items()}
    print(json.dumps({
        "conversations": 2 * len(asked),
        "threads": torch.get_num_threads(),
        "seconds": {name: [round(s, 2) for s in found] for name, found in seconds.items()},
        "a_second": {name: round(2 * len(asked) / s, 1) for name, s in median.items()},
        "onnx_vs_transformers": round(median["transformers"] / median["onnx"], 2),
        "onnx_vs_palate": round(median["palate"] / median["onnx"], 2),
        "largest_difference": largest(rewards["palate"], rewards["onnx"]),
    }))  # fmt: skip


def largest(one: list[float | None], other: list[float | None]) -> float:
    """Between responses that both scored."""
    both = zip(one, other, strict=True)
    return max(abs(a - b) for a, b in both if a is not None and b is not None)


if __name__ == "__main__":
    main()
