"""The same pairs in the shapes of several trainers, and what each answers, back as rewards."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """A path, the body for some rows, and the rewards in an answer, flat and in order."""

    path: str
    body: Callable[[Sequence[Row]], Row]
    rewards: Callable[[Any], list[float]]


def _texts(rows: Sequence[Row]) -> list[str]:
    return list(chain.from_iterable(row["texts"] for row in rows))


def _items(rows: Sequence[Row]) -> list[Row]:
    return [{"prompt": row["prompt"], "responses": row["responses"]} for row in rows]


SHAPES = (
    Shape("/get_reward", lambda rows: {"query": _texts(rows)}, lambda a: a["rewards"]),
    Shape("/v1/score/evaluation", lambda rows: {"messages": _texts(rows)}, lambda a: a["scores"]),
    Shape(
        "/classify",
        lambda rows: {"input": _texts(rows), "use_activation": False},
        lambda a: [row["probs"][0] for row in a["data"]],
    ),
    Shape(
        "/classify",
        lambda rows: {"text": _texts(rows)},
        lambda a: [row["embedding"][0] for row in a],
    ),
    Shape(
        "/classify",
        lambda rows: (
            {"input": list(chain.from_iterable(row["ids"] for row in rows))}
            | {"use_activation": False}
        ),
        lambda a: [row["probs"][0] for row in a["data"]],
    ),
    Shape(
        "/v1/reward",
        lambda rows: {"items": _items(rows)},
        lambda a: [row["reward"] for row in a["data"]],
    ),
)
