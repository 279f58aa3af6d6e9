"""sentence-transformers' `CrossEncoder`, which is how its users open a classifier of one label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sentence_transformers import CrossEncoder

Rows = Sequence[dict[str, Any]]


def open_model(folder: str, **options: str) -> dict[str, Callable[[Rows], Sequence[float]]]:
    """The ways to ask for a reward; `dtype` is that of the weights, as stored where left out."""
    arguments: dict[str, Any] = {"device": "cpu"}
    if "dtype" in options:
        arguments["model_kwargs"] = {"dtype": options["dtype"]}
    model = CrossEncoder(folder, **arguments)
    return {
        "messages": lambda rows: model.predict([row["messages"] for row in rows]),
        "pairs": lambda rows: model.predict([(row["prompt"], row["response"]) for row in rows]),
        "text": lambda rows: model.predict([row["text"] for row in rows]),
        "rank": lambda rows: [
            model.rank(row["prompt"], [row["response"]])[0]["score"] for row in rows
        ],
    }
