"""The best responses of each prompt, and rows good enough to keep: `palate rank`, `palate filter`.

Both score a file as `palate score` does, or take the rewards that it holds already.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from palate.evaluate.request import Request, Shape, is_parquet
from palate.evaluate.scored import MANY, ONE, Answer, Product, Progress, Scored, scored_file
from palate.evaluate.share import ALONE, Share
from palate.records import read_header
from palate.types import PalateError, Scorer

On = Literal["chosen", "margin"]
RANKING, SELECTION, COMPARISONS = "ranking", "selection", "comparisons"
MANY_ORDERED = {**MANY, "rewards_order": pa.list_(pa.int64())}
PAIR = {"chosen_reward": pa.float64(), "rejected_reward": pa.float64()}


@dataclass(frozen=True, slots=True)
class Bar:
    """What a row must reach: `min_reward`, or to be among the `top_percent` of all that is scored.

    Of comparisons it is put to the reward of the chosen response, or to the margin by which it
    is above the rejected one's.
    """

    min_reward: float | None = None
    top_percent: float | None = None
    on: On = "chosen"

    def __post_init__(self) -> None:
        if (self.min_reward is None) == (self.top_percent is None):
            raise PalateError("expected either a least reward or a top percent, one of the two")
        if self.min_reward is not None and not math.isfinite(self.min_reward):
            raise PalateError(f"least reward {self.min_reward}: expected a finite number")
        if self.top_percent is not None and not 0 < self.top_percent <= 100:
            raise PalateError(f"top percent {self.top_percent}: expected more than 0, at most 100")


def rank_file(
    scorer: Scorer | None,
    in_path: Path,
    out_path: Path,
    *,
    top: int | None = None,
    progress: Progress | None = None,
    share: Share = ALONE,
) -> Path:
    """Order the responses of each row of `in_path` by reward, best first, into `out_path`.

    A row has `prompt` and `responses`; added are `rewards`, `rewards_reason`,
    `rewards_truncated`, `rewards_tokens` in the new order, and `rewards_order`: where each
    response stood before, from 0. Equal rewards keep their order; responses without a score come
    last. `top` keeps the best that many scored ones and drops rows that have none. Without a
    scorer the rows must hold rewards. Streams, resumes and shares out as `score_file`.

    Raises:
        PalateError: `top` below 1, and what `score_file` raises.
    """
    if top is not None and top < 1:
        raise PalateError(f"top {top}: expected at least 1 response a prompt")

    def rows(scored: Scored, facts: dict[str, Any]) -> Iterator[Mapping[str, Any]]:
        facts |= {"rows": 0, "kept": 0}
        for request, answer in scored():
            facts["rows"] += 1
            order = sorted(range(len(answer)), key=lambda i: _worst_first(answer[i]), reverse=True)
            if top is not None:
                order = [i for i in order if answer[i][0] is not None][:top]
            if order:
                facts["kept"] += 1
                yield _ordered(request, answer, order)

    product = Product(RANKING, ("responses",), rows, lambda _: MANY_ORDERED, {"top": top})
    return scored_file(scorer, in_path, out_path, product, progress=progress, share=share)


def filter_file(
    scorer: Scorer | None,
    in_path: Path,
    out_path: Path,
    bar: Bar,
    *,
    progress: Progress | None = None,
    share: Share = ALONE,
) -> Path:
    """Write the rows of `in_path` that reach the `bar`, with their rewards, to `out_path`.

    A row has `prompt` and `response`, or `responses`, of which those that reach the bar are kept,
    or `chosen` and `rejected`; a Parquet file of comparisons gives one. With `top_percent` the
    threshold is the k-th best of the N scored ones, k = ceil(N top_percent / 100), and what
    equals it is kept too. What has no score is dropped and counted. Without a scorer the rows
    must hold rewards.

    Raises:
        PalateError: nothing has a score, and what `score_file` raises.
    """

    def rows(scored: Scored, facts: dict[str, Any]) -> Iterator[Mapping[str, Any]]:
        threshold = _threshold(scored, bar)
        facts |= {"threshold": threshold, "rows": 0, "kept": 0, "unscored": 0}
        for request, answer in scored():
            figures = _figures(request, answer, bar.on)
            good = [i for i, f in enumerate(figures) if f is not None and f >= threshold]
            facts["rows"] += 1
            facts["unscored"] += figures.count(None)
            if good:
                facts["kept"] += 1
                yield _kept(request, answer, good)

    takes: tuple[Shape, ...] = ("response", "responses", "pair")
    kind = COMPARISONS if _holds_comparisons(in_path) and is_parquet(out_path) else SELECTION
    settings = {name: value for name, value in asdict(bar).items() if value is not None}
    product = Product(kind, takes[:2] if scorer is None else takes, rows, _added, settings)
    return scored_file(scorer, in_path, out_path, product, progress=progress, share=share)


def _holds_comparisons(path: Path) -> bool:
    try:
        return is_parquet(path) and read_header(path).kind == COMPARISONS
    except PalateError:
        return False  # A table of the user's own.


def _threshold(scored: Scored, bar: Bar) -> float:
    """The least figure that reaches the bar; to find a top percent's takes 8 bytes a response."""
    if bar.min_reward is not None:
        return bar.min_reward
    assert bar.top_percent is not None
    figures = array("d")
    for request, answer in scored():
        figures.extend(f for f in _figures(request, answer, bar.on) if f is not None)
    if not figures:
        raise PalateError("no response has a score, so there is no top of them")
    values = np.frombuffer(figures)
    below = len(values) - math.ceil(len(values) * bar.top_percent / 100)
    return float(np.partition(values, below)[below])


def _figures(request: Request, answer: Answer, on: On) -> list[float | None]:
    """What is put to the bar: a figure of each response, or the one of a comparison."""
    rewards = [score[0] for score in answer]
    if request.shape != "pair":
        return rewards
    chosen, rejected = rewards
    if on == "chosen" or chosen is None:
        return [chosen]
    return [None if rejected is None else chosen - rejected]


def _kept(request: Request, answer: Answer, good: Sequence[int]) -> dict[str, Any]:
    if request.shape == "responses":
        return _ordered(request, answer, good)
    if request.shape == "response":
        return {**request.row, **dict(zip(ONE, answer[0], strict=True))}
    rewards = (score[0] for score in answer)
    return {**request.row, **dict(zip(PAIR, rewards, strict=True))}


def _ordered(request: Request, answer: Answer, order: Sequence[int]) -> dict[str, Any]:
    """The row with the responses at those places, in that order."""
    columns = zip(*(answer[i] for i in order), strict=True)
    return {
        **request.row,
        "responses": [request.responses[i] for i in order],
        **{name: list(values) for name, values in zip(MANY, columns, strict=True)},
        "rewards_order": list(order),
    }


def _worst_first(score: Sequence[Any]) -> float:
    return -math.inf if score[0] is None else float(score[0])


def _added(schema: pa.Schema) -> Mapping[str, pa.DataType]:
    if "response" in schema.names:
        return ONE
    return MANY_ORDERED if "responses" in schema.names else PAIR
