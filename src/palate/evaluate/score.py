"""Responses in, rewards out: `palate score` over JSONL or Parquet, streaming and resumable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from palate.evaluate.request import Request, requests
from palate.evaluate.scored import MANY, ONE, Product, Progress, Scored, scored_file
from palate.evaluate.share import ALONE, Share
from palate.types import Scorer

__all__ = ["Progress", "Request", "requests", "score_file"]


def score_file(
    scorer: Scorer,
    in_path: Path,
    out_path: Path,
    *,
    progress: Progress | None = None,
    share: Share = ALONE,
) -> Path:
    """Score every row of `in_path` and write the rows with their rewards to `out_path`.

    A row has `prompt` (text, or a list of {role, content}) and `response` (text) or `responses`
    (list of texts); other columns pass through. Added are `reward`, `reward_reason`,
    `reward_truncated`, `reward_tokens`, or for lists `rewards`, `rewards_reason`, ... A response
    without a score has reward null and a reason. JSONL gives JSONL; Parquet gives Parquet or
    JSONL. The whole input is checked before the first row is scored; killed runs continue where
    they stopped. With `share`, several processes score a part each and end in the same file.
    Memory is 8 bytes a row, whatever the rows hold.

    Raises:
        PalateError: a bad row (with file and row), an unknown format, an output that is not a
            score file of ours.
    """
    return scored_file(scorer, in_path, out_path, SCORES, progress=progress, share=share)


def _rows(scored: Scored, _facts: dict[str, Any]) -> Iterator[Mapping[str, Any]]:
    for request, scores in scored():
        if request.shape == "response":
            yield {**request.row, **dict(zip(ONE, scores[0], strict=True))}
            continue
        columns = zip(*scores, strict=True)
        yield {**request.row, **{name: list(c) for name, c in zip(MANY, columns, strict=True)}}


def _added(schema: pa.Schema) -> Mapping[str, pa.DataType]:
    return ONE if "response" in schema.names else MANY


SCORES = Product("scores", ("response", "responses"), _rows, _added)
