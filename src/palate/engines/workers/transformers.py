"""transformers' own classes on a checkpoint, in whatever version lies in the environment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

Rows = Sequence[dict[str, Any]]


def open_model(folder: str) -> dict[str, Callable[[Rows], Sequence[float]]]:
    """The ways to ask for a reward, without an argument beside the folder."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    piped = pipeline("text-classification", model=folder, device="cpu")

    @torch.inference_mode()
    def by_template(rows: Rows) -> list[float]:
        rewards = []
        for row in rows:
            text = tokenizer.apply_chat_template(row["messages"], tokenize=False)
            inputs = tokenizer(text, truncation=True, return_tensors="pt")
            rewards.append(model(**inputs).logits[0, 0].item())
        return rewards

    @torch.inference_mode()
    def batch(rows: Rows) -> list[float]:
        rewards: list[float] = []
        for start in range(0, len(rows), 8):
            texts = [row["text"] for row in rows[start : start + 8]]
            inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
            rewards += model(**inputs).logits[:, 0].tolist()
        return rewards

    return {
        "template": by_template,
        "batch": batch,
        "pipeline": lambda rows: [piped(row["text"])[0]["score"] for row in rows],
        "pipeline raw": lambda rows: [
            piped(row["text"], function_to_apply="none")[0]["score"] for row in rows
        ],
    }
