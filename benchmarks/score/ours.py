"""Palate's scorer as a worker: conversations in, rewards out, as `palate score` runs it."""

import argparse
from collections import defaultdict
from typing import Any

import numpy as np

import palate
from benchmarks.peers.worker import Facts, read_rows, serve
from palate.judges.reward_model import RewardScorer
from palate.model.packing import group
from palate.types import Candidates, Message


def candidates(row: dict[str, Any]) -> Candidates:
    """A pair's prompt and both responses; rendered and tokenised within the window."""
    prompt = tuple(Message(turn["role"], turn["content"]) for turn in row["prompt"])
    return Candidates(prompt, tuple(row["responses"]))


def computed_tokens(rows: list[dict[str, Any]]) -> int:
    """Tokens of the pairs with each prompt once."""
    ids = [[np.asarray(row[s], np.int32) for s in ("chosen_ids", "rejected_ids")] for row in rows]
    return sum(group(pair).tokens for pair in ids)


def main() -> None:
    """Serve windows of pairs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", required=True)
    parser.add_argument("--dtype", default="float32")
    arguments = parser.parse_args()
    scorer = RewardScorer(arguments.model, dtype=arguments.dtype)
    windows = defaultdict(list)
    for row in read_rows(arguments.rows):
        windows[row["window"]].append(row)
    computed = {number: computed_tokens(rows) for number, rows in windows.items()}

    def work(request: Facts) -> Facts:
        rows = windows[request["window"]]
        scores = list(scorer.score(map(candidates, rows)))
        return {
            "pairs": len(rows),
            "scores": [[score.value for score in pair] for pair in scores],
            "real_tokens": sum(score.tokens for pair in scores for score in pair),
            "computed_tokens": computed[request["window"]],
        }

    serve(work, source=str(palate.__file__))


if __name__ == "__main__":
    main()
