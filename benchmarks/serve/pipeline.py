"""transformers' text-classification pipeline, batch 8, as a worker: all texts at once, no HTTP."""

import argparse
from typing import Any

import torch
from transformers import pipeline

from benchmarks.peers.worker import Facts, read_rows, serve


def main() -> None:
    """Serve windows of rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--dtype", default="float32")
    given = parser.parse_args()
    classify = pipeline(
        "text-classification",
        model=given.model,
        dtype=getattr(torch, given.dtype),
        device="cuda" if torch.cuda.is_available() else "cpu",
        batch_size=8,
        function_to_apply="none",
    )
    rows: list[dict[str, Any]] = []

    def prepare(request: Facts) -> None:
        rows[:] = read_rows(request["rows"])

    def work(_request: Facts) -> Facts:
        found = classify([text for row in rows for text in row["texts"]])
        scores = iter([one["score"] for one in found])
        return {"rewards": [[next(scores) for _ in row["texts"]] for row in rows]}

    serve(work, prepare)


if __name__ == "__main__":
    main()
