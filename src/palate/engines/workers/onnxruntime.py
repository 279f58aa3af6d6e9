"""ONNX Runtime on the graph of an ONNX export, with the tokenizer that lies beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnxruntime
from transformers import AutoTokenizer

Rows = Sequence[dict[str, Any]]


def open_model(folder: str) -> dict[str, Callable[[Rows], Sequence[float]]]:
    """The ways to ask for a reward: rendered texts, in batches or alone."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    session = onnxruntime.InferenceSession(f"{folder}/model.onnx")

    def batches(size: int) -> Callable[[Rows], list[float]]:
        def rewards(rows: Rows) -> list[float]:
            found: list[float] = []
            for start in range(0, len(rows), size):
                texts = [row["text"] for row in rows[start : start + size]]
                inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="np")
                (logits,) = session.run(["logits"], dict(inputs))
                found += [float(value) for value in logits.reshape(-1)]
            return found

        return rewards

    return {"alone": batches(1), "batch": batches(8)}
