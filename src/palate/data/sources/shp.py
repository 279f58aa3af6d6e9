"""Stanford SHP: pairs of Reddit comments on one post, preferred by their votes.

Source: https://huggingface.co/datasets/stanfordnlp/SHP. As its authors advise for training,
the train split keeps pairs with `score_ratio` of at least 2 and at most 5 pairs a post; the
validation and test splits are whole.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby

from palate.data.sources import base
from palate.data.sources.base import (
    BadRow,
    Cuts,
    InvalidRecord,
    Record,
    Request,
    Row,
    Source,
    each,
)
from palate.data.sources.files import paths_by_part, records
from palate.types import Comparison, digest

NAME = "shp"
HUB_ID = "stanfordnlp/SHP"
CUTS = Cuts("score_ratio", 2, 3, 6)
MIN_RATIO = 2.0
MAX_PAIRS_PER_POST = 5


def load(request: Request) -> Iterator[Row]:
    """Comparisons of one split (default: all three); a subset is a domain ("askculinary")."""
    options = {"min_ratio": MIN_RATIO, "max_pairs_per_post": MAX_PAIRS_PER_POST, **request.options}
    min_ratio = base.number(options, "min_ratio")
    max_pairs = int(base.number(options, "max_pairs_per_post"))
    splits = ("train", "validation", "test")
    rows = each(records(request, HUB_ID, splits=splits, folder=True), _comparison)
    return _training_rule(rows, min_ratio, max_pairs, paths_by_part(request.location))


def _training_rule(
    rows: Iterable[Row], min_ratio: float, max_pairs: int, paths: Mapping[str, str]
) -> Iterator[Row]:
    """Apply the rule of the train split; rows of a post follow each other in published files.

    A post that comes back later gets only what is left of its share. Memory: one counter for
    each post of the train split. `paths` are the files by the names that `meta` gives them.
    """

    def left_out(row: Comparison, reason: str) -> BadRow:
        file = str(row.meta["file"])
        reason = f"{reason} (training rule)"
        return BadRow(paths.get(file, file), row.meta["row"], reason, "left out")

    taken: Counter[str] = Counter()
    for post, group in groupby(rows, key=_training_post):
        if post is None:
            yield from group
            continue
        pairs = [row for row in group if isinstance(row, Comparison)]  # All of them.
        strong = [row for row in pairs if row.meta["strength"] >= min_ratio]
        # The digest is as good as a draw, and the same draw in every run.
        strong.sort(key=lambda row: row.id)
        kept = strong[: max_pairs - taken[post]]
        taken[post] += len(kept)
        yield from kept
        for row in pairs:
            if row.meta["strength"] < min_ratio:
                yield left_out(row, f"score_ratio below {min_ratio:g}")
        for row in strong[len(kept) :]:
            yield left_out(row, f"more than {max_pairs} pairs of one post")


def _training_post(row: Row) -> str | None:
    return row.prompt_id if isinstance(row, Comparison) and row.meta["split"] == "train" else None


def _comparison(record: Record) -> Iterator[Row]:
    data = record.data
    sides = ("A", "B") if base.integer(data, "labels", (0, 1)) == 1 else ("B", "A")
    scores = [base.number(data, f"score_{side}") for side in sides]
    if scores[0] < scores[1]:
        raise InvalidRecord(
            f"labels: says {sides[0]}, but its score is lower ({scores[0]:g} < {scores[1]:g})"
        )
    ratio = base.number(data, "score_ratio")
    if ratio < 1:
        raise InvalidRecord(f"score_ratio: expected at least 1, got {ratio:g}")
    prompt = base.text(data, "history").strip()
    chosen, rejected = (base.text(data, f"human_ref_{side}").strip() for side in sides)
    post = base.text(data, "post_id")
    # The forum; the column carries the split behind it ("askculinary_train").
    domain = re.sub("_(train|validation|test)$", "", base.text(data, "domain"))
    yield record.comparison(
        NAME,
        prompt,
        chosen,
        rejected,
        prompt_id=digest(NAME, post),
        batch=f"{NAME}/{domain}",
        rating=CUTS.rate(ratio),
        meta={
            "strength": ratio,
            "scores": scores,
            "split": record.part.rsplit("/", 1)[-1].split("-")[0],
        },
    )


SOURCE = Source(
    name=NAME,
    title="Stanford SHP",
    hub_id=HUB_ID,
    licence="Reddit content under Reddit's API terms of 2023; no further licence stated",
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
