"""Stanford SHP: pairs of Reddit comments on one post, preferred by their votes.

Source: https://huggingface.co/datasets/stanfordnlp/SHP. As its authors advise for training,
the train split keeps pairs with `score_ratio` of at least 2 and at most 5 pairs a post; the
validation and test splits are whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from palate.data.sources import base
from palate.data.sources.base import (
    BadRow,
    Cuts,
    Record,
    Request,
    Row,
    Source,
    Unfit,
    ask,
    each,
)
from palate.data.sources.files import records
from palate.types import Comparison, comparison_id, digest

NAME = "shp"
HUB_ID = "stanfordnlp/SHP"
CUTS = Cuts("score_ratio", 2, 3, 6)
MIN_RATIO = 2.0
MAX_PAIRS_PER_POST = 5


def load(request: Request) -> Iterator[Row]:
    """Comparisons of one split (default: all three); a subset is a domain ("askculinary")."""
    min_ratio = base.number({"min_ratio": MIN_RATIO, **request.options}, "min_ratio")
    limit = base.number(
        {"most": request.options.get("max_pairs_per_post", MAX_PAIRS_PER_POST)}, "most"
    )
    splits = ("train", "validation", "test")
    rows = each(records(request, HUB_ID, splits=splits, folder=True), _comparison)
    return _trimmed(rows, min_ratio, int(limit))


def _trimmed(rows: Iterable[Row], min_ratio: float, max_pairs: int) -> Iterator[Row]:
    """Apply the training rule; rows of a post follow each other in the published files.

    A post that comes back later gets only what is left of its share. Memory: one counter for
    each post of the train split.
    """
    taken: Counter[str] = Counter()
    for post, group in groupby(rows, key=_training_post):
        if post is None:
            yield from group
            continue
        weak: list[Comparison] = []
        strong: list[Comparison] = []
        for row in group:
            assert isinstance(row, Comparison)  # _training_post is None for bad rows.
            (strong if row.meta["strength"] >= min_ratio else weak).append(row)
        # The digest is as good as a draw, and the same draw in every run.
        strong.sort(key=lambda row: row.id)
        kept = strong[: max_pairs - taken[post]]
        taken[post] += len(kept)
        yield from kept
        yield from (_left_out(row, f"score_ratio below {min_ratio:g}") for row in weak)
        reason = f"more than {max_pairs} pairs of one post"
        yield from (_left_out(row, reason) for row in strong[len(kept) :])


def _training_post(row: Row) -> str | None:
    if isinstance(row, BadRow) or row.meta["split"] != "train":
        return None
    return row.prompt_id


def _left_out(row: Comparison, reason: str) -> BadRow:
    return BadRow(row.meta["file"], row.meta["row"], f"{reason} (training rule)", "left out")


def _comparison(record: Record) -> Iterator[Row]:
    data = record.data
    first = "A" if base.whole(data, "labels", (0, 1)) == 1 else "B"
    second = "B" if first == "A" else "A"
    scores = base.number(data, f"score_{first}"), base.number(data, f"score_{second}")
    if scores[0] < scores[1]:
        raise Unfit(f"labels: says {first}, but its score is lower ({scores[0]:g} < {scores[1]:g})")
    ratio = base.number(data, "score_ratio")
    if ratio < 1:
        raise Unfit(f"score_ratio: expected at least 1, got {ratio:g}")
    prompt = ask(base.text(data, "history").strip())
    chosen, rejected = (base.text(data, f"human_ref_{side}").strip() for side in (first, second))
    yield Comparison(
        id=comparison_id(NAME, prompt, chosen, rejected, record.key),
        source=NAME,
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        prompt_id=digest(NAME, base.text(data, "post_id")),
        batch=f"{NAME}/{_domain(data)}",
        rating=CUTS.rate(ratio),
        meta={
            **record.origin,
            "strength": ratio,
            "scores": list(scores),
            "split": record.part.rsplit("/", 1)[-1].split("-")[0],
        },
    )


def _domain(data: Mapping[str, Any]) -> str:
    """The forum; the column carries the split behind it ("askculinary_train")."""
    domain = base.text(data, "domain")
    for split in ("_train", "_validation", "_test"):
        domain = domain.removesuffix(split)
    return domain


SOURCE = Source(
    name=NAME,
    title="Stanford SHP",
    hub_id=HUB_ID,
    licence="Reddit content under Reddit's API terms of 2023; no further licence stated",
    url=f"https://huggingface.co/datasets/{HUB_ID}",
    kind="helpful",
    load=load,
    cuts=(CUTS,),
    options={
        "min_ratio": f"least score_ratio in the train split (default {MIN_RATIO:g})",
        "max_pairs_per_post": f"in the train split (default {MAX_PAIRS_PER_POST})",
    },
    tried_on="hand-made rows only",
    notes="cluster: post; batch: domain; test split whole",
)
