"""The shapes in which servers take conversations and give rewards; always the raw reward.

Each is a path, a body for several conversations, and a way to read the answer. A server that
squashes one label through a sigmoid by default is told not to (pitfall 30).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from palate.judges.spec import RewardEndpointSpec
from palate.judges.wording import Asked

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shape:
    """`read` gives the reward of each conversation that the answer has one for, by its number.

    It raises KeyError, TypeError, IndexError or ValueError where the answer is of another shape.
    """

    path: str
    takes_ids: bool
    body: Callable[[RewardEndpointSpec, Sequence[Asked]], Body]
    read: Callable[[Any], Mapping[int, Any]]


def _vllm_body(spec: RewardEndpointSpec, asked: Sequence[Asked]) -> Body:
    body: Body = {"use_activation": False}
    if spec.model is not None:
        body["model"] = spec.model
    if spec.input != "messages":
        return body | {"input": [_plain(one.said) for one in asked]}
    turns: Any = asked[0].said  # Messages are of one conversation.
    return body | {"messages": [{"role": role, "content": text} for role, text in turns]}


def _sglang_body(_spec: RewardEndpointSpec, asked: Sequence[Asked]) -> Body:
    key = "text" if isinstance(asked[0].said, str) else "input_ids"
    return {key: [_plain(one.said) for one in asked]}


def _tei_body(_spec: RewardEndpointSpec, asked: Sequence[Asked]) -> Body:
    # A list of two strings would be one pair, so each text is a list of its own.
    inputs = [[one.said] if isinstance(one.said, str) else _plain(one.said) for one in asked]
    return {"inputs": inputs, "raw_scores": True, "truncate": False}


def _openrlhf_body(_spec: RewardEndpointSpec, asked: Sequence[Asked]) -> Body:
    return {
        "query": [one.said for one in asked],
        "prompts": [one.prompt for one in asked],
        "labels": ["" for _ in asked],
    }


def _plain(said: Any) -> Any:
    return said if isinstance(said, str) else list(said)


def _vllm_rows(key: str) -> Callable[[Any], Mapping[int, Any]]:
    def read(answer: Any) -> Mapping[int, Any]:
        rows = enumerate(answer["data"])
        return {int(row.get("index", number)): _one(row[key]) for number, row in rows}

    return read


def _sglang_rows(answer: Any) -> Mapping[int, Any]:
    rows = [answer] if isinstance(answer, Mapping) else answer
    return {number: _one(row["embedding"]) for number, row in enumerate(rows)}


def _tei_rows(answer: Any) -> Mapping[int, Any]:
    flat = [_one(row) for row in answer]
    return {number: row["score"] for number, row in enumerate(flat)}


def _openrlhf_rows(answer: Any) -> Mapping[int, Any]:
    rewards = answer["rewards"]
    return dict(enumerate(map(_one, rewards if isinstance(rewards, list) else [rewards])))


def _one(value: Any) -> Any:
    """The only element of a list, or what is no list."""
    if not isinstance(value, list):
        return value
    if len(value) != 1:
        raise ValueError(f"{len(value)} values for one text, expected 1")
    return value[0]


SHAPES: Mapping[str, Shape] = {
    "vllm-classify": Shape("/classify", True, _vllm_body, _vllm_rows("probs")),
    "vllm-pooling": Shape("/pooling", True, _vllm_body, _vllm_rows("data")),
    "sglang-classify": Shape("/classify", True, _sglang_body, _sglang_rows),
    "tei-predict": Shape("/predict", False, _tei_body, _tei_rows),
    "openrlhf": Shape("/get_reward", False, _openrlhf_body, _openrlhf_rows),
}
