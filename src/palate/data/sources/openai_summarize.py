"""OpenAI Summarize: labelers' choices between two summaries of a Reddit post or news article.

Source: https://huggingface.co/datasets/openai/summarize_from_feedback, part `comparisons`
(arXiv 2009.01325). The direction of `extra.confidence` (1 to 9) is not documented, so it is
decided from the rows themselves and then asserted for every row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import chain, islice
from typing import Any, Literal

from palate.data.sources import base
from palate.data.sources.base import (
    BadRow,
    Cuts,
    InvalidRecord,
    Record,
    Records,
    Request,
    Row,
    Source,
    each,
)
from palate.data.sources.files import records, resolve
from palate.types import PalateError, Rating, digest

NAME = "openai-summarize"
HUB_ID = "openai/summarize_from_feedback"
SPLITS = ("train", "valid1", "valid2")
ROWS_TO_DECIDE = 2_000  # Rows looked at before the direction of confidence is settled.
LEAST_TO_DECIDE = 20  # Fewer rows of either choice prove nothing: then no row is rated.

Scale = Literal["bipolar", "unipolar", "undecided"]

# On the bipolar scale 1 and 9 are sure, 5 is unsure, so |c - 5| has the paper's four levels.
BIPOLAR = Cuts("|confidence - 5| of 1..9, bipolar", 2, 3, 4)
UNIPOLAR = Cuts("confidence 1..9, unipolar", 3, 5, 7)


def load(request: Request) -> Iterator[Row]:
    """Every row is one comparison; valid1 is for selection, valid2 for the final figure."""
    if request.split not in (None, "validation", *SPLITS):
        raise PalateError(f"{NAME}: no split {request.split!r}; it has {', '.join(SPLITS)}")
    rows = (row for row in _records(request) if _of_split(row, request.split))
    first = list(islice(rows, ROWS_TO_DECIDE))
    scale = decide_scale(row.data for row in first if isinstance(row, Record))
    return each(chain(first, rows), partial(_comparison, scale=scale))


def _records(request: Request) -> Records:
    """The hub keeps valid1 and valid2 in one split; local files are filtered by their rows."""
    if isinstance(resolve(request, HUB_ID), str):
        split = "validation" if request.split in ("valid1", "valid2") else request.split
        request = Request(request.location, split, "comparisons")
        return records(request, HUB_ID, splits=("train", "validation"))
    return records(Request(request.location), HUB_ID)


def _of_split(row: Record | BadRow, split: str | None) -> bool:
    if split is None or isinstance(row, BadRow):
        return True
    row_split = str(row.data.get("split"))
    return row_split.startswith("valid") if split == "validation" else row_split == split


def decide_scale(rows: Iterable[Mapping[str, Any]]) -> Scale:
    """How confidence counts, from the rows.

    Bipolar if choice 0 never has more than 5 and choice 1 never less: then 1 is "surely the
    first", 9 "surely the second", and the strength is |c - 5|. Unipolar if either happens: then
    c itself is the strength. Undecided with fewer than `LEAST_TO_DECIDE` rows of either choice.
    """
    confidences: dict[Any, list[float]] = {0: [], 1: []}
    for row in rows:
        extra, choice = row.get("extra"), row.get("choice")
        confidence = extra.get("confidence") if isinstance(extra, Mapping) else None
        if choice in (0, 1) and isinstance(confidence, int | float):
            confidences[choice].append(confidence)
    if min(map(len, confidences.values())) < LEAST_TO_DECIDE:
        return "undecided"
    return "bipolar" if max(confidences[0]) <= 5 <= min(confidences[1]) else "unipolar"


def _comparison(record: Record, scale: Scale) -> Iterator[Row]:
    data = record.data
    choice = base.integer(data, "choice", (0, 1))
    summaries = [
        base.mapping(item, f"summaries[{at}]")
        for at, item in enumerate(base.items(data, "summaries", 2))
    ]
    sides = (summaries[choice], summaries[1 - choice])
    chosen, rejected = (base.text(side, "text").strip() for side in sides)
    info = base.mapping(base.required(data, "info"), "info")
    prompt = _question(info)
    strength, rating = _strength(data, choice, scale)
    yield record.comparison(
        NAME,
        prompt,
        chosen,
        rejected,
        prompt_id=digest(NAME, base.optional_text(info, "id") or prompt),
        batch=f"{NAME}/{base.optional_text(data, 'batch') or record.part}",
        rating=rating,
        annotator=base.optional_text(data, "worker"),
        meta={
            "strength": strength,
            "confidence_scale": scale,
            "split": base.optional_text(data, "split"),
            "policies": [base.optional_text(side, "policy") for side in sides],
        },
    )


def _question(info: Mapping[str, Any]) -> str:
    """The post or article as the user's question; the wording is ours."""
    title = base.optional_text(info, "title")
    if article := base.optional_text(info, "article"):
        heading = f"{title}\n\n" if title else ""
        return f"Summarize the following article.\n\n{heading}{article.strip()}"
    post = base.text(info, "post").strip()
    forum = base.optional_text(info, "subreddit")
    lines = [f"SUBREDDIT: r/{forum}"] if forum else []
    lines += [f"TITLE: {title}"] if title else []
    return "\n".join(["Summarize the following post.\n", *lines, f"POST: {post}"])


def _strength(
    data: Mapping[str, Any], choice: int, scale: Scale
) -> tuple[float | None, Rating | None]:
    extra = data.get("extra")
    if extra is None or base.mapping(extra, "extra").get("confidence") is None:
        return None, None
    confidence = base.number(extra, "confidence")
    if not 1 <= confidence <= 9:
        raise InvalidRecord(f"extra.confidence: expected 1 to 9, got {confidence:g}")
    if scale == "undecided":
        return None, None
    if scale == "unipolar":
        return confidence, UNIPOLAR.rate(confidence)
    if (confidence - 5) * (1 if choice == 1 else -1) < 0:
        raise InvalidRecord(
            f"extra.confidence: choice {choice} with {confidence:g}, against the bipolar scale "
            "of the rows before it"
        )
    return abs(confidence - 5), BIPOLAR.rate(abs(confidence - 5))


SOURCE = Source(
    name=NAME,
    title="OpenAI Summarize",
    hub_id=HUB_ID,
    licence="CC BY 4.0 (the TL;DR posts); see the authors' repository",
    url="https://github.com/openai/summarize-from-feedback",
    kind="helpful",
    load=load,
    cuts=(BIPOLAR, UNIPOLAR),
    tried_on="hand-made rows only",
    notes=(
        "splits train, valid1 (selection), valid2 (final figure); the direction of confidence is "
        "decided from the data; cluster: post"
    ),
)
